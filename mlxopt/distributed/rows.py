"""The leaves of a run: those that all ranks have, and those that each keeps for itself."""

import json
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.checkpoint.forms import DTYPES, described
from mlxopt.distributed.agreement import common, texts_of_all
from mlxopt.distributed.exchange import BUCKET_BYTES
from mlxopt.distributed.line import LINE, summing
from mlxopt.distributed.messages import as_words, from_words, in_messages, planned
from mlxopt.tree.structure import Tree


class Row(NamedTuple):
    """A leaf of a run."""

    path: str
    leaf: Any
    form: str
    is_own: bool  # kept by this rank, whatever others have there

    @property
    def nbytes(self) -> int:
        return self.leaf.nbytes if isinstance(self.leaf, mx.array) else 8


def leaves_of(where: str, run: Tree) -> list[Row]:
    forms, leaves = described(f"distributed.{where}", run)
    own = set(leaves) - set(tree.paths(common(run)))
    return [Row(path, leaf, forms[path], path in own) for path, leaf in leaves.items()]


def collected(rows: list[Row], group: mx.distributed.Group) -> list[Row]:
    """On rank 0 the leaves of all ranks; on others nothing.

    Args:
        rows: Leaves of this rank.
        group: Ranks, which all call this.
    """

    def added(words: mx.array) -> mx.array:
        return LINE.send_now(summing(group), words)

    own = {row.path: row for row in rows if row.is_own}
    told = json.dumps([[path, str(row.leaf.dtype), *row.leaf.shape] for path, row in own.items()])
    kept = [json.loads(text) for text in texts_of_all(group, told.encode())]
    first = {path: (rank, form) for rank, of_rank in reversed([*enumerate(kept)]) for path, *form in of_rank}
    waiting = [
        Row(path, own[path].leaf if rank == group.rank() else mx.zeros(shape, NAMED[dtype]), "", True)
        for path, (rank, (dtype, *shape)) in sorted(first.items())
    ]
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
