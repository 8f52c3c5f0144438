"""Adan: Adam with a memory of how gradients change."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, is_zero, new_count, safe_increment
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAdanState(NamedTuple):
    """Memory of :func:`scale_by_adan`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    delta: Updates  # running mean of their changes
    nu: Updates  # running mean of the squares of what each was expected to become
    previous: Updates  # the last updates


@readable
def scale_by_adan(
    b1: float = 0.98, b2: float = 0.92, b3: float = 0.99, eps: float = 1e-8, eps_root: float = 0.0
) -> GradientTransformation:
    """Divide the running mean of the updates and of their changes by the root of their running power.

    Args:
        b1: Decay of the mean.
        b2: Decay of the mean of changes, and the weight that changes have.
        b3: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.

    Example:
        >>> tx = scale_by_adan()
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1, -1], dtype=float32)}

    Reference:
        Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", 2022,
        arXiv:2208.06677.
    """
    checks.decay_rate("scale_by_adan", b1=b1, b2=b2, b3=b3)
    checks.non_negative("scale_by_adan", eps=eps, eps_root=eps_root)

    def init_fn(params: Params) -> ScaleByAdanState:
        return ScaleByAdanState(new_count(), *(tree.memory_like(params) for _ in range(4)))

    def update_fn(
        updates: Updates, state: ScaleByAdanState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdanState]:
        del params
        count = safe_increment(state.count)
        known = mx.where(state.count == 0, 0.0, 1.0)  # the first update has changed from nothing
        change = tree.map(lambda g, last: known * (g - last), updates, state.previous)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        delta = tree.update_moment(change, state.delta, b2, 1)
        nu = tree.update_moment(tree.add_scale(updates, b2, change), state.nu, b3, 2)
        # Both means over sqrt(nu / c3 + eps_root) + eps, all times sqrt(c3), as in Adam.
        c3 = bias_correction(b3, count)
        root = mx.sqrt(c3)
        of_mean, of_change = root / bias_correction(b1, count), b2 * root / bias_correction(b2, count)
        inside, outside = c3 * eps_root, root * eps
        power = nu if is_zero(eps_root) else tree.map(lambda v: v + inside, nu)
        direction = tree.map(lambda m, d, v: (of_mean * m + of_change * d) / (mx.sqrt(v) + outside), mu, delta, power)
        return direction, ScaleByAdanState(count, mu, delta, nu, updates)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def adan(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step along the mean gradient and the mean of its changes, in units of a root mean square.

    .. math:: d_t = g_t - g_{t-1}, \quad m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
        v \leftarrow \beta_2 v + (1 - \beta_2) d, \quad n \leftarrow \beta_3 n + (1 - \beta_3) (g + \beta_2 d)^2, \\
        w \leftarrow w - \eta \left( (\hat m + \beta_2 \hat v) / (\sqrt{\hat n} + \epsilon) + \lambda w \right)

    This is the form of the paper and of the authors' code; optax weighs changes by ``1 - b2``. The authors divide by
    ``1 + learning_rate * weight_decay`` where this decays.

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean, one minus that of the paper.
        b2: Decay of the mean of changes, and the weight that changes have.
        b3: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> adan(1e-3)
        adan(0.001, b1=0.98, b2=0.92, b3=0.99, eps=1e-08)

    Reference:
        Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", 2022,
        arXiv:2208.06677.
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
