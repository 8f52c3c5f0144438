"""MADGRAD: dual averaging from the first parameters on, with cube roots."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.hyperparameters import inject_hyperparams
from mlxopt.numerics.scalars import new_count, safe_increment
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights


class ScaleByMadgradState(NamedTuple):
    """Memory of :func:`scale_by_madgrad`."""

    count: mx.array  # int32: updates seen
    first_params: Params  # float32: parameters before the first update
    grad_sum: Updates  # weighted sum of the updates
    grad_sum_sq: Updates  # weighted sum of their squares


@readable
def scale_by_madgrad(
    learning_rate: ScalarOrSchedule, momentum: float = 0.9, eps: float = 1e-6
) -> GradientTransformation:
    """Return the step from the parameters towards the first ones less a weighted sum of all updates over its measure.

    The learning rate is among the weights, and the sign is turned already: this is the last link of a chain.

    Args:
        learning_rate: Number or schedule.
        momentum: Share of the way that is left out in a step.
        eps: Added to the cube root.

    Example:
        >>> tx = scale_by_madgrad(1.0, momentum=0.0)
        >>> params = {"w": mx.array([2.0])}
        >>> tx.update({"w": mx.array([8.0])}, tx.init(params), params)[0]
        {'w': array([-2], dtype=float32)}

    Reference:
        Defazio & Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient Method for
        Stochastic Optimization", 2021, arXiv:2101.11075.
    """
    checks.scalar_or_schedule("scale_by_madgrad", low=0.0, learning_rate=learning_rate)
    checks.decay_rate("scale_by_madgrad", momentum=momentum)
    checks.positive("scale_by_madgrad", eps=eps)
    return inject_hyperparams(_averaged, ("momentum", "eps"))(learning_rate, momentum, eps)


def _averaged(learning_rate: float, momentum: float, eps: float) -> GradientTransformation:
    def init_fn(params: Params) -> ScaleByMadgradState:
        first = tree.memory_of(params)
        return ScaleByMadgradState(new_count(), first, tree.memory_like(params), tree.memory_like(params))

    def update_fn(updates: Updates, state: ScaleByMadgradState, params: Params) -> tuple[Updates, ScaleByMadgradState]:
        count = safe_increment(state.count)
        third = 1 / 3
        weight = learning_rate * mx.sqrt(count.astype(mx.float32))
        sums = tree.map(lambda g, s: s + weight * g, updates, state.grad_sum)
        squares = tree.map(lambda g, q: q + weight * abs_sq(g), updates, state.grad_sum_sq)

        def step(p: mx.array, first: mx.array, s: mx.array, q: mx.array) -> mx.array:
            return (1 - momentum) * (first - s / (mx.power(q, third) + eps) - p)

        moved = tree.map(step, params, state.first_params, sums, squares)
        return moved, ScaleByMadgradState(count, state.first_params, sums, squares)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def madgrad(
    learning_rate: ScalarOrSchedule,
    momentum: float = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: float = 1e-6,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step towards the first parameters less a weighted sum of all gradients, measured as in Adagrad.

    .. math:: \lambda_t = \eta_t \sqrt{t}, \qquad s \leftarrow s + \lambda_t g, \qquad q \leftarrow q + \lambda_t g^2,
        \qquad w \leftarrow \mu w + (1 - \mu) (w_0 - s / (\sqrt[3]{q} + \epsilon))

    Args:
        learning_rate: Number or schedule.
        momentum: Share of the way that is left out in a step.
        weight_decay: Number or schedule; added to the gradient, as in the paper.
        eps: Added to the cube root.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> madgrad(1e-2)
        madgrad(0.01, momentum=0.9, eps=1e-06)

    Reference:
        Defazio & Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient Method for
        Stochastic Optimization", 2021, arXiv:2101.11075.
    """
    return chain(add_decayed_weights(weight_decay, mask), scale_by_madgrad(learning_rate, momentum, eps))
