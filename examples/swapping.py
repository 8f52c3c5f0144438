"""Swap the optimizer and nothing else: one network and one budget of steps for thirty, over a grid of learning rates.

A toy problem and a single seed: the order among them says nothing about other models.
The picture goes into this folder, or another: ``python examples/swapping.py examples/pictures``.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from quickstart import loss_fn, network, spirals

import mlxopt as mo

STEPS, TARGET = 150, 0.1

START, LOWEST, HIGHEST = {-4, -2, 0}, -8, 6
"""Of the grid of rates, in half decades: 0.01, 0.1 and 1, and how far it may grow: to 0.0001 and 1000."""

BOTTOM, TOP = -3.5, 0.3
"""Logarithms of the losses between which curves are shown."""


def momentum(rate: Any) -> mo.GradientTransformation:
    return mo.sgd(rate, momentum=0.9, nesterov=True)


def schedule_free(rate: Any) -> mo.GradientTransformation:
    return mo.schedule_free_adamw(rate)


FAMILIES: dict[str, list[Any]] = {
    "gradient or sign": [mo.sgd, momentum, mo.signum, mo.lion, mo.tiger],
    "sums of squares": [mo.adagrad, mo.adadelta, mo.rmsprop, mo.sm3, mo.madgrad],
    "Adam": [mo.adam, mo.adamax, mo.amsgrad, mo.nadam, mo.radam],
    "after Adam": [mo.adabelief, mo.yogi, mo.adan, mo.adopt, mo.ademamix],
    "layer by layer": [mo.lars, mo.lamb, mo.novograd, mo.fromage, mo.muon],
    "own schedule": [mo.prodigy, mo.dog, mo.cocob, mo.momo, schedule_free],
}
COLORS = ["#0072B2", "#B87800", "#009E73", "#7F3C8D", "#D55E00", "#A3244A"]
MADE_FOR_ONE = ["prodigy", "dog", "cocob"]
"""They find their rates, and are meant to be run at 1, a factor: here other factors are tried too."""


class Run(NamedTuple):
    """What became of one learning rate."""

    loss: float  # on new points after the last step; infinite if it is no number
    reached: int | None  # steps until the mean loss of ten batches was TARGET
    bytes_per_parameter: float


class Sweep(NamedTuple):
    """What became of one optimizer: a run for each rate that was tried, by its place in the grid."""

    runs: dict[int, Run]

    @property
    def best(self) -> int:
        """Where the loss is lowest; of equal ones the largest rate."""
        return min(self.runs, key=lambda index: (self.runs[index].loss, -index))

    @property
    def lowest(self) -> Run:
        return self.runs[self.best]

    @property
    def beyond(self) -> str:
        """The end of the grid beyond which the best rate lies; nothing where others were tried on both sides."""
        return "<" if self.best - 1 not in self.runs else ">" if self.best + 1 not in self.runs else ""

    @property
    def rate(self) -> str:
        return f"{self.beyond}{grid_rate(self.best):g}"

    @property
    def loss(self) -> str:
        return f"{'<' if self.beyond else ''}{self.lowest.loss:.1g}"

    @property
    def curve(self) -> tuple[list[float], list[float]]:
        """Logarithms of rates and losses; a loss beyond the frame stands at its edge."""
        logarithms = [math.log10(max(self.runs[index].loss, 1e-30)) for index in sorted(self.runs)]
        return [index / 2 for index in sorted(self.runs)], [min(max(loss, BOTTOM), TOP) for loss in logarithms]


def grid_rate(index: int) -> float:
    """Learning rates, two to a decade: ..., 0.03, 0.1, 0.3, 1, 3, ..."""
    return float(f"{10 ** (index / 2):.0e}")


def trainer(optimizer: Any, start: Any, batches: list[Any], new: Any) -> Callable[[float], Run]:
    """A function that trains from the same start at any rate, which falls to zero.

    Rate and fall stand in the state: setting the rate there does not compile the step anew.
    """
    # The average of schedule_free stands in the place of a fall.
    fall = mo.constant_schedule(1.0) if optimizer is schedule_free else mo.cosine_decay(1.0, len(batches))
    tx = mo.inject_hyperparams(lambda rate, share: optimizer(rate * share))(1.0, fall)
    step = mo.compile_step(loss_fn, tx)

    def train(rate: float) -> Run:
        params, state = start, mo.tree.set(tx.init(start), rate=rate)
        losses = []
        for batch in batches:
            params, state, loss = step(params, state, *batch)
            mx.eval(params, state)
            losses.append(loss.item())
        ends = (end for end in range(10, len(losses) + 1) if sum(losses[end - 10 : end]) <= 10 * TARGET)
        final: Any = loss_fn(mo.eval_params(state, params), *new).item()
        size = mo.tree.nbytes(state) / mo.tree.size(params)
        return Run(final if math.isfinite(final) else math.inf, next(ends, None), size)

    return train


def sweep(train: Callable[[float], Run]) -> Sweep:
    """Try a rate of each decade, and go on beside the best and beside all that reach the target.

    In the end the best has worse ones on both sides, unless the grid has come to its own end.
    """
    result, wanted = Sweep({}), START
    while wanted:
        result.runs.update({index: train(grid_rate(index)) for index in sorted(wanted)})
        good = {index for index, run in result.runs.items() if run.loss <= TARGET} | {result.best}
        near = {index + side for index in good for side in (-1, 1)}
        wanted = {index for index in near - result.runs.keys() if LOWEST <= index <= HIGHEST}
    return result


def table(results: Mapping[str, Sweep]) -> str:
    """A line for each optimizer, the best first, and at the end those of which the best rate is not known."""
    lines = [
        f"{'':13} {'best':>7} {'':>8} {'steps to':>8} {'rates to':>8} {'bytes per':>9}  loss over rates",
        f"{'optimizer':13} {'rate':>7} {'loss':>8} {TARGET:8g} {TARGET:8g} {'parameter':>9}  0.0001 to 1000",
    ]
    for name, result in results.items():
        reached = "?" if result.beyond else result.lowest.reached or "-"
        good = f"{sum(run.loss <= TARGET for run in result.runs.values())}{'+' if result.beyond else ''}"
        bars = [" "] * (HIGHEST - LOWEST + 1)
        for rate, loss in zip(*result.curve, strict=True):
            bars[round(2 * rate) - LOWEST] = "▁▂▃▄▅▆▇█"[round(7 * (loss - BOTTOM) / (TOP - BOTTOM))]
        texts = f"{name:13} {result.rate:>7} {result.loss:>8} {reached:>8} {good:>8}"
        lines.append(f"{texts} {result.lowest.bytes_per_parameter:9.1f}  {''.join(bars)}")
    at_one = [f"{name} {results[name].runs[0].loss:.1g}" for name in MADE_FOR_ONE if name in results]
    if at_one:
        lines.append(f"\nMade for a rate of 1, and the losses there: {', '.join(at_one)}.")
    if any(result.beyond for result in results.values()):
        lines.append("\n> or <: the last rate of the grid has the lowest loss; the best lies beyond it.")
    return "\n".join(lines)


def draw(axes: Any, name: str, result: Sweep, color: str) -> None:
    """Draw the loss of one optimizer over its learning rates; mark the best one, and what is beyond the frame."""
    (rates, losses), target = result.curve, math.log10(TARGET)
    reached = [loss < target for loss in losses]
    axes.fill_between(rates, losses, target, where=reached, interpolate=True, color=color, alpha=0.25, linewidth=0)
    axes.plot(rates, losses, color=color, linewidth=2.4)
    for rate, loss in zip(rates, losses, strict=True):
        is_best = rate == result.best / 2
        shape = (is_best and result.beyond) or {BOTTOM: "v", TOP: "^"}.get(loss, "o")
        axes.plot(rate, loss, shape, color=color, markersize=11 if is_best else 4 if shape == "o" else 8, clip_on=False)
    if name in MADE_FOR_ONE:
        axes.plot(0, losses[rates.index(0)], "o", color=color, markerfacecolor="white", markersize=8)
    axes.set_title(name, fontsize=16, color=color, fontweight="bold", loc="left", pad=4)
    x, side = (0.02, "left") if result.best > 1 else (1.0, "right")
    axes.text(x, 0.04, f"rate {result.rate}\nloss {result.loss}", transform=axes.transAxes, fontsize=13, ha=side)


LEGEND = f"""\
large dot: best rate     white dot: rate 1, for which prodigy, dog and cocob are made     \
coloured: below {TARGET}     grey line: adam
triangle down or up: beyond the frame     \
triangle to the right: the last rate of the grid has the lowest loss, so the best is not known"""


def picture(results: Mapping[str, Sweep], title: str, path: Path) -> None:
    """Save a panel for each optimizer, in a column for each family."""
    figure = importlib.import_module("matplotlib.figure").Figure((16, 10.4), dpi=100)
    grid = figure.subplots(max(map(len, FAMILIES.values())), len(FAMILIES), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.045, right=0.985, bottom=0.1, top=0.87, wspace=0.14, hspace=0.38)
    for column, color, (family, optimizers) in zip(grid.T, COLORS, FAMILIES.items(), strict=False):
        column[0].text(0, 1.36, family, transform=column[0].transAxes, fontsize=18, color=color)
        members = {optimizer.__name__ for optimizer in optimizers}
        for axes, name in zip(column, [name for name in results if name in members], strict=False):
            axes.axhline(math.log10(TARGET), color="#DDDDDD", linewidth=1)
            axes.plot(*results["adam"].curve, color="#C4C4C4")
            draw(axes, name, results[name], color)
            axes.set(xlim=(-2.6, 3.2), ylim=(BOTTOM, TOP), xticks=[-2, 0, 2], yticks=[-3, -2, -1, 0])
            axes.set(xticklabels=["0.01", "1", "100"], yticklabels=["0.001", "0.01", "0.1", "1"])
            axes.tick_params(labelsize=12, length=0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color("#BBBBBB")
    figure.text(0.012, 0.96, title, fontsize=22)
    figure.text(0.012, 0.012, LEGEND, fontsize=14, linespacing=1.4)
    figure.savefig(path)
    image = importlib.import_module("PIL.Image").open(path)  # matplotlib brings it
    image.convert("RGB").quantize(128).save(path, optimize=True)  # a third of the bytes


def main(steps: int = STEPS, out: str = ".") -> dict[str, Sweep]:
    """Run all optimizers, show the table and the picture, and return the results, best first."""
    init_key, data_key, new_key = mx.random.split(mx.random.key(0), 3)
    start, new = network([2, 32, 32, 1], init_key), spirals(2000, new_key)
    batches = [spirals(200, key) for key in mx.random.split(data_key, steps)]
    count = sum(map(len, FAMILIES.values()))
    title = f"One network, {count} optimizers, {steps} steps: loss on new points over learning rate"
    print(f"{title}\n")

    results: dict[str, Sweep] = {}
    for family, optimizers in FAMILIES.items():
        print(f"{family}:", end="", flush=True)
        for optimizer in optimizers:
            results[optimizer.__name__] = sweep(trainer(optimizer, start, batches, new))
            print(f" {optimizer.__name__}", end="", flush=True)
        print()
    known_first = sorted(results.items(), key=lambda item: (item[1].beyond != "", item[1].lowest.loss))
    results = dict(known_first)
    print(f"\n{table(results)}")

    if importlib.util.find_spec("matplotlib"):
        path = Path(out) / "swapping.png"
        picture(results, title, path)
        print(f"\nThe same as a picture: {path}")
    return results


if __name__ == "__main__":
    main(out=sys.argv[1] if sys.argv[1:] else ".")
