"""Averaging gradients over ranks: the first link of a chain."""

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import EmptyState, GradientTransformation, Params, Updates
from mlxopt.distributed.exchange import BUCKET_BYTES, Exchange
from mlxopt.distributed.line import LINE
from mlxopt.readable import readable
from mlxopt.tree.structure import is_container, kind


@readable
def average_gradients(
    group: mx.distributed.Group | None = None, *, wire: mx.Dtype | None = None, bucket_bytes: int = BUCKET_BYTES
) -> GradientTransformation:
    """Replace gradients by their means over all ranks; put it first in a chain.

    ``compile_step(..., group=group)`` does this and more: there the loss is a mean too, and so is whatever the chain
    decides from it. This is for loops that take gradients by themselves. Each rank must make the same updates in the
    same order, from the same thread; holes and :func:`partition` are fine.

    Args:
        group: Ranks; all that the launcher started by default. For one rank this changes nothing.
        wire: Send gradients rounded to this dtype, ``mx.bfloat16`` or ``mx.float16``, and add them in float32.
        bucket_bytes: Size of a message, of many small leaves or one larger one.

    Example:
        >>> from mlxopt import chain, sgd
        >>> tx = chain(average_gradients(), sgd(0.5))
        >>> grads = {"w": mx.array(1.0)}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': array(-0.5, dtype=float32)}
    """
    if is_container(group) or isinstance(group, mx.array):
        raise TypeError(
            f"average_gradients: group must be one of mx.distributed, got {kind(group)}. This is no function of "
            "gradients as in mlx.nn: write chain(average_gradients(), ...), or compile_step(..., group=group)."
        )
    exchange = Exchange(group, wire=wire, bucket_bytes=bucket_bytes)

    def init_fn(params: Params) -> EmptyState:
        del params
        return EmptyState()

    def update_fn(updates: Updates, state: EmptyState, params: Params | None = None) -> tuple[Updates, EmptyState]:
        del params
        if exchange.size == 1:
            return updates, state
        with LINE.together(tree.leaves(updates)) as behind_all:
            means, _ = exchange.mean(updates)
            return tree.with_leaves(means, behind_all(tree.leaves(means))), state

    return GradientTransformation(init_fn, update_fn)
