"""The trainer of mlx-lm with optimizers of this library: what it learns, what it reports, and how it resumes."""

import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import pytest

import mlxopt as mo
from mlxopt import tree
from mlxopt.interop import as_optimizer, optimizers
from mlxopt.testing.comparing import same

pytest.importorskip("mlx_lm")

import mlx_lm.lora
import mlx_lm.tuner.utils
from mlx_lm.tuner.trainer import TrainingArgs, default_loss, train

EXAMPLES = Path(__file__).parent.parent / "examples"


def imported(path: Path) -> Any:
    """A module that stands in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = imported(EXAMPLES / "finetune_mlx_lm.py")

ROWS = example.counting(1, 32, seed=0)


def small(dtype: mx.Dtype = mx.float32) -> Any:
    """A model that sees one token, for what does not depend on the model."""
    mx.random.seed(0)
    sizes = example.TOKENS, 8
    model = nn.Sequential(nn.Embedding(*sizes), nn.Linear(8, 8, bias=False), nn.Linear(*sizes[::-1], bias=False))
    model.set_dtype(dtype)
    return model


def adapted() -> Any:
    """A Llama with adapters."""
    mx.random.seed(0)
    return example.with_adapters(example.new_model().parameters())


def trained(model: Any, optimizer: Any, iters: int, validation: Any = None, **settings: Any) -> Any:
    """A run with a report after every iteration."""
    run = example.Run(model, optimizer)
    run.train(iters, ROWS, validation, steps_per_report=1, **settings)
    return run


def test_one_changed_import_gives_the_losses_of_mlx() -> None:
    before = dict(tree.items(adapted().parameters()))
    theirs, ours = (trained(adapted(), of.AdamW(learning_rate=2e-3), 30) for of in (mlx.optimizers, optimizers))
    # MLX decays first and steps then. Updates differ by a rounding or two, which so small a rate does not blow up.
    assert ours.reported("train_loss") == pytest.approx(theirs.reported("train_loss"), rel=1e-5)
    assert ours.reported("train_loss")[-1] < 0.95 * ours.reported("train_loss")[0]
    after = dict(tree.items(ours.model.parameters()))
    changed = [path for path, leaf in after.items() if not mx.array_equal(leaf, before[path])]
    assert changed == tree.paths(ours.model.trainable_parameters())
    assert {path.rpartition(".")[2] for path in changed} == {"lora_a", "lora_b"}


def clipped_adam(iters: int) -> mo.GradientTransformation:
    return mo.chain(
        mo.clip_by_global_norm(1.0),
        mo.scale_by_adam(),
        mo.add_decayed_weights(0.01, mask=mo.by_path("*.lora_a")),
        mo.scale_by_learning_rate(mo.warmup_cosine_decay_schedule(0.0, 1e-2, iters // 10, iters)),
    )


def test_a_chain_with_accumulation_and_validation_is_the_loop_written_out() -> None:
    iters, k = 40, 2
    tx = clipped_adam(iters // k)
    optimizer = as_optimizer(tx)
    run = trained(adapted(), optimizer, iters, ROWS[:8], grad_accumulation_steps=k, steps_per_eval=16)

    model = adapted()
    params, losses = model.trainable_parameters(), []
    state, total = tx.init(params), tree.zeros_like(params)
    loss_and_grads = nn.value_and_grad(model, default_loss)
    batches = example.batches_after(0)(ROWS, 8, example.LENGTH, loop=True)
    for index, batch in enumerate(itertools.islice(batches, iters), start=1):
        (loss, _), grads = loss_and_grads(model, *batch)
        losses.append(loss.item())
        total = tree.map(mx.add, total, grads)
        if index % k == 0:
            updates, state = tx.update(tree.scale(1 / k, total), state, params)
            params, total = mo.apply_updates(params, updates), tree.zeros_like(params)
            model.update(params)

    assert run.reported("train_loss") == pytest.approx(losses, rel=1e-4)
    assert tree.allclose(run.model.trainable_parameters(), params, rtol=1e-3, atol=1e-5)
    assert len(run.validations) == 4
    assert run.validations[-1] < 0.95 * run.validations[0]
    assert optimizer.step.item() == iters // k == tree.get(optimizer.state, "transformation.1.count").item()


SCHEDULES: dict[str, Any] = {
    "ours": mo.with_warmup(mo.cosine_decay(0.1, 6), 3),
    "of MLX": mlx.optimizers.cosine_decay(0.1, 9),
    "built by mlx-lm": mlx_lm.tuner.utils.build_schedule({"name": "cosine_decay", "arguments": [0.1, 6], "warmup": 3}),
    "a function": lambda count: 0.1 / (1 + count),
    "a number": 0.1,
}
MANNERS: dict[str, Callable[[Any], Any]] = {
    "drop-in": optimizers.SGD,
    "transformation": lambda rate: as_optimizer(mo.sgd(rate)),
}


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("manner", MANNERS.values(), ids=MANNERS)
def test_reported_rates_and_steps_count_updates(manner: Callable[[Any], Any], schedule: Any, k: int) -> None:
    run = trained(small(), manner(schedule), 9, grad_accumulation_steps=k)
    counts = [max(0, iteration // k - 1) for iteration in range(1, 10)]
    rates = [float(schedule(mx.array(count))) if callable(schedule) else schedule for count in counts]
    assert run.reported("iteration") == list(range(1, 10))
    assert run.reported("learning_rate") == pytest.approx(rates, rel=1e-6)
    assert run.optimizer.step.item() == 9 // k


@pytest.mark.parametrize("known", [True, False], ids=["state known before", "state made by the first update"])
def test_the_trainer_sees_the_state_and_traces_once_more_at_most(known: bool, tmp_path: Path) -> None:
    inner = mo.sgd(0.1, momentum=0.9)
    traces: list[int] = []

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        traces.append(1)
        return inner.update(updates, state, params)

    model, optimizer = small(), as_optimizer(mo.GradientTransformation(inner.init, update))
    state = optimizer.state
    if known:
        optimizer.init(model.trainable_parameters())
    args = TrainingArgs(
        batch_size=8, iters=8, max_seq_length=example.LENGTH, adapter_file=str(tmp_path / "a.safetensors")
    )
    train(model, optimizer, ROWS, args=args)
    assert optimizer.state is state
    assert state["step"].item() == 8
    assert mx.any(tree.get(state, "transformation.0.trace.layers.2.weight") != 0)
    assert len(traces) == (1 if known else 2)
    written: Any = mx.load(str(tmp_path / "a.safetensors"))
    assert all(mx.array_equal(written[path], leaf) for path, leaf in tree.items(model.trainable_parameters()))


def test_a_partition_and_several_optimizers_agree() -> None:
    partition = mo.partition(
        {"first": mo.sgd(2.0, momentum=0.9), "rest": mo.sgd(0.5)},
        lambda path, leaf: "first" if path == "layers.0.weight" else "rest",
    )
    several = optimizers.MultiOptimizer(
        [optimizers.SGD(2.0, momentum=0.9), optimizers.SGD(0.5)], [lambda path, leaf: path == "layers.0.weight"]
    )
    ours, theirs = (trained(small(), opt, 20).reported("train_loss") for opt in (as_optimizer(partition), several))
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours[-1] < 0.95 * ours[0]


def test_a_bfloat16_model_stays_one_and_its_state_is_float32() -> None:
    run = trained(small(mx.bfloat16), as_optimizer(mo.muon(5e-2)), 20)
    losses = run.reported("train_loss")
    assert losses[-1] < 0.9 * losses[0]
    assert {leaf.dtype for leaf in tree.leaves(run.model.parameters())} == {mx.bfloat16}
    assert {leaf.dtype for leaf in tree.leaves(run.optimizer.state) if leaf.ndim} == {mx.float32}


class Rows(list[Any]):
    """Rows for the command, which needs no tokenizer for them."""

    def process(self, row: Any) -> Any:
        return row


def commanded(folder: Path) -> dict[str, list[float]]:
    """What ``mlx_lm.lora --train`` reports: its own code, from where model and data are loaded."""
    settings = {
        **mlx_lm.lora.CONFIG_DEFAULTS,
        "optimizer": "adamw",
        "optimizer_config": {"adamw": {"weight_decay": 0.01}},
        "adapter_path": str(folder),
        "num_layers": 2,
        "lora_parameters": {"rank": 4, "scale": 4.0, "dropout": 0.05},
        "lr_schedule": {"name": "cosine_decay", "arguments": [2e-3, 12], "warmup": 3, "warmup_init": 1e-4},
        "batch_size": 8,
        "max_seq_length": example.LENGTH,
        "iters": 12,
        "steps_per_report": 1,
    }
    reports: list[dict[str, Any]] = []
    callback = SimpleNamespace(on_train_loss_report=reports.append, on_val_loss_report=lambda report: None)
    mx.random.seed(0)
    rows = Rows(ROWS[:8])
    mlx_lm.lora.train_model(SimpleNamespace(**settings), example.new_model(), rows, rows, callback)
    return {name: [report[name] for report in reports] for name in ("learning_rate", "train_loss")}


def test_the_command_of_mlx_lm_runs_with_the_drop_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = commanded(tmp_path)
    monkeypatch.setattr(mlx_lm.lora, "optim", optimizers)
    monkeypatch.setattr(mlx_lm.tuner.utils, "opt", optimizers)
    ours = commanded(tmp_path)
    assert ours["learning_rate"] == pytest.approx(theirs["learning_rate"], rel=1e-6)
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
    assert ours["train_loss"][-1] < ours["train_loss"][0]


RESUMED: dict[str, Callable[[], Any]] = {
    "drop-in": lambda: optimizers.AdamW(mo.cosine_decay(1e-2, 20), bias_correction=True),
    "chain": lambda: as_optimizer(clipped_adam(20)),
    "groups": lambda: as_optimizer(
        mo.partition(
            {"lora_a": mo.sgd(0.1), "lora_b": mo.sgd(0.1, momentum=0.9)}, lambda path, leaf: path.rpartition(".")[2]
        )
    ),
}


def finish(name: str, iters: int, file: Path) -> Any:
    """Start a run, or continue it from its file, and save it."""
    run = example.Run(adapted(), RESUMED[name](), file)
    run.train(iters, ROWS, ROWS[:8], steps_per_report=4, grad_accumulation_steps=2)
    return run


def test_a_run_resumed_in_another_process_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = {}
    for name in RESUMED:
        whole[name] = finish(name, 20, tmp_path / f"{name} whole").contents()
        assert finish(name, 8, tmp_path / name).done == 8
    code = "import pathlib, sys, test_mlx_lm as t; [t.finish(n, 20, pathlib.Path(sys.argv[1], n)) for n in t.RESUMED]"
    places = {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env={**os.environ, **places}, timeout=120)
    for name, end in whole.items():
        resumed = mo.checkpoint.load(tmp_path / name, like=end)
        assert end.pop("done") == resumed.pop("done") == 20
        assert same(end, resumed), name


def test_a_checkpoint_of_another_optimizer_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    run = example.Run(small(), as_optimizer(mo.sgd(0.1, momentum=0.9)))
    mo.checkpoint.save(file, run.contents())
    with pytest.raises(mo.checkpoint.MismatchError, match=r"optimizer.transformation.0.*"):
        example.Run(small(), as_optimizer(mo.adam(0.1)), file)


def test_the_example_compares_three_optimizers_and_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(iters=20, reports=4)
    lines = capsys.readouterr().out.splitlines()
    table = {
        line.split()[0]: [float(number) for number in line.split()[1:]] for line in lines if line[:2] in ("ml", "as")
    }
    assert list(table) == list(example.candidates(20))
    theirs, ours, chained = table.values()
    assert ours == pytest.approx(theirs, abs=2e-4)
    for *losses, new_rows, _ in table.values():
        assert len(losses) == 4
        assert max(losses[-1], new_rows) < losses[0]
    assert chained[-1] < theirs[-1] == 1e-2
    assert lines[-1] == "93 of 93 arrays and numbers are the same."


def test_without_mlx_lm_the_example_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx_lm.models.llama", None)
    with pytest.raises(SystemExit, match=r"mlx-lm must be installed, got: .*Run pip install 'mlxopt\[lm\]'\."):
        imported(EXAMPLES / "finetune_mlx_lm.py")
