"""All schedules of the library at a glance: one picture, or a line of blocks for each in the terminal.

The picture goes into this folder, or another: ``python examples/schedules.py examples/pictures``.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

import mlxopt as mo

Schedule = Callable[[mx.array], mx.array]

STEPS = 100
CYCLE = {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 5}


def your_own(count: mx.array) -> mx.array:
    """Any function from a count to a value is a schedule."""
    return 0.5 + 0.4 * mx.cos(count / 6) * mx.exp(-count / 60)


GALLERY: dict[str, list[Schedule]] = {
    "falling": [
        mo.linear_schedule(1.0, 0.2, 60, transition_begin=20),
        mo.linear_to_zero(1.0, 80),
        mo.polynomial_schedule(1.0, 0.1, 3.0, 90),
        mo.cosine_decay(1.0, 80, 0.1),
        mo.cosine_decay_schedule(1.0, 80, alpha=0.1, exponent=2.0),
        mo.exponential_decay(1.0, 0.5, transition_steps=20),
        mo.rex_schedule(1.0, 90),
    ],
    "rising first": [
        mo.inverse_sqrt_schedule(1.0, 10),
        mo.schedules.relative_step_schedule(0.4, 0.05),
        mo.warmup_constant_schedule(0.0, 1.0, 20),
        mo.half_life_schedule(0.1, 0.97, 80),
        mo.warmup_cosine_decay_schedule(0.0, 1.0, 10, 90, 0.1),
        mo.warmup_exponential_decay_schedule(0.0, 1.0, 10, 20, 0.5),
        mo.wsd_schedule(1.0, 10, 50, 30, shape="1-sqrt"),
    ],
    "in pieces": [
        mo.constant_schedule(1.0),
        mo.step_decay(1.0, 0.5, 20),
        mo.piecewise_constant_schedule(1.0, {30: 0.5, 60: 0.4, 80: 0.5}),
        mo.piecewise_interpolate_schedule("cosine", 1.0, {30: 0.5, 60: 1.5, 90: 0.2}),
        mo.linear_onecycle_schedule(90, 1.0),
        mo.cosine_onecycle_schedule(90, 1.0),
        mo.sgdr_schedule([{**CYCLE, "decay_steps": 20}, {**CYCLE, "decay_steps": 80}]),
    ],
    "composed": [
        mo.join_schedules([mo.linear_schedule(0.2, 1.0, 30), mo.cosine_decay(1.0, 40)], [40]),
        mo.with_warmup(mo.cosine_decay(1.0, 70), 20),
        mo.scaled(mo.cosine_decay(1.0, 80), mo.step_decay(1.0, 0.6, 20)),
        mo.shifted(mo.cosine_decay(1.0, 60), -30),
        mo.repeated(mo.cosine_decay(1.0, 25, 0.1), 25),
        mo.clipped(mo.cosine_decay(1.0, 90), 0.2, 0.8),
        your_own,
    ],
}
COLORS = ["#0072B2", "#D55E00", "#CC79A7", "#009E73"]


def name(schedule: Schedule) -> str:
    """Its factory, with which the expression begins that it prints, or its own name."""
    return getattr(schedule, "__name__", repr(schedule).partition("(")[0])


def two_lines(text: str) -> str:
    """A long name, broken at the underscore next to its middle."""
    if len(text) < 20:
        return text
    breaks = [index + 1 for index, letter in enumerate(text) if letter == "_"]
    middle = min(breaks, key=lambda index: abs(index - len(text) / 2))
    return f"{text[:middle]}\n{text[middle:]}"


def blocks(schedule: Schedule, columns: int = 44) -> str:
    """A curve between 0 and 1 in one line, in eighths of its height."""
    counts = mx.array([column * STEPS // (columns - 1) for column in range(columns)])
    eighths: Any = mx.round(8 * schedule(counts)).astype(mx.int32).tolist()
    return "".join(" ▁▂▃▄▅▆▇█"[min(max(height, 0), 8)] for height in eighths).rstrip()


def picture(gallery: Mapping[str, list[Schedule]], path: Path) -> None:
    """Save a row of curves for each group, all to one scale."""
    across, down = max(map(len, gallery.values())), len(gallery)
    figure = importlib.import_module("matplotlib.figure").Figure((16, 1.9 * down), dpi=100, layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True)
    counts = mx.arange(STEPS + 1)
    for row, (group, schedules), color in zip(panels, gallery.items(), COLORS, strict=True):
        row[0].set_ylabel(group, fontsize=14, color=color, fontweight="bold")
        for axes, schedule in zip(row, schedules, strict=False):
            curve = schedule(counts).tolist()
            axes.step(counts.tolist(), curve, where="post", color=color, linewidth=2, snap=False)
            axes.fill_between(counts.tolist(), curve, step="post", color=color, alpha=0.12, linewidth=0)
            axes.set_title(two_lines(name(schedule)), fontsize=11, loc="left")
        for axes in row:
            axes.set(xlim=(0, STEPS), ylim=(0, 1.05), xticks=[0, STEPS // 2, STEPS], yticks=[0, 0.5, 1])
            axes.tick_params(length=0, labelsize=10)
            axes.grid(linewidth=0.6, alpha=0.4)
            axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path)
    image = importlib.import_module("PIL.Image").open(path)  # matplotlib brings it
    image.convert("RGB").quantize(128).save(path, optimize=True)  # a third of the bytes


def main(out: str = ".") -> list[str]:
    """Show the gallery, and return the names of what is in it."""
    names = [name(schedule) for schedules in GALLERY.values() for schedule in schedules]
    if importlib.util.find_spec("matplotlib"):
        path = Path(out) / "schedules.png"
        picture(GALLERY, path)
        print(f"{len(names)} schedules: {path}")
    else:
        for group, schedules in GALLERY.items():
            print(f"{group}, counts 0 to {STEPS}")
            for schedule in schedules:
                print(f"  {name(schedule):34}{blocks(schedule)}")
        print("\nmlxopt.plot draws one of them large, or several into one chart.")
    return names


if __name__ == "__main__":
    main(out=sys.argv[1] if sys.argv[1:] else ".")
