"""Lines through the values of a schedule: jumps stand upright, and numbers of any size fit."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

STEEP = 4
"""A jump is this many times the changes on both sides of it."""

SLIGHT = 0.01
"""What is less than this share of all that a line spans is not drawn as a jump."""

ORDINARY = 250
"""Powers of ten up to which axes are computed in the numbers as they are."""


class Line(NamedTuple):
    """Points in order, each joined to the next by a straight line."""

    x: list[float]
    y: list[float]
    measured: list[int]  # indices of the points that are values; the others are corners of jumps


def through(counts: Sequence[int], values: Sequence[float]) -> Line:
    """Join values by straight lines; where they jump, the old value holds until the count of the new one.

    Example:
        >>> through(range(5), [3.0, 3.0, 1.0, 1.0, 1.0])
        Line(x=[0, 1, 2, 2, 3, 4], y=[3.0, 3.0, 3.0, 1.0, 1.0, 1.0], measured=[0, 1, 3, 4, 5])
    """
    jumps = _jumps(values)
    x: list[float] = []
    y: list[float] = []
    measured = []
    for index, (count, value) in enumerate(zip(counts, values, strict=True)):
        if index in jumps:
            x.append(count)
            y.append(values[index - 1])
        measured.append(len(x))
        x.append(count)
        y.append(value)
    return Line(x, y, measured)


def _jumps(values: Sequence[float]) -> set[int]:
    """Indices of the values that end a jump: a change that stands out between its neighbours."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    visible = SLIGHT * (max(finite) - min(finite))
    changes = [abs(after - before) for before, after in itertools.pairwise(values)]
    jumps = set()
    for index, change in enumerate(changes):
        beside = [*changes[max(index - 1, 0) : index], *changes[index + 1 : index + 2]]
        usual = max((other for other in beside if math.isfinite(other)), default=math.inf)
        if math.isfinite(change) and change > visible and change > STEEP * usual:
            jumps.add(index + 1)
    return jumps


def spans(line: Line, last: int, columns: int) -> list[tuple[float, float] | None]:
    """The range that a line from count 0 to ``last`` runs through in each of some columns, if it is there."""
    ranges: list[tuple[float, float] | None] = [None] * columns

    def cover(column: int, height: float) -> None:
        low, high = ranges[column] or (height, height)
        ranges[column] = min(low, height), max(high, height)

    points = [(x * (columns - 1) / last, y) for x, y in zip(line.x, line.y, strict=True)]
    for x, y in points:
        if math.isfinite(y):
            cover(round(x), y)
    for (x, y), (next_x, next_y) in itertools.pairwise(points):
        if math.isfinite(y) and math.isfinite(next_y):
            for column in range(round(x), round(next_x)):
                share = min(max((column + 0.5 - x) / (next_x - x), 0.0), 1.0)
                border = (1 - share) * y + share * next_y
                cover(column, border)
                cover(column + 1, border)
    return ranges


def power_of_ten(values: Iterable[float]) -> int:
    """The exponent to take out of the values so that sums and ratios of them stay floats; 0 if they do anyway."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    exponent = math.floor(math.log10(largest)) if largest else 0
    return exponent if abs(exponent) > ORDINARY else 0


def without_power(value: float, exponent: int) -> float:
    """A value divided by a power of ten, which may itself be too large or too small for a float."""
    half = exponent // 2
    return value * 10.0**-half * 10.0 ** (half - exponent)
