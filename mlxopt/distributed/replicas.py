"""Trees that are the same on all ranks: made so, and checked to be so, to the bit."""

from collections.abc import Sequence

import mlx.core as mx

from mlxopt import tree
from mlxopt.distributed.agreement import common, forms_of, gathered, require_agreement
from mlxopt.distributed.exchange import BUCKET_BYTES, group_of
from mlxopt.distributed.line import LINE, summing
from mlxopt.distributed.messages import as_words, from_words, in_messages

LISTED = 5
"""Leaves that a message names."""


class ReplicaError(ValueError):
    """Ranks hold different values where they should hold the same; the message names leaves and ranks."""


def replicate(tree_of_rank_0: tree.Tree, group: mx.distributed.Group | None = None) -> tree.Tree:
    """Give every rank the leaves of rank 0, exact to the bit.

    For parameters that every rank has made or loaded by itself, before the first step. The forms must agree; what a
    state keeps for one rank alone, by :func:`shard`, stays as it is.

    Args:
        tree_of_rank_0: Tree of arrays; what is in it on other ranks does not matter.
        group: Ranks; all that the launcher started by default.

    Example:
        >>> replicate({"w": mx.array([1.0, -0.0])})
        {'w': array([1, -0], dtype=float32)}
    """
    together = group_of("replicate", group)
    with tree.naming("replicate"):
        shared = common(tree.map(tree.require_array, tree_of_rank_0))
    if together.size() == 1:
        return tree_of_rank_0
    require_agreement("replicate", together, forms_of("replicate", shared))
    rows = sorted(tree.items(shared))
    words = [as_words(leaf) for _, leaf in rows]
    sent = words if together.rank() == 0 else [mx.zeros_like(part) for part in words]

    def added(vector: mx.array) -> mx.array:
        return LINE.send_now(summing(together), vector)

    came = in_messages(sent, BUCKET_BYTES, added)
    found = {path: from_words(part, leaf) for (path, leaf), part in zip(rows, came, strict=True)}
    return tree.map_with_path(lambda path, leaf: found.get(path, leaf), tree_of_rank_0)


def check_replicas(replicas: tree.Tree, group: mx.distributed.Group | None = None) -> None:
    """Raise on every rank unless all hold the same values, to the bit.

    It costs one pass over the tree and one small message: call it every hundred steps or so. What a state keeps for one
    rank alone, by :func:`shard`, is left out.

    Args:
        replicas: Tree of arrays: parameters, or parameters and state.
        group: Ranks; all that the launcher started by default.

    Example:
        >>> check_replicas({"w": mx.array([1.0, 2.0])})
    """
    together = group_of("check_replicas", group)
    with tree.naming("check_replicas"):
        shared = common(tree.map(tree.require_array, replicas))
    if together.size() == 1:
        return
    require_agreement("check_replicas", together, forms_of("check_replicas", shared))
    require_equal(shared, together)


def require_equal(shared: tree.Tree, group: mx.distributed.Group) -> None:
    """Raise on every rank unless all hold the same values in trees of which they have agreed upon the forms."""
    rows = sorted(tree.items(shared))
    if not rows:
        return
    digests = gathered(group, mx.concatenate([_digest(leaf) for _, leaf in rows]))
    told = [
        _told(path, [of_rank[2 * place : 2 * place + 2] for of_rank in digests]) for place, (path, _) in enumerate(rows)
    ]
    differing = [line for line in told if line]
    if differing:
        more = f" and {len(differing) - LISTED} more" if len(differing) > LISTED else ""
        raise ReplicaError(
            f"check_replicas: all ranks must hold the same values, but {', '.join(differing[:LISTED])}{more}. Average "
            "gradients by compile_step(..., group=group), and start from replicate(params, group)."
        )


def _told(path: str, digests: Sequence[Sequence[int]]) -> str:
    apart = [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
    if not apart:
        return ""
    return f"'{path}' differs on rank{'s' if len(apart) > 1 else ''} {', '.join(apart)} from rank 0"


def _digest(leaf: mx.array) -> mx.array:
    """Two words that change with any bit of a leaf, and with the places of its elements."""
    words = as_words(leaf).astype(mx.uint32)
    places = mx.arange(words.size, dtype=mx.uint32)
    factors = _mixed(places)
    return mx.stack([mx.sum(words * (2 * factors + 1)), mx.sum(_mixed(words ^ factors))])


def _mixed(words: mx.array) -> mx.array:
    """Integers as if drawn at random: multiplied and shifted back and forth, each value into one of its own."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        words = (words ^ (words >> shift)) * mx.array(factor, mx.uint32)
    return words ^ (words >> 16)
