"""Multiplying updates by one number, or keeping only their signs."""

from collections.abc import Callable

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import (
    EmptyState,
    GradientTransformation,
    Params,
    ScalarOrSchedule,
    Schedule,
    Updates,
    identity,
    stateless,
    stateless_with_tree_map,
)
from mlxopt.hyperparameters import inject_hyperparams
from mlxopt.numerics.scalars import sign
from mlxopt.numerics.sums import safe_norm, safe_root_mean_squares
from mlxopt.readable import readable


@readable
def scale(step_size: float | mx.array) -> GradientTransformation:
    """Multiply updates by a number.

    Args:
        step_size: The number.

    Example:
        >>> tx = scale(-0.5)
        >>> tx.update({"w": mx.array(2.0)}, tx.init({"w": mx.array(0.0)}))[0]
        {'w': array(-1, dtype=float32)}
    """
    checks.number("scale", step_size=step_size)
    return stateless(lambda updates, params: tree.scale(step_size, updates), reach="element")


@readable
def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformation:
    """Multiply updates by the value of a schedule; the first update by its value at count 0.

    Args:
        step_size_fn: The schedule.

    Example:
        >>> from mlxopt import linear_schedule
        >>> tx = scale_by_schedule(linear_schedule(1.0, 0.0, 4))
        >>> state = tx.init({"w": mx.array(0.0)})
        >>> for _ in range(3):
        ...     updates, state = tx.update({"w": mx.array(2.0)}, state)
        >>> updates
        {'w': array(1, dtype=float32)}
    """
    if not callable(step_size_fn):
        raise TypeError(f"scale_by_schedule: step_size_fn must be a function, got {step_size_fn!r}. Use scale instead.")

    return inject_hyperparams(scale)(step_size_fn)


@readable
def scale_by_learning_rate(learning_rate: ScalarOrSchedule, *, flip_sign: bool = True) -> GradientTransformation:
    """Turn a direction into a step: multiply it by minus the learning rate.

    The state shows the learning rate. A constant one is read from there, so ``tree.set(state, learning_rate=...)``
    changes it; a schedule has the last word over what is set.

    Args:
        learning_rate: Number or schedule; the first update uses the schedule's value at count 0.
        flip_sign: Multiply by minus the learning rate, so that the step goes downhill.

    Example:
        >>> tx = scale_by_learning_rate(0.5)
        >>> state = tx.init({"w": mx.array(0.0)})
        >>> tx.update({"w": mx.array(2.0)}, state)[0]
        {'w': array(-1, dtype=float32)}
        >>> tx.update({"w": mx.array(2.0)}, tree.set(state, learning_rate=0.25))[0]
        {'w': array(-0.5, dtype=float32)}
    """
    checks.scalar_or_schedule("scale_by_learning_rate", low=0.0, learning_rate=learning_rate)

    def step(learning_rate: float) -> GradientTransformation:
        return scale(-learning_rate if flip_sign else learning_rate)

    return inject_hyperparams(step)(learning_rate)


@readable
def scale_by_sign() -> GradientTransformation:
    """Keep the sign of every update.

    Example:
        >>> tx = scale_by_sign()
        >>> tx.update({"w": mx.array([2.0, 0.0, -3.0])}, tx.init({"w": mx.zeros((3,))}))[0]
        {'w': array([1, 0, -1], dtype=float32)}
    """
    return stateless_with_tree_map(lambda u, p: sign(u), reach="element")


@readable
def scale_by_param_block_norm(min_scale: float = 1e-3) -> GradientTransformation:
    """Multiply each leaf by the norm of its parameter.

    Args:
        min_scale: Number to multiply by where that norm is smaller.

    Example:
        >>> tx = scale_by_param_block_norm()
        >>> params = {"w": mx.array([3.0, 4.0])}
        >>> tx.update({"w": mx.array([1.0, -1.0])}, tx.init(params), params)[0]
        {'w': array([5, -5], dtype=float32)}
    """
    return _scale_by_size("scale_by_param_block_norm", safe_norm, min_scale)


@readable
def scale_by_param_block_rms(min_scale: float = 1e-3) -> GradientTransformation:
    """Multiply each leaf by the root mean square of its parameter.

    Args:
        min_scale: Number to multiply by where that is smaller, so that parameters that are zero move.

    Example:
        >>> tx = scale_by_param_block_rms()
        >>> params = {"w": mx.array([2.0, 2.0])}
        >>> tx.update({"w": mx.array([1.0, -1.0])}, tx.init(params), params)[0]
        {'w': array([2, -2], dtype=float32)}

    Reference:
        Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, arXiv:1804.04235.
    """
    return _scale_by_size("scale_by_param_block_rms", safe_root_mean_squares, min_scale)


def _scale_by_size(where: str, size: Callable[[mx.array, float], mx.array], min_scale: float) -> GradientTransformation:
    checks.non_negative(where, min_scale=min_scale)

    def init_fn(params: Params) -> EmptyState:
        del params
        return EmptyState()

    def update_fn(updates: Updates, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        return tree.mul(tree.map(lambda p: size(p, min_scale), params), updates), state

    return GradientTransformation(init_fn, update_fn, reach="leaf")


@readable
def scale_by_trust_ratio(
    min_norm: float = 0.0, trust_coefficient: float = 1.0, eps: float = 0.0
) -> GradientTransformation:
    """Multiply each leaf by the norm of its parameter over its own: what comes out is as long as the parameter.

    Where one of the two norms is zero, the leaf passes.

    Args:
        min_norm: Lower bound of both norms.
        trust_coefficient: Number that the ratio is multiplied by.
        eps: Added to the norm of the update.

    Example:
        >>> tx = scale_by_trust_ratio(trust_coefficient=0.1)
        >>> params = {"w": mx.array([30.0, 40.0])}
        >>> tx.update({"w": mx.array([0.6, 0.8])}, tx.init(params), params)[0]
        {'w': array([3, 4], dtype=float32)}

    Reference:
        You, Gitman & Ginsburg, "Large Batch Training of Convolutional Networks", 2017, arXiv:1708.03888.
    """
    checks.non_negative("scale_by_trust_ratio", min_norm=min_norm, trust_coefficient=trust_coefficient, eps=eps)

    def ratio(u: mx.array, p: mx.array) -> mx.array:
        size, length = safe_norm(p, min_norm), safe_norm(u, min_norm)
        return mx.where((size > 0) & (length > 0), trust_coefficient * size / (length + eps), 1.0)

    def update_fn(updates: Updates, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        return tree.mul(tree.map(ratio, updates, params), updates), state

    return GradientTransformation(identity().init, update_fn, reach="leaf")
