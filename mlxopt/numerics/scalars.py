"""Scalars of a step: counts, hyperparameters, bias corrections."""

import math
from collections.abc import Callable
from typing import Any, SupportsFloat

import mlx.core as mx

from mlxopt.numerics.number import Number
from mlxopt.readable import literal
from mlxopt.tracing import inside, number

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
    return mx.where(count < _largest(count.dtype), count + 1, count)


def count_if(happened: mx.array, count: mx.array) -> mx.array:
    """Add one to a counter, as :func:`safe_increment` does, if something happened.

    Args:
        happened: Truth value.
        count: Integer array.

    Example:
        >>> count_if(mx.array(True), mx.array(7)), count_if(mx.array(False), mx.array(7))
        (array(8, dtype=int32), array(7, dtype=int32))
    """
    return mx.where(happened, safe_increment(count), count)


def saturating_add(x: mx.array, y: mx.array) -> mx.array:
    """Add integers: in the dtype of the first, and staying at its smallest and largest value instead of wrapping round.

    Args:
        x: Integer array.
        y: Integer array; neither may be uint64 where the other one is signed, for no integer holds both.

    Example:
        >>> saturating_add(mx.array(100, mx.int8), mx.array(300)), saturating_add(mx.array(2, mx.uint8), mx.array(-3))
        (array(127, dtype=int8), array(0, dtype=uint8))
    """
    top = _largest(x.dtype)
    if mx.result_type(x, y) == mx.uint64:
        wide = x.astype(mx.uint64)
        return (wide + mx.minimum(y.astype(mx.uint64), top.astype(mx.uint64) - wide)).astype(x.dtype)
    wide, lowest = x.astype(mx.int64), mx.array(mx.iinfo(x.dtype).min, mx.int64)
    # The way left to either end; in int64 it is longer than any of its numbers from the other side of 0.
    below, above = (mx.minimum(wide, 0), mx.maximum(wide, 0)) if x.dtype == mx.int64 else (wide, wide)
    return (wide + mx.clip(y.astype(mx.int64), lowest - below, top.astype(mx.int64) - above)).astype(x.dtype)


def _largest(dtype: mx.Dtype) -> mx.array:
    """The largest integer of a dtype; that of uint64 is more than MLX takes from Python."""
    return ~mx.zeros((), dtype) if dtype == mx.uint64 else mx.array(mx.iinfo(dtype).max, dtype)


def new_count() -> mx.array:
    """Make the counter of a new state.

    Example:
        >>> new_count()
        array(0, dtype=int32)
    """
    return mx.zeros((), mx.int32)


def as_scalar(value: float | mx.array) -> mx.array:
    """Make the 0-d float32 array in which a hyperparameter is kept.

    Example:
        >>> as_scalar(0.1)
        array(0.1, dtype=float32)
    """
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"as_scalar: value must be a number, got {value!r}. Pass a float or a 0-d array.")
    scalar = value if isinstance(value, mx.array) else mx.array(float(value))
    if scalar.ndim:
        raise ValueError(f"as_scalar: value must be a single number, got shape {scalar.shape}. Pass a 0-d array.")
    return scalar.astype(mx.float32)


def scheduled(hyperparameter: float | mx.array | Callable[[Any], Any], count: mx.array, held: mx.array) -> mx.array:
    """Read the value of a hyperparameter at a count: the schedule's, or else the one that a state holds.

    Example:
        >>> scheduled(lambda count: 1.0 / (1 + count), mx.array(3), mx.array(0.1))
        array(0.25, dtype=float32)
        >>> scheduled(0.1, mx.array(3), mx.array(0.05))
        array(0.05, dtype=float32)
    """
    return value_at(hyperparameter, count) if callable(hyperparameter) else as_scalar(held)


def value_at(schedule: Callable[[Any], Any], count: mx.array) -> mx.array:
    """Ask a schedule of a user for its value at a count, which has no value itself while a program is traced.

    Example:
        >>> value_at(lambda count: 1.0 / (1 + count), mx.array(3))
        array(0.25, dtype=float32)
    """
    try:
        value: float | mx.array = inside(schedule)(count)
    except ValueError as error:
        if "Attempting to eval" not in str(error):
            raise
        raise ValueError(
            "schedule: the count must not be used as a Python number or in a condition while a program is traced, got "
            f"{literal(schedule)}. Use mx.where(count < n, a, b) or join_schedules([a, b], [n])."
        ) from error
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"schedule: the value must be a number, got {value!r} of {literal(schedule)}. Return a float.")
    return as_scalar(value)


def is_zero(number: float | mx.array) -> bool:
    """Say whether a number is known to be 0, so that it need not be added to anything; of an array it is not known.

    Args:
        number: Number.

    Example:
        >>> is_zero(0.0), is_zero(1e-8), is_zero(mx.array(0.0))
        (True, False, False)
    """
    is_known = isinstance(number, Number) or not isinstance(number, mx.array)
    return bool(is_known and number == 0)


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
    if isinstance(decay, mx.array) and not isinstance(decay, Number):
        log_decay: float | mx.array = mx.log(decay)
    else:
        log_decay = number(math.log(decay) if decay else -math.inf)
    return -mx.expm1(log_decay * count.astype(mx.float32))


def sign(x: mx.array) -> mx.array:
    """Compute the sign, NaN for NaN; ``mx.sign`` makes it 0, which hides a broken gradient.

    Args:
        x: Array.

    Example:
        >>> sign(mx.array([-2.0, 0.0, float("inf"), float("nan")]))
        array([-1, 0, 1, nan], dtype=float32)
    """
    # The quotient is 0 for every number, and unlike a select it does not keep the CPU kernel from being vectorized.
    return mx.sign(x) + number(0.0) / (number(1.0) + mx.abs(x))


def nonnegative(x: mx.array) -> mx.array:
    """Put zeros in the place of negative numbers, which only rounding can have made; NaN stays.

    Example:
        >>> nonnegative(mx.array([-1e-9, 2.0]))
        array([0, 2], dtype=float32)
    """
    return mx.maximum(x, number(0.0))


def unless_zero(divisor: mx.array, quotient: mx.array, instead: mx.array | None = None) -> mx.array:
    """Put zeros, or what is given instead, where what a quotient was divided by is zero.

    Example:
        >>> unless_zero(mx.array([0.0, 4.0]), mx.array([float("nan"), 2.0]))
        array([0, 2], dtype=float32)
    """
    nothing = number(0.0)
    return mx.where(divisor == nothing, nothing if instead is None else instead, quotient)


def surely(condition: mx.array) -> bool:
    """Say whether a condition is known to hold; while a program is traced it is not known.

    Example:
        >>> surely(mx.array(2) > 1), mx.compile(lambda x: x + surely(x > 1))(mx.array(2))
        (True, array(2, dtype=int32))
    """
    try:
        return bool(condition)
    except ValueError:
        return False


def farther(distance: mx.array, progress: mx.array, length: mx.array) -> mx.array:
    """Raise a distance to a lower bound of it, progress over length, which is not known while the length is zero.

    Example:
        >>> farther(mx.array(1.0), mx.array(6.0), mx.array(2.0)), farther(mx.array(1.0), mx.array(0.0), mx.array(0.0))
        (array(3, dtype=float32), array(1, dtype=float32))
    """
    return mx.maximum(distance, unless_zero(length, progress / length))
