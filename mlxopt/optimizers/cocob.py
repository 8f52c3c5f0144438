"""COCOB: every parameter bets on its gradients, with what it has won so far."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import nonnegative
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class COCOBState(NamedTuple):
    """Memory of :func:`scale_by_cocob`."""

    first_params: Params  # float32: parameters before the first update
    grad_sum: Updates  # sum of the updates
    grad_sum_abs: Updates  # sum of their magnitudes
    scale: Updates  # largest magnitude so far
    reward: Updates  # what the bets have won


@readable
def scale_by_cocob(alpha: float = 100.0, eps: float = 1e-8) -> GradientTransformation:
    """Return the way back from where betting on the next update would put each parameter.

    Args:
        alpha: Updates of the largest magnitude that each parameter waits for before it bets all it can.
        eps: Largest magnitude before the first update.

    Example:
        >>> tx = scale_by_cocob(alpha=2.0)
        >>> params = {"w": mx.array(1.0)}
        >>> tx.update({"w": mx.array(8.0)}, tx.init(params), params)[0]
        {'w': array(0.5, dtype=float32)}

    Reference:
        Orabona & Tommasi, "Training Deep Networks without Learning Rates Through Coin Betting", 2017,
        arXiv:1705.07795.
    """
    checks.positive("scale_by_cocob", alpha=alpha, eps=eps)

    def init_fn(params: Params) -> COCOBState:
        zeros, smallest = (tree.memory_like(params, value) for value in (0.0, eps))
        return COCOBState(tree.memory_of(params), zeros, tree.zeros_like(zeros), smallest, tree.zeros_like(zeros))

    def update_fn(updates: Updates, state: COCOBState, params: Params) -> tuple[Updates, COCOBState]:
        scale = tree.map(lambda g, s: mx.maximum(mx.abs(g), s), updates, state.scale)
        summed = tree.add(state.grad_sum, updates)
        summed_abs = tree.map(lambda g, s: s + mx.abs(g), updates, state.grad_sum_abs)
        reward = tree.map(
            lambda g, r, p, first: nonnegative(r - g * (p - first)), updates, state.reward, params, state.first_params
        )

        def way_back(p: mx.array, first: mx.array, g: mx.array, a: mx.array, s: mx.array, r: mx.array) -> mx.array:
            return (p - first) + g / (s * mx.maximum(a + s, alpha * s)) * (s + r)

        direction = tree.map(way_back, params, state.first_params, summed, summed_abs, scale, reward)
        return direction, COCOBState(state.first_params, summed, summed_abs, scale, reward)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: float = 100.0,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Put each parameter where a gambler would who bets on the sum of the gradients with all that was won before.

    .. math:: L \leftarrow \max(L, |g|), \quad G \leftarrow G + |g|, \quad \theta \leftarrow \theta - g, \quad
        R \leftarrow \max(R - g (w - w_0), 0), \quad
        w \leftarrow w_0 + \frac{\theta}{L \max(G + L, \alpha L)} (L + R)

    There is nothing to tune: leave the learning rate at 1.

    Args:
        learning_rate: Number or schedule: share of the way to the new place that a step takes.
        alpha: Gradients of the largest magnitude that each parameter waits for before it bets all it can.
        eps: Largest magnitude before the first update.
        weight_decay: Number or schedule, times the parameters; part of the gradient.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> cocob()
        cocob(learning_rate=1.0, alpha=100.0, eps=1e-08)

    Reference:
        Orabona & Tommasi, "Training Deep Networks without Learning Rates Through Coin Betting", 2017,
        arXiv:1705.07795.
    """
    return chain(
        add_decayed_weights(weight_decay, mask), scale_by_cocob(alpha, eps), scale_by_learning_rate(learning_rate)
    )
