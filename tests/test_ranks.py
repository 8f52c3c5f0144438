"""The worlds that tests of several ranks use: what travels, what they tell of failures, and that nothing is left."""

import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import mlx.core as mx
import pytest
from ranks import DEADLINE, Ended, Engine, Hung, Raised, RanksError, World

SOON = DEADLINE / 2
"""Seconds, on a busy machine, for what takes one: far from the deadline that it must not wait for."""


def over(pids: list[int]) -> bool:
    """Whether none of these processes runs any more, or does within some time."""
    until = time.monotonic() + SOON
    while (running := any(map(runs, pids))) and time.monotonic() < until:
        time.sleep(0.01)
    return not running


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()  # ended, but nobody asked how
    except FileNotFoundError:
        return not Path("/proc").exists()
    except ProcessLookupError:
        return False


# Cases


class Pair(NamedTuple):
    first: Any
    second: Any


def place(group: mx.distributed.Group) -> tuple[int, int]:
    return group.rank(), group.size()


def total(group: mx.distributed.Group, x: mx.array) -> mx.array:
    return mx.distributed.all_sum(x * (group.rank() + 1), group=group)


def returned(group: mx.distributed.Group, value: Any) -> Any:
    del group
    return value


def spelled(group: mx.distributed.Group, value: Any) -> str:
    del group
    return repr(value)


def folder(group: mx.distributed.Group) -> str:
    del group
    return os.environ["TMPDIR"]


def refuse(group: mx.distributed.Group) -> NoReturn:
    raise ValueError(f"rank {group.rank()} refuses")


def refuse_while_summing(group: mx.distributed.Group) -> NoReturn:
    if group.rank() == 0:
        mx.async_eval(mx.distributed.all_sum(mx.array(3.0), group=group))
    raise ValueError("refused")


def wait_for_the_others(group: mx.distributed.Group) -> None:
    mx.eval(mx.distributed.all_sum(mx.array(1.0), group=group))


def rank_one_refuses(group: mx.distributed.Group) -> None:
    if group.rank() == 1:
        refuse(group)
    wait_for_the_others(group)


def rank_one_returns(group: mx.distributed.Group) -> str:
    if group.rank() != 1:
        wait_for_the_others(group)
    return "early"


def rank_one_exits(group: mx.distributed.Group) -> None:
    if group.rank() == 1:
        sys.exit(3)
    wait_for_the_others(group)


def rank_one_gets(group: mx.distributed.Group, number: signal.Signals) -> None:
    if group.rank() == 1:
        os.kill(os.getpid(), number)
    wait_for_the_others(group)


def all_hang(group: mx.distributed.Group, mark: Path | None = None) -> None:
    """Half of them in a collective, the others in Python."""
    print(f"rank {group.rank()} is about to hang")
    if mark:
        mark.with_suffix(f".{group.rank()}").touch()
    if group.rank() % 2:
        wait_for_the_others(group)
    time.sleep(3600)


# What works


@pytest.mark.parametrize("name", ["two", "four", "two_of_mpi"])
def test_ranks_sum(name: str, request: pytest.FixtureRequest) -> None:
    world: World = request.getfixturevalue(name)
    assert world.run(place) == [(rank, world.size) for rank in range(world.size)]
    pids = world.pids
    for result in world.run(total, mx.array([1.0, 2.0])):
        assert result.tolist() == [sum(range(world.size + 1)), 2 * sum(range(world.size + 1))]
    assert world.pids == pids
    assert len(set(pids)) == world.size


def test_values_travel_to_the_bit(two: World) -> None:
    words = mx.array([0x7FC00001, 0xFFC12345, 0x80000000, 1], mx.uint32)
    halves = mx.array([0x7FC1, 0xFFC2, 0x8000, 1], mx.uint16)
    sent = {
        "float32": words.view(mx.float32),
        "bfloat16": [halves.view(mx.bfloat16), None],
        "float16": (halves.view(mx.float16), "text"),
        "pair": Pair(mx.arange(6).reshape(2, 3).T, mx.array([True, False])),
        "complex64": mx.array([[1 + 2j]]),
        "none of them": [mx.zeros((0, 3), mx.bfloat16), mx.array(-0.0), mx.array(2**63 - 1, mx.int64)],
        "dtypes": [mx.bfloat16, mx.bool_],
    }
    for came in two.run(returned, sent):
        assert type(came["pair"]) is Pair
        assert spelled_to_the_bit(came) == spelled_to_the_bit(sent)
    assert two.run(spelled, sent) == [repr(sent)] * 2


def spelled_to_the_bit(value: Any) -> Any:
    """A tree with words in the place of arrays, which compare as bits do."""
    if isinstance(value, dict):
        return {key: spelled_to_the_bit(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [spelled_to_the_bit(part) for part in value]
    if not isinstance(value, mx.array):
        return value
    unsigned = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}[value.dtype.size]
    return value.dtype, value.shape, value.view(unsigned).tolist()


def test_ranks_keep_kernels_apart(two: World) -> None:
    first, second = two.run(folder)
    assert first != second
    assert os.environ["TMPDIR"] not in (first, second)


def test_a_case_is_found_by_its_name(two: World) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        two.run(lambda group: None)


# What fails on all ranks


def test_a_world_stays_after_an_error_on_all_ranks(two: World) -> None:
    two.run(place)
    pids = two.pids
    assert two.outcomes(refuse) == [Raised("ValueError", f"rank {rank} refuses") for rank in range(2)]
    assert two.log.count("in refuse") == 2
    with pytest.raises(RanksError, match="rank 1 raised ValueError: rank 1 refuses") as caught:
        two.run(refuse)
    assert str(caught.value).startswith("test_ranks.refuse on 2 ranks of ring:\nrank 0 raised ValueError")
    assert "--- log of rank 1\nTraceback" in str(caught.value)
    two.run(place)
    assert two.pids == pids
    assert two.log == ""


def test_a_world_ends_after_an_error_with_a_message_on_its_way(two: World) -> None:
    two.run(place)
    pids = two.pids
    assert two.outcomes(refuse_while_summing) == [Raised("ValueError", "refused")] * 2
    assert two.pids == []
    assert over(pids)
    assert [result.item() for result in two.run(total, mx.array(1.0))] == [3, 3]


def test_what_cannot_travel_is_an_error_of_its_rank(two: World) -> None:
    with pytest.raises(RanksError, match=r"rank 0 raised .*generator"):
        two.run(generator)


def generator(group: mx.distributed.Group) -> Any:
    return (rank for rank in range(group.size()))


# What fails on some


@pytest.mark.parametrize("engine", ["ring", "mpi"])
def test_a_rank_that_fails_alone_ends_the_world_soon(engine: Engine, request: pytest.FixtureRequest) -> None:
    world: World = request.getfixturevalue("two" if engine == "ring" else "two_of_mpi")
    world.run(place)
    pids, begin = world.pids, time.monotonic()
    with pytest.raises(RanksError, match=r"rank 0 was still running after .* s\nrank 1 raised ValueError") as caught:
        world.run(rank_one_refuses)
    assert time.monotonic() - begin < SOON
    assert "in wait_for_the_others" in str(caught.value)  # where rank 0 is
    assert "in refuse" in str(caught.value)
    assert over(pids)
    assert world.run(place) == [(0, 2), (1, 2)]


def test_a_hang_ends_at_the_deadline(four: World) -> None:
    four.run(place)
    pids = four.pids
    with pytest.raises(RanksError, match=r"rank 0 was still running after 0\.\d+ s\nrank 1 was still") as caught:
        four.run(all_hang, deadline=0.3)
    assert "in wait_for_the_others" in str(caught.value)
    assert "rank 3 is about to hang" in str(caught.value)
    assert over(pids)


def test_a_rank_that_is_killed(two: World) -> None:
    two.run(place)
    pids, outcomes = two.pids, two.outcomes(rank_one_gets, signal.SIGKILL)
    assert outcomes[1] == Ended(-signal.SIGKILL)
    assert over(pids)
    with pytest.raises(RanksError, match="rank 1 ended with -9"):
        two.run(rank_one_gets, signal.SIGKILL)


def test_a_rank_that_is_killed_between_two_cases(two: World) -> None:
    two.run(place)
    os.kill(two.pids[1], signal.SIGKILL)
    assert two.outcomes(place) == [(0, 2), Ended(-signal.SIGKILL)]
    assert two.run(place) == [(0, 2), (1, 2)]


# Until their end


LOST = "connection to a peer was lost"


@pytest.mark.parametrize(
    ("case", "args", "outcome"),
    [
        (rank_one_gets, [signal.SIGKILL], Ended(-signal.SIGKILL)),
        (rank_one_exits, [], Ended(3)),
        (rank_one_refuses, [], Raised("ValueError", "rank 1 refuses")),
        (rank_one_returns, [], "early"),
    ],
)
def test_neighbours_notice_who_leaves(case: Callable[..., Any], args: list[Any], outcome: Any) -> None:
    with World(2) as world:
        first, second = world.run_to_the_end(case, *args)
        assert second == outcome
        assert isinstance(first, Raised)
        assert LOST in first.text
        assert world.pids == []


def test_a_rank_that_stops_hangs_the_others() -> None:
    with World(2) as world:
        world.run(place)
        pids = world.pids
        stopped = world.run_to_the_end(rank_one_gets, signal.SIGSTOP, deadline=0.3)
        assert [type(outcome) for outcome in stopped] == [Hung, Hung]
        assert over(pids)


def test_a_world_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho not today\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RanksError, match=r"2 ranks of ring did not find together:\n--- log of rank \d\nnot today"):
        World(2).run(place)


def test_a_file_that_a_rank_cannot_import_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text(
        "import os\nassert 'MLX_RANK' not in os.environ, 'not there'\ndef case(group): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with World(2) as world:
        case = importlib.import_module("only_here").case
        assert world.outcomes(case) == [Raised("AssertionError", "not there")] * 2


# When the tests themselves end

CHILD = """
from pathlib import Path
from ranks import World
from test_ranks import all_hang, place
world = World(2)
world.run(place)
print(*world.pids, flush=True)
world.run(all_hang, Path({mark!r}), deadline=3600)
"""


def test_no_rank_outlives_the_tests(tmp_path: Path) -> None:
    numbers = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    marks = [tmp_path / number.name for number in numbers]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD.format(mark=str(mark))],
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for mark in marks
    ]
    try:
        for child, mark, number in zip(children, marks, numbers, strict=True):
            assert child.stdout is not None
            pids = [int(pid) for pid in child.stdout.readline().split()]
            assert len(pids) == 2
            while not all(mark.with_suffix(f".{rank}").exists() for rank in range(2)):
                time.sleep(0.01)
            assert all(map(runs, pids))
            child.send_signal(number)
            assert over(pids), number
            assert child.wait() != 0
    finally:
        for child in children:
            child.kill()
            child.communicate()
