"""The recursion itself: strict maps that name the path where two trees differ.

A tree is built from dicts, lists, tuples and NamedTuples; anything else is a leaf. An OrderedDict, or another type
derived from these, is an error: MLX makes dicts of them. ``None`` and ``MaskedNode()`` are holes: no leaf at all, and a
hole fits only another hole.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import tracing

Tree = Any
"""A nest of dicts, lists, tuples and NamedTuples with arrays at its leaves."""


class MaskedNode(NamedTuple):
    """A hole in a tree where a leaf was left out; to MLX an empty container.

    Example:
        >>> leaves({"a": 1, "b": MaskedNode()})
        [1]
    """


class TreeError(ValueError):
    """Two trees that should match do not; the message names the path."""

    def __init__(self, problem: str, keys: tuple[str, ...] = (), where: str = "") -> None:
        self.problem, self.keys, self.where = problem, keys, where
        place = f"at '{'.'.join(keys)}'" if keys else "at the top of the tree"
        super().__init__(f"{where}: {place}: {problem}." if where else f"{place}: {problem}.")

    def under(self, key: object) -> "TreeError":
        """The same error seen from one level further up."""
        return TreeError(self.problem, (str(key), *self.keys), self.where)

    def inside(self, where: str) -> "TreeError":
        """The same error with the name of the innermost function it happened in."""
        return TreeError(self.problem, self.keys, self.where or where)


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Put the name of a function in front of an error that names a path.

    Example:
        >>> with naming("double"):
        ...     raise TreeError("every leaf must be 1", keys=("a",))
        Traceback (most recent call last):
        mlxopt.tree.structure.TreeError: double: at 'a': every leaf must be 1.
    """
    try:
        yield
    except TreeError as error:
        raise error.inside(where) from error.__cause__


def is_hole(tree: Tree) -> bool:
    """Say whether there is no leaf here.

    Example:
        >>> is_hole(None), is_hole(MaskedNode()), is_hole({})
        (True, True, False)
    """
    return tree is None or isinstance(tree, MaskedNode)


def is_record(tree: Tree) -> bool:
    return isinstance(tree, tuple) and hasattr(tree, "_fields")


def is_container(tree: Tree) -> bool:
    return isinstance(tree, (dict, list, tuple))


def kind(tree: Tree) -> str:
    if tree is None:
        return "None"
    if is_record(tree):
        return type(tree).__name__
    for container in _PLAIN:
        if isinstance(tree, container):
            return f"a {container.__name__}"
    if isinstance(tree, mx.array):
        return f"an array of shape {tree.shape}"
    return f"a {type(tree).__name__}"


def require_plain(tree: Tree) -> None:
    """Raise for an ``nn.Module``, a dict with frozen parameters too, and for what would come back as another type."""
    if type(tree) in _PLAIN or is_record(tree) or not is_container(tree):
        return
    name = type(tree).__name__
    if hasattr(tree, "trainable_parameters"):
        raise TreeError(f"got the module {name} where a tree of arrays is needed. Pass model.trainable_parameters()")
    plain = next(container.__name__ for container in _PLAIN if isinstance(tree, container))
    raise TreeError(f"containers must be dicts, lists, tuples or NamedTuples, got a {name}. Pass {plain}(...) of it")


_PLAIN = (dict, list, tuple)


def children(tree: Tree) -> list[tuple[Any, Tree]]:
    """The named parts of a container, in order."""
    require_plain(tree)
    if isinstance(tree, dict):
        return list(tree.items())
    if is_record(tree):
        return list(zip(tree._fields, tree, strict=True))
    return list(enumerate(tree))


def rebuild(like: Tree, parts: list[Tree]) -> Tree:
    if isinstance(like, dict):
        return dict(zip(like, parts, strict=True))
    if is_record(like):
        return type(like)(*parts)
    return tuple(parts) if isinstance(like, tuple) else parts


def require_same_kind(tree: Tree, other: Tree) -> None:
    """Raise unless ``other`` is the same kind of container as ``tree``, with the same keys or length."""
    require_plain(other)
    if isinstance(tree, dict):
        if not isinstance(other, dict):
            raise TreeError(f"expected a dict, got {kind(other)}")
        if tree.keys() != other.keys():
            missing = [str(key) for key in tree if key not in other]
            added = [str(key) for key in other if key not in tree]
            named = [f"missing {missing}"] if missing else []
            named += [f"unexpected {added}"] if added else []
            raise TreeError(f"the keys differ: {', '.join(named)}")
    elif is_record(tree) or is_record(other):
        if type(tree) is not type(other):
            raise TreeError(f"expected {kind(tree)}, got {kind(other)}")
    elif not isinstance(other, list if isinstance(tree, list) else tuple):
        raise TreeError(f"expected {kind(tree)}, got {kind(other)}")
    elif len(tree) != len(other):
        raise TreeError(f"expected {len(tree)} entries, got {len(other)}")


def child(tree: Tree, index: int, key: Any) -> Tree:
    return tree[key] if isinstance(tree, dict) else tree[index]


def _map(f: Callable[..., Any], keys: tuple[str, ...] | None, tree: Tree, rest: Sequence[Tree], holes: bool) -> Tree:
    """Map ``f`` over the leaves; with ``keys`` not None, ``f`` gets the dotted path first."""
    if is_container(tree) and not is_hole(tree):
        for other in rest:
            require_same_kind(tree, other)
        parts = []
        for index, (key, part) in enumerate(children(tree)):
            others = [child(other, index, key) for other in rest]
            below = None if keys is None else (*keys, str(key))
            try:
                kinds = {type(part), *[type(other) for other in others]}
                if kinds == _ARRAYS:  # most leaves: no need to look closer
                    parts.append(_apply(f, below, part, others))
                elif kinds == _HOLES:
                    parts.append(part)
                else:
                    parts.append(_map(f, below, part, others, holes))
            except TreeError as error:
                raise error.under(key) from error.__cause__
        return rebuild(tree, parts)
    for other in rest:
        if not is_hole(other) and (is_container(other) or is_hole(tree)):
            raise TreeError(f"expected {kind(tree)}, got {kind(other)}")
        if is_hole(other) and not is_hole(tree) and not holes:
            raise TreeError(f"expected {kind(tree)}, got a hole ({kind(other)})")
    if is_hole(tree):
        return tree
    return _apply(f, keys, tree, [None if is_hole(other) else other for other in rest])


_ARRAYS = {mx.array}
_HOLES = {MaskedNode}


def _apply(f: Callable[..., Any], keys: tuple[str, ...] | None, leaf: Any, others: list[Any]) -> Any:
    try:
        return f(leaf, *others) if keys is None else f(".".join(keys), leaf, *others)
    except TreeError:
        raise
    except ValueError as error:
        raise TreeError(str(error).removesuffix(".")) from error


def map(f: Callable[..., Any], tree: Tree, *rest: Tree, holes: bool = False) -> Tree:
    """Apply ``f`` to the leaves of ``tree`` and of ``rest``, which must have its structure.

    Key order is that of ``tree``. An error raised by ``f`` names the path of its leaf.

    While a step is compiled, numbers and scalars that ``f`` closes over become inputs of the kernels of the leaves, and
    so does a scalar leaf beside larger ones: each is computed once a step, and another value needs no other kernel.
    Large leaves share the CPU's streams. None of this changes what comes out.

    Args:
        f: Function of one leaf of each tree.
        tree: Tree that gives the structure.
        rest: Further trees of the same structure.
        holes: Let holes in ``rest`` stand where ``tree`` has a leaf: ``f`` receives ``None``.

    Example:
        >>> map(lambda x, y: x + y, {"a": 1, "b": [2, 3]}, {"a": 10, "b": [20, 30]})
        {'a': 11, 'b': [22, 33]}
    """
    program = tracing.current()
    if program is not None:
        return _map(program.on_leaves(f, with_path=False), (), tree, rest, holes)
    return _map(f, None, tree, rest, holes)


def map_with_path(f: Callable[..., Any], tree: Tree, *rest: Tree, holes: bool = False) -> Tree:
    """Apply ``f(path, leaf, ...)`` to the leaves, where ``path`` is the dotted name of the leaf.

    Example:
        >>> map_with_path(lambda path, x: path, {"a": 1, "b": [2, 3]})
        {'a': 'a', 'b': ['b.0', 'b.1']}
    """
    program = tracing.current()
    return _map(f if program is None else program.on_leaves(f, with_path=True), (), tree, rest, holes)


def walk(tree: Tree, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, Tree]]:
    """Every node with its dotted path, containers before their parts."""
    if is_hole(tree):
        return
    yield ".".join(keys), tree
    if is_container(tree):
        try:
            parts = children(tree)
        except TreeError as error:
            raise TreeError(error.problem, keys) from None
        for key, part in parts:
            yield from walk(part, (*keys, str(key)))


def items(tree: Tree) -> list[tuple[str, Any]]:
    """List the leaves with their dotted paths.

    Example:
        >>> items({"a": 1, "b": [2, None]})
        [('a', 1), ('b.0', 2)]
    """
    return [(path, node) for path, node in walk(tree) if not is_container(node)]


def leaves(tree: Tree) -> list[Any]:
    """List the leaves, in order.

    Example:
        >>> leaves({"a": 1, "b": [2, 3]})
        [1, 2, 3]
    """
    return [leaf for _, leaf in items(tree)]


def paths(tree: Tree) -> list[str]:
    """List the dotted paths of the leaves: dict keys, field names and list positions.

    Example:
        >>> paths({"layers": [{"weight": 1}, {"weight": 2}]})
        ['layers.0.weight', 'layers.1.weight']
    """
    return [path for path, _ in items(tree)]


def path_within(path: str, paths: Mapping[str, object]) -> str | None:
    """The longest of some paths that this one ends with: in a state, that of the parameter a leaf belongs to."""
    while path and path not in paths:
        _, _, path = path.partition(".")
    return path if path in paths else None


def with_leaves(tree: Tree, leaves: Iterable[Any]) -> Tree:
    """Put other leaves, in order, in the place of those of a tree.

    Example:
        >>> with_leaves({"a": 1, "b": [2, None, 3]}, [10, 20, 30])
        {'a': 10, 'b': [20, None, 30]}
    """
    following = iter(leaves)
    return map(lambda _: next(following), tree)
