"""The door to the compiled room: all that lower rooms know of the program that is being traced, if one is."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import mlx.core as mx

F = TypeVar("F", bound=Callable[..., Any])


class Program(Protocol):
    """A program that is being traced."""

    def number(self, value: float) -> mx.array:
        """A number as an input of the kernels that will use it."""
        ...

    def inside(self, f: F, *, integers: bool) -> F:
        """A function with the numbers it closes over as inputs."""
        ...

    def on_leaves(self, f: Callable[..., Any], *, with_path: bool) -> Callable[..., Any]:
        """A function of leaves as a function of a path and leaves, which works where that leaf has its place."""
        ...

    def stream(self, path: str) -> mx.Stream:
        """Where the leaf of a path has its place."""
        ...


_program: ContextVar[Program | None] = ContextVar("program", default=None)


@contextlib.contextmanager
def tracing(program: Program) -> Iterator[None]:
    """Say that everything inside becomes one program."""
    token = _program.set(program)
    try:
        yield
    finally:
        _program.reset(token)


def current() -> Program | None:
    """The program that is being traced."""
    return _program.get()


def number(value: float) -> float | mx.array:
    """A number that is no literal of a formula, but differs from run to run: an input while a program is traced.

    Example:
        >>> number(0.9)
        0.9
    """
    program = _program.get()
    return value if program is None else program.number(value)


def inside(f: F, *, integers: bool = False) -> F:
    """The function to call in place of ``f``: while a program is traced, one whose numbers are inputs.

    Args:
        f: Function that closes over numbers.
        integers: Make inputs of integers too; they must not decide a shape or the length of a loop.

    Example:
        >>> inside(abs) is abs
        True
    """
    program = _program.get()
    return f if program is None else program.inside(f, integers=integers)
