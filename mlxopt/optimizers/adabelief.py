"""AdaBelief: Adam measured by the spread of the gradient around its mean."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, new_count, safe_increment
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByBeliefState(NamedTuple):
    """Memory of :func:`scale_by_belief`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # running mean of their squared distance from it


@readable
def scale_by_belief(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16, eps_root: float = 1e-16, *, nesterov: bool = False
) -> GradientTransformation:
    """Divide the running mean of the updates by the root of their running spread around it.

    Args:
        b1: Decay of the mean.
        b2: Decay of the spread.
        eps: Added to the root.
        eps_root: Added to the spread at every update, and kept in it.
        nesterov: Let the mean look one step ahead.

    Example:
        >>> tx = scale_by_belief()
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1.11111, -1.11111], dtype=float32)}

    Reference:
        Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients", 2020,
        arXiv:2010.07468.
    """
    checks.decay_rate("scale_by_belief", b1=b1, b2=b2)
    checks.non_negative("scale_by_belief", eps=eps, eps_root=eps_root)

    def init_fn(params: Params) -> ScaleByBeliefState:
        return ScaleByBeliefState(new_count(), tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByBeliefState, params: Params | None = None
    ) -> tuple[Updates, ScaleByBeliefState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        mean = tree.look_ahead(updates, mu, b1, count) if nesterov else mu

        def spread(g: mx.array, m: mx.array, v: mx.array) -> mx.array:
            return b2 * v + (1 - b2) * abs_sq(g - m) + eps_root

        nu = tree.map(spread, updates, mu, state.nu)
        # mean / c1 over sqrt(nu / c2) + eps, both times sqrt(c2), as in Adam.
        root = mx.sqrt(bias_correction(b2, count))
        of_mean, outside = root / bias_correction(b1, count), root * eps
        direction = tree.map(lambda m, v: of_mean * m / (mx.sqrt(v) + outside), mean, nu)
        return direction, ScaleByBeliefState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""Step along the mean gradient, further where the gradient agrees with it.

    .. math:: s \leftarrow \beta_2 s + (1 - \beta_2) (g - m)^2 + \bar\epsilon, \qquad
        w \leftarrow w - \eta \hat m / (\sqrt{\hat s} + \epsilon)

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the spread.
        eps: Added to the root.
        eps_root: Added to the spread at every update, and kept in it.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        nesterov: Let the mean look one step ahead.

    Example:
        >>> adabelief(1e-3)
        adabelief(0.001, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16)

    Reference:
        Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients", 2020,
        arXiv:2010.07468.
    """
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
