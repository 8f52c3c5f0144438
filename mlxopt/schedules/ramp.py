"""The way from one value to another: the piece that most schedules are made of."""

import math
from collections.abc import Callable

import mlx.core as mx

from mlxopt.schedules.curve import Curve

Shape = Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]
"""From the fractions done and left of a stretch to the shares of its start value and of its end value."""


def straight(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
    """Shares ``1 - x`` and ``x`` after the fraction ``x``."""
    return left, done


def cosine(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
    """Shares ``(1 + cos(pi x)) / 2`` and its complement, as squared sines to keep the digits near 0."""
    return mx.square(mx.sin(math.pi / 2 * left)), mx.square(mx.sin(math.pi / 2 * done))


def root(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
    """Shares ``1 - sqrt(x)`` and ``sqrt(x)``."""
    del left
    gone = mx.sqrt(done)
    return 1 - gone, gone


def reflected(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
    """Shares ``(1 - x) / (1 - x / 2)`` and its complement, the reflected exponential."""
    return 2 * left / (1 + left), done / (1 + left)


def geometric(ratio: float) -> Shape:
    """Fall by equal factors from a start value to ``ratio`` times it, ``0 < ratio <= 1``."""
    slope = math.log(ratio)

    def shares(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
        del left
        factor = mx.exp(slope * done)
        return (factor - ratio) / (1 - ratio), (1 - factor) / (1 - ratio)

    return straight if ratio == 1 else shares


def bent(shape: Shape, exponent: float) -> Shape:
    """Raise the share of the start value to a power."""

    def raised(done: mx.array, left: mx.array) -> tuple[mx.array, mx.array]:
        of_start = mx.power(shape(done, left)[0], exponent)
        return of_start, 1 - of_start

    return shape if exponent == 1 else raised


def ramp(start: float, end: float, steps: int, shape: Shape = straight, begin: int = 0) -> Curve:
    """Go from ``start`` to ``end`` in ``steps`` counts after ``begin``, never outside the two.

    Example:
        >>> ramp(0.0, 1.0, 2, begin=1)(mx.arange(5))
        array([0, 0, 0.5, 1, 1], dtype=float32)
    """
    first, last, length, begin = float(start), float(end), int(steps), int(begin)
    low, high = min(first, last), max(first, last)

    def rule(count: mx.array) -> mx.array:
        done = mx.clip(count - begin, 0, length)
        of_start, of_end = shape(done.astype(mx.float32) / length, (length - done).astype(mx.float32) / length)
        between = mx.clip(first * of_start + last * of_end, low, high)
        # Integers decide where the ends are: float32 cannot tell 2**31 - 2 of 2**31 - 1 steps from all of them.
        return mx.where(done <= 0, first, mx.where(done >= length, last, between))

    return Curve(rule)
