"""The way from one value to another: the piece that most schedules are made of."""

import math
from collections.abc import Callable

import mlx.core as mx

from mlxopt.schedules.curve import Curve

Shape = Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]
"""From the fractions done and left of a stretch to the shares of its start value and of its end value.

Both are calculated without a difference, so that each has all its digits also where it is small.
"""

Between = Callable[[mx.array, mx.array], mx.array]
"""From the fractions done and left of a stretch to the value there."""


def straight(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
    """Shares ``1 - x`` and ``x`` after the fraction ``x``."""
    return left, done


def cosine(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
    """Shares ``(1 + cos(pi x)) / 2`` and its complement, as squared sines to keep the digits near 0."""
    return mx.square(mx.sin(math.pi / 2 * left)), mx.square(mx.sin(math.pi / 2 * done))


def root(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
    """Shares ``1 - sqrt(x)`` and ``sqrt(x)``."""
    gone = mx.sqrt(done)
    return left / (1 + gone), gone


def reflected(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
    """Shares ``(1 - x) / (1 - x / 2)`` and its complement, the reflected exponential."""
    return 2 * left / (1 + left), done / (1 + left)


def geometric(start: float, end: float) -> Shape:
    """Fall by equal factors from ``start`` to ``end``, both above 0."""
    slope = math.log(end) - math.log(start)

    def shares(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
        # From the nearer end: the factor from the other one may be no float32.
        is_early = done < left
        of_start, of_end = mx.exp(slope * done), mx.exp(mx.minimum(-slope * left, 88.0))
        return mx.where(is_early, of_start, 0.0), mx.where(is_early, 0.0, of_end)

    return shares


def bent(shape: Shape, exponent: float) -> Shape:
    """Raise the share of the start value to a power."""

    def raised(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
        of_start, of_end = shape(done, left)
        # A share next to 1 has lost the digits of its complement, and of its own logarithm.
        log_share = exponent * mx.where(of_end < 0.5, mx.log1p(-of_end), mx.log(of_start))
        return mx.exp(log_share), -mx.expm1(log_share)

    return shape if exponent == 1 else raised


def half_lives(start: float, end: float) -> Between:
    """Go from one decay of a mean to another so that its half-life moves in a straight line."""
    first, last = (-1 / math.log(decay) if decay else 0.0 for decay in (start, end))
    return lambda done, left: mx.exp(-1 / (first * left + last * done))


def ramp(start: float, end: float, steps: int, shape: Shape = straight, begin: int = 0) -> Curve:
    """Go from ``start`` to ``end`` in ``steps`` counts after ``begin``, never outside the two.

    Example:
        >>> ramp(0.0, 1.0, 2, begin=1)(mx.arange(5))
        array([0, 0, 0.5, 1, 1], dtype=float32)
    """
    first, last = float(start), float(end)

    def between(done: mx.array, left: mx.array) -> mx.array:
        of_start, of_end = shape(done, left)
        return first * of_start + last * of_end

    return way(first, last, steps, between, begin)


def way(start: float, end: float, steps: int, between: Between, begin: int = 0) -> Curve:
    """Go from ``start`` to ``end`` by a function of the fractions done and left.

    Example:
        >>> way(0.0, 1.0, 2, lambda done, left: done**2)(mx.arange(4))
        array([0, 0.25, 1, 1], dtype=float32)
    """
    first, last, length, begin = float(start), float(end), int(steps), int(begin)
    low, high = min(first, last), max(first, last)

    def rule(count: mx.array) -> mx.array:
        done = mx.clip(count - begin, 0, length)
        value = between(done.astype(mx.float32) / length, (length - done).astype(mx.float32) / length)
        # Integers decide where the ends are: float32 cannot tell 2**31 - 2 of 2**31 - 1 steps from all of them.
        return mx.where(done <= 0, first, mx.where(done >= length, last, mx.clip(value, low, high)))

    return Curve(rule)
