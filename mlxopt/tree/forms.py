"""What becomes of the leaves of a call, and what must be kept of them."""

from typing import Any

import mlx.core as mx

from mlxopt.numerics.dtypes import LOW_PRECISION, widen
from mlxopt.numerics.number import plain
from mlxopt.tree.dtypes import require_array, require_same_shape
from mlxopt.tree.structure import Tree, TreeError, map


def wide(leaf: Any) -> mx.array:
    """A leaf to calculate with: an array, float32 in place of float16 and bfloat16."""
    return widen(require_array(leaf))


def widened(node: Tree) -> Tree:
    """A tree to calculate with; the same one if all of it is wide, which most are."""
    return node if _is_wide(node) else map(wide, node)


def _is_wide(node: Tree) -> bool:
    if type(node) is mx.array:
        return node.dtype not in LOW_PRECISION
    if type(node) is dict:
        return all(_is_wide(part) for part in node.values())
    return node is None or (isinstance(node, (tuple, list)) and all(_is_wide(part) for part in node))


def wide_and_fitting(param: mx.array, update: mx.array | None) -> mx.array | None:
    """The update of a parameter to calculate with; a hole stays one."""
    if update is None:
        return None
    require_same_shape(update, param)
    return widen(update)


def as_it_came(update: mx.array, changed: mx.array) -> mx.array:
    """Round what became of an update to the dtype in which it came."""
    changed = plain(changed)
    require_same_shape(changed, update)
    if mx.issubdtype(changed.dtype, mx.inexact) and not mx.issubdtype(update.dtype, mx.inexact):
        raise TreeError(f"a {update.dtype} update would be cut to whole numbers. Cast it, or mask this leaf")
    if changed.dtype == mx.complex64 != update.dtype:
        raise TreeError(f"a {update.dtype} update would lose its imaginary part. Return its real part")
    return changed if changed.dtype == update.dtype else changed.astype(update.dtype)


def as_it_leaves(update: mx.array, changed: mx.array) -> mx.array:
    """The same as an array of its own: ``+=`` works in place, and must reach neither updates nor states."""
    return as_it_came(update, changed)[...]


def as_it_was(old: mx.array, new: Any) -> mx.array:
    """Pass a new leaf of the state that has the form of the old one, rounded where memory is of low precision."""
    if not isinstance(new, mx.array):
        raise TreeError(f"update put {new!r} into the state, which holds arrays only. Wrap it in mx.array")
    new = plain(new)
    kept: mx.array = new.astype(old.dtype) if old.dtype in LOW_PRECISION and new.dtype == mx.float32 else new
    if (old.shape, old.dtype) != (kept.shape, kept.dtype):
        raise TreeError(
            f"update turned a state of {old.dtype} and shape {old.shape} into {new.dtype} and shape {new.shape}. "
            "Keep its form: a state that changes it would be compiled anew at every step"
        )
    return kept
