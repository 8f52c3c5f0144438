"""How far transformations look: as they say, for every line of the registry, and as far as what is inside them."""

from typing import Any

import mlx.core as mx
import pytest
from registry import ENTRIES, NEWCOMERS, Entry

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation
from mlxopt.reach import NEAREST_FIRST, OF_PARAMETERS, Reach
from mlxopt.testing.problems import Problem, nested_problem
from mlxopt.testing.reaching import elements_are_apart, leaves_are_apart

OF_A_USER = "what a function of the user looks at is not known"

FURTHER = {
    "zero_nans": "it remembers of a whole leaf whether there were any",
    "zero_infs": "it remembers of a whole leaf whether there were any",
    "monitor leaves": OF_A_USER,
    "split_real_and_imaginary": "what it remembers of a complex leaf is a pair, whose parts have paths of their own",
    "gauss_newton_estimator_diag_hessian": "it asks the model for gradients of all parameters",
    "adamp": "it projects whole units, where gradients are at right angles to them",
    "sgdp": "it projects whole units, where gradients are at right angles to them",
    "scale_by_heavy_ball": "its author says nothing, which stands for the whole tree",
}
"""Entries that declare more than the problem below shows, with the reason."""


def problem() -> Problem:
    """Several leaves of one shape, a scalar, and a NaN in the last step, which some look out for."""
    params, grads, *_ = nested_problem(steps=3)
    grads[2]["head"][0]["w"] = mx.full((3, 2), float("nan"))
    return Problem(params, grads)


def measured(entry: Entry) -> Reach:
    try:
        leaves_are_apart(entry.build(), entry.told(problem()))
    except AssertionError:
        return "tree"
    try:
        elements_are_apart(entry.build(), entry.told(problem()))
    except AssertionError:
        return "leaf"
    return "element"


@pytest.mark.parametrize("entry", [*ENTRIES, *NEWCOMERS], ids=lambda entry: entry.name)
def test_what_is_declared_is_as_near_as_it_may_be(entry: Entry) -> None:
    tx = entry.build()
    if not tx.extras.isdisjoint(OF_PARAMETERS):
        assert tx.reach == "tree"
    elif entry.name in FURTHER:
        assert NEAREST_FIRST.index(measured(entry)) < NEAREST_FIRST.index(tx.reach)
    else:
        assert tx.reach == measured(entry)


def test_reasons_are_those_of_entries() -> None:
    assert FURTHER.keys() <= {entry.name for entry in [*ENTRIES, *NEWCOMERS]}


def of(reach: Reach = "element", **kwargs: Any) -> GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return updates, state

    return mo.GradientTransformation(mo.identity().init, update, reach=reach, **kwargs)


def asks(extra: str) -> GradientTransformation:
    """A transformation that says that it looks at elements, and names an extra argument."""
    names: dict[str, Any] = {}
    exec(f"def update(updates, state, params=None, *, {extra}): return updates, state", names)
    return mo.GradientTransformation(mo.identity().init, names["update"], reach="element")


def near_condition(step: Any, *, value: Any) -> Any:
    return value > 0


def far_condition(step: Any, *, grad: Any) -> Any:
    return tree.norm(grad) > 0


@pytest.mark.parametrize(
    ("tx", "reach"),
    [
        (mo.chain(mo.clip(1.0), mo.scale(0.1)), "element"),
        (mo.chain(mo.clip(1.0), mo.clip_by_block_rms(1.0)), "leaf"),
        (mo.chain(mo.clip_by_block_rms(1.0), mo.chain(mo.normalize(), mo.clip(1.0))), "tree"),
        (mo.masked(mo.scale(0.1), True, otherwise="pass"), "leaf"),
        (mo.lookahead(mo.lamb(0.1), 2, 0.5), "leaf"),
        (mo.multi_steps(mo.adam(0.1), 2), "element"),
        (mo.inject_hyperparams(mo.clip_by_global_norm)(1.0), "tree"),
        (mo.adafactor(0.1), "leaf"),
        (mo.scale_by_factored_rms(False), "element"),
        (mo.conditionally_mask(mo.sgd(0.1), near_condition), "element"),
        (mo.conditionally_mask(mo.sgd(0.1), far_condition), "tree"),
        (of(inner=[mo.lamb(0.1)]), "leaf"),
        (of(extras=["value", "key"]), "element"),
        (of(extras=["grad"]), "tree"),
        (asks("grad"), "element"),
        (asks("value_fn"), "tree"),
        (asks("grad_fn=None"), "tree"),
        (mo.stateless(lambda updates, params: updates), "tree"),
        (mo.stateless_with_tree_map(lambda update, param: update), "leaf"),
        (mo.GradientTransformation(mo.identity().init, lambda updates, state, params=None: (updates, state)), "tree"),
    ],
    ids=repr,
)
def test_a_transformation_looks_as_far_as_what_is_inside(tx: GradientTransformation, reach: Reach) -> None:
    assert tx.reach == reach


def test_reach_is_one_of_three() -> None:
    with pytest.raises(ValueError, match=r"reach must be one of \['element', 'leaf', 'tree'\], got 'layer'. Pick one"):
        of(reach="layer")  # type: ignore[arg-type]


def passed(updates: Any, params: Any) -> Any:
    return updates


def test_reach_is_printed_where_it_was_given() -> None:
    assert repr(mo.stateless(passed)) == "stateless(passed)"
    assert repr(mo.stateless(passed, reach="leaf")) == "stateless(passed, reach='leaf')"
    assert repr(mo.stateless_with_tree_map(passed)) == "stateless_with_tree_map(passed)"
    assert repr(mo.stateless_with_tree_map(passed, reach="element")) == (
        "stateless_with_tree_map(passed, reach='element')"
    )
