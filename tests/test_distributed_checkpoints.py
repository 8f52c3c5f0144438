"""Checkpoints of several ranks: exact, whole after any crash, read by another number of ranks."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from ranks import Ended, World
from test_distributed import batch, eager, loss_fn, start

import mlxopt as mo
from mlxopt import distributed, tree
from mlxopt.base import GradientTransformation
from mlxopt.checkpoint import CheckpointError, MismatchError, contents
from mlxopt.testing.comparing import same

Group = mx.distributed.Group

BUILT = {
    "adamw": lambda group: mo.adamw(0.05),
    "shard by leaf": lambda group: distributed.shard(mo.adamw(0.05), group),
    "shard by element": lambda group: distributed.shard(mo.adamw(0.05), group, by="element"),
    "partition": lambda group: mo.partition(
        {
            "matrix": distributed.shard(mo.muon(0.05, ns_steps=1), group),
            "other": distributed.shard(mo.adamw(0.05), group, by="element"),
        },
        lambda path, leaf: "matrix" if leaf.ndim == 2 else "other",
    ),
}

PARTS = 4
"""Parts of every batch, whatever the number of ranks."""


def begun(tx: GradientTransformation) -> dict[str, Any]:
    return {"params": start(), "state": tx.init(start()), "step": 0, "key": mx.random.key(3)}


def goes_on(group: Group, run: dict[str, Any], tx: GradientTransformation, until: int) -> dict[str, Any]:
    """Steps in which each rank sees its share of the parts, so that any number of ranks computes the same."""
    own = range(group.rank() * PARTS // group.size(), (group.rank() + 1) * PARTS // group.size())
    step = mo.compile_accumulation(loss_fn, tx, group=group)
    params, state = run["params"], run["state"]
    for index in range(run["step"], until):
        params, state, _ = step(params, state, [batch(index, part) for part in own])
    return {**run, "params": params, "state": state, "step": until}


def runs(group: Group, name: str, folder: str, until: int) -> Any:
    """Go on with the run in a folder, save it there, and return the parameters."""
    with eager():
        tx = BUILT[name](group)
        run = begun(tx)
        if os.path.exists(folder):
            run = distributed.load(folder, run, group)
        run = goes_on(group, run, tx, until)
        distributed.save(folder, run, group)
        distributed.check_replicas({key: run[key] for key in ("params", "key")}, group)
        return run["params"], run["step"]


def alone(name: str, until: int) -> Any:
    group = mx.distributed.init()
    with eager():
        tx = BUILT[name](group)
        return goes_on(group, begun(tx), tx, until)["params"]


@pytest.mark.parametrize("name", BUILT)
def test_a_run_goes_on_with_another_number_of_ranks(two: World, four: World, tmp_path: Path, name: str) -> None:
    folder = str(tmp_path / "run")
    one = mx.distributed.init()
    four.run(runs, name, folder, 1)
    two.run(runs, name, folder, 2)
    runs(one, name, folder, 3)
    for params, step in four.run(runs, name, folder, 4):
        wanted = alone(name, 4)
        assert step == 4
        assert tree.allclose(params, wanted, rtol=1e-5, atol=1e-6)
    assert len(list((tmp_path / "run").iterdir())) == 4 + 1  # nothing of earlier ones


def twice(group: Group, name: str, folder: str) -> bool:
    """Whether a run that was saved and loaded in its middle ends as one that was not."""
    with eager():
        tx = BUILT[name](group)
        whole = goes_on(group, begun(tx), tx, 2)
        half = goes_on(group, begun(tx), tx, 1)
        distributed.save(folder, half, group)
        return same(goes_on(group, distributed.load(folder, begun(tx), group), tx, 2), whole)


@pytest.mark.parametrize("name", BUILT)
def test_the_same_ranks_go_on_to_the_bit(two: World, tmp_path: Path, name: str) -> None:
    assert two.run(twice, name, str(tmp_path / "run")) == [True, True]


def test_ranks_share_the_writing(two: World, tmp_path: Path) -> None:
    two.run(runs, "shard by leaf", str(tmp_path / "run"), 1)
    parts = [set(contents(file).structure) for file in sorted((tmp_path / "run").glob("*.safetensors"))]
    assert len(parts) == 2
    twice_written = {path.rpartition(".")[2] for path in parts[0] & parts[1]}
    assert twice_written == {"", "count", "learning_rate", "weight_decay"}


def saves_and_dies(group: Group, folder: str, moment: str) -> None:
    """A second checkpoint, in which the last rank is killed at some moment."""
    with eager():
        runs(group, "shard by leaf", folder, 1)
        if group.rank() == group.size() - 1:
            if moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            replace = os.replace

            def killed(*args: Any) -> None:
                replace(*args)
                os.kill(os.getpid(), signal.SIGKILL)

            os.replace = killed  # type: ignore[assignment]
        runs(group, "shard by leaf", folder, 2)


@pytest.mark.parametrize("moment", ["before", "after its part"])
def test_a_rank_that_is_killed_leaves_the_old_one_whole(two: World, tmp_path: Path, moment: str) -> None:
    folder = str(tmp_path / "run")
    with World(2) as world:
        _, last = world.run_to_the_end(saves_and_dies, folder, moment, deadline=10.0)
    assert last == Ended(-signal.SIGKILL)
    for params, step in two.run(runs, "shard by leaf", folder, 3):
        assert step == 3
        assert tree.allclose(params, alone("shard by leaf", 3), rtol=1e-5, atol=1e-6)


def cannot_write(group: Group, folder: str) -> None:
    own = folder if group.rank() == 0 else os.path.join(folder, "missing", "run")
    distributed.save(own, {"w": mx.zeros((3,))}, group)


def test_what_one_rank_cannot_write_is_an_error_on_all(two: World, tmp_path: Path) -> None:
    here, there = two.outcomes(cannot_write, str(tmp_path / "run"))
    assert "distributed.save: all ranks must come to an end, got an error on rank 1, which tells more." in str(here)
    assert "FileNotFoundError" in str(there)
    assert not (tmp_path / "run" / "index.json").exists()


def reads(group: Group, folder: str, like: Any) -> Any:
    return distributed.load(folder, like, group)


def test_a_checkpoint_must_fit(two: World, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    distributed.save(folder, {"w": mx.zeros((3,)), "b": mx.zeros((2,))})
    for outcome in two.outcomes(reads, folder, {"w": mx.zeros((4,)), "c": mx.zeros((1,))}):
        assert "must fit like, got 3 differences: w is float32 (3,) in the file, float32 (4,) wanted" in str(outcome)
        assert "b is float32 (2,) in the file, nothing wanted" in str(outcome)


def test_missing_parts_are_named(two: World, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    two.run(runs, "adamw", str(folder), 1)
    for file in folder.glob("*rank-1-of-2*"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"must hold the parts of 2 ranks, got none of rank 1. Put the"):
        distributed.load(folder, begun(mo.adamw(0.05)))


def test_what_is_no_checkpoint_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold a checkpoint, got no index.json. Load a folder that"):
        distributed.load(tmp_path, {"w": mx.zeros((3,))})
    (tmp_path / "index.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match=r"index.json' must name a checkpoint, got another file. Load a folder"):
        distributed.load(tmp_path, {"w": mx.zeros((3,))})
    distributed.save(tmp_path, {"w": mx.zeros((3,)), "layers": [mx.zeros((2,))]})
    with pytest.raises(MismatchError, match=r"got 1 difference: layers.0 is float32 \(2,\) in the file, noth"):
        distributed.load(tmp_path, {"w": mx.zeros((3,))})


def test_a_damaged_part_is_found(tmp_path: Path) -> None:
    distributed.save(tmp_path, {"w": mx.arange(8.0)})
    (part,) = tmp_path.glob("*.safetensors")
    data = bytearray(part.read_bytes())
    data[-3] ^= 1
    part.write_bytes(data)
    with pytest.raises(CheckpointError, match="w is damaged"):
        distributed.load(tmp_path, {"w": mx.zeros((8,))})


def test_every_dtype_and_number_comes_back_to_the_bit(tmp_path: Path) -> None:
    run = {
        "odd": mx.array([0x7FC00007, 0x80000000], mx.uint32).view(mx.float32),
        "low": mx.array([1.5, -0.0]).astype(mx.bfloat16),
        "complex": mx.array([1 + 2j]),
        "empty": mx.zeros((0, 3)),
        "scalar": mx.array(7),
        "numbers": (3, 0.5, True, None),
    }
    distributed.save(tmp_path, run)
    found = distributed.load(tmp_path, {**tree.map(lambda leaf: leaf * 0, run), "numbers": (0, 0.0, False, None)})
    assert found["numbers"] == run["numbers"]
    del found["numbers"], run["numbers"]
    assert same(
        tree.map(lambda leaf: leaf.view(mx.uint8) if leaf.ndim else leaf, found),
        tree.map(lambda leaf: leaf.view(mx.uint8) if leaf.ndim else leaf, run),
    )


def through_rank_0(group: Group, name: str, folder: str) -> bool:
    """Whether a run goes on to the bit from one file that rank 0 has written."""
    with eager():
        tx = BUILT[name](group)
        whole = goes_on(group, begun(tx), tx, 2)
        distributed.save(folder, goes_on(group, begun(tx), tx, 1), group, parts=False)
        return same(goes_on(group, distributed.load(folder, begun(tx), group), tx, 2), whole)


@pytest.mark.parametrize("name", BUILT)
def test_rank_0_writes_one_file_for_all(two: World, tmp_path: Path, name: str) -> None:
    assert two.run(through_rank_0, name, str(tmp_path / "run")) == [True, True]
    assert len(list((tmp_path / "run").glob("*.rank-0-of-1.safetensors"))) == len([*(tmp_path / "run").iterdir()]) - 1
    run = distributed.load(tmp_path / "run", begun(BUILT[name](mx.distributed.init())))
    assert run["step"] == 1
