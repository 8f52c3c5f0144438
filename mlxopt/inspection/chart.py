"""Curves as text, and axes with round numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH = 80
"""Characters of a line."""

HEIGHT = 16
"""Lines of a chart, more or less."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Axis(NamedTuple):
    """A range that ends at round numbers, with labels for some of them."""

    low: float
    high: float
    ticks: list[float]
    labels: list[str]


def value_axis(values: Sequence[float]) -> Axis:
    """The axis on which all finite values lie; it starts at 0 unless that would flatten the curves."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    alike = high - low <= 1e-6 * max(abs(low), abs(high))  # to the digits that a label has
    if low >= 0 and (low < 0.5 * high or alike):
        low = 0.0
    elif high <= 0 and (high > 0.5 * low or alike):
        high = 0.0
    if low == high == 0:
        high = 1.0
    step = _round_step((high - low) / 4, (1, 2, 2.5, 5, 10))
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    ticks = [index * step for index in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], ticks, _labels(ticks, step))


def count_axis(last: int) -> Axis:
    """The axis of the counts from 0 to ``last``."""
    step = max(1, round(_round_step(last / 5, (1, 2, 5, 10))))
    ticks = list(range(0, last + 1, step))
    return Axis(0, last, [float(tick) for tick in ticks], [f"{tick:,}" for tick in ticks])


def _round_step(at_least: float, mantissas: Sequence[float]) -> float:
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(power * m for m in mantissas if power * m >= at_least * (1 - 1e-6))


def _labels(ticks: Sequence[float], step: float) -> list[str]:
    """Short labels in one notation: with as many decimals as the step needs, and a common exponent if that is long."""
    exponent = math.floor(math.log10(max(abs(tick) for tick in ticks)))
    if -4 <= exponent < 5:
        exponent, suffix = 0, ""
    else:
        suffix = f"e{exponent}"
    unit = step / 10.0**exponent
    decimals = next(d for d in range(20) if abs(round(unit, d) - unit) < 1e-6 * unit)
    return [f"{tick / 10.0**exponent:.{decimals}f}{suffix}" if tick else "0" for tick in ticks]


# Text


def chart(curves: Mapping[str, Sequence[float]], last: int) -> str:
    """Draw curves through equally spaced values from count 0 to ``last``: one in braille, several in letters."""
    axis, across = value_axis([value for values in curves.values() for value in values]), count_axis(last)
    margin = max(len(label) for label in axis.labels)
    columns = WIDTH - margin - 2
    apart = max(2, round(HEIGHT / (len(axis.ticks) - 1)))
    rows = apart * (len(axis.ticks) - 1) + 1
    if len(curves) == 1:
        [(name, values)] = curves.items()
        legend, lines = [name], _in_braille(values, axis, rows, columns)
    else:
        legend = [f"{letter}  {name}" for letter, name in zip(LETTERS, curves, strict=False)]
        lines = _in_letters(list(curves.values()), axis, rows, columns)
    labels = {rows - 1 - apart * index: label for index, label in enumerate(axis.labels)}
    body = [
        f"{labels.get(row, ''):>{margin}} {'┤' if row in labels else '│'}{line}".rstrip()
        for row, line in enumerate(lines)
    ]
    return "\n".join([*legend, "", *body, *_foot(across, margin, columns)])


def _foot(across: Axis, margin: int, columns: int) -> list[str]:
    line, labels = ["─"] * columns, [" "] * (margin + 2 + columns)
    for tick, label in zip(across.ticks, across.labels, strict=True):
        column = round(tick / across.high * (columns - 1))
        line[column] = "┬"
        start = min(margin + 2 + column - len(label) // 2, len(labels) - len(label))
        labels[start : start + len(label)] = label
    return [" " * (margin + 1) + "└" + "".join(line), "".join(labels).rstrip()]


def _between(values: Sequence[float], columns: int) -> list[tuple[float, float] | None]:
    """The range that the curve through equally spaced values runs through in each column, if it is there."""

    def at(position: float) -> float:
        index = min(int(position), len(values) - 2)
        share = position - index
        if share in (0, 1):
            return values[index + int(share)]
        return (1 - share) * values[index] + share * values[index + 1]

    ranges: list[tuple[float, float] | None] = []
    for column in range(columns):
        left, right = (min(max((column + half) / (columns - 1), 0.0), 1.0) * (len(values) - 1) for half in (-0.5, 0.5))
        inside = values[math.ceil(left) : math.floor(right) + 1]
        seen = [value for value in (at(left), *inside, at(right)) if math.isfinite(value)]
        ranges.append((min(seen), max(seen)) if seen else None)
    return ranges


def _in_braille(values: Sequence[float], axis: Axis, rows: int, columns: int) -> list[str]:
    """Two by four dots to a character."""
    dots = [[0] * columns for _ in range(rows)]
    bits = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
    for x, spanned in enumerate(_between(values, 2 * columns)):
        if spanned is not None:
            bottom, top = (
                min(max(round((axis.high - value) / (axis.high - axis.low) * 4 * (rows - 1) + 1.4), 0), 4 * rows - 1)
                for value in spanned
            )
            for y in range(top, bottom + 1):
                dots[y // 4][x // 2] |= bits[y % 4][x % 2]
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in row) for row in dots]


def _in_letters(curves: Sequence[Sequence[float]], axis: Axis, rows: int, columns: int) -> list[str]:
    """A letter for each curve; where curves meet, their letters take turns."""
    cells: list[list[str]] = [[""] * columns for _ in range(rows)]
    for letter, values in zip(LETTERS, curves, strict=False):
        for column, spanned in enumerate(_between(values, columns)):
            if spanned is not None:
                bottom, top = (round((axis.high - value) / (axis.high - axis.low) * (rows - 1)) for value in spanned)
                if bottom == top + 1:  # half of a gentle slope
                    top = bottom = round((axis.high - sum(spanned) / 2) / (axis.high - axis.low) * (rows - 1))
                for row in range(top, bottom + 1):
                    cells[row][column] += letter
    return ["".join(cell[column % len(cell)] if cell else " " for column, cell in enumerate(row)) for row in cells]
