"""Swap the optimizer and nothing else: one model and one budget of steps for ten, each at its best learning rate.

A toy problem and a single seed: the order among them says nothing about other models.
The picture goes into this folder, or another: ``python examples/swapping.py examples/pictures``.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from quickstart import logits, loss_fn, network, spirals

import mlxopt as mo

STEPS = 150
TARGET = 0.1

OPTIMIZERS = {
    "sgd": mo.sgd(1.0),
    "momentum": mo.sgd(1.0, momentum=0.9, nesterov=True),
    "signum": mo.signum(1.0),
    "lion": mo.lion(1.0),
    "adagrad": mo.adagrad(1.0),
    "rmsprop": mo.rmsprop(1.0),
    "adam": mo.adam(1.0),
    "nadam": mo.nadam(1.0),
    "radam": mo.radam(1.0),
    "adabelief": mo.adabelief(1.0),
}

COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#C88A00", "#56B4E9", "#7F3C8D", "#8B5A2B", "#93A800", "#A3244A"]
"""Of the curves, the best optimizer first."""


def mean(losses: list[float]) -> float:
    return sum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.inf


class Result(NamedTuple):
    """What became of a run."""

    rate: float
    losses: list[float]
    bytes_per_parameter: float
    params: Any

    @property
    def final(self) -> float:
        """Mean loss of the last ten steps; infinite if there is a NaN among them."""
        return mean(self.losses[-10:])

    @property
    def smooth(self) -> list[float]:
        """At each step the mean of the last ten losses."""
        return [mean(self.losses[max(0, index - 9) : index + 1]) for index in range(len(self.losses))]

    @property
    def steps_to_target(self) -> int | None:
        return next((index for index, loss in enumerate(self.losses) if loss <= TARGET), None)


def grid_rate(index: int) -> float:
    """Learning rates, two to a decade: ..., 0.03, 0.1, 0.3, 1, 3, ..."""
    return float(f"{10 ** (index / 2):.0e}")


def best_run(optimizer: mo.GradientTransformation, steps: int, start: Any, data: Any) -> Result:
    """Train from the same start with a grid of learning rates, each falling to zero, and keep the best run.

    The grid grows until the best rate has worse ones on both sides. The rate stands in the state: setting it there
    does not compile the step anew.
    """
    tx = mo.chain(mo.clip_by_global_norm(1.0), optimizer, mo.scale_by_schedule(mo.cosine_decay(1.0, steps)))
    step = mo.compile_step(loss_fn, tx)

    def run(rate: float) -> Result:
        params, state = start, mo.tree.set(tx.init(start), learning_rate=rate)
        losses = []
        for _ in range(steps):
            params, state, loss = step(params, state, *data)
            mx.eval(params, state)
            losses.append(loss.item())
        return Result(rate, losses, mo.tree.nbytes(state) / mo.tree.size(params), params)

    runs = {index: run(grid_rate(index)) for index in range(-4, 1)}
    while True:
        best = min(runs, key=lambda index: runs[index].final)
        missing = {best - 1, best + 1} - set(runs)
        if not missing:
            return runs[best]
        runs.update({index: run(grid_rate(index)) for index in missing})


def picture(results: Mapping[str, Result], data: Any, path: Path) -> None:
    """Save the losses of all, and beside them what each network sees, in the colours of their curves."""
    figure = importlib.import_module("matplotlib.figure").Figure((16, 6), dpi=100, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[4, 7], wspace=0.02)
    axes = left.subplots()
    for color, result in zip(COLORS, results.values(), strict=False):
        axes.plot(result.smooth, color=color, linewidth=2.4)
    axes.set(yscale="log", xlim=(0, None))
    axes.set_title("loss, mean of ten steps", fontsize=17, loc="left")
    axes.set_xlabel("step", fontsize=15)
    axes.tick_params(labelsize=14)
    axes.grid(axis="y", linewidth=0.6, alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)

    right.suptitle("One network, ten optimizers: what each has learned of two spirals", fontsize=17, x=0, ha="left")
    side = mx.linspace(-1.1, 1.1, 100)
    points = mx.stack(list(mx.meshgrid(side, side)), axis=-1).reshape(-1, 2)
    (x, y), across = data, side.tolist()
    panels = right.subplots(2, math.ceil(len(results) / 2), squeeze=False).flat
    for color, (name, result), panel in zip(COLORS, results.items(), panels, strict=False):
        seen = logits(result.params, points).reshape(100, 100).tolist()
        panel.contourf(across, across, seen, levels=[-math.inf, 0, math.inf], colors=["#F4F4F4", color], alpha=0.3)
        panel.scatter(*x.T.tolist(), c=[color if spiral else "#777777" for spiral in y.tolist()], s=10, linewidth=0)
        panel.set(aspect="equal", xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        panel.set_title(name, fontsize=18, color=color, fontweight="bold")
        panel.set_xlabel(f"loss {result.final:.1g}, rate {result.rate:g}", fontsize=14)
    figure.savefig(path)
    image = importlib.import_module("PIL.Image").open(path)  # matplotlib brings it
    image.convert("RGB").quantize(128).save(path, optimize=True)  # a third of the bytes


def main(steps: int = STEPS, out: str = ".") -> dict[str, Result]:
    """Run all optimizers, show the table and the picture, and return the results, best first."""
    data_key, init_key = mx.random.split(mx.random.key(0))
    data, start = spirals(200, data_key), network([2, 32, 32, 1], init_key)
    print(f"Two spirals, {steps} steps each, at the best learning rate of a grid.\n")

    results = {name: best_run(optimizer, steps, start, data) for name, optimizer in OPTIMIZERS.items()}
    results = dict(sorted(results.items(), key=lambda item: item[1].final))
    print(f"{'optimizer':<10} {'rate':>6} {'loss':>8} {f'steps to {TARGET}':>12} {'bytes/parameter':>16}")
    for name, result in results.items():
        reached = "-" if result.steps_to_target is None else result.steps_to_target
        print(f"{name:<10} {result.rate:6g} {result.final:8.2g} {reached:>12} {result.bytes_per_parameter:16.2f}")

    if importlib.util.find_spec("matplotlib"):
        path = Path(out) / "swapping.png"
        picture(results, data, path)
        print(f"\nCurves, and what each network sees: {path}")
    else:
        print("\nLogarithm of the loss to base 10:\n")
        powers = {name: [math.log10(max(loss, 1e-9)) for loss in result.smooth] for name, result in results.items()}
        print(mo.plot({name: power.__getitem__ for name, power in powers.items()}, steps - 1))
    return results


if __name__ == "__main__":
    main(out=sys.argv[1] if sys.argv[1:] else ".")
