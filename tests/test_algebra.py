"""How combinators compose: identities that hold for every transformation of the registry."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given
from laws import run
from registry import ENTRIES, Entry
from strategies import Problem, plain_problem, problems, same

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
    equal(mo.masked(tx, False, otherwise="pass"), mo.identity(), problem)
    equal(mo.masked(tx, False, otherwise="zero"), mo.set_to_zero(), problem)


def partition_of_one(tx: GradientTransformation, problem: Problem) -> None:
    equal(mo.partition({"all": tx}, "all"), tx, problem)


def matrix(path: str, leaf: mx.array) -> bool:
    return leaf.ndim > 1


def vector(path: str, leaf: mx.array) -> bool:
    return leaf.ndim <= 1


def disjoint_masks_commute(tx: GradientTransformation, problem: Problem) -> None:
    here, there = mo.masked(tx, matrix, otherwise="pass"), mo.masked(mo.scale(-2.0), vector, otherwise="pass")
    equal(mo.chain(here, there), mo.chain(there, here), problem)


def partition_is_masks(tx: GradientTransformation, problem: Problem) -> None:
    label = lambda path, leaf: "matrix" if leaf.ndim > 1 else "vector"  # noqa: E731
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


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@given(problem=problems(steps=2, dtype=mx.float32))
def test_algebra(law: Law, entry: Entry, problem: Problem) -> None:
    law(entry.build(), problem)


def forgetful() -> GradientTransformation:
    """Not a function of its inputs: no two runs agree, so no law of equality holds for it."""
    calls: list[int] = []

    def update(updates: Any, state: mo.EmptyState, params: Any = None) -> Any:
        calls.append(1)
        return mo.tree.scale(1.0 + len(calls), updates), state

    return mo.GradientTransformation(mo.identity().init, update)


@pytest.mark.parametrize("law", [law for law in LAWS if law is not masked_nowhere], ids=lambda law: law.__name__)
def test_algebra_catches(law: Law) -> None:
    with pytest.raises(AssertionError):
        law(forgetful(), plain_problem())


def test_masked_nowhere_catches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask that lets its transformation see the leaves it should leave out."""
    monkeypatch.setattr(mo, "masked", lambda tx, mask, *, otherwise: tx)
    with pytest.raises(AssertionError):
        masked_nowhere(mo.scale(0.5), plain_problem())
