"""Saying which leaves of a tree are meant."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from mlxopt.tree.structure import (
    MaskedNode,
    Tree,
    TreeError,
    child,
    children,
    is_container,
    is_hole,
    kind,
    map,
    map_with_path,
    rebuild,
    require_same_kind,
)


class PathPredicate:
    """Says of a leaf, by its dotted path, whether it is meant; combines with ``~``, ``|`` and ``&``."""

    def __init__(self, test: Callable[[str], bool], expression: str) -> None:
        self._test = test
        self._expression = expression

    def __call__(self, path: str, leaf: Any = None) -> bool:
        return self._test(path)

    def __invert__(self) -> "PathPredicate":
        return PathPredicate(lambda path: not self(path), f"~{self!r}")

    def __or__(self, other: "PathPredicate") -> "PathPredicate":
        return PathPredicate(lambda path: self(path) or other(path), f"({self!r} | {other!r})")

    def __and__(self, other: "PathPredicate") -> "PathPredicate":
        return PathPredicate(lambda path: self(path) and other(path), f"({self!r} & {other!r})")

    def __repr__(self) -> str:
        return self._expression


def by_path(*patterns: str) -> PathPredicate:
    """Choose leaves by glob patterns of their dotted path; ``*`` also matches dots.

    Args:
        patterns: A leaf is chosen if any of these matches its whole path.

    Example:
        >>> chosen = by_path("*.weight") & ~by_path("norm.*")
        >>> [chosen(path) for path in ("layers.0.weight", "norm.weight", "layers.0.bias")]
        [True, False, False]
        >>> chosen
        (by_path('*.weight') & ~by_path('norm.*'))
    """
    if not patterns:
        raise ValueError("by_path: at least one pattern must be given, got none. Pass a glob such as '*.weight'.")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"by_path: patterns must be strings, got {pattern!r}. Pass a glob such as '*.weight'.")
    expression = f"by_path({', '.join(repr(pattern) for pattern in patterns)})"
    return PathPredicate(lambda path: any(fnmatchcase(path, pattern) for pattern in patterns), expression)


def spread(choice: Any, tree: Tree) -> Tree:
    """Give every leaf of ``tree`` its value of ``choice``; holes stay holes.

    Args:
        choice: A function of path and leaf, or a tree whose leaves hold for everything below them.
        tree: Tree whose leaves are labelled.

    Example:
        >>> spread({"a": "slow", "b": "fast"}, {"a": 1, "b": [2, 3]})
        {'a': 'slow', 'b': ['fast', 'fast']}
        >>> spread(lambda path, leaf: leaf > 1, {"a": 1, "b": [2, 3]})
        {'a': False, 'b': [True, True]}
    """
    return assign(choice, tree, lambda value: value)


def assign(choice: Any, tree: Tree, check: Callable[[Any], Any]) -> Tree:
    """Give every leaf of ``tree`` what ``check`` makes of its value of ``choice``; holes stay holes."""
    if callable(choice):
        return map_with_path(lambda path, leaf: check(choice(path, leaf)), tree)
    if is_hole(tree) or not is_container(choice):
        return map(lambda _: check(choice), tree)
    if not is_container(tree):
        raise TreeError(f"the labels go deeper than the tree, which has {kind(tree)} here")
    require_same_kind(tree, choice)
    parts = []
    for index, (key, part) in enumerate(children(tree)):
        try:
            parts.append(assign(child(choice, index, key), part, check))
        except TreeError as error:
            raise error.under(key) from None
    return rebuild(tree, parts)


def split(labels: Tree, tree: Tree, count: int) -> list[Tree]:
    """Share the leaves of ``tree`` out by their labels 0, 1, ...: ``count`` trees with holes in place of the others."""
    if is_container(labels) and not is_hole(labels):
        require_same_kind(labels, tree)
        rows = []
        for index, (key, label) in enumerate(children(labels)):
            try:
                rows.append(split(label, child(tree, index, key), count))
            except TreeError as error:
                raise error.under(key) from error.__cause__
        return [rebuild(labels, [row[number] for row in rows]) for number in range(count)]
    leaf = map(lambda _, leaf: leaf, labels, tree, holes=True)
    if is_hole(labels):
        return [leaf] * count
    parts: list[Tree] = [_HOLE] * count
    parts[labels] = leaf
    return parts


_HOLE = MaskedNode()


def require_match(choice: Any, tree: Tree) -> None:
    """Raise if patterns choose nothing; what was left out of ``tree`` before counts as well."""
    if not isinstance(choice, PathPredicate):
        return
    places = list(_places(tree))
    leaves = [path for path, is_leaf in places if is_leaf]
    if leaves and not any(choice(path) for path, _ in places):
        few = ", ".join(repr(path) for path in leaves[:4]) + (", ..." if len(leaves) > 4 else "")
        raise TreeError(
            f"{choice!r} must choose a leaf, got none of the {len(leaves)} here: {few}. "
            "Mend the pattern, or pass a function of path and leaf if this is meant"
        )


def _places(tree: Tree, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, bool]]:
    """Paths of leaves and of holes, and whether it is a leaf."""
    if is_container(tree) and not is_hole(tree):
        for key, part in children(tree):
            yield from _places(part, (*keys, str(key)))
    else:
        yield ".".join(keys), not is_hole(tree)
