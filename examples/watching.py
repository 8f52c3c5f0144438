"""Watch the training of a module: a progress bar, what the optimizer's state tells, a picture of loss and rate."""

import importlib
import importlib.util
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from quickstart import spirals, written_out

import mlxopt as mo
from mlxopt.interop import functional

STEPS = 1500


def network(width: int = 64) -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))


def loss_fn(model: nn.Module, x: mx.array, y: mx.array) -> mx.array:
    return nn.losses.binary_cross_entropy(model(x).squeeze(-1), y, reduction="mean")


def bar(done: int, steps: int, **numbers: float) -> None:
    """Draw the progress over what was drawn last; nothing where nobody watches."""
    if sys.stdout.isatty():
        filled = 24 * done // steps
        told = "  ".join(f"{name} {value:<8.2g}" for name, value in numbers.items())
        end = "\n\n" if done == steps else ""
        print(f"\r{'█' * filled}{'░' * (24 - filled)} {done:5d}/{steps}  {told}", end=end, flush=True)


def picture(losses: list[float], rates: list[float], path: Path) -> None:
    """Save the loss above the learning rate."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(6.4, 4.8), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[2, 1])
    smooth = [sum(losses[max(0, index - 24) : index + 1]) / min(25, index + 1) for index in range(len(losses))]
    upper.plot(losses, color="#0072B2", linewidth=0.8, alpha=0.35, label="each batch")
    upper.plot(smooth, color="#0072B2", linewidth=1.8, label="mean of the last 25")
    upper.set(ylabel="loss", yscale="log")
    upper.legend(frameon=False)
    lower.plot(rates, color="#D55E00", linewidth=1.8)
    lower.set(ylabel="learning rate", xlabel="step", ylim=(0, None), xlim=(0, len(rates) - 1))
    for axes in (upper, lower):
        axes.grid(axis="y", linewidth=0.6, alpha=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    figure.savefig(path)


def main(steps: int = STEPS, out: str = ".") -> dict[str, list[float]]:
    """Train, show how it goes, and return what was measured at every step."""
    data_key, test_key = mx.random.split(mx.random.key(0))
    x, y = spirals(400, data_key)
    mx.random.seed(0)
    model = network()

    # A monitor sees the updates that pass its place: here the steps themselves, since it stands last.
    tx = mo.chain(
        mo.clip_by_global_norm(1.0),
        mo.adamw(mo.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 10, steps)),
        mo.monitor({"update_norm": mo.tree.norm, "update_ratio": mo.update_ratio}),
    )
    fields = {"gradient": "global_norm", "update": "update_norm", "ratio": "update_ratio", "rate": "learning_rate"}
    history: dict[str, list[mx.array]] = {name: [] for name in ["loss", *fields]}

    params = model.trainable_parameters()
    state, step = tx.init(params), mo.compile_step(functional(model, loss_fn), tx)
    for done in range(1, steps + 1):
        chosen = mx.random.randint(0, len(x), (64,), key=mx.random.key(done))
        params, state, loss = step(params, state, x[chosen], y[chosen])
        model.update(params)  # before they are computed: the old ones are not needed, and give them their memory
        mx.eval(params, state, loss)
        history["loss"].append(loss)
        for name, field in fields.items():
            history[name].append(mo.tree.get(state, field))
        if done % max(1, steps // 100) == 0 or done == steps:
            bar(done, steps, loss=float(loss), ratio=float(history["ratio"][-1]))

    numbers = {name: [float(value) for value in values] for name, values in history.items()}
    print(f"{written_out(repr(tx))}\n\n{'step':>6}" + "".join(f"{name:>11}" for name in numbers))
    for index in [*range(0, steps - 1, max(1, steps // 10)), steps - 1]:
        print(f"{index + 1:6d}" + "".join(f"{values[index]:11.2g}" for values in numbers.values()))
    new_x, new_y = spirals(1000, test_key)
    right = mx.mean((model(new_x).squeeze(-1) > 0) == new_y).item()
    print(f"\n{right:.1%} of 1000 new points are classified correctly.")

    if importlib.util.find_spec("matplotlib"):
        path = Path(out) / "watching.png"
        picture(numbers["loss"], numbers["rate"], path)
        print(f"\nLoss and learning rate: {path}")
    else:
        for name in ("loss", "rate"):
            print("\n" + mo.plot({name: numbers[name].__getitem__}, steps - 1))
    return numbers


if __name__ == "__main__":
    main()
