"""Functions of arrays, no trees: counts, scalars of a step, bias corrections, safe norms."""

import math

import mlx.core as mx

from mlxopt import tree

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
    largest = mx.iinfo(count.dtype).max
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

    ``mx.compile`` would otherwise evaluate its formula again for every element of the leaf it scales.

    Args:
        scalar: 0-d array.

    Example:
        >>> per_step(mx.array(2.0))
        array(2, dtype=float32)
    """
    fenced: list[mx.array] = mx.depends([scalar], [scalar])
    return fenced[0]


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
        log_decay = math.log(decay) if decay else -math.inf
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
    return decay * tree.widen(mean) + (1 - decay) * new


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
    return _safe_root(mx.sum(tree.abs_sq(tree.widen(x)), axis=axis, keepdims=keepdims), min_norm)


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
    if x.size == 0:
        return safe_norm(x, min_rms, axis, keepdims=keepdims)
    return _safe_root(mx.mean(tree.abs_sq(tree.widen(x)), axis=axis, keepdims=keepdims), min_rms)


def _safe_root(square: mx.array, lowest: float) -> mx.array:
    above = square > lowest**2
    return mx.where(above, mx.sqrt(mx.where(above, square, 1.0)), lowest)
