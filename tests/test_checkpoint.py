"""Checkpoints: exact, whole or not there at all, and clear about what does not fit."""

import contextlib
import errno
import fcntl
import functools
import json
import math
import os
import pickle
import random
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlxopt as mo
from mlxopt import MaskedNode, TreeError, checkpoint, tree
from mlxopt.checkpoint import CheckpointError, MismatchError, archive, files
from mlxopt.checkpoint.forms import DTYPES as KNOWN_DTYPES
from mlxopt.testing.comparing import plain, same
from mlxopt.testing.problems import Problem
from mlxopt.testing.strategies import problems

EXAMPLES = Path(__file__).parent.parent / "examples"

DTYPES = list(KNOWN_DTYPES.values())
WORDS = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


def bits(node: Any) -> Any:
    """A tree with the bits of its arrays, which tell 0 from -0 and one NaN from another."""
    return plain(tree.map(lambda leaf: leaf.view(WORDS[leaf.itemsize]) if isinstance(leaf, mx.array) else leaf, node))


def run_of(params: Any, tx: Any) -> dict[str, Any]:
    return {"params": params, "state": tx.init(params), "key": mx.random.key(7), "step": 3}


def sample() -> dict[str, Any]:
    params = {"w": mx.array([[1.0, -2.0], [0.5, 4.0]]), "b": mx.array([3.0, 0.25], mx.bfloat16)}
    return run_of(params, mo.adamw(mo.cosine_decay(0.1, 10)))


# What was saved comes back


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (3, 5), (2, 3, 4)])
def test_every_dtype_and_shape(file: Path, dtype: mx.Dtype, shape: tuple[int, ...]) -> None:
    draws = mx.random.randint(0, 2 if dtype == mx.bool_ else 256, (*shape, dtype.size), key=mx.random.key(1))
    array = draws.astype(mx.uint8).view(dtype).reshape(shape)
    checkpoint.save(file, array)
    assert bits(checkpoint.load(file, mx.zeros(shape, dtype))) == bits(array)


def test_dtypes_are_all_that_mlx_can_read_back(file: Path) -> None:
    def is_saved(dtype: mx.Dtype) -> bool:
        try:
            mx.save_safetensors(str(file), {"x": mx.zeros((1,), dtype, stream=mx.cpu)})
        except RuntimeError:
            return False
        return True

    every = {value for value in vars(mx).values() if isinstance(value, mx.Dtype)}
    assert {dtype for dtype in every if is_saved(dtype)} == set(DTYPES)


def test_the_payload_of_a_nan_and_the_sign_of_zero(file: Path) -> None:
    words = mx.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000, 0x00000001], mx.uint32)
    checkpoint.save(file, {"x": words.view(mx.float32)})
    assert bits(checkpoint.load(file, {"x": mx.zeros((5,))})) == bits({"x": words})


@given(problems(steps=1))
def test_a_whole_run_comes_back(problem: Problem) -> None:
    run = run_of(problem.params, mo.adamw(0.1))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(f"{folder}/run", run)
        loaded = checkpoint.load(f"{folder}/run", tree.map(zero, run))
    assert same(loaded, run)
    assert bits(loaded) == bits(run)


def zero(leaf: Any) -> Any:
    return mx.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, mx.array) else type(leaf)(0)


@pytest.mark.parametrize("empty", [{}, [], (), None, MaskedNode(), {"a": {}, "b": (), "c": None, "d": [MaskedNode()]}])
def test_trees_without_arrays(file: Path, empty: Any) -> None:
    checkpoint.save(file, empty)
    assert repr(checkpoint.load(file, empty)) == repr(empty)
    assert mx.load(str(file)) == {}


@pytest.mark.parametrize(
    "number", [0, -7, 2**70, 1 - 10**4300, 0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan, True, False]
)
def test_python_numbers_are_exact(file: Path, number: bool | int | float) -> None:
    checkpoint.save(file, {"step": number})
    loaded = checkpoint.load(file, {"step": type(number)(1)})
    assert repr(loaded) == repr({"step": number})


def test_key_order_is_that_of_like(file: Path) -> None:
    checkpoint.save(file, {"a": mx.array(1.0), "b": 2})
    assert list(checkpoint.load(file, {"b": 0, "a": mx.array(0.0)}).items()) == [("b", 2), ("a", mx.array(1.0))]


def test_views_lazy_arrays_and_one_array_twice(file: Path) -> None:
    base = mx.arange(12).reshape(3, 4)
    views = [base.T, base[:, ::2], base[1:], mx.broadcast_to(mx.array(7), (3, 4)), mx.square(base), base, base]
    checkpoint.save(file, views)
    assert bits(checkpoint.load(file, tree.zeros_like(views))) == bits(views)


def test_like_is_not_changed(file: Path) -> None:
    checkpoint.save(file, {"x": [mx.array(1.0)]})
    like = {"x": [mx.array(0.0)]}
    loaded = checkpoint.load(file, like)
    assert plain(like) == plain({"x": [mx.array(0.0)]})
    assert loaded["x"] is not like["x"]


def test_arrays_are_named_by_path_for_other_readers(file: Path) -> None:
    run = sample()
    checkpoint.save(file, run)
    arrays = {path: leaf for path, leaf in tree.items(run) if isinstance(leaf, mx.array)}
    loaded = mx.load(str(file))
    assert isinstance(loaded, dict)
    assert "state.0.mu.w" in loaded
    assert bits({name: loaded[name] for name in arrays}) == bits(arrays)
    assert loaded.keys() == arrays.keys()


def test_the_file_is_aligned_and_described_in_plain_text(file: Path) -> None:
    checkpoint.save(file, [mx.array([True]), mx.array([1.0]), mx.array([1j]), mx.array([1], mx.int16)])
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    marks = header.pop("__metadata__")
    assert marks["mlxopt.checkpoint"] == "1"
    assert json.loads(marks["structure"])["2"] == "complex64 (1,)"
    begins = {name: array["data_offsets"][0] for name, array in header.items()}
    assert begins == {"2": 0, "1": 8, "3": 12, "0": 14}
    assert length % 8 == 0


# After loading the file is not needed


def test_the_file_may_be_replaced_and_deleted_after_loading(file: Path) -> None:
    first, second = {"w": mx.arange(100000)}, {"w": -mx.arange(100000)}
    checkpoint.save(file, first)
    loaded = checkpoint.load(file, first)
    checkpoint.save(file, second)
    again = checkpoint.load(file, first)
    file.unlink()
    assert bits(loaded) == bits(first)
    assert bits(again) == bits(second)


def test_what_was_loaded_may_be_saved_over_its_file(file: Path) -> None:
    checkpoint.save(file, sample())
    checkpoint.save(file, checkpoint.load(file, sample()))
    assert bits(checkpoint.load(file, sample())) == bits(sample())


def test_lazy_arrays_of_the_file_itself_may_be_saved_over_it(file: Path) -> None:
    """What mx.load returns is read from the file when it is needed."""
    checkpoint.save(file, {"w": mx.arange(100000)})
    checkpoint.save(file, mx.load(str(file)))
    assert bits(checkpoint.load(file, {"w": mx.zeros((100000,), mx.int32)})) == bits({"w": mx.arange(100000)})


# Metadata and contents


def test_metadata_comes_back_equal(file: Path) -> None:
    metadata = {"data": "spirals ü", "loss": 0.1, "epochs": [1, None, True], "nested": {'"checksum":"00000000"': ""}}
    checkpoint.save(file, sample(), metadata)
    found = checkpoint.contents(file)
    assert found.metadata == metadata
    assert found.numbers == {"step": 3}
    assert found.structure["state.0.mu.b"] == "float32 (2,)"
    assert found.structure["state.0"] == "ScaleByAdamState"
    assert found.structure["step"] == "a Python int"


@pytest.mark.parametrize(
    "metadata",
    [{1: "a"}, {"a": (1,)}, {"a": math.nan}, {"a": mx.array(1.0)}, {"a": {1}}, 3, "a", {"\ud800": 1}, {"a": 10**5000}],
)
def test_metadata_that_json_would_change_is_refused(file: Path, metadata: Any) -> None:
    with pytest.raises(
        ValueError, match=r"checkpoint\.save: metadata must be a dict that JSON brings back equal, got "
    ):
        checkpoint.save(file, {}, metadata)
    assert not file.exists()


# What does not fit


def test_every_difference_is_named(file: Path) -> None:
    checkpoint.save(file, {"a": mx.zeros((4, 2)), "b": [mx.array(1)], "c": {"d": 1}, "e": None, "old": mx.zeros((1,))})
    like = {"a": mx.zeros((4, 3)), "b": (mx.array(1.0),), "c": {"d": 1.0}, "e": {}, "new": mx.zeros((2,), mx.float16)}
    expected = [
        "a is float32 (4, 2) in the file, float32 (4, 3) wanted",
        "b is a list in the file, a tuple wanted",
        "b.0 is int32 () in the file, float32 () wanted",
        "c.d is a Python int in the file, a Python float wanted",
        "e is None in the file, a dict wanted",
        "new is missing in the file, float16 (2,) wanted",
        "old is float32 (1,) in the file, nothing wanted",
    ]
    assert sorted(checkpoint.differences(file, like)) == expected
    with pytest.raises(
        MismatchError, match=r"checkpoint\.load: '.*run\.safetensors' must fit like, got 7 diff"
    ) as info:
        checkpoint.load(file, like)
    assert all(difference in str(info.value) for difference in expected)
    assert str(info.value).endswith("did, or pass strict=False to take what matches.")


def test_a_record_of_another_type_is_a_difference(file: Path) -> None:
    params = {"w": mx.array([1.0])}
    checkpoint.save(file, mo.scale_by_adam().init(params))
    assert checkpoint.differences(file, mo.scale_by_lion().init(params)) == [
        "the whole tree is ScaleByAdamState in the file, ScaleByLionState wanted",
        "count is int32 () in the file, nothing wanted",
        "nu.w is float32 (1,) in the file, nothing wanted",
    ]


def test_only_the_parts_tell_of_a_container_that_is_not_there(file: Path) -> None:
    checkpoint.save(file, {"a": {"b": [mx.array(1.0)]}})
    missing = ["c.d is missing in the file, int32 () wanted", "e is missing in the file, EmptyState wanted"]
    unexpected = ["a.b.0 is float32 () in the file, nothing wanted"]
    assert sorted(checkpoint.differences(file, {"c": {"d": mx.array(1)}, "e": mo.EmptyState()})) == unexpected + missing


def test_a_long_list_is_cut_and_can_be_had_in_full(file: Path) -> None:
    checkpoint.save(file, {})
    like = {f"w{index}": mx.array(0.0) for index in range(50)}
    with pytest.raises(
        MismatchError, match=r"got 50 differences: w0 .*w19 .*; and 30 more, see checkpoint\.diff"
    ) as info:
        checkpoint.load(file, like)
    assert "w20" not in str(info.value)
    assert len(checkpoint.differences(file, like)) == 50


def test_not_strict_takes_what_matches_and_warns_of_the_rest(file: Path) -> None:
    checkpoint.save(file, {"a": mx.array([1.0, 2.0]), "b": [mx.array(3)], "c": mx.zeros((4,)), "step": 5})
    like = {"a": mx.zeros((2,)), "b": (mx.array(0),), "c": mx.ones((3,)), "new": None, "step": 0}
    message = (
        r"got 3 differences: new is missing .*; b is a list .*; c is float32 \(4,\) .* What is not named was loaded"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        loaded = checkpoint.load(file, like, strict=False)
    assert caught[0].filename == __file__
    assert plain(loaded) == plain(
        {"a": mx.array([1.0, 2.0]), "b": (mx.array(3),), "c": mx.ones((3,)), "new": None, "step": 5}
    )


def test_not_strict_is_silent_where_everything_matches(file: Path) -> None:
    checkpoint.save(file, sample())
    assert bits(checkpoint.load(file, sample(), strict=False)) == bits(sample())


# What cannot be saved


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"name": "adam"}}, r"at 'a\.name': every leaf must be an mx\.array or .* got 'adam'.* in metadata"),
        ({"a": [1j]}, r"at 'a\.0': every leaf must be an mx\.array or a Python bool, int or float, got 1j"),
        ({"a": b"x"}, r"at 'a': every leaf must be .* got b'x'"),
        ({"a": mx.zeros((2,), mx.float64, stream=mx.cpu)}, r"at 'a': MLX cannot read mlx\.core\.float64 .*\. Cast it"),
        ({"a.b": mx.array(1), "a": {"b": mx.array(2)}}, r"at 'a\.b': this name stands for two places\. Rename a key"),
        ({"a.b": {}, "a": {"b": None}}, r"at 'a\.b': this name stands for two places"),
        ({0: mx.array(1), "0": mx.array(2)}, r"at '0': this name stands for two places"),
        ({"": mx.array(1)}, r"this name stands for two places"),
        ({"__metadata__": mx.array(1)}, r"at '__metadata__': this name has a meaning of its own"),
        ({"a": {"\ud800": mx.array(1)}}, r"a name must be text that UTF-8 can spell, got 'a\.\\ud800'\. Rename a key"),
        ({"a": 10**4300}, r"at 'a': a Python int must have at most 4300 digits, got 14285 bits\. Save it in parts"),
        ({"a": -(10**5000)}, r"at 'a': a Python int must have at most 4300 digits, got 16610 bits"),
        ({"a": [OrderedDict(b=1)]}, r"at 'a\.0': containers must be dicts, .* got a OrderedDict\. Pass dict\("),
        ({"model": [nn.Linear(1, 1)]}, r"at 'model\.0': got the module Linear.* Pass model\.parameters"),
        (nn.Linear(1, 1), r"at the top of the tree: got the module Linear"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_its_path(file: Path, state: Any, message: str) -> None:
    file.write_text("old")
    with pytest.raises(TreeError, match=r"checkpoint\.save: .*" + message):
        checkpoint.save(file, state)
    assert file.read_text() == "old"
    checkpoint.save(file, {})
    for where, read in (("load", checkpoint.load), ("differences", checkpoint.differences)):
        with pytest.raises(TreeError, match=rf"checkpoint\.{where}: .*" + message):
            read(file, state)


def test_dots_in_keys_are_fine_as_long_as_names_differ(file: Path) -> None:
    state = {"a.b": mx.array(1), "a": {"c": mx.array(2)}, 3: mx.array(4)}
    checkpoint.save(file, state)
    assert plain(checkpoint.load(file, state)) == plain(state)


# Where it is written


@pytest.mark.parametrize("name", ["run", "run.ckpt", "run.safetensors.bak", ".hidden", "a b", "ü", "[1]*"])
def test_the_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.save(name, sample())
    checkpoint.save(tmp_path / name, sample())
    assert os.listdir(tmp_path) == [name]
    assert bits(checkpoint.load(tmp_path / name, sample())) == bits(sample())


@pytest.mark.parametrize("name", ["a" * 238, "a" * 239, "a" * 245, "a" * 255, "ü" * 119, "ü" * 127, "a" + "水" * 84])
def test_the_longest_names_are_as_good_as_others(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    leftover, descriptor = files._new_draft(str(tmp_path), name)
    os.close(descriptor)
    checkpoint.save(file, {"step": 1})
    checkpoint.save(file, {"step": 2})
    assert checkpoint.load(file, {"step": 0}) == {"step": 2}
    assert not os.path.exists(leftover)
    assert os.listdir(tmp_path) == [name]


def test_a_name_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        OSError, match=r"checkpoint\.save: '.*' must be writable, got: File name too long\. It is as it was"
    ):
        checkpoint.save(tmp_path / ("a" * 256), {})
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.save: the folder of '.*/no/run' must exist.* Create it"):
        checkpoint.save(tmp_path / "no" / "run", {})
    with pytest.raises(ValueError, match=r"checkpoint\.save: path must name a file, got '.*'\. Add a file name"):
        checkpoint.save(tmp_path, {})
    with pytest.raises(FileNotFoundError, match="run"):
        checkpoint.load(tmp_path / "run", {})


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    link, target = tmp_path / "latest", tmp_path / "runs" / "7"
    link.symlink_to(target)
    for step in (1, 2):
        checkpoint.save(link, {"step": step})
        assert link.is_symlink()
        assert checkpoint.load(target, {"step": 0}) == {"step": step}
    assert os.listdir(target.parent) == ["7"]


def test_permissions_follow_the_old_file_or_the_mask(file: Path) -> None:
    old_mask = os.umask(0o027)
    try:
        checkpoint.save(file, {})
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        file.chmod(0o604)
        checkpoint.save(file, {})
        assert stat.S_IMODE(file.stat().st_mode) == 0o604
    finally:
        os.umask(old_mask)


# Old or new, whatever happens


def broken(error: BaseException, after: int = 0) -> Callable[..., Any]:
    """A function that does nothing ``after`` times, and then raises."""
    calls = iter(range(after))

    def call(*args: Any, **kwargs: Any) -> None:
        if next(calls, None) is None:
            raise error

    return call


@pytest.mark.parametrize("step", ["open", "fchmod", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_before_the_end_leaves_the_old_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    checkpoint.save(file, {"step": 1})
    with monkeypatch.context() as patched:
        patched.setattr(os, step, broken(error))
        with pytest.raises(type(error)) as info:
            checkpoint.save(file, {"step": 2})
    if isinstance(error, OSError):
        assert re.fullmatch(
            r"\[Errno 28\] checkpoint\.save: '.*' must be writable, got: No space left on device\. It is as it was\.",
            str(info.value),
        )
    assert checkpoint.load(file, {"step": 0}) == {"step": 1}
    assert os.listdir(file.parent) == [file.name]


def test_a_failure_after_the_end_leaves_the_new_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(file, {"step": 1})
    monkeypatch.setattr(os, "fsync", broken(OSError(errno.EIO, "Input/output error"), after=1))
    with pytest.raises(OSError, match="Input/output error"):
        checkpoint.save(file, {"step": 2})
    assert checkpoint.load(file, {"step": 0}) == {"step": 2}
    monkeypatch.setattr(os, "fsync", broken(OSError(errno.EINVAL, "cannot flush folders"), after=1))
    checkpoint.save(file, {"step": 3})
    assert checkpoint.load(file, {"step": 0}) == {"step": 3}


def test_a_disk_that_is_full_leaves_the_old_file(file: Path) -> None:
    small, large = {"w": mx.zeros((10,))}, {"w": mx.zeros((100000,))}
    checkpoint.save(file, small)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"must be writable, got: File too large\. It is as it was"):
            checkpoint.save(file, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert bits(checkpoint.load(file, small)) == bits(small)
    assert os.listdir(file.parent) == [file.name]


def test_data_and_entry_are_flushed_around_the_replacement(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_replace(old: str, new: str) -> None:
        done.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    checkpoint.save(file, sample())
    assert done == ["file", "replace", "folder"]


def test_leftovers_of_killed_processes_go_and_nothing_else(file: Path) -> None:
    leftover = file.with_name(f".{file.name}.0123abcd.saving")
    others = [f".{file.name}.saving", f".{file.name}.0123abcd.saving.txt", ".other.0123abcd.saving", f"{file.name}.old"]
    for name in (leftover.name, *others):
        file.with_name(name).write_text("half")
    checkpoint.save(file, {})
    assert sorted(os.listdir(file.parent)) == sorted([file.name, *others])


def test_a_file_that_another_process_is_writing_is_no_leftover(file: Path) -> None:
    draft, descriptor = files._new_draft(str(file.parent), file.name)
    checkpoint.save(file, {})
    assert os.path.exists(draft)
    os.close(descriptor)
    checkpoint.save(file, {})
    assert not os.path.exists(draft)


def test_a_draft_that_was_taken_for_a_leftover_is_made_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may look for leftovers between the making of a draft and its lock."""
    drafts: list[str] = []

    def flock(descriptor: int, how: int) -> None:
        if not drafts:
            drafts.extend(os.path.join(file.parent, name) for name in os.listdir(file.parent))
            os.unlink(drafts[0])

    monkeypatch.setattr(fcntl, "flock", flock)
    draft, descriptor = files._new_draft(str(file.parent), file.name)
    os.close(descriptor)
    assert len(drafts) == 1
    assert os.path.exists(draft)


def test_a_file_system_without_locks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", broken(OSError(errno.ENOSYS, "Function not implemented")))
    leftover = file.with_name(f".{file.name}.0123abcd.saving")
    leftover.write_text("perhaps alive")
    checkpoint.save(file, {"step": 1})
    assert checkpoint.load(file, {"step": 0}) == {"step": 1}
    assert leftover.exists()


def test_threads_that_save_to_one_path_leave_a_whole_file(file: Path) -> None:
    failures: list[BaseException] = []

    def save_often(number: int) -> None:
        try:
            for _ in range(20):
                checkpoint.save(file, {"w": mx.full((5000,), number), "step": number})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=save_often, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if file.exists():
            require_one_of_the_states(file, 5000)
    assert failures == []
    assert os.listdir(file.parent) == [file.name]


def require_one_of_the_states(file: Path, size: int) -> int:
    loaded = checkpoint.load(file, {"w": mx.zeros((size,), mx.int32), "step": 0})
    step: int = loaded["step"]
    assert mx.all(loaded["w"] == step).item()
    return step


SIZE = 2**20
SAVER = f"""
import itertools, sys
import mlx.core as mx
from mlxopt import checkpoint
start = checkpoint.load(sys.argv[1], {{"w": mx.zeros(({SIZE},), mx.int32), "step": 0}})["step"]
print("saving", flush=True)
for step in itertools.count(start + 1):
    checkpoint.save(sys.argv[1], {{"w": mx.full(({SIZE},), step, mx.int32), "step": step}})
"""


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(file: Path) -> None:
    checkpoint.save(file, {"w": mx.zeros((SIZE,), mx.int32), "step": 0})
    moment, steps, drafts = random.Random(0), [0], 0
    for _ in range(30):
        with subprocess.Popen([sys.executable, "-c", SAVER, str(file)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"saving\n"
            time.sleep(moment.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        steps.append(require_one_of_the_states(file, SIZE))
        drafts += len(os.listdir(file.parent)) > 1
    assert steps == sorted(steps)
    assert steps[-1] > 30
    assert drafts > 5, "most kills should hit a half written file"
    checkpoint.save(file, {})
    assert os.listdir(file.parent) == [file.name]


# Files that are no whole checkpoints


def small_file(file: Path) -> bytes:
    checkpoint.save(file, {"w": mx.array([1.0, 2.0, 3.0]), "h": mx.array([1.0], mx.bfloat16), "step": 5}, {"a": "b"})
    return file.read_bytes()


def like_small() -> dict[str, Any]:
    return {"w": mx.zeros((3,)), "h": mx.zeros((1,), mx.bfloat16), "step": 0}


def require_refusal(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"checkpoint\.load: '.*' must be a whole checkpoint, got .*\. \w+ .*\.$"):
        checkpoint.load(file, like_small())


def test_every_truncation_is_refused(file: Path) -> None:
    data = small_file(file)
    for length in range(len(data)):
        require_refusal(file, data[:length])
    require_refusal(file, data + b"\0")


def test_every_changed_byte_is_refused(file: Path) -> None:
    data = small_file(file)
    flips = random.Random(0)
    for position in range(len(data)):
        for flip in (1 << flips.randrange(8), 0x20, flips.randrange(1, 256)):
            require_refusal(file, data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])


@given(st.data())
def test_other_mutations_are_refused(draw: st.DataObject) -> None:
    """Something cut out, put in, moved or overwritten."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run")
        data = small_file(file)
        ends = sorted(draw.draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        other = draw.draw(st.one_of(st.binary(max_size=20), st.just(data), st.just(data[slice(*ends)] * 2)))
        mutated = data[: ends[0]] + other + data[ends[1] :]
        if mutated != data:
            require_refusal(file, mutated)


def test_the_damaged_array_is_named(file: Path) -> None:
    state = {"a": mx.arange(1000), "b": mx.arange(1000)}
    checkpoint.save(file, state)
    data = file.read_bytes()
    file.write_bytes(data[:-3] + b"\xff" + data[-2:])
    with pytest.raises(CheckpointError, match=r"checkpoint\.load: .* got one in which b is damaged\. Load an earlier"):
        checkpoint.load(file, state)
    with pytest.raises(CheckpointError, match="in which b is damaged"):
        checkpoint.load(file, {**state, "a": 0}, strict=False)


def test_damage_is_told_apart(file: Path) -> None:
    data = small_file(file)
    messages = {
        data[:100]: "got 100 bytes, cut off within the header",
        data[:-1]: f"got {len(data) - 1} bytes where its header tells of {len(data)}",
        data.replace(b"float32 (3,)", b"float32 (4,)"): "got one with a damaged header",
    }
    for mutated, message in messages.items():
        file.write_bytes(mutated)
        for read in (checkpoint.contents, lambda path: checkpoint.differences(path, {})):
            with pytest.raises(CheckpointError, match=message):
                read(file)


class Header:
    """The header of a file, to be changed and put back under a checksum that holds."""

    def __init__(self, data: bytes) -> None:
        length = int.from_bytes(data[:8], "little")
        self.arrays = json.loads(data[8 : 8 + length])
        self.marks = self.arrays.pop("__metadata__")
        self.data = data[8 + length :]
        for name in ("structure", "numbers", "metadata", "checksums"):
            setattr(self, name, json.loads(self.marks[name]))

    def encoded(self) -> bytes:
        for name in ("structure", "numbers", "metadata", "checksums"):
            self.marks[name] = json.dumps(getattr(self, name))
        text = json.dumps({"__metadata__": {**self.marks, "checksum": "0" * 8}, **self.arrays}).encode()
        text = text.replace(b'"00000000"', b'"%08x"' % zlib.crc32(text), 1)
        return len(text).to_bytes(8, "little") + text + self.data


CONTRADICTIONS: dict[str, Callable[[Any], Any]] = {
    "another shape": lambda h: h.arrays["w"].update(shape=[3, 1]),
    "a shape of more": lambda h: h.arrays["w"].update(shape=[4]),
    "another shape on both sides": lambda h: (h.arrays["w"].update(shape=[4]), h.structure.update(w="float32 (4,)")),
    "another shape in the structure": lambda h: h.structure.update(w="float32 (4,)"),
    "another dtype": lambda h: h.arrays["w"].update(dtype="I32"),
    "a dtype of another size": lambda h: (h.arrays["h"].update(dtype="F32"), h.structure.update(h="float32 (1,)")),
    "an unknown dtype": lambda h: h.arrays["w"].update(dtype="F128"),
    "a negative shape": lambda h: (h.arrays["w"].update(shape=[-3]), h.structure.update(w="float32 (-3,)")),
    "a shape that is no list": lambda h: h.arrays["w"].update(shape=3),
    "overlapping offsets": lambda h: h.arrays["h"].update(data_offsets=[10, 12]),
    "offsets that leave a gap": lambda h: (
        h.arrays["h"].update(data_offsets=[14, 16]),
        h.__setattr__("data", h.data + b"00"),
    ),
    "offsets the wrong way round": lambda h: h.arrays["w"].update(data_offsets=[12, 0]),
    "offsets that are floats": lambda h: h.arrays["w"].update(data_offsets=[0.0, 12.0]),
    "one offset": lambda h: h.arrays["w"].update(data_offsets=[0]),
    "no offsets": lambda h: h.arrays["w"].pop("data_offsets"),
    "no array": lambda h: h.arrays.pop("h"),
    "an array too many": lambda h: h.arrays.update(x={"dtype": "F32", "shape": [0], "data_offsets": [14, 14]}),
    "a missing number": lambda h: h.numbers.pop("step"),
    "a number too many": lambda h: h.numbers.update(more=1),
    "a number of another type": lambda h: h.numbers.update(step=True),
    "a number that is text": lambda h: h.numbers.update(step="5"),
    "a number that is text on both sides": lambda h: (
        h.numbers.update(step="5"),
        h.structure.update(step="a Python str"),
    ),
    "a number that is an array too": lambda h: h.numbers.update(w=1),
    "a leaf that is nowhere": lambda h: h.structure.update(x="int32 ()"),
    "a leaf that is not in the structure": lambda h: h.structure.pop("w"),
    "a form that is no text": lambda h: h.structure.update(w=3),
    "a missing checksum": lambda h: h.checksums.pop("w"),
    "metadata that are no dict": lambda h: setattr(h, "metadata", 3),
    "numbers that are no dict": lambda h: setattr(h, "numbers", [5]),
    "a structure that is no dict": lambda h: setattr(h, "structure", None),
    "checksums that are no dict": lambda h: setattr(h, "checksums", 1),
}


@pytest.mark.parametrize("change", CONTRADICTIONS)
def test_a_header_that_contradicts_itself_is_refused(file: Path, change: str) -> None:
    header = Header(small_file(file))
    file.write_bytes(header.encoded())
    assert bits(checkpoint.load(file, like_small()))
    CONTRADICTIONS[change](header)
    require_refusal(file, header.encoded())
    likes = [like_small(), {**like_small(), "w": mx.zeros((4,))}, {"h": mx.zeros((1,))}, {**like_small(), "step": True}]
    for like in likes:
        with pytest.raises(CheckpointError, match="got one with a damaged header"):
            checkpoint.load(file, like, strict=False)
        with pytest.raises(CheckpointError, match="got one with a damaged header"):
            checkpoint.differences(file, like)
    with pytest.raises(CheckpointError, match="got one with a damaged header"):
        checkpoint.contents(file)


@pytest.mark.parametrize("data", [b"", b"{}", b"step,loss\n" * 100, pickle.dumps({"w": 1}), b"\0" * 100, b"PK" * 9999])
def test_something_else_is_refused(file: Path, data: bytes) -> None:
    require_refusal(file, data)


def test_nothing_is_unpickled(file: Path) -> None:
    bomb = pickle.dumps(functools.partial(os.mkdir, str(file.parent / "unpickled")))
    require_refusal(file, bomb)
    assert os.listdir(file.parent) == [file.name]
    assert "pickle" not in Path(checkpoint.__file__).read_text()


def test_arrays_of_mx_save_safetensors_are_refused_with_the_way_to_load_them(file: Path) -> None:
    state = mo.adamw(0.1).init({"w": mx.array([1.0])})
    for metadata in (None, {"format": "mlx"}):
        mx.save_safetensors(str(file), dict(tree.items(state)), metadata)
        message = r"got a safetensors file that checkpoint\.save did not write\. .* tree\.set\(like, mx\.load\(path\)\)"
        with pytest.raises(CheckpointError, match=message):
            checkpoint.load(file, state)
        loaded = mx.load(str(file))
        assert isinstance(loaded, dict)
        assert bits(tree.set(tree.zeros_like(state), loaded)) == bits(state)


def test_a_newer_version_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(archive, "VERSION", 2)
        checkpoint.save(file, {})
    with pytest.raises(CheckpointError, match=r"got one of version 2, which is newer than 1\. Update mlxopt"):
        checkpoint.load(file, {})


def test_a_header_nested_without_end_is_refused(file: Path) -> None:
    header = b'{"__metadata__":' + b"[" * 100000
    require_refusal(file, len(header).to_bytes(8, "little") + header)


# Going on


class Trained(NamedTuple):
    params: Any
    state: Any


def eager(tx: Any) -> Callable[..., tuple[Any, Any]]:
    def step(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return mo.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "tx",
    [
        mo.chain(mo.clip_by_global_norm(1.0), mo.adamw(mo.cosine_decay(0.1, 10))),
        mo.chain(mo.add_noise(0.1, 0.55, key=3), mo.sgd(0.1, momentum=0.9)),
        mo.partition({"a": mo.lion(0.1), "b": mo.rmsprop(0.1)}, lambda path, leaf: "a" if leaf.ndim > 1 else "b"),
    ],
)
def test_a_run_goes_on_as_if_it_had_not_stopped(file: Path, tx: Any, compiled: bool) -> None:
    step = mo.compile_update(tx) if compiled else eager(tx)

    def advance(run: Trained, steps: range) -> Trained:
        for index in steps:
            noise = mx.random.split(mx.random.key(index), 2)
            grads = {name: mx.random.normal(p.shape, key=noise[i]) for i, (name, p) in enumerate(run.params.items())}
            run = Trained(*step(grads, run.state, run.params))
        return run

    params = {"w": mx.ones((3, 2)), "b": mx.ones((2,))}
    start = Trained(params, tx.init(params))
    whole = advance(start, range(8))
    for steps in (0, 1, 5):
        checkpoint.save(file, advance(start, range(steps)))
        assert bits(advance(checkpoint.load(file, start), range(steps, 8))) == bits(whole)


@contextlib.contextmanager
def examples_importable() -> Iterator[None]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield
    finally:
        sys.path.remove(str(EXAMPLES))


def test_the_example_resumes_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    with examples_importable():
        import resume

        assert resume.main(steps=60, every=7)
    output = capsys.readouterr().out
    assert "14 of 14 arrays and numbers are the same" in output
    assert re.search(r"killed; its checkpoint holds step \d+", output)
