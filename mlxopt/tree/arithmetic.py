"""Arithmetic on whole trees; everything that reduces does so in float32."""

import builtins
from collections.abc import Sequence
from functools import reduce
from typing import Literal

import mlx.core as mx

from mlxopt.tree.dtypes import abs_sq, require_same_shape, widen
from mlxopt.tree.structure import Tree, leaves, map


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
    """Clip every element into ``[low, high]``.

    Example:
        >>> clip({"a": mx.array([-3.0, 0.5, 3.0])}, -1.0, 1.0)
        {'a': array([-1, 0.5, 1], dtype=float32)}
    """
    return map(lambda leaf: mx.clip(leaf, low, high), tree)


def _floating(leaf: mx.array) -> mx.array:
    wide = widen(leaf)
    return wide if mx.issubdtype(wide.dtype, mx.inexact) else wide.astype(mx.float32)


def _total(parts: Sequence[mx.array]) -> mx.array:
    return reduce(mx.add, parts, mx.zeros((), mx.float32))


def sum(tree: Tree) -> mx.array:
    """Sum all elements, in float32.

    Example:
        >>> sum({"a": mx.array([1.0, 2.0]), "b": mx.array(3.0)})
        array(6, dtype=float32)
    """
    return _total([mx.sum(_floating(leaf)) for leaf in leaves(tree)])


def vdot(tree: Tree, other: Tree) -> mx.array:
    """Sum the products of corresponding elements, in float32.

    Example:
        >>> vdot({"a": mx.array([1.0, 2.0])}, {"a": mx.array([3.0, 4.0])})
        array(11, dtype=float32)
    """

    def product(x: mx.array, y: mx.array) -> mx.array:
        require_same_shape(x, y)
        return mx.sum(mx.conj(_floating(x)) * _floating(y))

    return _total(leaves(map(product, tree, other)))


def max(tree: Tree) -> mx.array:
    """Find the largest element; minus infinity if there is none.

    Example:
        >>> max({"a": mx.array([1.0, 2.0]), "b": mx.array(3.0)})
        array(3, dtype=float32)
    """
    parts = [mx.max(widen(leaf)) for leaf in leaves(tree) if leaf.size]
    return reduce(mx.maximum, parts, mx.array(-float("inf")))


def min(tree: Tree) -> mx.array:
    """Find the smallest element; infinity if there is none.

    Example:
        >>> min({"a": mx.array([1.0, 2.0]), "b": mx.array(3.0)})
        array(1, dtype=float32)
    """
    parts = [mx.min(widen(leaf)) for leaf in leaves(tree) if leaf.size]
    return reduce(mx.minimum, parts, mx.array(float("inf")))


def norm(tree: Tree, ord: Literal[1, 2, "inf"] = 2, *, squared: bool = False) -> mx.array:
    """Measure the tree as one long vector, in float32 whatever the dtypes of its leaves.

    Args:
        tree: Tree of arrays.
        ord: 1 for the sum of magnitudes, 2 for the Euclidean norm, "inf" for the largest magnitude.
        squared: Return the square of the norm.

    Example:
        >>> norm({"a": mx.array([3.0]), "b": mx.array(4.0)})
        array(5, dtype=float32)
        >>> norm(mx.full((1000,), 300.0, mx.float16))
        array(9486.83, dtype=float32)
    """
    if ord == 2:
        power = _total([mx.sum(abs_sq(_floating(leaf))) for leaf in leaves(tree)])
        return power if squared else mx.sqrt(power)
    if ord == 1:
        length = _total([mx.sum(mx.abs(_floating(leaf))) for leaf in leaves(tree)])
    elif ord == "inf":
        sizes = [mx.max(mx.abs(_floating(leaf))) for leaf in leaves(tree) if leaf.size]
        length = reduce(mx.maximum, sizes, mx.zeros((), mx.float32))
    else:
        raise ValueError(f"tree.norm: ord must be 1, 2 or 'inf', got {ord!r}. Pick one of them.")
    return mx.square(length) if squared else length


def allclose(tree: Tree, other: Tree, rtol: float = 1e-5, atol: float = 1e-8, *, equal_nan: bool = False) -> mx.array:
    """Say whether all elements of two trees agree.

    Example:
        >>> allclose({"a": mx.array(1.0)}, {"a": mx.array(1.0 + 1e-7)})
        array(True, dtype=bool)
    """

    def close(x: mx.array, y: mx.array) -> mx.array:
        require_same_shape(x, y)
        return mx.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)

    return reduce(mx.logical_and, leaves(map(close, tree, other)), mx.array(True))


def size(tree: Tree) -> int:
    """Count the elements of all leaves.

    Example:
        >>> size({"a": mx.zeros((2, 3)), "b": mx.array(0.0)})
        7
    """
    return builtins.sum(leaf.size for leaf in leaves(tree))


def nbytes(tree: Tree) -> int:
    """Count the bytes of all leaves.

    Example:
        >>> nbytes({"a": mx.zeros((2, 3)), "b": mx.zeros((4,), mx.bfloat16)})
        32
    """
    return builtins.sum(leaf.nbytes for leaf in leaves(tree))
