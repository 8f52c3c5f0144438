"""Whole trees in one safetensors file: written completely or not at all, read only if whole and fitting."""

import json
import os
import warnings
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.checkpoint import forms
from mlxopt.checkpoint.files import replace_file
from mlxopt.checkpoint.forms import CODES, DTYPES, described, listed, size_of_data

Pathname = str | os.PathLike[str]

VERSION = 1
"""Of the layout of files: a reader refuses those of a later one."""

MARK = "mlxopt.checkpoint"

WORDS: dict[int, Any] = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""Codes of unsigned integers by size, in which bits stay as they are."""


class CheckpointError(ValueError):
    """A file that is no whole checkpoint: cut off, damaged, written by something else or by a newer version."""


class MismatchError(ValueError):
    """A checkpoint that is whole, but does not fit the tree it should fill."""


class Contents(NamedTuple):
    """What a checkpoint says of itself."""

    structure: dict[str, str]  # what is at each dotted path, the containers included
    numbers: dict[str, bool | int | float]  # the Python numbers among the leaves
    metadata: dict[str, Any]  # as it was given to save


def save(path: Pathname, state: tree.Tree, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a tree to a safetensors file, completely or not at all.

    A kill at any moment leaves the old file or the new one. Every array is named by its dotted path, so that
    ``mx.load`` reads it as well, and has a checksum, which :func:`load` compares.

    Args:
        path: File to write; its folder must exist.
        state: Tree of arrays and Python numbers: a state, or parameters, state, random key and step in one dict.
        metadata: Anything else to remember, as far as JSON brings it back equal.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/run.safetensors"
        >>> save(file, {"params": {"w": mx.array([1.0, 2.0])}, "step": 7})
        >>> mx.load(file)
        {'params.w': array([1, 2], dtype=float32)}
    """
    target = os.path.realpath(path)
    if not os.path.isdir(os.path.dirname(target)):
        raise FileNotFoundError(f"checkpoint.save: the folder of {target!r} must exist, got none. Create it first.")
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"checkpoint.save: path must name a file, got {target!r}. Add a file name to it.")
    found, leaves = described("checkpoint.save", state)
    remembered = _jsonable({} if metadata is None else metadata)
    arrays = [(name, leaf) for name, leaf in leaves.items() if isinstance(leaf, mx.array)]
    aligned = sorted(arrays, key=lambda item: -item[1].itemsize)
    rows: dict[str, Any] = {name: mx.contiguous(leaf, stream=mx.cpu) for name, leaf in aligned}
    mx.eval(rows)
    marks = {
        "structure": found,
        "numbers": {name: leaf for name, leaf in leaves.items() if name not in rows},
        "metadata": remembered,
        "checksums": {name: zlib.crc32(memoryview(row)) for name, row in rows.items()},
    }
    replace_file("checkpoint.save", target, [_header(marks, rows), *[memoryview(row) for row in rows.values()]])


def load(path: Pathname, like: tree.Tree, *, strict: bool = True) -> tree.Tree:
    """Read a tree that :func:`save` wrote.

    Nothing of the file is needed afterwards: it may be replaced or deleted.

    Args:
        path: File to read.
        like: Tree that gives structure, key order, shapes and dtypes, such as ``tx.init(params)``. Its values are not
            looked at.
        strict: Raise :class:`MismatchError` if anything in the file differs from ``like``; its message names every
            difference. Otherwise take what matches, leave the rest as it is in ``like``, and warn of every difference.

    Returns:
        A tree with the structure of ``like`` and the values of the file, exact to the bit.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/run.safetensors"
        >>> save(file, {"w": mx.array([1.0, 2.0]), "step": 7})
        >>> load(file, {"w": mx.zeros((2,)), "step": 0})
        {'w': array([1, 2], dtype=float32), 'step': 7}
    """
    found, leaves = described("checkpoint.load", like)
    with open(path, "rb") as file:
        header = _read_header("checkpoint.load", file)
        differing = forms.differences(header.contents.structure, found)
        problem = f"checkpoint.load: {os.fspath(path)!r} must fit like, got {listed(differing)}"
        if differing and strict:
            advice = "Build like as the run that saved it did, or pass strict=False to take what matches"
            raise MismatchError(f"{problem}. {advice}.")
        fitting = [name for name in leaves if header.contents.structure.get(name) == found[name]]
        values = _read_leaves(file, header, fitting)
    if differing:
        loaded = "What is not named was loaded" if values else "Nothing was loaded"
        warnings.warn(f"{problem}. {loaded}.", stacklevel=2)
    return tree.map_with_path(lambda name, leaf: values.get(name, leaf), like)


def differences(path: Pathname, like: tree.Tree) -> list[str]:
    """List what keeps a checkpoint from fitting a tree.

    Args:
        path: File to compare; only its header is read.
        like: Tree to compare it with.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/run.safetensors"
        >>> save(file, {"w": mx.array([1.0, 2.0])})
        >>> differences(file, {"w": mx.zeros((3,)), "step": 0})
        ['w is float32 (2,) in the file, float32 (3,) wanted', 'step is missing in the file, a Python int wanted']
    """
    found, _ = described("checkpoint.differences", like)
    with open(path, "rb") as file:
        header = _read_header("checkpoint.differences", file)
    return forms.differences(header.contents.structure, found)


def contents(path: Pathname) -> Contents:
    """Read what is in a checkpoint, without its arrays.

    Args:
        path: File to look into; only its header is read.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/run.safetensors"
        >>> save(file, {"w": mx.array([1.0, 2.0]), "step": 7}, metadata={"data": "spirals"})
        >>> contents(file)
        Contents(structure={'': 'a dict', 'w': 'float32 (2,)', 'step': 'a Python int'}, numbers={'step': 7},
            metadata={'data': 'spirals'})
    """
    with open(path, "rb") as file:
        return _read_header("checkpoint.contents", file).contents


def read_leaves(path: Pathname, names: Iterable[str]) -> dict[str, Any]:
    """Read some leaves of a checkpoint by their paths.

    Args:
        path: File to read.
        names: Paths of leaves that are in it.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/run.safetensors"
        >>> save(file, {"w": mx.array([1.0, 2.0]), "step": 7})
        >>> read_leaves(file, ["step"])
        {'step': 7}
    """
    with open(path, "rb") as file:
        return _read_leaves(file, _read_header("checkpoint.load", file), names)


# The file


def _jsonable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain = dict(metadata)
        if json.loads(json.dumps(plain, ensure_ascii=False).encode()) == plain:
            return plain
    except (TypeError, ValueError, RecursionError):
        pass
    raise ValueError(
        f"checkpoint.save: metadata must be a dict that JSON brings back equal, got {_shown(metadata)}. Use strings as "
        "keys, lists in place of tuples, and put arrays into the tree."
    )


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an integer of too many digits, say
        return f"a {type(value).__name__} that cannot be printed"


def _header(marks: Mapping[str, Any], arrays: Mapping[str, mx.array]) -> bytes:
    """Describe the arrays that follow; the checksum is that of the header with zeros in its place."""
    described: dict[str, Any] = {"__metadata__": {"checksum": "0" * 8, MARK: str(VERSION)}}
    described["__metadata__"] |= {name: json.dumps(mark, ensure_ascii=False) for name, mark in marks.items()}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        described[name] = {"dtype": CODES[array.dtype], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    text = text.replace(b'"00000000"', b'"%08x"' % zlib.crc32(text), 1)
    return len(text).to_bytes(8, "little") + text


class _Header(NamedTuple):
    contents: Contents
    arrays: dict[str, Any]  # dtype, shape and data_offsets of each
    checksums: dict[str, int]
    start: int  # of the data


def _unusable(where: str, file: BinaryIO, got: str, advice: str = "Load an earlier copy.") -> CheckpointError:
    return CheckpointError(f"{where}: {os.fspath(file.name)!r} must be a whole checkpoint, got {got}. {advice}")


def _read_header(where: str, file: BinaryIO) -> _Header:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    cut = length > size - 8
    beginning = file.read(1 if cut else length)
    if size < 8 or (cut and beginning == b"{"):
        raise _unusable(where, file, f"{size} bytes, cut off within the header")
    try:
        header = json.loads(beginning)
        if not isinstance(header, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise _unusable(where, file, "something that is no safetensors file, or has a damaged header") from None
    marks = header.pop("__metadata__", None)
    if not isinstance(marks, dict) or MARK not in marks:
        advice = "Arrays that mx.save_safetensors wrote by their paths are put back by tree.set(like, mx.load(path))."
        raise _unusable(where, file, "a safetensors file that checkpoint.save did not write", advice)
    try:
        version = int(marks[MARK])
        if version > VERSION:
            advice = "Update mlxopt."
            raise _unusable(where, file, f"one of version {version}, which is newer than {VERSION}", advice)
        checksum = marks["checksum"].encode()
        if b"%08x" % zlib.crc32(beginning.replace(b'"%s"' % checksum, b'"00000000"', 1)) != checksum:
            raise ValueError
        structure, numbers, metadata, checksums = (
            json.loads(marks[name]) for name in ("structure", "numbers", "metadata", "checksums")
        )
        whole = 8 + length + size_of_data(structure, numbers, header)
        if not isinstance(metadata, dict) or checksums.keys() != header.keys():
            raise ValueError
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise _unusable(where, file, "one with a damaged header") from None
    if size != whole:
        raise _unusable(where, file, f"{size} bytes where its header tells of {whole}")
    return _Header(Contents(structure, numbers, metadata), header, checksums, 8 + length)


def _read_leaves(file: BinaryIO, header: _Header, names: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in names:
        if name not in header.arrays:
            values[name] = header.contents.numbers[name]
            continue
        begin, end = header.arrays[name]["data_offsets"]
        file.seek(header.start + begin)
        data = file.read(end - begin)
        if zlib.crc32(data) != header.checksums[name]:
            raise _unusable("checkpoint.load", file, f"one in which {name} is damaged")
        values[name] = _array(data, DTYPES[header.arrays[name]["dtype"]], header.arrays[name]["shape"])
    mx.eval(values)
    return values


def _array(data: bytes, dtype: mx.Dtype, shape: list[int]) -> mx.array:
    if not data:
        return mx.zeros(shape, dtype)
    words: Any = memoryview(data).cast(WORDS[dtype.size], shape)
    return mx.array(words).view(dtype)
