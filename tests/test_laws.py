"""Every law over every transformation of the registry; and for every law something broken that it catches."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import laws
import mlx.core as mx
import pytest
from hypothesis import given, settings
from registry import ENTRIES, Entry
from strategies import Problem, plain_problem, problems

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation, ScalarOrSchedule

RECIPES = [entry for entry in ENTRIES if entry.recipe]


def case(law: Callable[..., None], entry: Entry) -> Any:
    """A law and an entry to hold it against; a waived one is a skip that shows its reason."""
    reason = entry.waivers.get(law.__name__)
    marks = [pytest.mark.skip(reason=reason)] if reason else []
    return pytest.param(law, entry, id=f"{law.__name__}-{entry.name}", marks=marks)


def cases(law_list: list[Any], entries: list[Entry]) -> list[Any]:
    return [case(law, entry) for law in law_list for entry in entries]


@pytest.mark.parametrize(("law", "entry"), cases(laws.GENERAL, ENTRIES))
@given(problem=problems())
def test_general_law(law: Callable[..., None], entry: Entry, problem: Problem) -> None:
    law(entry.build(), problem)


_built: dict[str, GradientTransformation] = {}


@pytest.mark.parametrize(("law", "entry"), cases(laws.SINGLE, ENTRIES))
def test_single_law(law: Callable[..., None], entry: Entry) -> None:
    law(_built.setdefault(entry.name, entry.build()))


@pytest.mark.parametrize(("law", "entry"), cases(laws.RECIPE, RECIPES))
def test_recipe_law(law: Callable[..., None], entry: Entry) -> None:
    law(entry.recipe, entry.rate)


def test_waivers_name_laws() -> None:
    known = {law.__name__ for law in (*laws.GENERAL, *laws.SINGLE, *laws.RECIPE)}
    assert all(entry.waivers.keys() <= known for entry in ENTRIES)
    assert all(reason for entry in ENTRIES for reason in entry.waivers.values())


# Something broken for every law. ``pair`` goes round the checks of GradientTransformation.


def pair(init: Callable[..., Any], update: Callable[..., Any]) -> Any:
    return SimpleNamespace(init=init, update=update)


def broken_form() -> Any:
    """Loses the dtype of low-precision updates."""
    return pair(lambda params: (), lambda updates, state, params=None: (tree.map(tree.widen, updates), state))


def broken_purity() -> Any:
    """Counts in a variable of its own."""
    calls: list[int] = []

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        calls.append(1)
        return tree.map(lambda u: u * len(calls), updates), state

    return pair(lambda params: (), update)


def broken_state_form() -> Any:
    """Remembers nothing at first, then the updates."""
    return pair(lambda params: (), lambda updates, state, params=None: (updates, (updates,)))


def broken_state_arrays() -> Any:
    """Counts with a Python number."""
    return pair(
        lambda params: {"count": 0}, lambda updates, state, params=None: (updates, {"count": state["count"] + 1})
    )


def broken_zeros() -> Any:
    """Normalizes without an eps."""
    return mo.stateless_with_tree_map(lambda u, p: u / mx.sqrt(mx.square(u)))


def broken_empty() -> Any:
    """Wraps what it returns in a list if there are no leaves."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return (updates if tree.leaves(updates) else [updates]), state

    return pair(lambda params: (), update)


def broken_precision() -> Any:
    """Computes in the dtype of the updates."""
    return pair(
        lambda params: (),
        lambda updates, state, params=None: (tree.map(lambda u: u / 3.0 * 3.0, updates), state),
    )


class Peak(NamedTuple):
    peak: Any


def broken_guard() -> Any:
    """Divides by the smallest magnitude seen so far, which the zeros of a guarded step make zero for good."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        peak = tree.map(lambda u, s: mx.minimum(mx.abs(u), s), updates, state.peak)
        return tree.map(lambda u, s: u / s, updates, peak), Peak(peak)

    return mo.GradientTransformation(lambda params: Peak(tree.memory_like(params, 1.0)), update)


def broken_resume() -> Any:
    """Keeps part of its memory in a variable of its own, which no file holds."""
    memory: dict[str, Any] = {}

    def init(params: Any) -> Any:
        memory["last"] = params
        return ()

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        last, memory["last"] = memory["last"], updates
        return tree.map(lambda u, v: u - v.astype(u.dtype), updates, last), state

    return pair(init, update)


def broken_extras() -> Any:
    """Swallows whatever it is given."""
    return pair(lambda params: (), lambda updates, state, params=None, **extra: (updates, state))


BROKEN_GENERAL: dict[Callable[..., None], Callable[[], Any]] = {
    laws.updates_keep_their_form: broken_form,
    laws.functions_are_pure: broken_purity,
    laws.state_keeps_its_form: broken_state_form,
    laws.state_holds_arrays: broken_state_arrays,
    laws.zeros_are_harmless: broken_zeros,
    laws.empty_trees_are_fine: broken_empty,
    laws.low_precision_follows_float32: broken_precision,
    laws.nan_is_guarded: broken_guard,
    laws.resumes_from_a_file: broken_resume,
    laws.extras_are_checked: broken_extras,
}


@pytest.mark.parametrize("law", laws.GENERAL, ids=lambda law: law.__name__)
def test_general_law_catches(law: Callable[..., None]) -> None:
    """pytest.raises inside a law fails with an outcome that is no AssertionError but derives from BaseException."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        law(BROKEN_GENERAL[law](), plain_problem(mx.bfloat16))


def broken_compilation() -> GradientTransformation:
    """Reads a number that changes while the compiled program keeps the first."""
    calls: list[int] = []

    def update(updates: Any, state: mo.EmptyState, params: Any = None) -> Any:
        calls.append(1)
        return tree.scale(float(len(calls)), updates), state

    return mo.GradientTransformation(mo.identity().init, update)


class Misspelt(GradientTransformation):
    """Prints under another name than its own."""

    def __repr__(self) -> str:
        return "adam(0.1)"


BROKEN_SINGLE: dict[Callable[..., None], Callable[[], Any]] = {
    laws.compiled_equals_eager: broken_compilation,
    laws.prints_as_its_expression: lambda: Misspelt(mo.identity().init, mo.identity().update),
}


@pytest.mark.parametrize("law", BROKEN_SINGLE, ids=lambda law: law.__name__)
def test_single_law_catches(law: Callable[..., None]) -> None:
    with pytest.raises(AssertionError):
        law(BROKEN_SINGLE[law]())


def test_one_trace_law_catches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that comes in another shape at every step is a new program each time."""
    monkeypatch.setattr(laws, "set_learning_rate", lambda state, value: {"rate": mx.zeros((round(1 / value),))})
    tx = mo.GradientTransformation(
        lambda params: {"rate": mx.zeros((10,))}, lambda updates, state, params=None: (updates, state)
    )
    with pytest.raises(AssertionError):
        laws.one_trace_is_enough(tx)


def broken_schedule(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    """Keeps a state only if the learning rate is a schedule, as optax does."""
    if callable(learning_rate):
        return mo.chain(mo.scale_by_adam(), mo.scale_by_schedule(lambda count: -learning_rate(count)))
    return mo.chain(mo.scale_by_adam(), mo.scale(-learning_rate))


def broken_visibility(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    """Shows the learning rate of the next update."""
    assert callable(learning_rate)
    tx = mo.sgd(learning_rate)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        updates, (first, rate) = tx.update(updates, state, params)
        return updates, (first, rate._replace(learning_rate=mx.array(learning_rate(rate.count))))

    return mo.GradientTransformation(tx.init, update)


BROKEN_RECIPE: dict[Callable[..., None], Callable[..., GradientTransformation]] = {
    laws.schedule_equals_number: broken_schedule,
    laws.learning_rate_is_visible: broken_visibility,
    laws.goes_downhill: lambda learning_rate: mo.chain(mo.scale_by_learning_rate(learning_rate, flip_sign=False)),
}


@pytest.mark.parametrize("law", laws.RECIPE, ids=lambda law: law.__name__)
def test_recipe_law_catches(law: Callable[..., None]) -> None:
    with pytest.raises(AssertionError):
        law(BROKEN_RECIPE[law], 0.1)


def test_every_law_has_a_broken_example() -> None:
    single = BROKEN_SINGLE.keys() | {laws.one_trace_is_enough}
    assert BROKEN_GENERAL.keys() == set(laws.GENERAL)
    assert single == set(laws.SINGLE)
    assert BROKEN_RECIPE.keys() == set(laws.RECIPE)


long_run = settings(max_examples=5)


@long_run
@given(problem=problems(steps=1))
def test_problems_have_matching_trees(problem: Problem) -> None:
    assert laws.shape_of(problem.params) == laws.shape_of(problem.grads[0])
