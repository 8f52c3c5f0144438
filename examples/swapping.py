"""Swap the optimizer and nothing else: one model, one budget and one grid of learning rates for each of ten."""

import importlib
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from quickstart import loss_fn, network, spirals

import mlxopt as mo

STEPS = 300
RATES = [0.01, 0.03, 0.1, 0.3, 1.0]
TARGET = 0.1

OPTIMIZERS = {
    "sgd": mo.sgd(1.0),
    "sgd with momentum": mo.sgd(1.0, momentum=0.9, nesterov=True),
    "signum": mo.signum(1.0),
    "lion": mo.lion(1.0),
    "adagrad": mo.adagrad(1.0),
    "rmsprop": mo.rmsprop(1.0),
    "adam": mo.adam(1.0),
    "nadam": mo.nadam(1.0),
    "radam": mo.radam(1.0),
    "adabelief": mo.adabelief(1.0),
}


class Result(NamedTuple):
    """What became of a run."""

    rate: float
    losses: list[float]
    bytes_per_parameter: float

    @property
    def final(self) -> float:
        """Mean loss of the last ten steps; infinite if there is a NaN among them."""
        last = self.losses[-10:]
        return sum(last) / len(last) if all(map(math.isfinite, last)) else math.inf

    @property
    def steps_to_target(self) -> int | None:
        return next((index for index, loss in enumerate(self.losses) if loss <= TARGET), None)


def best_run(optimizer: mo.GradientTransformation, steps: int, rates: list[float], start: Any, data: Any) -> Result:
    """Train from the same start with every learning rate, each falling to zero, and keep the best run.

    The rate stands in the state: setting it there does not compile the step anew.
    """
    tx = mo.chain(mo.clip_by_global_norm(1.0), optimizer, mo.scale_by_schedule(mo.cosine_decay(1.0, steps)))
    step, results = mo.compile_step(loss_fn, tx), []
    for rate in rates:
        params, state = start, mo.tree.set(tx.init(start), learning_rate=rate)
        losses = []
        for _ in range(steps):
            params, state, loss = step(params, state, *data)
            mx.eval(params, state)
            losses.append(loss.item())
        results.append(Result(rate, losses, mo.tree.nbytes(state) / mo.tree.size(params)))
    return min(results, key=lambda result: result.final)


def picture(results: Mapping[str, Result], path: Path) -> None:
    """Save the curves, the best optimizer first in the legend."""
    figure = importlib.import_module("matplotlib.figure").Figure((8.4, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"]
    for index, (name, result) in enumerate(results.items()):
        style = "-" if index < len(colors) else "--"
        axes.plot(result.losses, style, color=colors[index % len(colors)], linewidth=1.6, label=name)
    axes.axhline(TARGET, color="black", linewidth=0.8, linestyle=":")
    axes.set(yscale="log", xlabel="step", ylabel="loss", xlim=(0, None), ylim=(1e-4, 2))
    axes.grid(axis="y", linewidth=0.6, alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path)


def main(steps: int = STEPS, rates: list[float] = RATES, out: str = ".") -> dict[str, Result]:
    """Run all optimizers, show the table and the curves, and return the results, best first."""
    data_key, init_key = mx.random.split(mx.random.key(0))
    data, start = spirals(200, data_key), network([2, 32, 32, 1], init_key)
    print(f"Two spirals, {steps} steps each; learning rates {', '.join(map(str, rates))}.\n")

    results = {name: best_run(optimizer, steps, rates, start, data) for name, optimizer in OPTIMIZERS.items()}
    results = dict(sorted(results.items(), key=lambda item: item[1].final))
    print(f"{'optimizer':<18} {'rate':>6} {'loss':>8} {f'steps to {TARGET}':>12} {'bytes/parameter':>16}")
    for name, result in results.items():
        reached = "-" if result.steps_to_target is None else result.steps_to_target
        print(f"{name:<18} {result.rate:6g} {result.final:8.2g} {reached:>12} {result.bytes_per_parameter:16.2f}")

    if importlib.util.find_spec("matplotlib"):
        path = Path(out) / "swapping.png"
        picture(results, path)
        print(f"\nCurves: {path}")
    else:
        heights = {
            name: [math.log10(min(max(x, 1e-4), 1.0)) for x in result.losses] for name, result in results.items()
        }
        print("\nLogarithm of the loss to base 10, cut at -4 and 0:\n")
        print(mo.plot({name: height.__getitem__ for name, height in heights.items()}, steps - 1))
    return results


if __name__ == "__main__":
    main()
