"""Numbers that describe a whole tree, accumulated in float32."""

import builtins
from collections.abc import Callable
from functools import reduce
from typing import Literal

import mlx.core as mx

from mlxopt.tree.dtypes import abs_sq, require_array, require_same_shape, widen
from mlxopt.tree.structure import MaskedNode, Tree, leaves, map


def _floating(leaf: mx.array) -> mx.array:
    wide = widen(leaf)
    return wide if mx.issubdtype(wide.dtype, mx.inexact) else wide.astype(mx.float32)


def total(x: mx.array) -> mx.array:
    """Sum the elements of an array in short stretches, and then the sums.

    One long float32 sum loses digits: on the CPU ``mx.sum`` is off by 15 % for 2**24 equal numbers. Stretches of
    64 in 1024 lanes (of up to 4096 where a reshape would cost a copy) keep more than four digits at any size, and take
    less time.

    Example:
        >>> total(mx.full((2**20,), 0.5)), total(mx.ones((3,)))
        (array(524288, dtype=float32), array(3, dtype=float32))
    """
    if x.size <= 4096:
        return mx.sum(x)
    if x.ndim > 1 and 64 <= x.shape[0] <= 4096:
        # No reshape: gradients of matrices often come transposed, and would be copied.
        return total(mx.sum(x, axis=0))
    rows = builtins.min(64, x.size // 1024)
    whole = x.size // (rows * 1024) * (rows * 1024)
    flat = x.reshape(-1)
    sums = total(mx.sum(flat[:whole].reshape(-1, rows, 1024), axis=1))
    return sums if whole == x.size else sums + total(flat[whole:])


SMALL = 4096
"""Elements up to which leaves are laid end to end first: the kernels for each of them cost more than a copy."""

BUNDLE = 2**15
"""Elements of what is laid end to end, which bounds the memory of the copies."""


def _end_to_end(small: list[mx.array]) -> list[mx.array]:
    """Join arrays of one dtype to longer ones."""
    room: dict[mx.Dtype, int] = {}
    bundles: dict[mx.Dtype, list[list[mx.array]]] = {}
    for leaf in small:
        if room.get(leaf.dtype, -1) < leaf.size:
            bundles.setdefault(leaf.dtype, []).append([])
            room[leaf.dtype] = BUNDLE
        bundles[leaf.dtype][-1].append(leaf.reshape(-1))
        room[leaf.dtype] -= leaf.size
    return [mx.concatenate(bundle) for one_dtype in bundles.values() for bundle in one_dtype]


def _sum_of(measure: Callable[[mx.array], mx.array], tree: Tree) -> mx.array:
    """Sum over the leaves what a function makes of the elements of each."""
    small: list[mx.array] = []

    def summed_or_small(leaf: mx.array) -> mx.array | MaskedNode:
        wide = _floating(require_array(leaf))
        if wide.size > SMALL:
            return total(measure(wide))
        small.append(wide)
        return MaskedNode()

    parts = leaves(map(summed_or_small, tree))
    parts += [total(measure(bundle)) for bundle in _end_to_end(small)]
    return reduce(mx.add, parts, mx.zeros((), mx.float32))


def sum(tree: Tree) -> mx.array:
    """Sum all elements, in float32.

    Example:
        >>> sum({"a": mx.array([1.0, 2.0]), "b": mx.array(3.0)})
        array(6, dtype=float32)
    """
    return _sum_of(lambda x: x, tree)


def vdot(tree: Tree, other: Tree) -> mx.array:
    """Sum the products of corresponding elements, in float32.

    Example:
        >>> vdot({"a": mx.array([1.0, 2.0])}, {"a": mx.array([3.0, 4.0])})
        array(11, dtype=float32)
    """

    def product(x: mx.array, y: mx.array) -> mx.array:
        require_same_shape(x, y)
        return total(mx.conj(_floating(x)) * _floating(y))

    return reduce(mx.add, leaves(map(product, tree, other)), mx.zeros((), mx.float32))


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
        power = _sum_of(abs_sq, tree)
        return power if squared else mx.sqrt(power)
    if ord == 1:
        length = _sum_of(mx.abs, tree)
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
