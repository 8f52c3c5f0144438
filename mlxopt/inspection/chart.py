"""Curves as text, and axes with round numbers."""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlxopt.inspection.lines import Line, spans

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


def value_axis(values: Sequence[float], exponent: int = 0) -> Axis:
    """The axis on which all finite values lie; it starts at 0 unless that would flatten the curves.

    Args:
        values: What is drawn.
        exponent: Power of ten that was taken out of the values, which only the labels show.
    """
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
    return Axis(ticks[0], ticks[-1], ticks, _labels(ticks, step, exponent))


def count_axis(last: int) -> Axis:
    """The axis of the counts from 0 to ``last``."""
    step = max(1, round(_round_step(last / 5, (1, 2, 5, 10))))
    ticks = list(range(0, last + 1, step))
    return Axis(0, last, [float(tick) for tick in ticks], [f"{tick:,}" for tick in ticks])


def _round_step(at_least: float, mantissas: Sequence[float]) -> float:
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(power * m for m in mantissas if power * m >= at_least * (1 - 1e-6))


def _labels(ticks: Sequence[float], step: float, taken: int) -> list[str]:
    """Short labels in one notation: with as many decimals as the step needs, and a common exponent if that is long."""
    exponent = math.floor(math.log10(max(abs(tick) for tick in ticks)))
    if -4 <= exponent + taken < 5:
        exponent, suffix = 0, ""
    else:
        suffix = f"e{exponent + taken}"
    unit = step / 10.0**exponent
    decimals = next(d for d in range(20) if abs(round(unit, d) - unit) < 1e-6 * unit)
    return [f"{tick / 10.0**exponent:.{decimals}f}{suffix}" if tick else "0" for tick in ticks]


# Text


def chart(lines: Mapping[str, Line], last: int, exponent: int = 0) -> str:
    """Draw lines over the counts from 0 to ``last`` in braille, letters on them if there are several.

    Args:
        lines: Lines by name.
        last: Last count.
        exponent: Power of ten that was taken out of the values.

    Returns:
        A legend, and below it the chart.
    """
    axis = value_axis([value for line in lines.values() for value in line.y], exponent)
    margin = max(len(label) for label in axis.labels)
    columns = WIDTH - margin - 2
    apart = max(2, round(HEIGHT / (len(axis.ticks) - 1)))
    rows = apart * (len(axis.ticks) - 1) + 1
    heights = [_heights(line, axis, last, 2 * columns, rows) for line in lines.values()]
    cells = _braille(heights, rows, columns)
    legend = textwrap.wrap(next(iter(lines)), WIDTH)
    if len(lines) > 1:
        _put_letters(cells, heights)
        legend = _legend(list(lines), heights)
    labels = {rows - 1 - apart * index: label for index, label in enumerate(axis.labels)}
    body = [
        f"{labels.get(row, ''):>{margin}} {'┤' if row in labels else '│'}{''.join(line)}".rstrip()
        for row, line in enumerate(cells)
    ]
    return "\n".join([*legend, "", *body, *_foot(count_axis(last), margin, columns)])


def _foot(across: Axis, margin: int, columns: int) -> list[str]:
    line, labels = ["─"] * columns, [" "] * (margin + 2 + columns)
    for tick, label in zip(across.ticks, across.labels, strict=True):
        column = round(tick / across.high * (columns - 1))
        line[column] = "┬"
        start = min(margin + 2 + column - len(label) // 2, len(labels) - len(label))
        labels[start : start + len(label)] = label
    return [" " * (margin + 1) + "└" + "".join(line), "".join(labels).rstrip()]


Heights = list[tuple[int, int] | None]
"""Highest and lowest dot of a line in each column of dots, counted from above, if it is there."""


def _heights(line: Line, axis: Axis, last: int, columns: int, rows: int) -> Heights:
    def height(value: float) -> int:
        share = (axis.high - value) / (axis.high - axis.low)
        return min(max(round(share * 4 * (rows - 1) + 1.4), 0), 4 * rows - 1)

    return [span and (height(span[1]), height(span[0])) for span in spans(line, last, columns)]


def _braille(lines: Sequence[Heights], rows: int, columns: int) -> list[list[str]]:
    """All lines, two by four dots to a character."""
    dots = [[0] * columns for _ in range(rows)]
    bits = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
    for heights in lines:
        for x, height in enumerate(heights):
            for y in range(height[0], height[1] + 1) if height else ():
                dots[y // 4][x // 2] |= bits[y % 4][x % 2]
    return [[chr(0x2800 + cell) if cell else " " for cell in row] for row in dots]


def _put_letters(cells: list[list[str]], lines: Sequence[Heights]) -> None:
    """Mark every line with its letter now and then, at a place where it is alone if there is one nearby.

    Each line starts from places of its own, so that the letters of lines that run together take turns.
    """
    columns, count = len(cells[0]), len(lines)
    rows = [_rows(heights) for heights in lines]
    passing = Counter((row, column) for own in rows for column, spanned in own.items() for row in spanned)
    apart = min(max(12 / count, 3.0), columns / count)
    for index, (letter, own) in enumerate(zip(LETTERS, rows, strict=False)):
        wanted = [place for turn in range(columns) if (place := (index + 0.5 + turn * count) * apart) < columns]
        near = {place: [column for column in own if 2 * abs(column - place) < count * apart] for place in wanted}
        if not any(near.values()):
            near = {0.0: list(own)}
        for place, candidates in near.items():
            if candidates:
                best = min(_trouble(cells, own[column], column, passing, place) for column in candidates)
                cells[best.row][best.column] = letter


class _Trouble(NamedTuple):
    """What is wrong with a place for a letter, the worst first."""

    lettered: bool  # beside another letter
    shared: bool
    steep: bool
    distance: float
    row: int
    column: int


def _trouble(
    cells: list[list[str]], spanned: range, column: int, passing: Counter[tuple[int, int]], wanted: float
) -> _Trouble:
    row = spanned[len(spanned) // 2]
    lettered = not set(LETTERS).isdisjoint(cells[row][max(column - 1, 0) : column + 2])
    return _Trouble(lettered, passing[row, column] > 1, len(spanned) > 1, abs(column - wanted), row, column)


def _rows(heights: Heights) -> dict[int, range]:
    """The rows that a line runs through, by column of characters."""
    rows = {}
    for column in range(len(heights) // 2):
        dots = [dot for height in heights[2 * column : 2 * column + 2] if height for dot in height]
        if dots:
            rows[column] = range(min(dots) // 4, max(dots) // 4 + 1)
    return rows


def _legend(names: Sequence[str], lines: Sequence[Heights]) -> list[str]:
    """Letters and names, side by side as far as they fit."""
    entries = []
    for index, (letter, name) in enumerate(zip(LETTERS, names, strict=False)):
        first = next(other for other in range(index + 1) if lines[other] == lines[index])
        entries.append(f"{letter}  {name}" + (f" (on {LETTERS[first]})" if first < index and any(lines[index]) else ""))
    width = max(map(len, entries)) + 3
    across = (WIDTH + 3) // width
    if across < 2:
        return [part for entry in entries for part in textwrap.wrap(entry, WIDTH, subsequent_indent="   ")]
    down = math.ceil(len(entries) / across)
    return ["".join(entry.ljust(width) for entry in entries[row::down]).rstrip() for row in range(down)]
