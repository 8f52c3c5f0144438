"""ACProp: AdaBelief whose spread is that of the gradients before this one."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, new_count, safe_increment, unless_zero
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAcpropState(NamedTuple):
    """Memory of :func:`scale_by_acprop`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # running mean of their squared distance from it


@readable
def scale_by_acprop(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16, eps_root: float = 1e-13
) -> GradientTransformation:
    """Divide updates by the root of the spread that earlier ones had around their running mean.

    That spread is taken for 1 where there has been no update other than zero.

    Args:
        b1: Decay of the mean.
        b2: Decay of the spread.
        eps: Added to the root.
        eps_root: Added to the spread, inside the root.

    Example:
        >>> tx = scale_by_acprop()
        >>> state = tx.init({"w": mx.array(0.0)})
        >>> _, state = tx.update({"w": mx.array(2.0)}, state)
        >>> tx.update({"w": mx.array(1.0)}, state)[0]
        {'w': array(0.5, dtype=float32)}

    Reference:
        Zhuang et al., "Momentum Centering and Asynchronous Update for Adaptive Gradient Methods", 2021,
        arXiv:2110.05454.
    """
    checks.decay_rate("scale_by_acprop", b1=b1, b2=b2)
    checks.non_negative("scale_by_acprop", eps=eps, eps_root=eps_root)

    def init_fn(params: Params) -> ScaleByAcpropState:
        return ScaleByAcpropState(new_count(), tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByAcpropState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAcpropState]:
        del params
        c2 = bias_correction(b2, state.count)
        root = mx.sqrt(c2)
        inside, outside, unknown = c2 * eps_root, root * eps, 1 / (1 + eps)

        def measured(g: mx.array, v: mx.array) -> mx.array:
            return unless_zero(v, root * g / (mx.sqrt(v + inside) + outside), unknown * g)

        direction = tree.map(measured, updates, state.nu)
        nu = tree.map(lambda g, m, v: b2 * v + (1 - b2) * abs_sq(g - m), updates, state.mu, state.nu)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        return direction, ScaleByAcpropState(safe_increment(state.count), mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def acprop(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-13,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step against the gradient, in units of the spread that earlier gradients had around their mean.

    .. math:: w \leftarrow w - \eta \left( g_t / (\sqrt{\hat s_{t-1} + \bar\epsilon} + \epsilon) + \lambda w \right),
        \quad s_t = \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_{t-1})^2

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the spread.
        eps: Added to the root.
        eps_root: Added to the spread, inside the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> acprop(1e-3)
        acprop(0.001, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-13)

    Reference:
        Zhuang et al., "Momentum Centering and Asynchronous Update for Adaptive Gradient Methods", 2021,
        arXiv:2110.05454.
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
