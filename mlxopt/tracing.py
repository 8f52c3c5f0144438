"""What changes while a step is traced: scalars become inputs of the kernels that use them."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import mlx.core as mx


class _Program(NamedTuple):
    """Of the program that is being traced: its streams, and the scalars that have been made for them."""

    streams: list[str]
    scalars: dict[Any, tuple[mx.array, Any]]


_program: ContextVar[_Program | None] = ContextVar("program", default=None)


def _stream() -> str:
    return str(mx.default_stream(mx.default_device()))


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Say that everything inside becomes one program."""
    token = _program.set(_Program([_stream()], {}))
    try:
        yield
    finally:
        _program.reset(token)


def as_input(scalar: float | mx.array) -> float | mx.array:
    """Make a scalar an input of the kernels on the current stream, while a step is traced.

    ``mx.compile`` prints numbers into the source of kernels, and every new source is compiled for about half a second;
    an input may change without that. And it takes what two streams do to one scalar for the same, computes it on one of
    them, and can then not fuse it into the kernels of the other; a copy of a copy is something else.

    Args:
        scalar: Number or 0-d array.

    Example:
        >>> as_input(0.9)
        0.9
    """
    program = _program.get()
    if program is None:
        return scalar
    stream = _stream()
    if stream not in program.streams:
        program.streams.append(stream)
    copies = program.streams.index(stream)
    key: tuple[Any, ...]
    if isinstance(scalar, mx.array):
        key, made = (mx.array, id(scalar), copies), scalar
    else:
        key = (type(scalar), scalar, copies)
        made = mx.contiguous(mx.array(scalar, mx.int32 if isinstance(scalar, int) else mx.float32))
    if key not in program.scalars:
        for _ in range(copies):
            made = mx.contiguous(made)
        program.scalars[key] = made, scalar  # which stays alive, so that no other gets its id
    return program.scalars[key][0]
