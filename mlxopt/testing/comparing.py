"""Comparing trees: to the bit, in form, or within so many units in the last place."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.numerics.dtypes import widen


def require(holds: Any, why: str = "") -> None:
    """Raise an AssertionError unless something is true; unlike ``assert`` also where Python runs with ``-O``."""
    if not holds:
        raise AssertionError(why)


def number(x: mx.array) -> float:
    """The value of a 0-d array."""
    value: Any = x.item()
    require(isinstance(value, (int, float)))
    real: float = value
    return real


def plain(node: Any) -> Any:
    """The tree with arrays as comparable values."""
    if isinstance(node, mx.array):
        return (str(node.dtype), node.shape, node.tolist())
    if isinstance(node, dict):
        return {key: plain(part) for key, part in node.items()}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return (type(node).__name__, *(plain(part) for part in node))
    return type(node)(plain(part) for part in node) if isinstance(node, (list, tuple)) else node


def same(one: Any, other: Any) -> bool:
    """Whether two trees agree in structure, key order, shapes, dtypes and every bit (NaN equals NaN)."""
    items, others = tree.items(one), tree.items(other)
    return repr(tree.map(lambda _: 0, one)) == repr(tree.map(lambda _: 0, other)) and all(
        path == other_path and _same_leaf(x, y) for (path, x), (other_path, y) in zip(items, others, strict=True)
    )


def _same_leaf(x: Any, y: Any) -> bool:
    return x is y or (
        x.dtype == y.dtype
        and x.shape == y.shape
        and bool(mx.array_equal(x, y, equal_nan=mx.issubdtype(x.dtype, mx.floating)).item())
    )


def shape_of(node: Any) -> str:
    """Structure, key order, shapes and dtypes of a tree, as text."""
    return repr(tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), node))


def is_finite(node: Any) -> bool:
    return all(mx.all(mx.isfinite(leaf)).item() for leaf in tree.leaves(node))


def copied(node: Any) -> Any:
    """A tree that shares neither containers nor arrays with the original."""
    return tree.map(lambda leaf: leaf + mx.zeros_like(leaf) if isinstance(leaf, mx.array) else leaf, node)


def widened(node: Any) -> Any:
    return tree.map(widen, node)


def ulp(x: mx.array) -> mx.array:
    """The distance from one number to the next in the dtype of an array, in float32."""
    smallest_normal = 2.0**-14 if x.dtype == mx.float16 else 2.0**-126
    exponent = mx.floor(mx.log2(mx.maximum(mx.abs(widen(x)), smallest_normal)))
    return mx.array(mx.finfo(x.dtype).eps) * mx.power(2.0, exponent)


def are_within(bound: Callable[..., mx.array], one: Any, other: Any, *rest: Any) -> bool:
    """Whether two trees differ nowhere by more than a bound, a function of their leaves and those of further trees."""

    def is_within(x: mx.array, y: mx.array, *more: mx.array) -> bool:
        difference = mx.abs(x.astype(mx.float32) - y.astype(mx.float32))
        return bool(mx.all(difference <= 1.001 * bound(x, y, *more) + 1e-7).item())

    return all(tree.leaves(tree.map(is_within, one, other, *rest)))
