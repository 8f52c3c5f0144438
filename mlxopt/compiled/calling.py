"""Compiling functions of whole trees."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.compiled.streams import clear_at_the_end_of_this_thread
from mlxopt.tree.structure import is_container, require_plain


def compiled(where: str, names: tuple[str, ...], program: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of trees and of MLX's global random state.

    The key by which ``mx.compile`` finds a program again leaves out the types and lengths of tuples and lists, the
    types of numbers, and of the keys of dicts all but their hashes, which integers share (-1 and -2); the layout, a
    constant to it, puts them in. And ``mx.compile`` leaves its placeholders in the random state if tracing fails, which
    would break every later draw of the process.
    """

    def with_layout(layout: str, *trees: Any) -> Any:
        del layout
        return program(*trees)

    on_arrays = mx.compile(with_layout, inputs=mx.random.state, outputs=mx.random.state)

    def call(*trees: Any) -> Any:
        clear_at_the_end_of_this_thread()
        key = random_key()
        try:
            return on_arrays(_layout(trees), *trees)
        except BaseException:
            with contextlib.suppress(ValueError, RuntimeError):  # inside another trace, which restores its own
                high, low = (int(part) for part in key)
                mx.random.seed(high << 32 | low)
            _require_known_leaves(where, dict(zip(names, trees, strict=True)))
            raise

    return call


def _require_known_leaves(where: str, arguments: Mapping[str, Any]) -> None:
    def require(leaf: Any) -> None:
        if not isinstance(leaf, (mx.array, bool, int, float, str)):
            raise tree.TreeError(
                f"every leaf must be an mx.array or a Python number, got a {type(leaf).__name__}. "
                "Wrap it in mx.array, or close over it"
            )

    with tree.naming(where):
        tree.map(require, arguments)


def random_key() -> mx.array:
    """The key from which MLX draws next."""
    state: Any = mx.random.state  # a list of one key, though the stubs call it an object
    key: mx.array = state[0]
    return key


def _layout(node: Any) -> str:
    """Spell the containers of a tree with the keys that are no text, a dot for an array, and the types of the rest."""
    kind = type(node)
    if kind is dict:
        parts, opening = node.values(), "{"
        if not _TEXT.issuperset(map(type, node)):
            opening += ",".join([f"{_spelled(type(key))} {key!r}" for key in node])
    elif is_container(node):
        require_plain(node)
        parts, opening = node, "[" if kind is list else f"{_spelled(kind)}("
    else:
        return "." if kind is mx.array else f"<{_spelled(kind)}>"
    return opening + "".join(["." if type(part) is mx.array else _layout(part) for part in parts]) + ")"


_TEXT = {str}


def _spelled(kind: type) -> str:
    """A type by more than its name, which two may share."""
    return f"{kind.__name__}@{id(kind)}"


def as_arrays(where: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Make arrays of numbers, which would otherwise be compiled in, one program for each value."""

    def as_array(path: str, value: Any) -> mx.array:
        if not isinstance(value, (mx.array, bool, int, float)):
            raise TypeError(
                f"{where}: the extra argument '{path}' must be an array or a number, got {value!r}. "
                "A compiled program takes no functions or objects; close over it when the transformation is built."
            )
        return mx.array(value)

    arrays: dict[str, Any] = tree.map_with_path(as_array, dict(extra))
    return arrays
