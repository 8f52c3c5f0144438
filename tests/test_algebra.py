"""How combinators compose: identities that hold for every transformation of the registry."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given
from laws import cases, fewer_examples, run
from registry import ENTRIES, NEWCOMERS, Entry, matrix, vector
from strategies import Problem, no_extras, plain_problem, problems, same

import mlxopt as mo
from mlxopt.base import GradientTransformation

Law = Callable[[GradientTransformation, Problem], None]


def equal(
    one: GradientTransformation, other: GradientTransformation, problem: Problem, *, states: bool = False
) -> None:
    """Assert that two transformations return the same updates, and if asked the same states."""
    first, second = run(one, problem), run(other, problem)
    assert same(first.updates, second.updates)
    if states:
        assert same(first.states, second.states)


def chain_of_one(tx: GradientTransformation, problem: Problem) -> None:
    equal(mo.chain(tx), tx, problem, states=True)


def chain_is_one_after_the_other(tx: GradientTransformation, problem: Problem) -> None:
    clip = mo.clip(0.5)
    clipped = run(clip, problem._replace(extras=no_extras)).updates
    extras = [problem.extras(grads) for grads in problem.grads]
    state, expected = tx.init(problem.params), []
    for updates, extra in zip(clipped, extras, strict=True):
        updates, state = tx.update(updates, state, problem.params, **extra)
        expected.append(updates)
    assert same(run(mo.chain(clip, tx), problem).updates, expected)


def chain_is_associative(tx: GradientTransformation, problem: Problem) -> None:
    clip, shrink = mo.clip(0.5), mo.scale(-0.1)
    flat = mo.chain(clip, tx, shrink)
    equal(mo.chain(mo.chain(clip, tx), shrink), flat, problem, states=True)
    equal(mo.chain(clip, mo.chain(tx, shrink)), flat, problem, states=True)


def empty_chain_is_neutral(tx: GradientTransformation, problem: Problem) -> None:
    equal(mo.chain(mo.chain(), tx), mo.chain(tx, mo.chain()), problem, states=True)
    equal(mo.chain(mo.chain(), tx), tx, problem)


def identity_is_neutral(tx: GradientTransformation, problem: Problem) -> None:
    equal(mo.chain(mo.identity(), tx), tx, problem)
    equal(mo.chain(tx, mo.identity()), tx, problem)


def names_change_nothing(tx: GradientTransformation, problem: Problem) -> None:
    equal(mo.named_chain(("a", tx), ("b", mo.scale(0.5))), mo.chain(tx, mo.scale(0.5)), problem)


def masked_everywhere(tx: GradientTransformation, problem: Problem) -> None:
    equal(mo.masked(tx, True, otherwise="zero"), tx, problem)


def masked_nowhere(tx: GradientTransformation, problem: Problem) -> None:
    unchanged = run(mo.masked(tx, False, otherwise="pass"), problem).updates
    assert same(unchanged, problem.grads)
    zeros = run(mo.masked(tx, False, otherwise="zero"), problem).updates
    assert same(zeros, mo.tree.zeros_like(problem.grads))


def partition_of_one(tx: GradientTransformation, problem: Problem) -> None:
    equal(mo.partition({"all": tx}, "all"), tx, problem)


def disjoint_masks_commute(tx: GradientTransformation, problem: Problem) -> None:
    here, there = mo.masked(tx, matrix, otherwise="pass"), mo.masked(mo.scale(-2.0), vector, otherwise="pass")
    equal(mo.chain(here, there), mo.chain(there, here), problem)


def partition_is_masks(tx: GradientTransformation, problem: Problem) -> None:
    label = lambda path, leaf: "matrix" if matrix(path, leaf) else "vector"  # noqa: E731
    groups = {"matrix": tx, "vector": mo.scale(-2.0)}
    here, there = mo.masked(tx, matrix, otherwise="pass"), mo.masked(mo.scale(-2.0), vector, otherwise="pass")
    equal(mo.partition(groups, label), mo.chain(here, there), problem)
    equal(mo.partition(groups, label), mo.partition(dict(reversed(groups.items())), label), problem)


def freezing_is_a_mask(tx: GradientTransformation, problem: Problem) -> None:
    frozen = run(mo.chain(tx, mo.freeze(matrix)), problem).updates
    free = run(tx, problem).updates
    for one, other in zip(frozen, free, strict=True):
        expected = mo.tree.map(lambda u: mx.zeros_like(u) if u.ndim > 1 else u, other)
        assert same(one, expected)


LAWS: list[Law] = [
    chain_of_one,
    chain_is_one_after_the_other,
    chain_is_associative,
    empty_chain_is_neutral,
    identity_is_neutral,
    names_change_nothing,
    masked_everywhere,
    masked_nowhere,
    partition_of_one,
    disjoint_masks_commute,
    partition_is_masks,
    freezing_is_a_mask,
]


@pytest.mark.parametrize(("law", "entry"), cases(LAWS, [*ENTRIES, *NEWCOMERS]))
def test_algebra(law: Law, entry: Entry) -> None:
    # A test for each case: hypothesis nests the settings of one that is run a thousand times, and runs out of stack.
    @fewer_examples()
    @given(problem=problems(steps=2, dtype=mx.float32))
    def holds(problem: Problem) -> None:
        law(entry.build(), problem._replace(extras=entry.extras))

    holds()


# Something broken for every law: combinators that do not do what they should, to transformations that are right


def nesting_chain(*parts: GradientTransformation) -> GradientTransformation:
    """Never dissolves, and has a part too many."""
    whole = mo.combine.chain(mo.identity(), *parts)
    return GradientTransformation(whole.init, whole.update)


def reversed_chain(*parts: GradientTransformation) -> GradientTransformation:
    return mo.combine.chain(*reversed(parts))


def forgetful_chain(*parts: GradientTransformation) -> GradientTransformation:
    """Drops its last part, if there are more than two."""
    return mo.combine.chain(*parts[:2])


def zeroing_chain(*parts: GradientTransformation) -> GradientTransformation:
    return mo.combine.chain(*parts) if parts else mo.set_to_zero()


def forgetful_named_chain(*parts: tuple[str, GradientTransformation]) -> GradientTransformation:
    return mo.combine.named_chain(*parts[:-1])


def never_masked(tx: GradientTransformation, mask: Any, *, otherwise: Any) -> GradientTransformation:
    del mask, otherwise
    return tx


def always_masked(tx: GradientTransformation, mask: Any, *, otherwise: Any) -> GradientTransformation:
    del mask
    return mo.combine.masked(tx, False, otherwise=otherwise)


def passing_masked(tx: GradientTransformation, mask: Any, *, otherwise: Any) -> GradientTransformation:
    del otherwise
    return mo.combine.masked(tx, mask, otherwise="pass")


def partition_to_the_first(groups: dict[str, GradientTransformation], label: Any) -> GradientTransformation:
    del label
    return next(iter(groups.values()))


def partition_without_memory(groups: dict[str, GradientTransformation], label: Any) -> GradientTransformation:
    """Starts anew at every update."""
    whole = mo.combine.partition(groups, label)

    def update(updates: Any, state: Any, params: Any) -> Any:
        return whole.update(updates, whole.init(params), params)[0], state

    return GradientTransformation(whole.init, update)


BROKEN: list[tuple[Law, str, Callable[..., GradientTransformation]]] = [
    (chain_of_one, "chain", nesting_chain),
    (chain_is_one_after_the_other, "chain", reversed_chain),
    (chain_is_associative, "chain", nesting_chain),
    (chain_is_associative, "chain", forgetful_chain),
    (empty_chain_is_neutral, "chain", zeroing_chain),
    (identity_is_neutral, "identity", mo.set_to_zero),
    (names_change_nothing, "named_chain", forgetful_named_chain),
    (names_change_nothing, "chain", reversed_chain),
    (masked_everywhere, "masked", always_masked),
    (masked_nowhere, "masked", never_masked),
    (masked_nowhere, "masked", passing_masked),
    (partition_of_one, "partition", partition_without_memory),
    (disjoint_masks_commute, "masked", never_masked),
    (partition_is_masks, "partition", partition_to_the_first),
    (partition_is_masks, "masked", never_masked),
    (freezing_is_a_mask, "freeze", lambda mask: mo.identity()),
    (freezing_is_a_mask, "chain", reversed_chain),
]


@pytest.mark.parametrize(
    ("law", "name", "broken"), BROKEN, ids=[f"{law.__name__}-{broken.__name__}" for law, _, broken in BROKEN]
)
def test_algebra_catches(law: Law, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken combinator, around Adam with weight decay: it has memory and needs the parameters."""
    tx = mo.chain(mo.scale_by_adam(), mo.add_decayed_weights(0.1))
    law(tx, plain_problem())
    monkeypatch.setattr(mo, name, broken)
    with pytest.raises(AssertionError):
        law(tx, plain_problem())


def test_every_law_of_algebra_has_a_broken_example() -> None:
    assert {law for law, _, _ in BROKEN} == set(LAWS)
