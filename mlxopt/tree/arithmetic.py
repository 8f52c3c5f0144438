"""Arithmetic on whole trees, leaf by leaf."""

from functools import reduce

import mlx.core as mx

from mlxopt.tree.structure import Tree, TreeError, map, naming


def add(tree: Tree, *rest: Tree) -> Tree:
    """Add trees leaf by leaf.

    Example:
        >>> add({"a": mx.array(1.0)}, {"a": mx.array(2.0)})
        {'a': array(3, dtype=float32)}
    """
    return map(lambda *parts: reduce(mx.add, parts), tree, *rest)


def sub(tree: Tree, other: Tree) -> Tree:
    """Subtract ``other`` leaf by leaf.

    Example:
        >>> sub({"a": mx.array(1.0)}, {"a": mx.array(2.0)})
        {'a': array(-1, dtype=float32)}
    """
    return map(mx.subtract, tree, other)


def mul(tree: Tree, other: Tree) -> Tree:
    """Multiply by ``other`` leaf by leaf.

    Example:
        >>> mul({"a": mx.array(3.0)}, {"a": mx.array(2.0)})
        {'a': array(6, dtype=float32)}
    """
    return map(mx.multiply, tree, other)


def div(tree: Tree, other: Tree) -> Tree:
    """Divide by ``other`` leaf by leaf.

    Example:
        >>> div({"a": mx.array(3.0)}, {"a": mx.array(2.0)})
        {'a': array(1.5, dtype=float32)}
    """
    return map(mx.divide, tree, other)


def scale(scalar: float | mx.array, tree: Tree) -> Tree:
    """Multiply every leaf by one scalar, keeping floating dtypes.

    Example:
        >>> scale(0.5, {"a": mx.array(3.0)})
        {'a': array(1.5, dtype=float32)}
    """
    return map(lambda leaf: _in_dtype_of(leaf, scalar * leaf), tree)


def add_scale(tree: Tree, scalar: float | mx.array, other: Tree) -> Tree:
    """Add ``scalar`` times ``other`` leaf by leaf, keeping the floating dtypes of ``tree``.

    Example:
        >>> add_scale({"a": mx.array(1.0)}, 0.5, {"a": mx.array(3.0)})
        {'a': array(2.5, dtype=float32)}
    """
    return map(lambda leaf, part: _in_dtype_of(leaf, leaf + scalar * part), tree, other)


def _in_dtype_of(leaf: mx.array, result: mx.array) -> mx.array:
    """Keep a floating dtype; an integer one would cut the result."""
    return result.astype(leaf.dtype) if mx.issubdtype(leaf.dtype, mx.inexact) else result


def where(condition: mx.array | bool, tree: Tree, other: Tree) -> Tree:
    """Choose ``tree`` where the condition holds, else ``other``; a NaN on the side not chosen does no harm.

    Example:
        >>> where(mx.array(True), {"a": mx.array(1.0)}, {"a": mx.array(float("nan"))})
        {'a': array(1, dtype=float32)}
    """
    return map(lambda leaf, part: mx.where(condition, leaf, part), tree, other)


def clip(tree: Tree, low: float | None = None, high: float | None = None) -> Tree:
    """Clip every element into ``[low, high]``; complex numbers, which have no order, are an error.

    Example:
        >>> clip({"a": mx.array([-3.0, 0.5, 3.0])}, -1.0, 1.0)
        {'a': array([-1, 0.5, 1], dtype=float32)}
    """

    def clipped(leaf: mx.array) -> mx.array:
        if leaf.dtype == mx.complex64:
            raise TreeError("complex numbers have no order. Clip their modulus with mlxopt.clip")
        return mx.clip(leaf, low, high)

    with naming("tree.clip"):
        return map(clipped, tree)
