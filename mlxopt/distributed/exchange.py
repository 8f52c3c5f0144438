"""Means over the ranks of a group."""

from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.distributed.line import LINE, gathering, summing
from mlxopt.distributed.messages import in_messages
from mlxopt.numerics.dtypes import LOW_PRECISION, widen

BUCKET_BYTES = 2**25
"""Enough for bandwidth to outweigh latency; messages are copies, so no more than that."""


def group_of(where: str, group: Any) -> mx.distributed.Group:
    """The ranks of a group, by default all that the launcher started."""
    if group is not None and not isinstance(group, mx.distributed.Group):
        raise TypeError(f"{where}: group must be one of mx.distributed, got {group!r}. Pass mx.distributed.init().")
    return mx.distributed.init() if group is None else group


class Exchange:
    """How the ranks of a group send gradients to each other.

    Args:
        group: Ranks; all that the launcher started by default.
        wire: Send gradients rounded to this dtype, ``mx.bfloat16`` or ``mx.float16``, and add them in float32: half the
            bytes for two ranks, as many for four, more for more. By default they are sent in float32.
        bucket_bytes: Size of a message, of many small leaves or one larger one.

    Example:
        >>> Exchange().size
        1
    """

    def __init__(
        self,
        group: mx.distributed.Group | None = None,
        *,
        wire: mx.Dtype | None = None,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self.group = group_of("Exchange", group)
        if wire is not None and wire not in LOW_PRECISION:
            raise ValueError(f"Exchange: wire must be mx.bfloat16, mx.float16 or None, got {wire}. Pick one of them.")
        checks.whole("Exchange", low=4, bucket_bytes=bucket_bytes)
        self.rank, self.size = self.group.rank(), self.group.size()
        self._wire, self._bucket_bytes = wire, bucket_bytes

    def __repr__(self) -> str:
        return f"Exchange(size={self.size}, wire={self._wire}, bucket_bytes={self._bucket_bytes})"

    def mean(self, rough: tree.Tree, exact: tree.Tree = None, weight: mx.array | None = None) -> tuple[Any, Any]:
        """The means of two trees over all ranks, in float32; for one rank they are what they were.

        Args:
            rough: Tree whose leaves go as ``wire`` says.
            exact: Tree whose leaves go as they are.
            weight: What this rank weighs; by default all weigh the same. What weighs nothing may be NaN.
        """
        if self.size == 1:
            return rough, exact
        shares = None if weight is None else self._shares(weight)
        both = sorted([*_rows("rough", rough), *_rows("exact", exact)], key=lambda row: (row.tree, row.path))
        sent = [self._to_send(row, shares) for row in both]
        means = in_messages(sent, self._bucket_bytes, lambda vector: self._mean(vector, shares))
        found = {(row.tree, row.path): row.read(mean) for row, mean in zip(both, means, strict=True)}
        return _filled("rough", rough, found), _filled("exact", exact, found)

    def _shares(self, weight: mx.array) -> mx.array:
        """What each rank weighs in a mean: a vector that adds up to 1, or zeros if all weigh nothing."""
        gathered = LINE.send(gathering(self.group), weight.astype(mx.float32).reshape(1))
        total = mx.sum(gathered)
        return mx.where(total == 0, 0.0, gathered / mx.where(total == 0, 1.0, total))

    def _to_send(self, row: "_Row", shares: mx.array | None) -> mx.array:
        leaf = row.leaf
        rounded = row.tree == "rough" and self._wire is not None
        if shares is not None:
            own = shares[self.rank]
            # Gathered ones are multiplied where they arrive, so that rounding comes first.
            leaf = mx.where(own == 0, 0.0, leaf if rounded else own * leaf)
        return leaf.astype(self._wire) if rounded and self._wire is not None else leaf

    def _mean(self, vector: mx.array, shares: mx.array | None) -> mx.array:
        if vector.dtype not in LOW_PRECISION:
            total = LINE.send(summing(self.group), vector)
            return total / self.size if shares is None else total
        rows = LINE.send(gathering(self.group), vector[None]).astype(mx.float32)
        return mx.sum(rows, axis=0) / self.size if shares is None else mx.sum(shares[:, None] * rows, axis=0)


class _Row(NamedTuple):
    """A leaf on its way."""

    tree: str
    path: str
    leaf: mx.array  # float32; two in the place of a complex one
    was: mx.array

    def read(self, mean: mx.array) -> mx.array:
        mean = widen(mean)
        return mean.view(mx.complex64).reshape(self.was.shape) if self.was.dtype == mx.complex64 else mean


def _rows(name: str, node: tree.Tree) -> list[_Row]:
    def row(path: str, leaf: Any) -> _Row:
        if not mx.issubdtype(tree.require_array(leaf).dtype, mx.inexact):
            raise tree.TreeError(f"a mean of {leaf.dtype} cannot be taken over ranks. Cast it, or mask this leaf")
        wide = leaf.reshape(-1).view(mx.float32) if leaf.dtype == mx.complex64 else widen(leaf)
        return _Row(name, path, wide, leaf)

    found: list[_Row] = []
    tree.map_with_path(lambda path, leaf: found.append(row(path, leaf)), node)
    return found


def _filled(name: str, node: tree.Tree, found: dict[tuple[str, str], mx.array]) -> Any:
    return tree.map_with_path(lambda path, _: found[name, path], node)
