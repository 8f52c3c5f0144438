"""Combinators that do not do what they should, for every law of how transformations compose."""

from collections.abc import Callable
from typing import Any

import pytest

import mlxopt as mo
from mlxopt.base import GradientTransformation
from mlxopt.testing import algebra
from mlxopt.testing.checking import ALGEBRA
from mlxopt.testing.problems import Problem, plain_problem

Holds = Callable[[GradientTransformation, Problem], None]


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


BROKEN: list[tuple[Holds, str, Callable[..., GradientTransformation]]] = [
    (algebra.chain_of_one, "chain", nesting_chain),
    (algebra.chain_is_one_after_the_other, "chain", reversed_chain),
    (algebra.chain_is_associative, "chain", nesting_chain),
    (algebra.chain_is_associative, "chain", forgetful_chain),
    (algebra.empty_chain_is_neutral, "chain", zeroing_chain),
    (algebra.identity_is_neutral, "identity", mo.set_to_zero),
    (algebra.names_change_nothing, "named_chain", forgetful_named_chain),
    (algebra.names_change_nothing, "chain", reversed_chain),
    (algebra.masked_everywhere, "masked", always_masked),
    (algebra.masked_nowhere, "masked", never_masked),
    (algebra.masked_nowhere, "masked", passing_masked),
    (algebra.partition_of_one, "partition", partition_without_memory),
    (algebra.disjoint_masks_commute, "masked", never_masked),
    (algebra.partition_is_masks, "partition", partition_to_the_first),
    (algebra.partition_is_masks, "masked", never_masked),
    (algebra.freezing_is_a_mask, "freeze", lambda mask: mo.identity()),
    (algebra.freezing_is_a_mask, "chain", reversed_chain),
]


@pytest.mark.parametrize(
    ("law", "name", "broken"), BROKEN, ids=[f"{law.__name__}-{broken.__name__}" for law, _, broken in BROKEN]
)
def test_algebra_catches(law: Holds, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken combinator, around Adam with weight decay: it has memory and needs the parameters."""
    tx = mo.chain(mo.scale_by_adam(), mo.add_decayed_weights(0.1))
    law(tx, plain_problem())
    monkeypatch.setattr(mo, name, broken)
    with pytest.raises(AssertionError):
        law(tx, plain_problem())


def test_every_law_of_algebra_has_a_broken_example() -> None:
    assert {law for law, _, _ in BROKEN} == {law.holds for law in ALGEBRA}
