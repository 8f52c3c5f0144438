"""What is at each path of a tree, and how two trees differ."""

import math
from collections.abc import Iterable
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.tree.structure import children, is_container, kind, require_plain, walk

DTYPES = {
    "BOOL": mx.bool_,
    "U8": mx.uint8,
    "U16": mx.uint16,
    "U32": mx.uint32,
    "U64": mx.uint64,
    "I8": mx.int8,
    "I16": mx.int16,
    "I32": mx.int32,
    "I64": mx.int64,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "F32": mx.float32,
    "C64": mx.complex64,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}

BEYOND_TEXT = 10**4300
"""Integers that Python does not print or read unless it is told to."""

LISTED = 20
"""Differences that a message spells out."""


def described(where: str, whole: tree.Tree) -> tuple[dict[str, str], dict[str, Any]]:
    """The form of every container, leaf and hole by its path, and the leaves themselves."""
    forms: dict[str, str] = {}
    leaves: dict[str, Any] = {}
    with tree.naming(where):
        for path, node in _walk_with_holes(whole):
            if path in forms or path == "__metadata__":
                taken = "stands for two places" if path in forms else "has a meaning of its own in safetensors files"
                raise tree.TreeError(f"this name {taken}. Rename a key; best without dots", (path,))
            _require_text(path)
            try:
                if hasattr(node, "trainable_parameters"):
                    raise tree.TreeError(f"got the module {type(node).__name__}. Pass model.parameters()")
                forms[path] = _form(node)
            except tree.TreeError as error:
                raise (error.under(path) if path else error) from None
            if not is_container(node) and not tree.is_hole(node):
                leaves[path] = node
    return forms, leaves


def _walk_with_holes(whole: tree.Tree) -> Iterable[tuple[str, Any]]:
    if tree.is_hole(whole):
        yield "", whole
    for path, node in walk(whole):
        yield path, node
        if is_container(node):
            for key, part in children(node):
                if tree.is_hole(part):
                    yield f"{path}.{key}" if path else str(key), part


def _form(node: Any) -> str:
    """What must agree for a value to be loaded in the place of another."""
    if isinstance(node, mx.array):
        if node.dtype not in CODES:
            raise tree.TreeError(f"MLX cannot read {node.dtype} from a file. Cast it, to float32 for example")
        return _form_of_array(node.dtype, node.shape)
    if tree.is_hole(node) or is_container(node):
        require_plain(node)
        return kind(node)
    if type(node) is int and abs(node) >= BEYOND_TEXT:
        raise tree.TreeError(
            f"a Python int must have at most 4300 digits, got {node.bit_length()} bits. Save it in parts"
        )
    if type(node) in (bool, int, float):
        return f"a Python {type(node).__name__}"
    raise tree.TreeError(
        f"every leaf must be an mx.array or a Python bool, int or float, got {node!r}. Make one of it, "
        "or describe it in metadata. Of mx.random.state save mx.random.state[0]"
    )


def _form_of_array(dtype: mx.Dtype, shape: tuple[int, ...]) -> str:
    return f"{str(dtype).removeprefix('mlx.core.')} {shape}"


def _require_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise tree.TreeError(f"a name must be text that UTF-8 can spell, got {name!r}. Rename a key", (name,)) from None


def size_of_data(structure: dict[str, str], numbers: dict[str, Any], arrays: dict[str, Any]) -> int:
    """Bytes that the rows of a header tell of; a ValueError if it contradicts itself."""
    told = {name: f"a Python {type(n).__name__}" for name, n in numbers.items() if type(n) in (bool, int, float)}
    rows = []
    for name, row in arrays.items():
        dtype, shape, (begin, end) = DTYPES[row["dtype"]], row["shape"], row["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError
        told[name] = _form_of_array(dtype, tuple(shape))
        rows.append((begin, end, math.prod(shape) * dtype.size))
    leaves = {name: form for name, form in structure.items() if form.endswith(")") or form.startswith("a Python ")}
    if told != leaves or len(told) != len(numbers) + len(rows):
        raise ValueError
    size = 0
    for begin, end, nbytes in sorted(rows):
        if begin != size or end - begin != nbytes:
            raise ValueError
        size = end
    return size


def differences(stored: dict[str, str], wanted: dict[str, str]) -> list[str]:
    with_parts = {name.rpartition(".")[0] for name in (*stored, *wanted) if name}
    found = []
    for name in {**wanted, **stored}:
        old, new = stored.get(name), wanted.get(name)
        if old == new or (name in with_parts and None in (old, new)):  # the parts of a container tell of it
            continue
        label = name or "the whole tree"
        if old is None:
            found.append(f"{label} is missing in the file, {new} wanted")
        else:
            found.append(f"{label} is {old} in the file, {new or 'nothing'} wanted")
    return found


def listed(differing: list[str]) -> str:
    more = len(differing) - LISTED
    listed = "; ".join(differing[:LISTED]) + (f"; and {more} more, see checkpoint.differences" if more > 0 else "")
    return f"{len(differing)} difference{'s' if len(differing) > 1 else ''}: {listed}"
