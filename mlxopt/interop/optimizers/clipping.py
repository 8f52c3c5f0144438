"""Clipping gradients before an optimizer sees them."""

from typing import Any

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.numerics.dtypes import widen


def clip_grad_norm(grads: Any, max_norm: float | mx.array) -> tuple[Any, mx.array]:
    """Shrink all gradients by one factor, so that together they are no longer than ``max_norm``.

    Args:
        grads: Tree of gradients.
        max_norm: Largest norm.

    Returns:
        The gradients in their dtypes, integers as float32, and their norm before, in float32.

    Example:
        >>> clipped, norm = clip_grad_norm({"w": mx.array([3.0, 4.0])}, 2.5)
        >>> clipped, norm
        ({'w': array([1.5, 2], dtype=float32)}, array(5, dtype=float32))
    """
    checks.non_negative("clip_grad_norm", max_norm=max_norm)
    norm = tree.norm(grads)
    factor = mx.minimum(max_norm / (norm + 1e-6), 1.0)

    def shrunk(gradient: mx.array) -> mx.array:
        floating = mx.issubdtype(gradient.dtype, mx.inexact)
        return (widen(gradient) * factor).astype(gradient.dtype if floating else mx.float32)

    return tree.map(shrunk, grads), norm
