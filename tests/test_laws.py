"""Every law over every transformation of the registry; and for every law something broken that it catches."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import hypothesis
import mlx.core as mx
import pytest
from hypothesis import given
from registry import ENTRIES, NEWCOMERS, Entry, cases

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation, ScalarOrSchedule
from mlxopt.testing import comparing, compiled, general, reaching, recipes
from mlxopt.testing.checking import ALGEBRA, LAWS, Law, hold
from mlxopt.testing.problems import Problem, nested_problem
from mlxopt.testing.strategies import problems

ALL = [*ENTRIES, *NEWCOMERS]


FEW = 8
"""Examples of each law in a usual run, of which there are thousands; a broken law is looked for with more."""


@pytest.mark.parametrize(("law", "entry"), cases(LAWS, ALL))
def test_law(law: Law, entry: Entry) -> None:
    settings = hypothesis.settings()
    hold(law, entry, hypothesis.settings(max_examples=FEW) if settings.derandomize else settings)


# The machinery: generated trees, and waivers


def features(problem: Problem) -> set[str]:
    """What is special about a generated problem."""
    params, grads = problem.params, problem.grads[0]
    pairs = list(zip(tree.leaves(params), [tree.get(grads, path) for path in tree.paths(params)], strict=True))
    found = {
        "hole": "None" in comparing.shape_of(params),
        "key order": tree.paths(params) != tree.paths(grads),
        "dtype of gradients": any(param.dtype != grad.dtype for param, grad in pairs),
        "several dtypes": len({param.dtype for param, _ in pairs}) > 1,
        "0-d": any(param.ndim == 0 for param, _ in pairs),
        "no elements": any(param.size == 0 for param, _ in pairs),
        "no leaves": not pairs,
        "NamedTuple": "Layer" in repr(params),
    }
    return {name for name, is_there in found.items() if is_there}


def test_generated_problems_have_every_feature() -> None:
    seen: set[str] = set()

    @given(problem=problems())
    def look(problem: Problem) -> None:
        assert sorted(tree.paths(problem.params)) == sorted(tree.paths(problem.grads[0]))
        seen.update(features(problem))

    look()
    assert seen == {
        *("hole", "key order", "dtype of gradients", "several dtypes", "0-d", "no elements", "no leaves", "NamedTuple")
    }


def wrong_waivers(entries: list[Entry]) -> list[str]:
    """Waivers of laws that do not exist, and waivers without a reason."""
    known = {law.name for law in LAWS}
    return [
        f"{entry.name}: {law}"
        for entry in entries
        for law, reason in entry.waivers.items()
        if law not in known or not reason
    ]


def test_waivers_name_laws_and_have_reasons() -> None:
    assert wrong_waivers(ALL) == []
    made_up = {"goes_downhill": "goes up", "chain_of_one": "nests", "goes_uphill": "no law", "functions_are_pure": ""}
    assert wrong_waivers([Entry("odd", mo.identity, waivers=made_up)]) == [
        "odd: goes_uphill",
        "odd: functions_are_pure",
    ]


def test_what_bears_less_than_others_has_a_reason() -> None:
    assert [entry.name for entry in ALL if (entry.finite_to < 1e18) != bool(entry.why_less)] == []


def test_a_waiver_is_a_skip_with_its_reason() -> None:
    entry = Entry("odd", mo.identity, waivers={"functions_are_pure": "stays where it is"})
    waived, held = cases([law for law in LAWS if law.name in ("functions_are_pure", "state_holds_arrays")], [entry])
    assert [(mark.name, mark.kwargs) for mark in waived.marks] == [("skip", {"reason": "stays where it is"})]
    assert not held.marks
    assert (waived.id, held.id) == ("functions_are_pure-odd", "state_holds_arrays-odd")


# Something broken for every law. ``pair`` goes round the checks of GradientTransformation.


def pair(init: Callable[..., Any], update: Callable[..., Any]) -> Any:
    return SimpleNamespace(init=init, update=update)


def without_memory(update: Callable[..., Any]) -> Any:
    """A transformation from a function of updates and parameters, unchecked."""
    return pair(lambda params: (), lambda updates, state, params=None: (update(updates, params), state))


def loses_the_dtype() -> Any:
    return without_memory(lambda updates, params: tree.map(mo.widen, updates))


def takes_the_order_of_the_parameters() -> Any:
    return without_memory(lambda updates, params: tree.map(lambda p, u: u, params, updates))


def fills_holes() -> Any:
    def fill(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: fill(part) for key, part in node.items()}
        if isinstance(node, (list, tuple)) and not isinstance(node, mx.array):
            parts = [fill(part) for part in node]
            return type(node)(*parts) if hasattr(node, "_fields") else type(node)(parts)
        return mx.zeros(()) if node is None else node

    return without_memory(lambda updates, params: fill(updates))


def counts_in_a_variable_of_its_own() -> Any:
    calls: list[int] = []

    def update(updates: Any, params: Any) -> Any:
        calls.append(1)
        return tree.map(lambda u: u * len(calls), updates)

    return without_memory(update)


def changes_its_state_in_place() -> Any:
    def update(updates: Any, state: Any, params: Any = None) -> Any:
        state["n"] = state["n"] + 1
        return updates, state

    return pair(lambda params: {"n": mx.array(0)}, update)


def changes_an_array_in_place() -> Any:
    def update(updates: Any, params: Any) -> Any:
        params["head"][0]["b"] += 1.0
        return updates

    return without_memory(update)


def changes_the_updates_in_place() -> Any:
    def update(updates: Any, params: Any) -> Any:
        updates["layers"].reverse()
        return {**updates, "layers": updates["layers"][::-1]}

    return without_memory(update)


def starts_anywhere() -> Any:
    starts: list[int] = []

    def init(params: Any) -> Any:
        starts.append(1)
        return {"n": mx.array(len(starts))}

    return pair(init, lambda updates, state, params=None: (updates, state))


def remembers_nothing_at_first() -> Any:
    return pair(lambda params: (), lambda updates, state, params=None: (updates, (updates,)))


def remembers_in_the_order_of_the_updates() -> Any:
    return pair(lambda params: params, lambda updates, state, params=None: (updates, updates))


def counts_with_a_python_number() -> Any:
    return pair(
        lambda params: {"count": 0}, lambda updates, state, params=None: (updates, {"count": state["count"] + 1})
    )


def normalizes_without_an_eps() -> Any:
    return mo.stateless_with_tree_map(lambda u, p: u / mx.sqrt(mx.square(u)))


def wraps_the_empty_tree() -> Any:
    return without_memory(lambda updates, params: updates if tree.leaves(updates) else [updates])


def computes_in_the_dtype_of_the_updates() -> Any:
    return without_memory(lambda updates, params: tree.map(lambda u: u / 3.0 * 3.0, updates))


def loses_small_updates() -> Any:
    return without_memory(lambda updates, params: tree.map(lambda u: (u + 256.0) - 256.0, updates))


def remembers_in_the_dtype_of_the_parameters() -> Any:
    def update(updates: Any, state: Any, params: Any = None) -> Any:
        total = tree.map(lambda s, u: s + u.astype(s.dtype), state, updates)
        return tree.cast_like(total, updates), total

    return pair(lambda params: tree.full_like(params, 100.0), update)


class Peak(NamedTuple):
    peak: Any


def takes_the_third_power() -> Any:
    """And a share of it: infinity over infinity."""
    return mo.stateless_with_tree_map(lambda u, p: u * (mx.abs(u * u * u) / (1.0 + mx.abs(u * u * u))))


def remembers_the_third_power() -> Any:
    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return updates, Peak(tree.map(lambda u: u * u * u, updates))

    return mo.GradientTransformation(lambda params: Peak(tree.memory_like(params)), update)


def divides_by_its_norm(eps: float = 0.0) -> mo.GradientTransformation:
    return mo.stateless_with_tree_map(lambda u, p: u / (mx.sqrt(mx.sum(mx.square(u))) + eps))


def divides_by_the_smallest_so_far() -> Any:
    """The zeros of a guarded step make it zero for good."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        peak = tree.map(lambda u, s: mx.minimum(mx.abs(u), s), updates, state.peak)
        return tree.map(lambda u, s: u / s, updates, peak), Peak(peak)

    return mo.GradientTransformation(lambda params: Peak(tree.memory_like(params, 1.0)), update)


def remembers_in_a_variable_of_its_own() -> Any:
    memory: dict[str, Any] = {}

    def init(params: Any) -> Any:
        memory["last"] = params
        return ()

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        last, memory["last"] = memory["last"], updates
        return tree.map(lambda u, v: u - v.astype(u.dtype), updates, last), state

    return pair(init, update)


def swallows_all_extras() -> Any:
    return pair(lambda params: (), lambda updates, state, params=None, **extra: (updates, state))


def looks_at_all_leaves() -> Any:
    return mo.stateless(lambda updates, params: tree.scale(tree.norm(updates), updates), reach="leaf")


def looks_at_the_number_of_leaves() -> Any:
    return mo.stateless(lambda updates, params: tree.scale(float(len(tree.leaves(updates))), updates), reach="leaf")


def remembers_all_leaves() -> Any:
    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return updates, Peak(tree.norm(updates))

    return mo.GradientTransformation(lambda params: Peak(mx.zeros(())), update, reach="leaf")


def looks_at_its_leaf() -> Any:
    return mo.stateless_with_tree_map(lambda u, p: u - mx.mean(u) if u.size else u, reach="element")


def remembers_its_leaf() -> Any:
    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return updates, Peak(tree.map(lambda u: mx.max(u) if u.size else mx.zeros(()), updates))

    return mo.GradientTransformation(
        lambda params: Peak(tree.map(lambda _: mx.zeros(()), params)), update, reach="element"
    )


BROKEN_GENERAL: list[tuple[Callable[..., None], Callable[[], Any]]] = [
    (general.updates_keep_their_form, loses_the_dtype),
    (general.updates_keep_their_form, takes_the_order_of_the_parameters),
    (general.updates_keep_their_form, fills_holes),
    (general.functions_are_pure, counts_in_a_variable_of_its_own),
    (general.functions_are_pure, changes_its_state_in_place),
    (general.functions_are_pure, changes_an_array_in_place),
    (general.functions_are_pure, changes_the_updates_in_place),
    (general.functions_are_pure, starts_anywhere),
    (general.state_keeps_its_form, remembers_nothing_at_first),
    (general.state_keeps_its_form, remembers_in_the_order_of_the_updates),
    (general.forms_are_kept_without_parameters, loses_the_dtype),
    (general.forms_are_kept_without_parameters, remembers_in_the_order_of_the_updates),
    (general.state_holds_arrays, counts_with_a_python_number),
    (general.zeros_are_harmless, normalizes_without_an_eps),
    (general.empty_trees_are_fine, wraps_the_empty_tree),
    (general.low_precision_follows_float32, computes_in_the_dtype_of_the_updates),
    (general.low_precision_follows_float32, remembers_in_the_dtype_of_the_parameters),
    (general.parameters_follow_float32, loses_small_updates),
    (general.parameters_follow_float32, remembers_in_the_dtype_of_the_parameters),
    (general.large_gradients_are_finite, takes_the_third_power),
    (general.large_gradients_are_finite, remembers_the_third_power),
    (general.nan_is_guarded, divides_by_the_smallest_so_far),
    (reaching.looks_no_further_than_stated, looks_at_all_leaves),
    (reaching.looks_no_further_than_stated, looks_at_the_number_of_leaves),
    (reaching.looks_no_further_than_stated, remembers_all_leaves),
    (reaching.looks_no_further_than_stated, looks_at_its_leaf),
    (reaching.looks_no_further_than_stated, remembers_its_leaf),
    (general.resumes_from_a_file, remembers_in_a_variable_of_its_own),
    (general.extras_are_checked, swallows_all_extras),
]


def names_of(pairs: list[tuple[Callable[..., None], Callable[..., Any]]]) -> list[str]:
    return [f"{law.__name__}-{broken.__name__}" for law, broken in pairs]


# What pytest.raises raises when nothing else was raised is no AssertionError.
REFUSED = (AssertionError, pytest.fail.Exception)


@pytest.mark.parametrize(("law", "broken"), BROKEN_GENERAL, ids=names_of(BROKEN_GENERAL))
def test_general_law_catches(law: Callable[..., None], broken: Callable[[], Any]) -> None:
    with pytest.raises(REFUSED):
        law(broken(), nested_problem(mx.bfloat16))


def test_purity_law_catches_changed_extras() -> None:
    def update(updates: Any, state: Any, params: Any = None, *, seen: Any) -> Any:
        seen["n"] = seen["n"] + 1
        return updates, state

    with pytest.raises(AssertionError):
        general.functions_are_pure(
            pair(lambda params: (), update),
            nested_problem()._replace(extras=lambda grads: {"seen": {"n": mx.array(0)}}),
        )


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_the_law_of_sizes_catches_squares_that_vanish_and_an_eps(eps: float) -> None:
    with pytest.raises(
        AssertionError, match=r"a largest magnitude of 1 and of 8e-31: what the second give, divided by 8e-31\*\*0"
    ):
        general.size_counts_as_stated(divides_by_its_norm(eps), nested_problem()._replace(degree=0))


@pytest.mark.parametrize(
    ("tx", "degree"), [(mo.clip(0.5), 1), (mo.clip(0.5), 0), (mo.sgd(0.1), 0), (mo.signum(0.1), 1)]
)
def test_the_law_of_sizes_catches_a_wrong_degree(tx: GradientTransformation, degree: int) -> None:
    with pytest.raises(AssertionError, match=r"is not what the first give"):
        general.size_counts_as_stated(tx, nested_problem()._replace(degree=degree))


def counts_its_calls() -> GradientTransformation:
    """The compiled program keeps the number it saw first."""
    calls: list[int] = []

    def update(updates: Any, state: mo.EmptyState, params: Any = None) -> Any:
        calls.append(1)
        return tree.scale(float(len(calls)), updates), state

    return mo.GradientTransformation(mo.identity().init, update)


def remembers_its_calls() -> GradientTransformation:
    """The same, where only the state shows it."""
    calls: list[int] = []

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        calls.append(1)
        return updates, {"n": mx.array(len(calls)) + 0 * state["n"]}

    return mo.GradientTransformation(lambda params: {"n": mx.array(0)}, update)


class Misspelt(GradientTransformation):
    """Prints under another name than its own."""

    def __repr__(self) -> str:
        return "adam(0.1)"


def misspelt() -> GradientTransformation:
    return Misspelt(mo.identity().init, mo.identity().update)


def unreadable() -> GradientTransformation:
    """Prints as ``unreadable(...)``."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return updates, state

    return mo.GradientTransformation(lambda params: (), update)


@mo.readable
def builds_from_its_first_number(rate: float = 0.5) -> GradientTransformation:
    """Arrays, such as the values in a state, make no difference to it."""
    return mo.scale(rate if isinstance(rate, float) else 1.0)


@mo.readable
def loses_digits(decay: float = 0.9999) -> GradientTransformation:
    """In float32 this difference has four."""
    return mo.scale(1 / (1 - decay * decay))


BROKEN_SINGLE: list[tuple[Callable[..., None], Callable[[], Any]]] = [
    (compiled.injected_hyperparameters_change_nothing, builds_from_its_first_number),
    (compiled.injected_hyperparameters_change_nothing, loses_digits),
    (compiled.compiled_equals_eager, counts_its_calls),
    (compiled.compiled_equals_eager, remembers_its_calls),
    (compiled.compiled_equals_eager_in_nested_trees, counts_its_calls),
    (compiled.compiled_follows_eager_in_bfloat16, counts_its_calls),
    (compiled.compiled_follows_eager_in_bfloat16, remembers_its_calls),
    (compiled.prints_as_its_expression, misspelt),
    (compiled.prints_as_its_expression, unreadable),
]


@pytest.mark.parametrize(("law", "broken"), BROKEN_SINGLE, ids=names_of(BROKEN_SINGLE))
def test_single_law_catches(law: Callable[..., None], broken: Callable[[], Any]) -> None:
    with pytest.raises(AssertionError):
        law(Entry("broken", broken))


def test_the_law_of_injected_hyperparameters_catches_a_state_that_rounds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlxopt.hyperparameters.as_scalar", lambda value: mx.array(value, mx.float16))
    with pytest.raises(AssertionError):
        compiled.injected_hyperparameters_change_nothing(Entry("adam", mo.adam, {"learning_rate": 0.1}))


def held_decays(entry: Entry) -> list[str]:
    """The decays of means that the state holds where all numbers are injected."""
    state: Any = mo.inject_hyperparams(entry.factory, static_args=entry.static)(**entry.settings).init({})
    return [name for name in ("b1", "b2", "b3", "beta", "decay", "momentum", "rho") if name in state.hyperparams]


@pytest.mark.parametrize(
    ("entry", "name"),
    [pytest.param(entry, name, id=f"{entry.name}-{name}") for entry in ALL for name in held_decays(entry)],
)
def test_a_decay_of_a_long_memory_may_stand_in_the_state(entry: Entry, name: str) -> None:
    """What is calculated from it keeps its digits, as ``1 - decay`` does and ``1 - decay * decay`` does not."""
    long = dataclasses.replace(entry, settings={**entry.settings, name: 0.9999})
    compiled.injected_hyperparameters_change_nothing(long)


def test_one_trace_law_catches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that comes in another shape at every step is a new program each time."""
    monkeypatch.setattr(compiled, "set_anew", lambda state, index: {"rate": mx.zeros((index + 1,))})
    tx = mo.GradientTransformation(
        lambda params: {"rate": mx.zeros((1,))}, lambda updates, state, params=None: (updates, state)
    )
    with pytest.raises(AssertionError):
        compiled.one_trace_is_enough(Entry("broken", lambda: tx))


def keeps_a_state_for_schedules_only(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    """As optax does."""
    if callable(learning_rate):
        return mo.chain(mo.scale_by_adam(), mo.scale_by_schedule(lambda count: -learning_rate(count)))
    return mo.chain(mo.scale_by_adam(), mo.scale(-learning_rate))


def shows_the_next_learning_rate(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    assert callable(learning_rate)
    tx = mo.sgd(learning_rate)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        updates, (first, rate) = tx.update(updates, state, params)
        return updates, (first, tree.set(rate, learning_rate=mx.array(learning_rate(rate.count))))

    return mo.GradientTransformation(tx.init, update)


def climbs(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    return mo.scale_by_learning_rate(learning_rate, flip_sign=False)


def ignores_the_number_that_is_set(weight_decay: ScalarOrSchedule) -> GradientTransformation:
    tx = mo.add_decayed_weights(weight_decay)

    def update(updates: Any, state: Any, params: Any) -> Any:
        first = tree.get(tx.init(params), "weight_decay")
        return tx.update(updates, state if callable(weight_decay) else tree.set(state, weight_decay=first), params)

    return mo.GradientTransformation(tx.init, update)


def decays_by_half_of_a_schedule(weight_decay: ScalarOrSchedule) -> GradientTransformation:
    if callable(weight_decay):
        return mo.add_decayed_weights(lambda count: 0.5 * weight_decay(count))
    return mo.add_decayed_weights(weight_decay)


BROKEN_RECIPE: list[tuple[Callable[..., None], Callable[..., GradientTransformation]]] = [
    (recipes.schedule_equals_number, keeps_a_state_for_schedules_only),
    (recipes.learning_rate_is_visible, shows_the_next_learning_rate),
    (recipes.goes_downhill, climbs),
]
BROKEN_DECAY: list[tuple[Callable[..., None], Callable[..., GradientTransformation]]] = [
    (recipes.decay_schedule_equals_number, decays_by_half_of_a_schedule),
    (recipes.weight_decay_is_visible, ignores_the_number_that_is_set),
]


@pytest.mark.parametrize(("law", "broken"), BROKEN_RECIPE, ids=names_of(BROKEN_RECIPE))
def test_recipe_law_catches(law: Callable[..., None], broken: Callable[..., GradientTransformation]) -> None:
    with pytest.raises(AssertionError):
        law(Entry("broken", broken, {"learning_rate": 0.1}, 0.1))


@pytest.mark.parametrize(("law", "broken"), BROKEN_DECAY, ids=names_of(BROKEN_DECAY))
def test_decay_law_catches(law: Callable[..., None], broken: Callable[..., GradientTransformation]) -> None:
    with pytest.raises(AssertionError):
        law(Entry("broken", broken, {"weight_decay": 0.1}))


def test_every_law_has_a_broken_example() -> None:
    caught = {law for law, _ in (*BROKEN_GENERAL, *BROKEN_SINGLE, *BROKEN_RECIPE, *BROKEN_DECAY)}
    assert caught | {compiled.one_trace_is_enough, general.size_counts_as_stated} == {
        law.holds for law in LAWS if law not in ALGEBRA
    }
