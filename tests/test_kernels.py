"""What a compiled step costs: kernels, read from the graph of unevaluated outputs, and memory. Neither ever varies."""

import gc
import inspect
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import compiler
import mlx.core as mx
import pytest
from registry import ENTRIES, NEWCOMERS, ONE, Entry

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation
from mlxopt.compiled import step, streams
from mlxopt.compiled.streams import LARGE
from mlxopt.numerics import sums
from mlxopt.testing.compiled import functions_among
from mlxopt.testing.problems import Extras, no_extras

RECIPES = [entry for entry in ENTRIES if entry.recipe]

VIEWS = {"Broadcast", "ExpandDims", "Flatten", "Reshape", "Squeeze"}
"""Operations that move no data."""


def kernels(folder: Path, outputs: Any) -> Counter[str]:
    """Names of the kernels that will compute a tree of arrays."""
    file = folder / "graph.dot"
    mx.export_to_dot(str(file), *tree.leaves(outputs))
    names = Counter(re.findall(r'label ="(\w+)"', file.read_text()))
    return Counter({name: count for name, count in names.items() if name not in VIEWS})


def graph(
    folder: Path, tx: GradientTransformation, dtype: mx.Dtype, leaves: int, extras: Extras = no_extras
) -> Counter[str]:
    """Names of the kernels of one compiled update."""
    params = {f"w{index}": mx.ones((8, 8), dtype) for index in range(leaves)}
    state = tx.init(params)
    mx.eval(params, state)
    step, extra = compiled_with(tx, extras(params))
    mx.eval(extra)
    return kernels(folder, step(params, state, params, **extra))


def compiled_with(tx: GradientTransformation, extra: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A compiled step that closes over the extras that are functions, and the others."""
    functions, arrays = functions_among(extra)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return tx.update(updates, state, params, **extra, **functions)

    return mo.compile_update(GradientTransformation(tx.init, update) if functions else tx), arrays


def kernels_per_leaf(
    folder: Path, tx: GradientTransformation, dtype: mx.Dtype = mx.float32, extras: Extras = no_extras
) -> float:
    """How many kernels another leaf costs."""
    return (graph(folder, tx, dtype, 5, extras).total() - graph(folder, tx, dtype, 3, extras).total()) / 2


@pytest.mark.parametrize("entry", RECIPES, ids=lambda entry: entry.name)
def test_kernels_for_each_leaf(entry: Entry, tmp_path: Path) -> None:
    found = [int(kernels_per_leaf(tmp_path, entry.build(), dtype, entry.extras)) for dtype in (mx.float32, mx.bfloat16)]
    assert found == [entry.kernels.float32, entry.kernels.bfloat16], (
        f"{entry.name} takes {found[0]} kernels for a leaf in float32 and {found[1]} in bfloat16; "
        f"with a reason, put kernels=Kernels({found[0]}, {found[1]}, why) into its line of tests/registry.py"
    )


def test_a_schedule_is_no_kernel_of_a_leaf(tmp_path: Path) -> None:
    tx = mo.adamw(mo.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100), weight_decay=mo.linear_schedule(0.1, 0.0, 9))
    assert kernels_per_leaf(tmp_path, tx) == 1


def test_more_than_one_kernel_has_a_reason() -> None:
    assert [entry.name for entry in RECIPES if entry.kernels != ONE and not entry.kernels.why] == []
    assert all(entry.kernels == ONE for entry in ENTRIES if entry not in RECIPES)


def test_the_count_catches_a_chain_that_does_not_fuse(tmp_path: Path) -> None:
    split = mo.chain(mo.scale_by_adam(), mo.centralize(), mo.scale_by_learning_rate(0.1))
    assert kernels_per_leaf(tmp_path, split) == 3


def test_clipping_adds_only_its_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small leaves are laid end to end and measured together, large ones one by one.

    Two passes over the data: the largest magnitude, of both signs, and the sum of scaled squares in one kernel and one
    sum. Beside that another leaf costs only its scale.
    """
    clipped = mo.chain(mo.clip_by_global_norm(1.0), mo.adamw(0.1))
    passes = ("Max", "CompiledBroadcastMultiplySquare", "Sum")
    small = graph(tmp_path, clipped, mx.float32, 3)
    assert small["Concatenate"] == 1
    assert [small[name] for name in passes] == [2, 1, 1]
    assert kernels_per_leaf(tmp_path, clipped) == kernels_per_leaf(tmp_path, mo.adamw(0.1))
    monkeypatch.setattr(sums, "SMALL", 0)
    large = graph(tmp_path, clipped, mx.float32, 3)
    assert [large[name] for name in passes] == [6, 3, 4]
    assert kernels_per_leaf(tmp_path, clipped) == kernels_per_leaf(tmp_path, mo.adamw(0.1)) + 5


# Scalars of a step, such as bias corrections, are computed once: also where a single leaf would swallow their formula


def slow_for_each_element(kernels: Counter[str]) -> list[str]:
    """Kernels that raise to powers and spread a scalar over a leaf at once."""
    return [name for name in kernels if "Broadcast" in name and re.search("Exp|Log(?!ical)|Power", name)]


CUBE_ROOTS = {"madgrad", "scale_by_madgrad"}
"""These take a root of every element that is a power to MLX."""


@pytest.mark.parametrize("leaves", [1, 3])
@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.public_name not in CUBE_ROOTS], ids=lambda entry: entry.name)
def test_no_power_and_no_exponential_for_each_element(entry: Entry, leaves: int, tmp_path: Path) -> None:
    assert slow_for_each_element(graph(tmp_path, entry.build(), mx.float32, leaves, entry.extras)) == []


def test_the_search_catches_a_power_for_each_element(tmp_path: Path) -> None:
    def update(updates: Any, state: mx.array, params: Any = None) -> Any:
        return tree.map(lambda u: u / (1 - mx.power(0.9, state)), updates), state + 1

    tx = GradientTransformation(lambda params: mx.array(1.0), update)
    assert len(slow_for_each_element(graph(tmp_path, tx, mx.float32, 1))) == 1


# Memory on the CPU: the new parameters and the new state take the place of the old ones


class Memory(NamedTuple):
    """Bytes a step needs beyond what is live before it, and bytes live after it beyond what it returned."""

    extra: int
    left_over: int


LEAVES, LEAF_BYTES = 4, 4 * 2**17
SMALL = 2**14


def memory_of_a_step(tx: GradientTransformation, donate: bool) -> Memory:
    """Of the third step, when all constants have been made."""
    gc.collect()
    mx.synchronize()
    start = mx.get_active_memory()
    step = mo.compile_update(tx, donate=donate)
    params = {f"w{index}": mx.ones((LEAF_BYTES // 4,)) for index in range(LEAVES)}
    grads = tree.scale(0.5, params)
    state = tx.init(params)
    mx.eval(params, grads, state)
    before = 0
    for _ in range(3):
        mx.synchronize()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        params, state = step(grads, state, params)
        mx.eval(params, state)
    mx.synchronize()
    live = mx.get_active_memory() - start
    return Memory(mx.get_peak_memory() - before, live - tree.nbytes((params, grads, state)))


ON_CPU = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="the streams and buffers of a GPU are its own")

WITH_MEMORY: dict[str, tuple[Callable[[], GradientTransformation], int]] = {
    "sgd momentum": (lambda: mo.sgd(0.1, momentum=0.9), 1),
    "rmsprop": (lambda: mo.rmsprop(0.1), 1),
    "adamw": (lambda: mo.adamw(0.1), 2),
    "amsgrad": (lambda: mo.amsgrad(0.1), 3),
}


@ON_CPU
@pytest.mark.parametrize("name", WITH_MEMORY)
def test_a_step_that_donates_needs_no_further_memory(name: str) -> None:
    assert LEAF_BYTES // 4 >= LARGE
    build, _ = WITH_MEMORY[name]
    extra, left_over = memory_of_a_step(build(), donate=True)
    assert extra < SMALL
    assert left_over < SMALL


@ON_CPU
@pytest.mark.parametrize("name", WITH_MEMORY)
def test_a_step_that_does_not_donate_needs_new_memory_and_frees_the_old(name: str) -> None:
    build, moments = WITH_MEMORY[name]
    extra, left_over = memory_of_a_step(build(), donate=False)
    assert extra > moments * LEAVES * LEAF_BYTES / 2
    assert left_over < SMALL


# Hyperparameters are inputs of kernels, not numbers in their source: other values need no other kernels


def sources() -> set[Path]:
    """The kernels that this process has compiled, or found compiled by another test."""
    return set(Path(tempfile.gettempdir()).rglob("mlx/**/*.so"))


def with_other_numbers(entry: Entry, share: float) -> GradientTransformation:
    """What the entry builds, with every positive float among its arguments a little smaller."""
    bound = inspect.signature(entry.factory).bind(**entry.settings)
    bound.apply_defaults()
    floats = {name: value for name, value in bound.arguments.items() if isinstance(value, float) and value > 0}
    return entry.build(**{name: share * value for name, value in floats.items()})


def new_sources(one: GradientTransformation, other: GradientTransformation, extras: Extras = no_extras) -> set[Path]:
    """What a step compiles for the second transformation after one for the first."""
    params = {"w": mx.ones((8, 8)), "b": mx.ones((8,))}
    before = set()
    for tx in (one, other):
        before = sources()
        step, extra = compiled_with(tx, extras(params))
        mx.eval(step(params, tx.init(params), params, **extra))
    return sources() - before


@ON_CPU
@pytest.mark.parametrize("entry", [*ENTRIES, *NEWCOMERS], ids=lambda entry: entry.name)
def test_other_hyperparameters_need_no_new_kernels(entry: Entry) -> None:
    # Twice others: a factor of 1 needs no operation, and so is another kernel.
    one, other = (with_other_numbers(entry, share) for share in (0.97, 0.94))
    assert new_sources(one, other, entry.extras) == set()


SETTINGS: dict[str, tuple[GradientTransformation, GradientTransformation]] = {
    "muon, size": (mo.muon(0.1, consistent_rms=0.2), mo.muon(0.1, consistent_rms=0.3)),
    "adafactor, momentum": (mo.adafactor(0.1, momentum=0.9), mo.adafactor(0.2, momentum=0.8, clipping_threshold=2.0)),
    "lion, short memory": (mo.lion(0.1, 0.9, 0.6), mo.lion(0.1, 0.8, 0.3)),
    "sgd, damped": (mo.sgd(0.1, 0.9, dampening=0.4), mo.sgd(0.1, 0.8, dampening=0.25)),
    "rmsprop, centered": (
        mo.rmsprop(0.1, centered=True, momentum=0.9),
        mo.rmsprop(0.1, 0.8, 1e-3, centered=True, momentum=0.8),
    ),
}


@ON_CPU
@pytest.mark.parametrize("name", SETTINGS)
def test_other_settings_of_a_kind_need_no_new_kernels(name: str) -> None:
    assert new_sources(*SETTINGS[name]) == set()


TWO_OF_A_KIND: dict[str, tuple[Callable[[int], float | mx.array], Callable[[int], float | mx.array]]] = {
    "cosine": (mo.cosine_decay(0.1, 100), mo.cosine_decay(0.2, 300, 0.01)),
    "power": (mo.polynomial_schedule(1.0, 0.1, 2.0, 8, 2), mo.polynomial_schedule(0.5, 0.0, 3.0, 9, 1)),
    "rex": (mo.rex_schedule(1.0, 10), mo.rex_schedule(0.5, 20, 0.1)),
    "exponential": (mo.exponential_decay(0.1, 0.9), mo.exponential_decay(0.2, 0.99, transition_steps=7)),
    "steps": (mo.step_decay(0.1, 0.5, 3), mo.step_decay(0.3, 0.9, 5)),
    "root": (mo.inverse_sqrt_schedule(0.1, 5), mo.inverse_sqrt_schedule(0.2, 9)),
    "relative": (mo.relative_step_schedule(0.1, 1e-3), mo.relative_step_schedule(0.2, 1e-2)),
    "joined": (
        mo.warmup_exponential_decay_schedule(0.0, 0.1, 5, 5, 0.5),
        mo.warmup_exponential_decay_schedule(0.1, 0.2, 7, 9, 0.7),
    ),
    "stable": (mo.wsd_schedule(0.1, 4, 8, 6), mo.wsd_schedule(0.3, 5, 7, 9)),
    "combined": (
        mo.clipped(mo.scaled(mo.repeated(mo.shifted(mo.linear_to_zero(1.0, 9), 2), 5), 0.5), 0.1),
        mo.clipped(mo.scaled(mo.repeated(mo.shifted(mo.linear_to_zero(2.0, 7), 3), 4), 0.7), 0.2),
    ),
}


@ON_CPU
@pytest.mark.parametrize("kind", TWO_OF_A_KIND)
def test_another_schedule_of_the_kind_needs_no_new_kernels(kind: str) -> None:
    one, other = TWO_OF_A_KIND[kind]
    assert new_sources(mo.sgd(one), mo.sgd(other)) == set()


@ON_CPU
def test_the_search_catches_a_number_in_a_kernel() -> None:
    def halved(share: float) -> GradientTransformation:
        shares = {"of all": share}  # numbers inside of objects are not found
        return mo.stateless_with_tree_map(lambda u, p: shares["of all"] * mx.tanh(u))

    assert len(new_sources(halved(0.5), halved(0.25))) == 1


# Several streams of the CPU: what is computed on one of them is fused as what is computed on another

WITH_REDUCTIONS = {"adafactor", "galore", "lbfgs", "muon", "noisy_sgd", "adamp", "sgdp", "adam_mini", "came"}
ELEMENTWISE = [entry for entry in RECIPES if entry.public_name not in WITH_REDUCTIONS]


def graph_on_streams(
    folder: Path,
    tx: GradientTransformation,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    extras: Extras = no_extras,
) -> Counter[str]:
    """Kernels of a step on four leaves, each of which is large enough for a stream of its own."""
    available = [mx.default_stream(mx.cpu), *(mx.new_stream(mx.cpu) for _ in range(count - 1))]
    monkeypatch.setattr(step, "LARGE", 8)
    monkeypatch.setattr(streams, "LARGE", 8)
    monkeypatch.setattr(streams, "cpu_streams", lambda: available)
    found = graph(folder, tx, mx.float32, 4, extras)
    return Counter({name: count for name, count in found.items() if name != "Contiguous"})


@ON_CPU
@pytest.mark.parametrize("entry", ELEMENTWISE, ids=lambda entry: entry.name)
def test_kernels_are_the_same_on_every_stream(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, several = (graph_on_streams(tmp_path, entry.build(), count, monkeypatch, entry.extras) for count in (1, 3))
    assert one == several


@ON_CPU
def test_the_comparison_catches_a_number_that_two_streams_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tx = mo.chain(mo.stateless_with_tree_map(lambda u, p: mx.maximum(u, 0.5)), mo.sgd(0.1))
    one, several = (graph_on_streams(tmp_path, tx, count, monkeypatch) for count in (1, 3))
    assert one != several


@ON_CPU
def test_the_compiler_of_the_tests_makes_the_same_code(tmp_path: Path) -> None:
    """It only finds MLX's header already read, and the second time the library that it made."""
    quick, include = shutil.which("g++"), compiler.include_folder()
    assert quick is not None
    others = os.pathsep.join(path for path in os.environ["PATH"].split(os.pathsep) if path != str(Path(quick).parent))
    usual = shutil.which("g++", path=others)
    if usual is None or "mlxopt-tests" not in quick:
        pytest.skip("g++ could not read the header in advance")
    source, library = tmp_path / "kernel.cpp", tmp_path / "kernel.so"

    def made(command: str, function: str) -> bytes:
        call = f"mlx::core::detail::{function}()(x)"
        source.write_text(f'#include "{compiler.HEADER}"\nextern "C" float f(float x) {{ return {call}; }}\n')
        flags = [*compiler.FLAGS, "-w", "-I", str(include)]
        subprocess.run([command, *flags, str(source), "-o", str(library)], check=True)
        return library.read_bytes()

    assert made(quick, "Sqrt") == made(usual, "Sqrt")
    kept = (Path(quick).parent.parent / "kernels").glob("*.cpp")  # also those of other processes
    (again,) = (file for file in kept if file.read_text() == source.read_text())
    again.with_suffix(".so").write_bytes(b"not compiled")
    assert made(quick, "Sqrt") == b"not compiled"
    assert made(quick, "Exp") == made(usual, "Exp")
