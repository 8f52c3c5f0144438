"""How far a transformation looks: what it makes of some leaves, or of some elements, beside what it makes of all."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation
from mlxopt.testing.comparing import require, same
from mlxopt.testing.problems import Problem
from mlxopt.testing.subjects import Pair, Run


def looks_no_further_than_stated(tx: GradientTransformation, problem: Problem) -> None:
    """What a leaf gets stays the same, to the bit, without the other leaves; for elements too, if that is stated."""
    leaves_are_apart(tx, problem)
    if tx.reach == "element":
        elements_are_apart(tx, problem)


def leaves_are_apart(tx: Pair, problem: Problem) -> None:
    """Raise unless leaves get the same, and the same is remembered of them, where there are holes beside them."""
    whole, paths = _run(tx, problem, lambda node: node), sorted(tree.paths(problem.params))
    for kept in (paths[::2], paths[1::2]):
        some = partial(_some_leaves, kept)
        part = _run(tx, problem, some)
        why = f"With holes in place of all leaves but {kept}, these get something else: reach must be 'tree'."
        require(same(part.updates, [some(updates) for updates in whole.updates]), why)
        for state, of_all in zip(part.states, whole.states, strict=True):
            known = dict(tree.items(of_all))
            require(all(path in known and same(leaf, known[path]) for path, leaf in tree.items(state)), why)


def elements_are_apart(tx: Pair, problem: Problem) -> None:
    """Raise unless elements get the same, and the same is remembered of them, in the two halves of flat leaves."""
    whole = _run(tx, problem, lambda node: node)
    for half in (0, 1):
        some = partial(tree.map, partial(_half, half))
        part = _run(tx, problem, some)
        why = f"In half {half} of every leaf, laid flat, elements get something else: reach must be 'leaf' or 'tree'."
        require(same(part.updates, [some(updates) for updates in whole.updates]), why)
        for state, of_all in zip(part.states, whole.states, strict=True):
            known = dict(tree.items(of_all))
            pairs = [(leaf, known[path]) for path, leaf in tree.items(state)]
            require(all(same(leaf, full) or same(leaf, _half(half, full)) for leaf, full in pairs), why)


def _some_leaves(kept: Collection[str], node: Any) -> Any:
    return tree.map_with_path(lambda path, leaf: leaf if path in kept else tree.MaskedNode(), node)


def _half(half: int, leaf: mx.array) -> mx.array:
    flat, middle = leaf.reshape(-1), leaf.size // 2
    return flat[middle:] if half else flat[:middle]


def _run(tx: Pair, problem: Problem, shown: Callable[[Any], Any]) -> Run:
    """A run on what a function leaves of parameters and gradients; what is no tree of these is shared."""
    params = shown(problem.params)
    results = Run([], [tx.init(params)])
    for grads in problem.grads:
        extra = problem.extras(grads)
        extra.update({"grad": shown(extra["grad"])} if "grad" in extra else {})
        updates, state = tx.update(shown(grads), results.states[-1], params, **extra)
        results.updates.append(updates)
        results.states.append(state)
    return results
