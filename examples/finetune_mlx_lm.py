"""Fine-tune adapters in mlx-lm's own trainer: one line changes the optimizer, and a stopped run resumes exactly."""

import contextlib
import io
import itertools
import random
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers

import mlxopt as mo
from mlxopt.interop import as_optimizer, optimizers

try:
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.tuner.trainer import TrainingArgs, iterate_batches, train
    from mlx_lm.tuner.utils import linear_to_lora_layers
except ModuleNotFoundError as error:
    sys.exit(f"finetune_mlx_lm: mlx-lm must be installed, got: {error}. Run pip install 'mlxopt[lm]'.")

ITERS = 200
TOKENS, LENGTH = 48, 17


def candidates(iters: int) -> dict[str, Callable[[], Any]]:
    """The line that differs: an optimizer of MLX, the same after one changed import, a chain of your own."""
    return {
        "mlx.optimizers.AdamW": lambda: mlx.optimizers.AdamW(1e-2, bias_correction=True),
        "mlxopt.interop.optimizers.AdamW": lambda: optimizers.AdamW(1e-2, bias_correction=True),
        "as_optimizer(chain(...))": lambda: as_optimizer(
            mo.chain(
                mo.clip_by_global_norm(1.0),
                mo.scale_by_adam(),
                mo.add_decayed_weights(0.01, mask=mo.by_path("*.lora_a")),
                mo.scale_by_learning_rate(mo.warmup_cosine_decay_schedule(0.0, 1e-2, iters // 10, iters)),
            )
        ),
    }


def counting(direction: int, rows: int, seed: int) -> list[tuple[list[int], int]]:
    """Rows that count up or down by 1, 2 or 3, and where the loss starts in each: all that the trainer needs."""
    draw = random.Random(seed)
    starts = [(draw.randrange(TOKENS), direction * draw.randint(1, 3)) for _ in range(rows)]
    return [([(first + stride * index) % TOKENS for index in range(LENGTH)], 0) for first, stride in starts]


def new_model() -> Any:
    """A Llama, only smaller."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return Model(ModelArgs(model_type="llama", vocab_size=TOKENS, rms_norm_eps=1e-5, **sizes))


def with_adapters(weights: dict[str, Any]) -> Any:
    """The model with these weights, frozen, and new adapters to train."""
    mx.random.seed(1)
    model = new_model()
    model.update(weights)
    model.freeze()
    linear_to_lora_layers(model, num_layers=2, config={"rank": 4, "scale": 4.0, "dropout": 0.05})
    return model


def batches_after(done: int) -> Callable[..., Iterator[Any]]:
    """The batches of mlx-lm from one iteration on, in an order that no earlier draw of random numbers changes."""

    def batches(dataset: Any, batch_size: int, max_seq_length: int, loop: bool = False, **rest: Any) -> Iterator[Any]:
        seeds = itertools.count() if loop else [0]
        epochs = (iterate_batches(dataset, batch_size, max_seq_length, seed=seed, **rest) for seed in seeds)
        return itertools.islice(itertools.chain.from_iterable(epochs), done if loop else 0, None)

    return batches


class Run:
    """A training run: what the trainer says of it, and a checkpoint of everything that it depends on.

    Args:
        model: Model with trainable parameters.
        optimizer: Optimizer of ``mlx.optimizers`` or of this library.
        file: Checkpoint, which is continued if it exists, and written at every report; None keeps none.
    """

    def __init__(self, model: Any, optimizer: Any, file: Path | None = None) -> None:
        self.model, self.optimizer, self.file = model, optimizer, file
        self.begun = self.done = 0
        self.reports: dict[int, dict[str, Any]] = {}  # by iteration
        self.validations: list[float] = []
        optimizer.init(model.trainable_parameters())
        if file and file.exists():
            saved = mo.checkpoint.load(file, like=self.contents())
            self.model.update(saved["parameters"])
            self.optimizer.state, self.done = saved["optimizer"], saved["done"]
            high, low = saved["random"].tolist()
            mx.random.seed(high << 32 | low)  # nothing else writes into mx.random.state

    def contents(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        numbers: Any = mx.random.state
        trained, state = self.model.trainable_parameters(), self.optimizer.state
        return {"parameters": trained, "optimizer": state, "random": numbers[0], "done": self.done}

    def train(self, iters: int, dataset: Any, validation: Any = None, **settings: Any) -> None:
        """Let the trainer work, silently, until ``iters`` iterations are done in all."""
        self.begun = self.done
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            file = str(Path(folder, "adapters.safetensors"))
            sizes = {"iters": iters - self.begun, "batch_size": 8, "max_seq_length": LENGTH}
            args = TrainingArgs(adapter_file=file, **sizes, **settings)
            source = {"iterate_batches": batches_after(self.begun)}
            train(self.model, self.optimizer, dataset, validation, args, training_callback=self, **source)

    def on_train_loss_report(self, report: dict[str, Any]) -> None:
        """Take what the trainer says, and save."""
        self.done = self.begun + report["iteration"]
        self.reports[self.done] = report
        if self.file:
            mo.checkpoint.save(self.file, self.contents())

    def on_val_loss_report(self, report: dict[str, Any]) -> None:
        """Take what the trainer says after a validation."""
        self.validations.append(report["val_loss"])

    def reported(self, name: str) -> list[float]:
        """One number of all reports."""
        return [report[name] for report in self.reports.values()]


def pretrained(iters: int) -> dict[str, Any]:
    """The weights of a model that has learned to count up, which takes no download."""
    mx.random.seed(0)
    run = Run(new_model(), optimizers.AdamW(1e-2, bias_correction=True))
    run.train(iters, counting(1, 256, seed=0), steps_per_report=max(1, iters // 10))
    print(f"The model counts up: loss {run.reports[iters]['train_loss']:.3f}. Its adapters learn to count down.\n")
    weights: dict[str, Any] = run.model.parameters()
    return weights


def main(iters: int = ITERS, reports: int = 5) -> bool:
    """Fine-tune with three optimizers, then stop and resume, and say whether that ends with the same numbers."""
    weights = pretrained(iters)
    rows, new_rows = counting(-1, 256, seed=1), counting(-1, 32, seed=2)
    every = iters // reports

    heads = "".join(f"{every * (index + 1):8d}" for index in range(reports))
    print(f"{'loss after iteration':31}{heads}{'new rows':>10}{'last rate':>10}")
    for name, make in candidates(iters).items():
        whole = Run(with_adapters(weights), make())
        whole.train(iters, rows, new_rows, steps_per_report=every)
        losses = "".join(f"{loss:8.4f}" for loss in whole.reported("train_loss"))
        print(f"{name:31}{losses}{whole.validations[-1]:10.4f}{whole.reported('learning_rate')[-1]:10.1e}", flush=True)
    end = whole.contents()
    print("\n" + textwrap.fill(f"The last one is {make()}.", 80, subsequent_indent="    "))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.safetensors")
        stopped = Run(with_adapters(weights), make(), file)
        stopped.train(every * (reports // 2), rows, new_rows, steps_per_report=every)
        print(f"\nOnce more, stopped after {stopped.done} iterations: {file.stat().st_size} bytes of checkpoint.")
        resumed = Run(with_adapters(weights), make(), file)
        resumed.train(iters, rows, new_rows, steps_per_report=every)

    for done, report in resumed.reports.items():
        without = whole.reports[done]["train_loss"]
        print(f"  resumed, iteration {done}: loss {report['train_loss']:.7f}, without the stop {without:.7f}")
    pairs = list(zip(mo.tree.items(end), mo.tree.leaves(resumed.contents()), strict=True))
    different = [path for (path, one), other in pairs if not mx.array_equal(mx.array(one), mx.array(other))]
    print(f"{len(pairs) - len(different)} of {len(pairs)} arrays and numbers are the same.")
    return not different


if __name__ == "__main__":
    main()
