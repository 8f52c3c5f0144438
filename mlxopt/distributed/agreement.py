"""Comparing what ranks are about to do: a mismatch is an error on all of them, before anything else is sent."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import mlx.core as mx

from mlxopt.checkpoint.forms import described
from mlxopt.distributed.line import LINE, gathering
from mlxopt.tree.structure import children, is_container, is_hole, rebuild

Forms = dict[str, str]
"""What is at each path, in order."""

T = TypeVar("T")

LISTED = 5
"""Differences of a rank that a message spells out."""


class DisagreementError(ValueError):
    """Ranks would do different things; the message names them and the first paths that differ."""


_OF_ONE_RANK: set[type] = set()


def of_one_rank(kind: type[T]) -> type[T]:
    """Mark a state of which each rank keeps a part of its own, which other ranks need not agree with."""
    _OF_ONE_RANK.add(kind)
    return kind


def common(node: Any) -> Any:
    """A tree with holes in the place of what belongs to one rank alone."""
    if type(node) in _OF_ONE_RANK:
        return None
    if not is_container(node) or is_hole(node):
        return node
    return rebuild(node, [common(part) for _, part in children(node)])


def forms_of(where: str, node: Any) -> Forms:
    """What ranks must agree upon of a tree."""
    return described(where, common(node))[0]


def require_agreement(where: str, group: mx.distributed.Group, forms: Mapping[str, str]) -> None:
    """Raise on every rank unless all have the same paths with the same forms in the same order."""
    if group.size() == 1:
        return
    text = json.dumps([*forms.items()]).encode()
    digest = mx.array(list(hashlib.sha256(text).digest()), mx.uint8)
    if len(set(map(tuple, gathered(group, digest)))) == 1:
        return
    texts = texts_of_all(group, text)
    first: list[tuple[str, str]] = json.loads(texts[0])
    told = []
    for rank, other in enumerate(texts[1:], 1):
        found = _differences(first, json.loads(other))
        more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
        told += [f"on rank {rank} {'; '.join(found[:LISTED])}{more}"] if found else []
    raise DisagreementError(
        f"{where}: all ranks must do the same, but {', '.join(told)}. Run one program with one configuration on all."
    )


def _differences(first: Sequence[tuple[str, str]], other: Sequence[tuple[str, str]]) -> list[str]:
    wanted, got = dict(first), dict(other)
    found = [
        f"'{path}' is {got.get(path, 'missing')} where rank 0 has {wanted.get(path, 'nothing')}"
        for path in {**wanted, **got}
        if wanted.get(path) != got.get(path)
    ]
    pairs = zip(first, other, strict=False)
    moved = (
        f"'{there[0]}' stands where rank 0 has '{here[0]}': the order of keys differs"
        for here, there in pairs
        if here != there
    )
    return found or [*moved][:1]


def gathered(group: mx.distributed.Group, vector: mx.array) -> list[list[int]]:
    """The vectors of all ranks."""
    together = LINE.send_now(gathering(group), vector[None])
    rows: list[list[int]] = together.tolist()  # type: ignore[assignment]
    return rows


def texts_of_all(group: mx.distributed.Group, text: bytes) -> list[bytes]:
    """The texts of all ranks, which may differ in length."""
    lengths = [row[0] for row in gathered(group, mx.array([len(text)], mx.uint32))]
    padded = mx.array(list(text.ljust(max(lengths))), mx.uint8)
    rows = gathered(group, padded)
    return [bytes(row[:length]) for row, length in zip(rows, lengths, strict=True)]
