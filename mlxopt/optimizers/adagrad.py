"""Adagrad: step sizes from the sum of all squared gradients."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import unless_zero
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByRssState(NamedTuple):
    """Memory of :func:`scale_by_rss`."""

    sum_of_squares: Updates  # sum of the squared updates


@readable
def scale_by_rss(
    initial_accumulator_value: float = 0.1, eps: float = 1e-7, *, eps_in_sqrt: bool = True
) -> GradientTransformation:
    """Divide updates by the root of the sum of their squares; where that sum is zero, return zero.

    Args:
        initial_accumulator_value: Sum before the first update.
        eps: Added to the sum, or to its root.
        eps_in_sqrt: Add ``eps`` inside the root; outside, as PyTorch and MLX do, if false.

    Example:
        >>> tx = scale_by_rss(initial_accumulator_value=0.0)
        >>> tx.update({"w": mx.array([4.0, 0.0])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1, 0], dtype=float32)}

    Reference:
        Duchi, Hazan & Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011.
    """
    checks.non_negative("scale_by_rss", initial_accumulator_value=initial_accumulator_value, eps=eps)

    def init_fn(params: Params) -> ScaleByRssState:
        return ScaleByRssState(tree.memory_like(params, initial_accumulator_value))

    def update_fn(
        updates: Updates, state: ScaleByRssState, params: Params | None = None
    ) -> tuple[Updates, ScaleByRssState]:
        del params
        total = tree.map(lambda g, s: s + abs_sq(g), updates, state.sum_of_squares)

        def normalized(g: mx.array, s: mx.array) -> mx.array:
            root = mx.sqrt(s + eps) if eps_in_sqrt else mx.sqrt(s) + eps
            return unless_zero(s, g / root)

        return tree.map(normalized, updates, total), ScaleByRssState(total)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def adagrad(
    learning_rate: ScalarOrSchedule,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    r"""Step against the gradient, in units of the root of the sum of all squared gradients.

    .. math:: s \leftarrow s + g^2, \qquad w \leftarrow w - \eta g / \sqrt{s + \epsilon}

    Args:
        learning_rate: Number or schedule.
        initial_accumulator_value: Sum before the first update.
        eps: Added to the sum, or to its root.
        eps_in_sqrt: Add ``eps`` inside the root; outside, as PyTorch and MLX do, if false.

    Example:
        >>> adagrad(1e-2)
        adagrad(0.01, initial_accumulator_value=0.1, eps=1e-07, eps_in_sqrt=True)

    Reference:
        Duchi, Hazan & Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011.
    """
    return chain(
        scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt), scale_by_learning_rate(learning_rate)
    )
