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
    is_array = isinstance(scalar, mx.array)
    key = (type(scalar), id(scalar) if is_array else repr(scalar), copies)
    if key not in program.scalars:
        made = scalar if isinstance(scalar, mx.array) else mx.contiguous(_array(scalar))
        for _ in range(copies):
            made = mx.contiguous(made)
        program.scalars[key] = made, scalar  # which stays alive, so that no other gets its id
    return program.scalars[key][0]


def _array(number: float) -> mx.array:
    is_count = isinstance(number, int) and -(2**31) <= number < 2**31
    return mx.array(number, mx.int32) if is_count else mx.array(float(number))
