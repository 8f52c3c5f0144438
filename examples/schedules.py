"""All schedules of the library at a glance: one picture, or one chart in the terminal for each."""

import importlib
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx

import mlxopt as mo
from mlxopt.schedules import Curve

STEPS = 100
CYCLE = {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 5}

GALLERY = [
    mo.constant_schedule(1.0),
    mo.linear_schedule(1.0, 0.2, 60, transition_begin=20),
    mo.linear_to_zero(1.0, 80),
    mo.polynomial_schedule(1.0, 0.1, 3.0, 90),
    mo.cosine_decay(1.0, 80, 0.1),
    mo.cosine_decay_schedule(1.0, 80, alpha=0.1, exponent=2.0),
    mo.exponential_decay(1.0, 0.5, transition_steps=20),
    mo.step_decay(1.0, 0.5, 20),
    mo.rex_schedule(1.0, 90),
    mo.inverse_sqrt_schedule(1.0, 10),
    mo.schedules.relative_step_schedule(0.4, 0.05),
    mo.warmup_constant_schedule(0.0, 1.0, 20),
    mo.warmup_cosine_decay_schedule(0.0, 1.0, 10, 90, 0.1),
    mo.warmup_exponential_decay_schedule(0.0, 1.0, 10, 20, 0.5),
    mo.wsd_schedule(1.0, 10, 50, 30, shape="1-sqrt"),
    mo.linear_onecycle_schedule(90, 1.0),
    mo.cosine_onecycle_schedule(90, 1.0),
    mo.sgdr_schedule([{**CYCLE, "decay_steps": 20}, {**CYCLE, "decay_steps": 80}]),
    mo.join_schedules([mo.linear_schedule(0.2, 1.0, 30), mo.cosine_decay(1.0, 40)], [40]),
    mo.piecewise_constant_schedule(1.0, {30: 0.5, 60: 0.4, 80: 0.5}),
    mo.piecewise_interpolate_schedule("cosine", 1.0, {30: 0.5, 60: 1.5, 90: 0.2}),
    mo.with_warmup(mo.cosine_decay(1.0, 70), 20),
    mo.scaled(mo.cosine_decay(1.0, 80), mo.step_decay(1.0, 0.6, 20)),
    mo.shifted(mo.cosine_decay(1.0, 60), -30),
    mo.repeated(mo.cosine_decay(1.0, 25, 0.1), 25),
    mo.clipped(mo.cosine_decay(1.0, 90), 0.2, 0.8),
]


def by_name(gallery: list[Curve]) -> dict[str, Curve]:
    """Schedules by the name of their factory: what they print begins with it."""
    return {repr(schedule).partition("(")[0]: schedule for schedule in gallery}


def picture(schedules: Mapping[str, Curve], path: Path) -> None:
    """Save a grid of curves, all to one scale."""
    across, down = 5, math.ceil(len(schedules) / 5)
    figure = importlib.import_module("matplotlib.figure").Figure((11, 1.7 * down), dpi=130, layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat
    counts = mx.arange(STEPS + 1)
    for axes, (name, schedule) in zip(panels, schedules.items(), strict=False):
        curve = schedule(counts).tolist()
        axes.plot(counts.tolist(), curve, color="#0072B2", linewidth=1.8)
        axes.fill_between(counts.tolist(), curve, color="#0072B2", alpha=0.1, linewidth=0)
        axes.set_title(name, fontsize=8, loc="left")
        axes.set(xlim=(0, STEPS), ylim=(0, 1.05), xticks=[0, STEPS // 2, STEPS], yticks=[0, 0.5, 1])
    for index, axes in enumerate(figure.axes):
        axes.tick_params(length=0, labelsize=7, labelbottom=index + across >= len(schedules))
        axes.grid(linewidth=0.6, alpha=0.4)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_visible(index < len(schedules))
    figure.savefig(path)


def main(out: str = ".") -> dict[str, Curve]:
    """Show the gallery, and return the schedules by name."""
    schedules = by_name(GALLERY)
    if importlib.util.find_spec("matplotlib"):
        path = Path(out) / "schedules.png"
        picture(schedules, path)
        print(f"{len(schedules)} schedules: {path}")
    else:
        print("\n\n".join(mo.plot(schedule, STEPS) for schedule in schedules.values()))
    return schedules


if __name__ == "__main__":
    main()
