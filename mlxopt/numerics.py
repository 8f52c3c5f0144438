"""Functions of arrays, no trees: counts, scalars of a step, bias corrections, safe norms."""

import math
from collections.abc import Callable

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import ScalarOrSchedule
from mlxopt.tracing import as_input

LARGEST_COUNT = 2**31 - 1


def safe_increment(count: mx.array) -> mx.array:
    """Add one to a counter that stays at its largest value instead of wrapping round.

    Args:
        count: Integer array.

    Example:
        >>> safe_increment(mx.array(7)), safe_increment(mx.array(2**31 - 1))
        (array(8, dtype=int32), array(2147483647, dtype=int32))
    """
    if not mx.issubdtype(count.dtype, mx.integer):
        raise TypeError(f"safe_increment: count must be an integer array, got {count.dtype}. Cast it to int32.")
    largest = mx.array(mx.iinfo(count.dtype).max, count.dtype)
    return mx.where(count < largest, count + 1, count)


def new_count() -> mx.array:
    """Make the counter of a new state.

    Example:
        >>> new_count()
        array(0, dtype=int32)
    """
    return mx.zeros((), mx.int32)


def as_scalar(value: float | mx.array) -> mx.array:
    """Make the 0-d float32 array in which a hyperparameter is kept.

    Args:
        value: Number or 0-d array.

    Example:
        >>> as_scalar(0.1)
        array(0.1, dtype=float32)
    """
    scalar = value if isinstance(value, mx.array) else mx.array(float(value))
    if scalar.size != 1:
        raise ValueError(f"as_scalar: value must be a single number, got shape {scalar.shape}. Pass one number.")
    return scalar.astype(mx.float32).reshape(())


def per_step(scalar: mx.array) -> mx.array:
    """Mark a scalar as computed once a step.

    ``mx.compile`` would otherwise evaluate its formula again for every element of the leaf it scales; a copy like this
    one it never fuses.

    Args:
        scalar: 0-d array.

    Example:
        >>> per_step(mx.array(2.0))
        array(2, dtype=float32)
    """
    return mx.contiguous(scalar)


def bias_correction(decay: float | mx.array, count: mx.array) -> mx.array:
    """Compute ``1 - decay**count``, the weight a running mean has gathered after ``count`` updates.

    Written as ``-expm1(count * log(decay))``, which keeps the digits that the subtraction loses for ``decay`` near 1.

    Args:
        decay: Decay of the running mean.
        count: Updates the mean has seen, at least 1.

    Example:
        >>> bias_correction(0.999, mx.array(1))
        array(0.001, dtype=float32)
    """
    if isinstance(decay, mx.array):
        log_decay: float | mx.array = mx.log(decay)
    else:
        log_decay = as_input(math.log(decay) if decay else -math.inf)
    return per_step(-mx.expm1(count.astype(mx.float32) * log_decay))


def debias(mean: mx.array, decay: float | mx.array, count: mx.array) -> mx.array:
    """Divide a running mean that started at zero by the weight it has gathered.

    Args:
        mean: Running mean.
        decay: Its decay.
        count: Updates it has seen, at least 1.

    Example:
        >>> debias(mx.array([0.1]), 0.9, mx.array(1))
        array([1], dtype=float32)
    """
    return mean / bias_correction(decay, count)


def running_mean(new: mx.array, mean: mx.array, decay: float | mx.array) -> mx.array:
    """Move a running mean towards a new value: ``decay * mean + (1 - decay) * new``.

    Args:
        new: New value.
        mean: Mean so far, in any floating dtype; the arithmetic is float32.
        decay: Share of the old mean that stays.

    Example:
        >>> running_mean(mx.array(1.0), mx.array(0.0), 0.75)
        array(0.25, dtype=float32)
    """
    return as_input(decay) * tree.widen(mean) + as_input(1 - decay) * new


def unbiased_mean(
    decay: float, count: mx.array, *, nesterov: bool = False, corrected: bool = True, factor: float | mx.array = 1.0
) -> Callable[[mx.array, mx.array], mx.array]:
    """Prepare the estimate of a mean from its running mean, as a function of the running mean and the newest value.

    Args:
        decay: Decay of the running mean.
        count: Updates it has seen, the newest included.
        nesterov: Look one step ahead, as if the newest value came once more (Dozat, "Incorporating Nesterov Momentum
            into Adam", 2016).
        corrected: Make up for the start at zero.
        factor: Number to multiply the estimate by.

    Example:
        >>> estimate = unbiased_mean(0.9, mx.array(1))
        >>> estimate(mx.array(0.1), mx.array(1.0))
        array(1, dtype=float32)
    """
    now = bias_correction(decay, count) if corrected else 1.0
    if not nesterov:
        if not corrected and isinstance(factor, float) and factor == 1:
            return lambda mean, new: mean
        on_mean = per_step(as_scalar(factor / now))
        return lambda mean, new: as_input(on_mean) * mean
    later = bias_correction(decay, safe_increment(count)) if corrected else 1.0
    on_later = per_step(as_scalar(factor * as_input(decay) / later))
    on_new = per_step(as_scalar(factor * as_input(1 - decay) / now))
    return lambda mean, new: as_input(on_later) * mean + as_input(on_new) * new


def rms_normalizer(
    decay: float, count: mx.array, eps: float, eps_root: float, *, corrected: bool = True
) -> Callable[[mx.array, mx.array], mx.array]:
    """Prepare ``x / (sqrt(power / c + eps_root) + eps)``, as a function of ``x`` and the running power.

    Args:
        decay: Decay of the running power.
        count: Updates it has seen.
        eps: Added outside the root.
        eps_root: Added inside the root.
        corrected: Make up for the start at zero: ``c = 1 - decay**count``; ``c = 1`` otherwise.

    Example:
        >>> normalize = rms_normalizer(0.999, mx.array(1), eps=0.0, eps_root=0.0)
        >>> normalize(mx.array(-2.0), mx.array(0.001 * 4.0))
        array(-1, dtype=float32)
    """
    factor, divisor = rms_divisor(decay, count, eps, eps_root, corrected=corrected)
    return lambda x, power: (as_input(factor) * x if corrected else x) / divisor(power)


def rms_divisor(
    decay: float, count: mx.array, eps: float, eps_root: float, *, corrected: bool = True
) -> tuple[float | mx.array, Callable[[mx.array], mx.array]]:
    """Write ``1 / (sqrt(power / c + eps_root) + eps)`` as a scalar over a function of the running power.

    The correction ``c`` is moved to the scalars, as Kingma & Ba suggest at the end of their section 2: it saves work on
    every element, and keeps the formula shallow enough to become one kernel with what surrounds it.

    Args:
        decay: Decay of the running power.
        count: Updates it has seen.
        eps: Added outside the root.
        eps_root: Added inside the root.
        corrected: Make up for the start at zero: ``c = 1 - decay**count``; ``c = 1`` otherwise.

    Returns:
        The scalar, and the function.

    Example:
        >>> factor, divisor = rms_divisor(0.999, mx.array(1), eps=0.0, eps_root=0.0)
        >>> factor * mx.array(-2.0) / divisor(mx.array(0.001 * 4.0))
        array(-1, dtype=float32)
    """
    if not corrected:
        return 1.0, lambda power: root_of_sum(power, eps_root) + as_input(eps)
    correction = bias_correction(decay, count)
    root = per_step(mx.sqrt(correction))
    outside = per_step(as_input(eps) * root)
    inside = 0.0 if _is_zero(eps_root) else per_step(as_input(eps_root) * correction)
    return root, lambda power: root_of_sum(power, inside) + as_input(outside)


def root_of_sum(power: mx.array, eps: float | mx.array) -> mx.array:
    """Compute ``sqrt(power + eps)``, without an operation for an ``eps`` that is the number 0.

    Args:
        power: Array of non-negative numbers.
        eps: Number to add.

    Example:
        >>> root_of_sum(mx.array(3.0), 1.0)
        array(2, dtype=float32)
    """
    return mx.sqrt(power if _is_zero(eps) else power + as_input(eps))


def _is_zero(value: float | mx.array) -> bool:
    return not isinstance(value, mx.array) and value == 0


def scheduled(hyperparameter: ScalarOrSchedule, count: mx.array, held: mx.array | None = None) -> mx.array:
    """Read the value of a hyperparameter at a count: the schedule's, or else the one the state holds.

    Args:
        hyperparameter: Number or schedule.
        count: Updates made so far.
        held: Value in the state, which a user may have set; the number itself before there is a state.

    Example:
        >>> scheduled(lambda count: 1.0 / (1 + count), mx.array(3), mx.array(0.1))
        array(0.25, dtype=float32)
        >>> scheduled(0.1, mx.array(3), mx.array(0.05))
        array(0.05, dtype=float32)
    """
    if callable(hyperparameter):
        return as_scalar(hyperparameter(count))
    return as_scalar(hyperparameter if held is None else held)


def sign(x: mx.array) -> mx.array:
    """Compute the sign, NaN for NaN; ``mx.sign`` makes it 0, which hides a broken gradient.

    Args:
        x: Array.

    Example:
        >>> sign(mx.array([-2.0, 0.0, float("inf"), float("nan")]))
        array([-1, 0, 1, nan], dtype=float32)
    """
    # The quotient is 0 for every number, and unlike a select it does not keep the CPU kernel from being vectorized.
    return mx.sign(x) + as_input(0.0) / (as_input(1.0) + mx.abs(x))


def safe_norm(
    x: mx.array, min_norm: float = 0.0, axis: int | list[int] | None = None, *, keepdims: bool = False
) -> mx.array:
    """Compute the Euclidean norm in float32, at least ``min_norm``, with gradient zero (not NaN) where it is cut.

    Args:
        x: Array.
        min_norm: Lower bound of the result.
        axis: Axes to reduce; all of them by default.
        keepdims: Keep reduced axes with length 1.

    Example:
        >>> safe_norm(mx.array([3.0, 4.0])), mx.grad(safe_norm)(mx.zeros((2,)))
        (array(5, dtype=float32), array([0, 0], dtype=float32))
    """
    return _safe_root(_sum_of_squares(x, axis, keepdims), min_norm)


def safe_root_mean_squares(
    x: mx.array, min_rms: float = 0.0, axis: int | list[int] | None = None, *, keepdims: bool = False
) -> mx.array:
    """Compute the root of the mean square in float32, at least ``min_rms``, with gradient zero where it is cut.

    Args:
        x: Array; without elements its value is ``min_rms``.
        min_rms: Lower bound of the result.
        axis: Axes to reduce; all of them by default.
        keepdims: Keep reduced axes with length 1.

    Example:
        >>> safe_root_mean_squares(mx.array([3.0, 3.0])), safe_root_mean_squares(mx.zeros((0,)), 1e-3)
        (array(3, dtype=float32), array(0.001, dtype=float32))
    """
    power = _sum_of_squares(x, axis, keepdims)
    return _safe_root(power / max(x.size / max(power.size, 1), 1), min_rms)


def _sum_of_squares(x: mx.array, axis: int | list[int] | None, keepdims: bool) -> mx.array:
    squares = tree.abs_sq(tree.widen(x))
    if axis is None:
        return tree.total(squares).reshape((1,) * x.ndim if keepdims else ())
    return mx.sum(squares, axis=axis, keepdims=keepdims)


def _safe_root(square: mx.array, lowest: float) -> mx.array:
    below = square <= as_input(lowest**2)
    return mx.where(below, as_input(lowest), mx.sqrt(mx.where(below, 1.0, square)))
