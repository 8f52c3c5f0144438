"""Laws of how transformations compose: identities that hold for each of them, on generated trees."""

import mlx.core as mx

import mlxopt as mo
from mlxopt.base import GradientTransformation
from mlxopt.testing.comparing import require, same
from mlxopt.testing.problems import Problem, no_extras
from mlxopt.testing.subjects import run


def matrix(path: str, leaf: mx.array) -> bool:
    """Choose what has more than one axis."""
    del path
    return leaf.ndim > 1


def vector(path: str, leaf: mx.array) -> bool:
    """Choose the other leaves."""
    return not matrix(path, leaf)


def equal(
    one: GradientTransformation, other: GradientTransformation, problem: Problem, *, states: bool = False
) -> None:
    """Assert that two transformations return the same updates, and if asked the same states."""
    first, second = run(one, problem), run(other, problem)
    require(same(first.updates, second.updates))
    if states:
        require(same(first.states, second.states))


def chain_of_one(tx: GradientTransformation, problem: Problem) -> None:
    """A chain of one transformation is that one, its state too."""
    equal(mo.chain(tx), tx, problem, states=True)


def chain_is_one_after_the_other(tx: GradientTransformation, problem: Problem) -> None:
    """A chain applies its parts one after the other."""
    clip = mo.clip(0.5)
    clipped = run(clip, problem._replace(extras=no_extras)).updates
    extras = [problem.extras(grads) for grads in problem.grads]
    state, expected = tx.init(problem.params), []
    for updates, extra in zip(clipped, extras, strict=True):
        updates, state = tx.update(updates, state, problem.params, **extra)
        expected.append(updates)
    require(same(run(mo.chain(clip, tx), problem).updates, expected))


def chain_is_associative(tx: GradientTransformation, problem: Problem) -> None:
    """How the parts of a chain are grouped makes no difference, not even to the state."""
    clip, shrink = mo.clip(0.5), mo.scale(-0.1)
    flat = mo.chain(clip, tx, shrink)
    equal(mo.chain(mo.chain(clip, tx), shrink), flat, problem, states=True)
    equal(mo.chain(clip, mo.chain(tx, shrink)), flat, problem, states=True)


def empty_chain_is_neutral(tx: GradientTransformation, problem: Problem) -> None:
    """A chain of nothing changes nothing, before or behind."""
    equal(mo.chain(mo.chain(), tx), mo.chain(tx, mo.chain()), problem, states=True)
    equal(mo.chain(mo.chain(), tx), tx, problem)


def identity_is_neutral(tx: GradientTransformation, problem: Problem) -> None:
    """identity() changes nothing, before or behind."""
    equal(mo.chain(mo.identity(), tx), tx, problem)
    equal(mo.chain(tx, mo.identity()), tx, problem)


def names_change_nothing(tx: GradientTransformation, problem: Problem) -> None:
    """named_chain computes what chain does."""
    equal(mo.named_chain(("a", tx), ("b", mo.scale(0.5))), mo.chain(tx, mo.scale(0.5)), problem)


def masked_everywhere(tx: GradientTransformation, problem: Problem) -> None:
    """Masked to all leaves, a transformation is itself."""
    equal(mo.masked(tx, True, otherwise="zero"), tx, problem)


def masked_nowhere(tx: GradientTransformation, problem: Problem) -> None:
    """Masked to no leaf, it passes updates on, or gives zeros."""
    unchanged = run(mo.masked(tx, False, otherwise="pass"), problem).updates
    require(same(unchanged, problem.grads))
    zeros = run(mo.masked(tx, False, otherwise="zero"), problem).updates
    require(same(zeros, mo.tree.zeros_like(problem.grads)))


def partition_of_one(tx: GradientTransformation, problem: Problem) -> None:
    """A partition with one label for all leaves is the transformation of that label."""
    equal(mo.partition({"all": tx}, "all"), tx, problem)


def disjoint_masks_commute(tx: GradientTransformation, problem: Problem) -> None:
    """Two masks without a common leaf may change places."""
    here, there = mo.masked(tx, matrix, otherwise="pass"), mo.masked(mo.scale(-2.0), vector, otherwise="pass")
    equal(mo.chain(here, there), mo.chain(there, here), problem)


def partition_is_masks(tx: GradientTransformation, problem: Problem) -> None:
    """A partition is a chain of masks, in any order of its labels."""
    label = lambda path, leaf: "matrix" if matrix(path, leaf) else "vector"  # noqa: E731
    groups = {"matrix": tx, "vector": mo.scale(-2.0)}
    here, there = mo.masked(tx, matrix, otherwise="pass"), mo.masked(mo.scale(-2.0), vector, otherwise="pass")
    equal(mo.partition(groups, label), mo.chain(here, there), problem)
    equal(mo.partition(groups, label), mo.partition(dict(reversed(groups.items())), label), problem)


def freezing_is_a_mask(tx: GradientTransformation, problem: Problem) -> None:
    """freeze gives zeros where it is asked to, and changes nothing elsewhere."""
    frozen = run(mo.chain(tx, mo.freeze(matrix)), problem).updates
    free = run(tx, problem).updates
    for one, other in zip(frozen, free, strict=True):
        expected = mo.tree.map(lambda u: mx.zeros_like(u) if u.ndim > 1 else u, other)
        require(same(one, expected))
