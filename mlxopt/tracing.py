"""What changes while a step is traced: hyperparameters become inputs of its kernels."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import mlx.core as mx

_compiling: ContextVar[bool] = ContextVar("compiling", default=False)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Say that everything inside becomes one program."""
    token = _compiling.set(True)
    try:
        yield
    finally:
        _compiling.reset(token)


def per_run(value: float | mx.array) -> float | mx.array:
    """Mark a number as constant during a run, but not from run to run.

    ``mx.compile`` prints numbers into the source of kernels, and every new source is compiled for about half a second.
    Inside a compiled step this makes an input of the number; elsewhere it stays what it is.

    Args:
        value: Number; an array is returned as it is.

    Example:
        >>> per_run(0.9)
        0.9
    """
    if isinstance(value, mx.array) or not _compiling.get():
        return value
    return mx.contiguous(mx.array(value, mx.int32 if isinstance(value, int) else mx.float32))
