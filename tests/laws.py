"""The laws: each a function that asserts it of one transformation on one problem, or of one entry of the registry."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import hypothesis
import mlx.core as mx
import pytest
from registry import Entry, Recipe
from strategies import Extras, Problem, nested_problem, number, plain_problem, problem_without_scalar, same

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import COMMON_EXTRAS, GradientTransformation


def case(law: Callable[..., None], entry: Entry) -> Any:
    """A law and an entry to hold it against; a waived one is a skip that shows its reason."""
    reason = entry.waivers.get(law.__name__)
    marks = [pytest.mark.skip(reason=reason)] if reason else []
    return pytest.param(law, entry, id=f"{law.__name__}-{entry.name}", marks=marks)


def cases(laws: list[Any], entries: list[Entry]) -> list[Any]:
    """All laws of an entry, then those of the next: what one compiled serves the other."""
    return [case(law, entry) for entry in entries for law in laws]


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
        updates, state = tx.update(grads, state, problem.params, **problem.extras(grads))
        results.updates.append(updates)
        results.states.append(state)
    return results


def shape_of(node: Any) -> str:
    """Structure, key order, shapes and dtypes of a tree, as text."""
    return repr(tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), node))


def is_finite(node: Any) -> bool:
    return all(mx.all(mx.isfinite(leaf)).item() for leaf in tree.leaves(node))


def copied(node: Any) -> Any:
    """A tree that shares neither containers nor arrays with the original."""
    return tree.map(lambda leaf: leaf + mx.zeros_like(leaf) if isinstance(leaf, mx.array) else leaf, node)


def widened(node: Any) -> Any:
    return tree.map(mo.widen, node)


def ulp(x: mx.array) -> mx.array:
    """The distance from one number to the next in the dtype of an array, in float32."""
    smallest_normal = 2.0**-14 if x.dtype == mx.float16 else 2.0**-126
    exponent = mx.floor(mx.log2(mx.maximum(mx.abs(mo.widen(x)), smallest_normal)))
    return mx.array(mx.finfo(x.dtype).eps) * mx.power(2.0, exponent)


def are_within(bound: Callable[..., mx.array], one: Any, other: Any, *rest: Any) -> bool:
    """Whether two trees differ nowhere by more than a bound, a function of their leaves and those of further trees."""

    def is_within(x: mx.array, y: mx.array, *more: mx.array) -> bool:
        difference = mx.abs(x.astype(mx.float32) - y.astype(mx.float32))
        return bool(mx.all(difference <= 1.001 * bound(x, y, *more) + 1e-7).item())

    return all(tree.leaves(tree.map(is_within, one, other, *rest)))


# On generated trees


def updates_keep_their_form(tx: Pair, problem: Problem) -> None:
    for grads, updates in zip(problem.grads, run(tx, problem).updates, strict=True):
        assert shape_of(updates) == shape_of(grads)


def functions_are_pure(tx: Pair, problem: Problem) -> None:
    """A call changes nothing that it was given, and the same call returns the same."""
    params, before = problem.params, copied(problem.params)
    state = tx.init(params)
    assert same(params, before)
    assert same(tx.init(params), state)
    for grads in problem.grads:
        extra = problem.extras(grads)
        before = copied((grads, state, params, extra))
        first = tx.update(grads, state, params, **extra)
        assert same((grads, state, params, extra), before)
        assert same(tx.update(grads, state, params, **extra), first)
        state = first[1]


def state_keeps_its_form(tx: Pair, problem: Problem) -> None:
    first, *later = run(tx, problem).states
    for state in later:
        assert shape_of(state) == shape_of(first)


def forms_are_kept_without_parameters(tx: Pair, problem: Problem) -> None:
    """What needs parameters says so; what does not has only the updates and the state to go by."""
    state = first = tx.init(problem.params)
    for grads in problem.grads:
        try:
            updates, state = tx.update(grads, state, **problem.extras(grads))
        except ValueError as error:
            if "update needs params" not in str(error):
                raise
            return
        assert shape_of(updates) == shape_of(grads)
        assert shape_of(state) == shape_of(first)


def state_holds_arrays(tx: Pair, problem: Problem) -> None:
    for state in run(tx, problem).states:
        for path, leaf in tree.items(state):
            assert isinstance(leaf, mx.array), path


def zeros_are_harmless(tx: Pair, problem: Problem) -> None:
    grads = [tree.zeros_like(problem.grads[0]), *problem.grads]
    results = run(tx, problem._replace(params=tree.zeros_like(problem.params), grads=grads))
    assert is_finite(results.updates)
    assert is_finite(results.states)


def empty_trees_are_fine(tx: Pair, problem: Problem) -> None:
    empties: list[Any] = [{}, [], {"a": {}, "b": ()}, {"a": None}]
    for empty in empties:
        assert run(tx, problem._replace(params=empty, grads=[empty, empty])).updates == [empty, empty]


def low_precision_follows_float32(tx: Pair, problem: Problem) -> None:
    """What a float16 or bfloat16 leaf gets is what a float32 leaf gets, rounded."""
    exact = run(tx, problem._replace(params=widened(problem.params), grads=widened(problem.grads)))
    rounded = run(tx, problem)
    for step, grads in enumerate(problem.grads):
        assert same(rounded.updates[step], tree.cast_like(exact.updates[step], grads))
    assert same(rounded.states, exact.states)


def parameters_follow_float32(tx: Pair, problem: Problem) -> None:
    """A step of float16 or bfloat16 parameters is that of float32 parameters: update and result are rounded once."""
    params, state, exact_state = problem.params, tx.init(problem.params), tx.init(widened(problem.params))
    for grads in problem.grads:
        extra, wide_extra = problem.extras(grads), problem.extras(widened(grads))
        exact_updates, exact_state = tx.update(widened(grads), exact_state, widened(params), **wide_extra)
        exact = mo.apply_updates(widened(params), exact_updates)
        updates, state = tx.update(grads, state, params, **extra)
        params = mo.apply_updates(params, updates)
        assert are_within(lambda p, _, u: 0.5 * (ulp(p) + ulp(u)), params, exact, updates)


def nan_is_guarded(tx: Pair, problem: Problem) -> None:
    """Behind ``zero_nans``, a step of NaNs does not spoil the following ones."""
    guard = mo.zero_nans()
    state, guard_state = tx.init(problem.params), guard.init(problem.params)
    for grads in (tree.full_like(problem.grads[0], float("nan")), *problem.grads):
        finite, guard_state = guard.update(grads, guard_state)
        updates, state = tx.update(finite, state, problem.params, **problem.extras(finite))
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
    rest = run(tx, problem._replace(grads=problem.grads[1:]), restored)
    assert same(rest.updates, whole.updates[1:])


def extras_are_checked(tx: Pair, problem: Problem) -> None:
    """Common extras make no difference, a misspelt one is an error."""
    grads, state = problem.grads[0], tx.init(problem.params)
    needed = problem.extras(grads)
    common = {**dict.fromkeys(COMMON_EXTRAS, mx.array(1.0)), **needed}
    plain = tx.update(grads, state, problem.params, **needed)
    assert same(plain, tx.update(grads, state, problem.params, **common))
    with pytest.raises(TypeError, match="no use for the extra argument 'valeu'"):
        tx.update(grads, state, problem.params, **needed, valeu=mx.array(1.0))


GENERAL: list[Callable[[Pair, Problem], None]] = [
    updates_keep_their_form,
    functions_are_pure,
    state_keeps_its_form,
    forms_are_kept_without_parameters,
    state_holds_arrays,
    zeros_are_harmless,
    empty_trees_are_fine,
    low_precision_follows_float32,
    parameters_follow_float32,
    nan_is_guarded,
    resumes_from_a_file,
    extras_are_checked,
]


STRUCTURAL = {
    updates_keep_their_form,
    state_keeps_its_form,
    forms_are_kept_without_parameters,
    state_holds_arrays,
    empty_trees_are_fine,
    extras_are_checked,
}
"""Laws that do not depend on numbers: fewer examples are enough."""


def fewer_examples() -> hypothesis.settings:
    """A quarter of the examples of the profile."""
    return hypothesis.settings(max_examples=max(hypothesis.settings().max_examples // 4, 1))


# Compiled, on small fixed problems


class Step(NamedTuple):
    """Parameters and state after one step from the same start, compiled and eager, and the eager updates."""

    compiled: tuple[Any, Any]
    eager: tuple[Any, Any]
    updates: Any


class CompiledRun(NamedTuple):
    """The steps of a compiled loop, and how often it was traced."""

    steps: list[Step]
    traces: int


def set_anew(state: Any, index: int) -> Any:
    """Set every learning rate and weight decay in a state; a state without one stays as it is."""
    values = {"learning_rate": 0.1 / (1 + index), "weight_decay": 0.02 * index}
    return tree.set(state, {path: value for name, value in values.items() for path in tree.get_all(state, name)})


def compiled_run(build: Callable[[], GradientTransformation], problem: Problem) -> CompiledRun:
    """Run with hyperparameters that are set anew at every step."""
    tx, traces = build(), []

    def counted(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        traces.append(1)
        return tx.update(updates, state, params, **extra)

    step = mo.compile_update(GradientTransformation(tx.init, counted))
    params, state, steps = problem.params, tx.init(problem.params), []
    for index, grads in enumerate(problem.grads):
        state, extra = set_anew(state, index), problem.extras(grads)
        updates, eager_state = tx.update(grads, state, params, **extra)
        eager = mo.apply_updates(params, updates), eager_state
        params, state = step(grads, state, params, **extra)
        steps.append(Step((params, state), eager, updates))
    return CompiledRun(steps, len(traces))


@functools.cache
def plain_run(entry: Entry) -> CompiledRun:
    # Scalars are another graph; whole optimizers are chains of what is compiled with them as well.
    problem = problem_without_scalar() if entry.recipe else plain_problem()
    return compiled_run(entry.build, problem._replace(extras=entry.extras))


@functools.cache
def nested_run(entry: Entry) -> CompiledRun:
    problem = nested_problem(last=(2,) if entry.recipe else ())
    return compiled_run(entry.build, problem._replace(extras=entry.extras))


@functools.cache
def bfloat16_run(entry: Entry) -> CompiledRun:
    return compiled_run(entry.build, problem_without_scalar(mx.bfloat16)._replace(extras=entry.extras))


def require_equal(steps: list[Step]) -> None:
    for step in steps:
        assert shape_of(step.compiled) == shape_of(step.eager)
        assert tree.allclose(step.compiled, step.eager, rtol=1e-5, atol=1e-6)


def compiled_equals_eager(entry: Entry) -> None:
    require_equal(plain_run(entry).steps)


def compiled_equals_eager_in_nested_trees(entry: Entry) -> None:
    require_equal(nested_run(entry).steps)


def compiled_follows_eager_in_bfloat16(entry: Entry) -> None:
    """Eager rounds the update and then the parameter, compiled only the parameter: 1 ulp, or half one of the update."""
    for step in bfloat16_run(entry).steps:
        (params, state), (eager_params, eager_state) = step.compiled, step.eager
        assert are_within(lambda p, q, u: mx.maximum(ulp(p), ulp(q)) + 0.5 * ulp(u), params, eager_params, step.updates)
        assert shape_of(state) == shape_of(eager_state)
        assert are_within(lambda x, y: 1e-5 * mx.abs(y) + ulp_of_memory(y), state, eager_state)


def ulp_of_memory(x: mx.array) -> mx.array:
    """Memory in bfloat16 may be rounded the other way."""
    return ulp(x) if x.dtype == mx.bfloat16 else mx.array(0.0)


def one_trace_is_enough(entry: Entry) -> None:
    assert plain_run(entry).traces == 1
    assert nested_run(entry).traces == 1


def prints_as_its_expression(entry: Entry) -> None:
    """What is printed builds the same again (a lambda has no name by which it could)."""
    tx = entry.build()
    printed = repr(tx)
    assert printed.startswith(f"{tx.name}(")
    assert "(...)" not in printed, "decorate the factory with mlxopt.readable"
    if "<lambda>" not in printed:
        names = {**entry.names, **vars(mo), **vars(mo.schedules), "mx": mx}
        assert repr(eval(printed, names)) == printed


def injected_hyperparameters_change_nothing(entry: Entry) -> None:
    """Numbers that are read from the state give the same updates, to 1e-5 of the largest."""
    problem = plain_problem()._replace(extras=entry.extras)
    build = mo.inject_hyperparams(entry.factory, static_args=entry.static)
    plain, injected = run(entry.build(), problem), run(build(**entry.settings), problem)
    for one, other in zip(plain.updates, injected.updates, strict=True):
        assert shape_of(one) == shape_of(other)
        assert are_within(lambda x, y: 1e-5 * mx.max(mx.abs(x)), one, other)


SINGLE: list[Callable[[Entry], None]] = [
    injected_hyperparameters_change_nothing,
    compiled_equals_eager,
    compiled_equals_eager_in_nested_trees,
    compiled_follows_eager_in_bfloat16,
    one_trace_is_enough,
    prints_as_its_expression,
]


# Of what is built from a hyperparameter


def require_schedule_equals_number(build: Recipe, value: float, extras: Extras) -> None:
    """A constant schedule gives what the number gives, with the same form of state."""
    problem = plain_problem()._replace(extras=extras)
    number, schedule = run(build(value), problem), run(build(mo.constant_schedule(value)), problem)
    assert same(number.updates, schedule.updates)
    assert same(number.states, schedule.states)


def recipe_of(entry: Entry) -> tuple[Recipe, float]:
    """A whole optimizer by its learning rate, and the rate that suits it."""
    assert entry.recipe is not None
    assert entry.rate is not None
    return entry.recipe, entry.rate


def schedule_equals_number(entry: Entry) -> None:
    require_schedule_equals_number(*recipe_of(entry), entry.extras)


def learning_rate_is_visible(entry: Entry) -> None:
    """The state shows the rate of the last update, and a constant rate can be set there."""
    (build, rate), problem = recipe_of(entry), plain_problem()._replace(extras=entry.extras)
    falling = run(build(mo.linear_schedule(1.0, 0.0, 4)), problem)
    assert [tree.get(state, "learning_rate").item() for state in falling.states] == [1.0, 1.0, 0.75, 0.5, 0.25]
    tx, grads = build(rate), problem.grads[0]
    stopped = tree.set(tx.init(problem.params), learning_rate=0.0)
    updates, _ = tx.update(grads, stopped, problem.params, **problem.extras(grads))
    assert same(tree.map(mx.abs, updates), tree.zeros_like(updates))


def goes_downhill(entry: Entry) -> None:
    """From (3, -2) to the bottom of an elongated bowl, with a falling learning rate."""
    steps, (build, rate) = 150, recipe_of(entry)
    tx = build(mo.linear_schedule(rate, 0.0, steps))
    params = {"x": mx.array([3.0, -2.0])}
    curvature, state = mx.array([1.0, 0.2]), tx.init(params)
    for _ in range(steps):
        grads = {"x": curvature * params["x"]}
        updates, state = tx.update(grads, state, params, **entry.extras(grads))
        params = mo.apply_updates(params, updates)
    start, end = mx.sum(curvature * mx.array([9.0, 4.0])), mx.sum(curvature * mx.square(params["x"]))
    assert number(end) < 0.25 * number(start)


RECIPE: list[Callable[[Entry], None]] = [schedule_equals_number, learning_rate_is_visible, goes_downhill]


def decay_of(entry: Entry) -> Recipe:
    assert entry.decay is not None
    return entry.decay


def decay_schedule_equals_number(entry: Entry) -> None:
    require_schedule_equals_number(decay_of(entry), 0.1, entry.extras)


def weight_decay_is_visible(entry: Entry) -> None:
    """The state shows the decay of the last update, and a constant decay can be set there."""
    build, problem = decay_of(entry), plain_problem()._replace(extras=entry.extras)
    falling = run(build(mo.linear_schedule(1.0, 0.0, 4)), problem)
    assert [tree.get(state, "weight_decay").item() for state in falling.states] == [1.0, 1.0, 0.75, 0.5, 0.25]
    stopped = tree.set(build(0.1).init(problem.params), weight_decay=0.0)
    parameters_do_not_matter = problem._replace(params=tree.zeros_like(problem.params))
    assert same(run(build(0.1), problem, stopped).updates, run(build(0.1), parameters_do_not_matter).updates)


DECAY: list[Callable[[Entry], None]] = [decay_schedule_equals_number, weight_decay_is_visible]
