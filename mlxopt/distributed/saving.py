"""Checkpoints that all ranks write together, and that any number of ranks reads."""

import contextlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import checkpoint, tree
from mlxopt.checkpoint.archive import CheckpointError, MismatchError, Pathname, read_leaves
from mlxopt.checkpoint.files import replace_file
from mlxopt.checkpoint.forms import differences, listed
from mlxopt.distributed.agreement import forms_of, gathered, require_agreement
from mlxopt.distributed.dealing import dealt
from mlxopt.distributed.exchange import group_of
from mlxopt.distributed.rows import Row, collected, leaves_of
from mlxopt.distributed.shares import Span, span_at
from mlxopt.tree.structure import Tree

INDEX = "index.json"
"""Names the parts that belong together: who replaces it replaces the checkpoint."""

PART = re.compile(r"[0-9a-f]{8}\.rank-\d+-of-\d+\.safetensors")


def save(path: Pathname, run: Tree, group: mx.distributed.Group | None = None, *, parts: bool = True) -> None:
    """Write a tree, each rank its part: what it has alone, and its share of what all have.

    A crash of any rank at any moment leaves the old checkpoint or the new one, whole. What cannot be written on one
    rank is an error on all.

    Args:
        path: Folder of the checkpoint, which all ranks see; the folder around it must exist.
        run: Tree of arrays and Python numbers: parameters, state and step in one dict.
        group: Ranks; all that the launcher started by default.
        parts: False sends everything to rank 0, which needs memory for it and writes one file.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp() + "/run"
        >>> save(folder, {"params": {"w": mx.array([1.0, 2.0])}, "step": 7})
        >>> load(folder, {"params": {"w": mx.zeros((2,))}, "step": 0})
        {'params': {'w': array([1, 2], dtype=float32)}, 'step': 7}
    """
    together = group_of("distributed.save", group)
    rank, folder = together.rank(), os.path.realpath(path)
    rows = leaves_of("save", run)
    require_agreement("save", together, {**forms_of("save", run), "parts": str(parts)})
    mine = _share(rows, together) if parts else collected(rows, together)
    size = together.size() if parts else 1
    stem = f"{_of_rank_0(together, secrets.randbits(31)):08x}"

    def write_part() -> None:
        if rank < size:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)
            marks = {"own": [row.path for row in mine if row.is_own]}
            checkpoint.save(os.path.join(folder, _name(stem, rank, size)), {row.path: row.leaf for row in mine}, marks)

    def write_index() -> None:
        if rank == 0:
            content = json.dumps({"stem": stem, "ranks": size}).encode()
            replace_file("distributed.save", os.path.join(folder, INDEX), [content])

    _on_all("save", together, write_part)
    _on_all("save", together, write_index)
    if rank == 0:
        _remove_all_but(stem, folder)


def load(path: Pathname, like: Tree, group: mx.distributed.Group | None = None) -> Tree:
    """Read a tree that :func:`save` wrote, on as many ranks as there are now.

    Args:
        path: Folder of the checkpoint, which all ranks see.
        like: Tree that gives structure, shapes and dtypes, such as ``tx.init(params)`` on these ranks. Its values are
            not looked at.
        group: Ranks; all that the launcher started by default.

    Returns:
        A tree with the structure of ``like`` and the values of the checkpoint, exact to the bit.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp() + "/run"
        >>> save(folder, {"w": mx.array([1.0, 2.0])})
        >>> load(folder, {"w": mx.zeros((2,))})
        {'w': array([1, 2], dtype=float32)}
    """
    together = group_of("distributed.load", group)
    found: list[tuple[str, dict[str, Any]]] = []
    _on_all("load", together, lambda: found.append(_read(os.path.realpath(path), like)))
    stem, values = found[0]
    require_agreement("load", together, {"the checkpoint": stem})
    return tree.map_with_path(lambda name, leaf: values.get(name, leaf), like)


class _Part(NamedTuple):
    """A file of one rank."""

    file: str
    forms: dict[str, str]  # of the leaves in it, by their paths in the run
    own: frozenset[str]


class _Piece(NamedTuple):
    """A leaf, or a range of one, that a rank had alone."""

    span: Span
    part: _Part
    path: str  # of the piece


def _read(folder: str, like: Tree) -> tuple[str, dict[str, Any]]:
    """The name of a checkpoint and the values of the leaves of ``like``."""
    stem, parts = _parts(folder)
    rows = {row.path: row for row in leaves_of("load", like)}
    stored: dict[str, str] = {}
    for part in parts:
        stored.update({path: form for path, form in part.forms.items() if path in rows or path not in part.own})
    wanted = {path: row.form for path, row in rows.items()}
    cut = _pieces(parts, [row for row in rows.values() if row.is_own and row.path not in stored])
    stored.update({path: wanted[path] for path in cut})
    differing = differences(stored, wanted)
    if differing:
        problem = f"distributed.load: {folder!r} must fit like, got {listed(differing)}"
        raise MismatchError(f"{problem}. Build like as the run that saved it did.")
    values: dict[str, Any] = {}
    for part in parts:
        values.update(read_leaves(part.file, part.forms.keys() & (wanted.keys() - cut.keys() - values.keys())))
    values.update({path: _joined(pieces, rows[path]) for path, pieces in cut.items()})
    return stem, values


def _pieces(parts: list[_Part], rows: list[Row]) -> dict[str, list[_Piece]]:
    """Of what these ranks have alone and others cut in another way: the pieces that it is made of, in their order."""
    held: dict[tuple[str, str, int], list[_Piece]] = {}
    for part in parts:
        for path in part.own:
            (whole, span), (dtype, _, shape) = span_at(path), part.forms[path].partition(" ")
            size = math.prod(int(length) for length in re.findall(r"\d+", shape))
            piece = _Piece(Span(0, size, size) if span is None else span, part, path)
            held.setdefault((whole, dtype, piece.span.size), []).append(piece)
    found = {}
    for row in rows:
        whole, span = _span(row)
        at, pieces = span.start, []
        for piece in sorted(held.get((whole, row.form.partition(" ")[0], span.size), []), key=lambda piece: piece.span):
            if piece.span.start <= at < min(piece.span.stop, span.stop):
                pieces.append(piece)
                at = piece.span.stop
        if at >= span.stop and pieces:
            found[row.path] = pieces
    return found


def _span(row: Row) -> tuple[str, Span]:
    whole, span = span_at(row.path)
    return whole, Span(0, row.leaf.size, row.leaf.size) if span is None else span


def _joined(pieces: list[_Piece], row: Row) -> mx.array:
    """A leaf of ``like`` from the pieces that hold some of it."""
    (_, (at, stop, _)), found = _span(row), []
    for piece in pieces:
        start, end, _ = piece.span
        flat = read_leaves(piece.part.file, [piece.path])[piece.path].reshape(-1)
        found.append(flat[at - start : min(end, stop) - start])
        at = end
    return mx.concatenate(found).reshape(row.leaf.shape)


def _parts(folder: str) -> tuple[str, list[_Part]]:
    index = os.path.join(folder, INDEX)
    advice = "Load a folder that distributed.save wrote, from a place that all ranks see."
    try:
        with open(index, "rb") as file:
            told = json.load(file)
        stem, size = str(told["stem"]), int(told["ranks"])
    except FileNotFoundError:
        raise FileNotFoundError(
            f"distributed.load: {folder!r} must hold a checkpoint, got no {INDEX}. {advice}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"distributed.load: {index!r} must name a checkpoint, got another file. {advice}"
        ) from None
    files = [os.path.join(folder, _name(stem, rank, size)) for rank in range(size)]
    missing = [str(rank) for rank, file in enumerate(files) if not os.path.exists(file)]
    if missing:
        raise CheckpointError(
            f"distributed.load: {folder!r} must hold the parts of {size} ranks, got none of rank {', '.join(missing)}. "
            "Put the parts of all ranks into one folder that all see."
        )
    return stem, [_part(file) for file in files]


def _part(file: str) -> _Part:
    contents = checkpoint.contents(file)
    forms = {path: form for path, form in contents.structure.items() if path}
    return _Part(file, forms, frozenset(contents.metadata["own"]))


def _share(rows: list[Row], group: mx.distributed.Group) -> list[Row]:
    """What a rank writes: its own, and of what all have as much as others."""
    shared = [row for row in rows if not row.is_own]
    owners = dealt([row.nbytes for row in shared], group.size())
    given = [row for row, owner in zip(shared, owners, strict=True) if owner == group.rank()]
    return [*given, *(row for row in rows if row.is_own)]


def _name(stem: str, rank: int, size: int) -> str:
    return f"{stem}.rank-{rank}-of-{size}.safetensors"


def _remove_all_but(stem: str, folder: str) -> None:
    for name in os.listdir(folder):
        if PART.fullmatch(name) and not name.startswith(stem):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def _of_rank_0(group: mx.distributed.Group, number: int) -> int:
    return number if group.size() == 1 else gathered(group, mx.array([number], mx.uint32))[0][0]


def _on_all(where: str, group: mx.distributed.Group, act: Callable[[], object]) -> None:
    """Do something on every rank; if it fails on one, it is an error on all."""
    error: Exception | None = None
    try:
        act()
    except Exception as caught:
        error = caught
    if group.size() > 1:
        failed = [str(rank) for rank, row in enumerate(gathered(group, mx.array([error is not None]))) if row[0]]
        if error is None and failed:
            raise CheckpointError(
                f"distributed.{where}: all ranks must come to an end, got an error on rank {', '.join(failed)}, which "
                "tells more. Nothing is changed."
            )
    if error is not None:
        raise error
