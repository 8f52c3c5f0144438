"""Schedules to look at: in the terminal, and as a picture."""

import importlib
import itertools
import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxopt import checks
from mlxopt.base import Schedule
from mlxopt.inspection.chart import LETTERS, chart, count_axis, value_axis
from mlxopt.inspection.lines import Line, power_of_ten, through, without_power
from mlxopt.schedules import Curve

MOST_COUNTS = 10_000
"""A longer run is sampled at this many counts."""

COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"),
    *("#56B4E9", "#7F3C8D", "#8B5A2B", "#93A800", "#555555"),
)
"""Told apart by colour-blind readers, too."""


def plot(schedules: Schedule | Mapping[str, Schedule], steps: int, path: str | os.PathLike[str] | None = None) -> str:
    """Draw schedules over the counts from 0 to ``steps``: as text, and as a picture if there is a path for it.

    Jumps stand upright. Several curves have letters in the text; where they coincide, letters or dashes take turns.
    Runs of more than 10,000 steps are sampled, and what is not finite is left out and named. Pictures need matplotlib:
    ``pip install 'mlxopt[plot]'``. No window opens, and pyplot is left alone.

    Args:
        schedules: Any function from a count to a number, or a dict of such functions by name.
        steps: Last count.
        path: File to save a picture in; its ending says in which format (".png", ".svg", ".pdf").

    Returns:
        A chart of 80 columns to print.

    Example:
        >>> from mlxopt import cosine_decay
        >>> print(plot({"rate": cosine_decay(0.1, 10)}, 20).splitlines()[2])
        0.100 ┤⠦⠤⢤⣀⡀
    """
    checks.whole("plot", low=1, steps=steps)
    named = _by_name(schedules)
    draw = None if path is None else _painter(Path(path))
    points = min(steps, MOST_COUNTS)
    counts = [index * steps // points for index in range(points + 1)]
    curves = {name: _values(name, schedule, counts) for name, schedule in named.items()}
    exponent = power_of_ten(value for values in curves.values() for value in values)
    gaps = {name: _gap(values, counts) for name, values in curves.items()}
    lines = {
        name: through(counts, [without_power(value, exponent) for value in values]) for name, values in curves.items()
    }
    if draw is not None:
        draw(lines, gaps, exponent)
    return "\n".join([chart(lines, steps, exponent), *(f"{name}: {gap}" for name, gap in gaps.items() if gap)])


def _by_name(schedules: Any) -> dict[str, Schedule]:
    named = schedules if isinstance(schedules, Mapping) else {_name(schedules): schedules}
    if not 1 <= len(named) <= len(LETTERS):
        raise ValueError(f"plot: between 1 and {len(LETTERS)} schedules fit a chart, got {len(named)}. Draw several.")
    for schedule in named.values():
        if isinstance(schedule, (int, float, mx.array)):
            raise TypeError(
                f"plot: a schedule must be a function, got {schedule!r}. Use constant_schedule({schedule})."
            )
        if not callable(schedule):
            raise TypeError(f"plot: a schedule must be a function, got {schedule!r}. Pass one, or a dict of them.")
    return {str(name): schedule for name, schedule in named.items()}


def _name(schedule: Any) -> str:
    return repr(schedule) if isinstance(schedule, Curve) else getattr(schedule, "__name__", type(schedule).__name__)


def _values(name: str, schedule: Schedule, counts: list[int]) -> list[float]:
    """The values at all counts at once, or one by one if the schedule does not take arrays."""
    try:
        curve = schedule(mx.array(counts))
        if isinstance(curve, mx.array) and curve.shape == (len(counts),):
            listed: Any = curve.astype(mx.float32).tolist()
            return [float(value) for value in listed]
    except Exception:  # whatever a function raises that was written for one number
        pass
    values = []
    for count in counts:
        value = schedule(count)
        try:
            values.append(float(value))
        except OverflowError:  # an integer beyond all floats
            values.append(math.inf if value > 0 else -math.inf)
        except (TypeError, ValueError):
            raise TypeError(
                f"plot: the schedule '{name}' must return a number, got {value!r} at count {count}. Return a float."
            ) from None
    return values


def _gap(values: Sequence[float], counts: Sequence[int]) -> str:
    """What a line cannot show: where a curve is not finite."""
    odd = [(count, value) for count, value in zip(counts, values, strict=True) if not math.isfinite(value)]
    if not odd:
        return ""
    first, value = odd[0]
    return f"not finite at {len(odd):,} of {len(counts):,} counts, first {value} at {first:,}"


# Pictures

Draw = Callable[[Mapping[str, Line], Mapping[str, str], int], None]


def _painter(path: Path) -> Draw:
    """A function that draws into a file; raises if it could not."""
    try:
        figure = importlib.import_module("matplotlib.figure").Figure(dpi=150, layout="constrained")
    except ImportError as error:
        raise ImportError(
            "plot: a picture needs matplotlib, which is not installed. Run pip install 'mlxopt[plot]', "
            "or leave the path out for a chart in text."
        ) from error
    formats = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in formats:
        raise ValueError(
            f"plot: path must end with a format of pictures, got {str(path)!r}. Use one of {', '.join(formats)}."
        )

    def draw(lines: Mapping[str, Line], gaps: Mapping[str, str], exponent: int) -> None:
        _draw(figure, lines, gaps, exponent)
        figure.savefig(path)

    return draw


def _draw(figure: Any, lines: Mapping[str, Line], gaps: Mapping[str, str], exponent: int) -> None:
    figure.set_size_inches(6.4 if len(lines) == 1 else 8.4, 3.6)
    axes = figure.subplots()
    upwards = value_axis([value for line in lines.values() for value in line.y], exponent)
    across = count_axis(int(next(iter(lines.values())).x[-1]))
    drawn = list(lines.values())
    for index, (name, line) in enumerate(lines.items()):
        look = {"color": COLORS[index % len(COLORS)], "linewidth": 1.8, "clip_on": False}
        title = f"{name} ({gaps[name]})" if gaps[name] else name
        axes.plot(
            line.x,
            [value if math.isfinite(value) else math.nan for value in line.y],
            linestyle=("-", "--", ":")[index // len(COLORS)],
            marker="o" if len(line.measured) <= 40 else None,
            markevery=line.measured,
            markersize=4,
            zorder=3,
            label=textwrap.fill(title, 72 if len(lines) == 1 else 32),
            **look,
        )
        hidden, layers = _hidden(line, drawn[index + 1 :], (upwards.high - upwards.low) / 200)
        if layers:
            axes.plot(line.x, hidden, linestyle=(0, (4, 4 * layers)), zorder=4, **look)
    axes.set_ylim(upwards.low, upwards.high)
    axes.set_yticks(upwards.ticks, upwards.labels)
    axes.set_xlim(across.low, across.high)
    axes.set_xticks(across.ticks, across.labels)
    axes.set_xlabel("count")
    axes.grid(axis="y", linewidth=0.6, alpha=0.4)
    axes.tick_params(length=0, pad=7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if len(lines) == 1:
        axes.set_title(axes.lines[0].get_label(), fontsize="medium", loc="left", pad=12)
    else:
        figure.legend(loc="outside right upper", frameon=False)


def _hidden(line: Line, later: Sequence[Line], near: float) -> tuple[list[float], int]:
    """A line where later ones lie on it, NaN elsewhere, and how many of them do: dashes on top show it there."""
    layers = [
        sum(abs(line.y[mine] - other.y[theirs]) < near for other, theirs in zip(later, others, strict=True))
        for mine, *others in zip(line.measured, *(other.measured for other in later), strict=True)
    ]
    hidden = [math.nan] * len(line.y)
    for index, (before, here) in enumerate(itertools.pairwise(layers)):
        if before and here:
            stretch = slice(line.measured[index], line.measured[index + 1] + 1)
            hidden[stretch] = line.y[stretch]
    return hidden, max(layers)
