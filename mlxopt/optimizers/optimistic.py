"""Optimistic methods: they step as if the gradient went on changing as it did last."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import new_count, safe_increment
from mlxopt.optimizers.adam import scale_by_adam
from mlxopt.readable import readable
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByOptimisticGradientState(NamedTuple):
    """Memory of :func:`scale_by_optimistic_gradient`."""

    count: mx.array  # int32: updates seen
    previous: Updates  # the last updates


@readable
def scale_by_optimistic_gradient(alpha: float = 1.0, beta: float = 1.0) -> GradientTransformation:
    """Add to updates what they have changed by since the last ones: ``alpha * u + beta * (u - last)``.

    Args:
        alpha: Weight of the updates.
        beta: Weight of their change; the first update has none.

    Example:
        >>> tx = scale_by_optimistic_gradient()
        >>> state = tx.init({"w": mx.array(0.0)})
        >>> _, state = tx.update({"w": mx.array(1.0)}, state)
        >>> tx.update({"w": mx.array(1.5)}, state)[0]
        {'w': array(2, dtype=float32)}

    Reference:
        Mokhtari, Ozdaglar & Pattathil, "A Unified Analysis of Extra-gradient and Optimistic Gradient Methods for Saddle
        Point Problems: Proximal Point Approach", 2019, arXiv:1901.08511.
    """
    checks.number("scale_by_optimistic_gradient", alpha=alpha, beta=beta)

    def init_fn(params: Params) -> ScaleByOptimisticGradientState:
        return ScaleByOptimisticGradientState(new_count(), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByOptimisticGradientState, params: Params | None = None
    ) -> tuple[Updates, ScaleByOptimisticGradientState]:
        del params
        weight = mx.where(state.count == 0, alpha, alpha + beta)  # the memory is zero at first
        ahead = tree.map(lambda u, last: weight * u - beta * last, updates, state.previous)
        return ahead, ScaleByOptimisticGradientState(safe_increment(state.count), updates)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule, alpha: float = 1.0, beta: float = 1.0
) -> GradientTransformation:
    r"""Step against the gradient and against its last change, which finds the middle of saddles where SGD circles.

    .. math:: w \leftarrow w - \eta (\alpha g_t + \beta (g_t - g_{t-1}))

    Args:
        learning_rate: Number or schedule.
        alpha: Weight of the gradient.
        beta: Weight of its change.

    Example:
        >>> optimistic_gradient_descent(0.1)
        optimistic_gradient_descent(0.1, alpha=1.0, beta=1.0)

    Reference:
        Mokhtari, Ozdaglar & Pattathil, "A Unified Analysis of Extra-gradient and Optimistic Gradient Methods for Saddle
        Point Problems: Proximal Point Approach", 2019, arXiv:1901.08511.
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate))


@readable
def optimistic_adam(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    nesterov: bool = True,
) -> GradientTransformation:
    r"""Step along Adam's direction and along its last change.

    .. math:: u = \hat m / (\sqrt{\hat v} + \epsilon), \qquad w \leftarrow w - \eta (\alpha u_t + \beta (u_t - u_{t-1}))

    Args:
        learning_rate: Number or schedule.
        alpha: Weight of the direction.
        beta: Weight of its change.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of the mean; float32 by default.
        nesterov: Let the mean look one step ahead.

    Example:
        >>> optimistic_adam(1e-3, nesterov=False)
        optimistic_adam(0.001, alpha=1.0, beta=1.0, b1=0.9, b2=0.999, eps=1e-08, nesterov=False)

    Reference:
        Daskalakis et al., "Training GANs with Optimism", 2018, arXiv:1711.00141.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )
