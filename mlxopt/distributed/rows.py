"""The leaves of a run: those that all ranks have, and those that each keeps for itself."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.checkpoint.forms import DTYPES, described
from mlxopt.distributed.agreement import Own, common, texts_of_all
from mlxopt.distributed.exchange import BUCKET_BYTES
from mlxopt.distributed.line import LINE
from mlxopt.distributed.messages import as_words, from_words, in_messages, planned
from mlxopt.tree.structure import Tree, walk


class Row(NamedTuple):
    """A leaf of a run."""

    path: str
    leaf: Any
    form: str
    is_own: bool  # kept by this rank, whatever others have there
    is_stretch: bool  # a range of a vector of which each rank has one

    @property
    def nbytes(self) -> int:
        return self.leaf.nbytes if isinstance(self.leaf, mx.array) else 8


def leaves_of(where: str, run: Tree) -> list[Row]:
    forms, leaves = described(f"distributed.{where}", run)
    own, stretches = set(leaves) - set(tree.paths(common(run))), set(_stretches(run))
    return [Row(path, leaf, forms[path], path in own, path in stretches) for path, leaf in leaves.items()]


def _stretches(run: Tree) -> Iterator[str]:
    """Paths of the vectors in states of ranges: each is named by its dtype."""
    for path, node in walk(run):
        if isinstance(node, Own) and node.by == "element":
            names = (f"{path}.{below}" if path else below for below, leaf in tree.items(node) if leaf.ndim == 1)
            yield from (name for name in names if name.rpartition(".")[2] in ("float32", "complex64"))


def collected(rows: list[Row], group: mx.distributed.Group) -> list[Row]:
    """On rank 0 the leaves of all ranks, stretches put together; on others nothing.

    Args:
        rows: Leaves of this rank.
        group: Ranks, which all call this.
    """

    def added(words: mx.array) -> mx.array:
        return LINE.send_now(lambda vector: mx.distributed.all_sum(vector, group=group), words)

    own = {row.path: row for row in rows if row.is_own}
    told = json.dumps([[path, row.is_stretch, str(row.leaf.dtype), *row.leaf.shape] for path, row in own.items()])
    kept = [json.loads(text) for text in texts_of_all(group, told.encode())]
    waiting = []
    for path in sorted({path for of_rank in kept for path, *_ in of_rank}):
        held = [(rank, form) for rank, of_rank in enumerate(kept) for name, *form in of_rank if name == path]
        is_stretch, dtype, *_ = held[0][1]
        pieces = [
            own[path].leaf if rank == group.rank() else mx.zeros(shape, NAMED[dtype])
            for rank, (_, _, *shape) in (held if is_stretch else held[:1])
        ]
        waiting.append(Row(path, mx.concatenate(pieces) if is_stretch else pieces[0], "", True, is_stretch))
    together = [row for row in rows if not row.is_own]
    for places in planned([(mx.uint8, row.nbytes) for row in waiting], BUCKET_BYTES):
        sent = [waiting[place] for place in places]
        came = in_messages([as_words(row.leaf) for row in sent], BUCKET_BYTES, added)
        if group.rank() == 0:
            pairs = zip(sent, came, strict=True)
            together += [row._replace(leaf=from_words(words, row.leaf)) for row, words in pairs]
    together += [row for row in waiting if not row.nbytes]
    return together if group.rank() == 0 else []


NAMED = {str(dtype): dtype for dtype in DTYPES.values()}
