"""The laws of transformations, each a function that asserts it of one transformation on one problem."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import mlx.core as mx
import pytest
from strategies import Problem, number, plain_problem, same

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import COMMON_EXTRAS, GradientTransformation, ScalarOrSchedule


class Pair(Protocol):
    """What a law needs of a transformation; broken examples need not be more."""

    @property
    def init(self) -> Callable[[Any], Any]: ...

    @property
    def update(self) -> Callable[..., tuple[Any, Any]]: ...


class Run(NamedTuple):
    """What a transformation returned, step by step."""

    updates: list[Any]
    states: list[Any]  # one more: the first is that of init


def run(tx: Pair, problem: Problem, state: Any = None) -> Run:
    state = tx.init(problem.params) if state is None else state
    results = Run([], [state])
    for grads in problem.grads:
        updates, state = tx.update(grads, state, problem.params)
        results.updates.append(updates)
        results.states.append(state)
    return results


def shape_of(node: Any) -> Any:
    """Structure, key order, shapes and dtypes of a tree, as text."""
    return repr(tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), node))


def is_finite(node: Any) -> bool:
    return all(mx.all(mx.isfinite(leaf)).item() for leaf in tree.leaves(node))


# On generated trees


def updates_keep_their_form(tx: Pair, problem: Problem) -> None:
    for grads, updates in zip(problem.grads, run(tx, problem).updates, strict=True):
        assert shape_of(updates) == shape_of(grads)


def functions_are_pure(tx: Pair, problem: Problem) -> None:
    snapshot = tree.map(lambda leaf: leaf + mx.zeros_like(leaf), problem._asdict())
    first, second = run(tx, problem), run(tx, problem)
    assert same(problem._asdict(), snapshot)
    assert same(first._asdict(), second._asdict())


def state_keeps_its_form(tx: Pair, problem: Problem) -> None:
    first, *later = run(tx, problem).states
    for state in later:
        assert shape_of(state) == shape_of(first)


def state_holds_arrays(tx: Pair, problem: Problem) -> None:
    for state in run(tx, problem).states:
        for path, leaf in tree.items(state):
            assert isinstance(leaf, mx.array), path


def zeros_are_harmless(tx: Pair, problem: Problem) -> None:
    zeros = tree.zeros_like(problem.params)
    results = run(tx, Problem(zeros, [zeros, *problem.grads]))
    assert is_finite(results.updates)
    assert is_finite(results.states)


def empty_trees_are_fine(tx: Pair, problem: Problem) -> None:
    del problem
    empties: list[Any] = [{}, [], {"a": {}, "b": ()}]
    for empty in empties:
        assert run(tx, Problem(empty, [empty, empty])).updates == [empty, empty]


def low_precision_follows_float32(tx: Pair, problem: Problem) -> None:
    """What a float16 or bfloat16 leaf gets is what a float32 leaf gets, rounded."""
    exact = run(tx, Problem(tree.map(tree.widen, problem.params), tree.map(tree.widen, problem.grads)))
    rounded = run(tx, problem)
    for step, grads in enumerate(problem.grads):
        assert same(rounded.updates[step], tree.cast_like(exact.updates[step], grads))
    assert same(rounded.states, exact.states)


def nan_is_guarded(tx: Pair, problem: Problem) -> None:
    """Behind ``zero_nans``, a step of NaNs does not spoil the following ones."""
    guard = mo.zero_nans()
    state, guard_state = tx.init(problem.params), guard.init(problem.params)
    for grads in (tree.full_like(problem.grads[0], float("nan")), *problem.grads):
        finite, guard_state = guard.update(grads, guard_state)
        updates, state = tx.update(finite, state, problem.params)
        assert is_finite(updates)
    assert is_finite(state)


def resumes_from_a_file(tx: Pair, problem: Problem) -> None:
    """A state saved by name and loaded again continues bit for bit."""
    whole = run(tx, problem)
    saved = whole.states[1]
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "state.safetensors")
        mx.save_safetensors(file, {path: leaf for path, leaf in tree.items(saved) if leaf.size})
        loaded = mx.load(file)
        assert isinstance(loaded, dict)
        mx.eval(loaded)
    restored = tree.map_with_path(lambda path, leaf: loaded[path] if leaf.size else leaf, saved)
    assert same(restored, saved)
    rest = run(tx, Problem(problem.params, problem.grads[1:]), restored)
    assert same(rest.updates, whole.updates[1:])


def extras_are_checked(tx: Pair, problem: Problem) -> None:
    """Common extras make no difference, a misspelt one is an error."""
    grads, state = problem.grads[0], tx.init(problem.params)
    plain = tx.update(grads, state, problem.params)
    assert same(plain, tx.update(grads, state, problem.params, **dict.fromkeys(COMMON_EXTRAS, mx.array(1.0))))
    with pytest.raises(TypeError, match="no use for the extra argument 'valeu'"):
        tx.update(grads, state, problem.params, valeu=mx.array(1.0))


GENERAL: list[Callable[[Pair, Problem], None]] = [
    updates_keep_their_form,
    functions_are_pure,
    state_keeps_its_form,
    state_holds_arrays,
    zeros_are_harmless,
    empty_trees_are_fine,
    low_precision_follows_float32,
    nan_is_guarded,
    resumes_from_a_file,
    extras_are_checked,
]


# Compiled, on one small problem


class CompiledRun(NamedTuple):
    """Parameters after every step of a compiled and of an eager loop, and how often the former was traced."""

    compiled: list[Any]
    eager: list[Any]
    traces: int


def set_learning_rate(state: Any, value: float) -> Any:
    """Set every learning rate in a state; a state without one stays as it is."""
    places = list(tree.get_all(state, "learning_rate"))
    return tree.set(state, dict.fromkeys(places, value))


@functools.cache
def compiled_run(tx: GradientTransformation) -> CompiledRun:
    """Run with a learning rate that is set anew at every step."""
    problem, traces = plain_problem(), []

    def counted(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        traces.append(1)
        return tx.update(updates, state, params, **extra)

    step = mo.compile_update(GradientTransformation(tx.init, counted))
    params = eager_params = problem.params
    state = eager_state = tx.init(params)
    results = CompiledRun([], [], 0)
    for index, grads in enumerate(problem.grads):
        rate = 0.1 / (1 + index)
        params, state = step(grads, set_learning_rate(state, rate), params)
        updates, eager_state = tx.update(grads, set_learning_rate(eager_state, rate), eager_params)
        eager_params = mo.apply_updates(eager_params, updates)
        results.compiled.append(params)
        results.eager.append(eager_params)
    return results._replace(traces=len(traces))


def compiled_equals_eager(tx: GradientTransformation) -> None:
    results = compiled_run(tx)
    for compiled, eager in zip(results.compiled, results.eager, strict=True):
        assert tree.allclose(compiled, eager, rtol=1e-5, atol=1e-6)


def one_trace_is_enough(tx: GradientTransformation) -> None:
    assert compiled_run(tx).traces == 1


def prints_as_its_expression(tx: GradientTransformation) -> None:
    """What is printed builds the same again (functions stand under their names, and cannot)."""
    printed = repr(tx)
    assert printed.startswith(f"{tx.name}(")
    if "<" not in printed and "matrix" not in printed:
        names = {**vars(mo), **vars(mo.schedules), "mx": mx}
        assert repr(eval(printed, names)) == printed


SINGLE: list[Callable[[GradientTransformation], None]] = [
    compiled_equals_eager,
    one_trace_is_enough,
    prints_as_its_expression,
]


# Of whole optimizers, built from a learning rate

Recipe = Callable[[ScalarOrSchedule], GradientTransformation]


def schedule_equals_number(build: Recipe, rate: float) -> None:
    """A constant schedule gives what the number gives, with the same form of state."""
    problem = plain_problem()
    number, schedule = run(build(rate), problem), run(build(mo.constant_schedule(rate)), problem)
    assert same(number.updates, schedule.updates)
    assert same(number.states, schedule.states)


def learning_rate_is_visible(build: Recipe, rate: float) -> None:
    """The state shows the rate of the last update, and a constant rate can be set there."""
    problem = plain_problem()
    falling = run(build(mo.linear_schedule(1.0, 0.0, 4)), problem)
    assert [tree.get(state, "learning_rate").item() for state in falling.states] == [1.0, 1.0, 0.75, 0.5, 0.25]
    tx = build(rate)
    stopped = tree.set(tx.init(problem.params), learning_rate=0.0)
    updates, _ = tx.update(problem.grads[0], stopped, problem.params)
    assert same(tree.map(mx.abs, updates), tree.zeros_like(updates))


def goes_downhill(build: Recipe, rate: float) -> None:
    """From (3, -2) to the bottom of an elongated bowl, with a falling learning rate."""
    steps = 150
    tx = build(mo.linear_schedule(rate, 0.0, steps))
    params = {"x": mx.array([3.0, -2.0])}
    curvature, state = mx.array([1.0, 0.2]), tx.init(params)
    for _ in range(steps):
        updates, state = tx.update({"x": curvature * params["x"]}, state, params)
        params = mo.apply_updates(params, updates)
    start, end = mx.sum(curvature * mx.array([9.0, 4.0])), mx.sum(curvature * mx.square(params["x"]))
    assert number(end) < 0.25 * number(start)


RECIPE: list[Callable[[Recipe, float], None]] = [schedule_equals_number, learning_rate_is_visible, goes_downhill]
