"""What changes while a step is traced: hyperparameters become inputs of its kernels."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import mlx.core as mx

_inputs: ContextVar[dict[Any, mx.array] | None] = ContextVar("inputs", default=None)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Say that everything inside becomes one program."""
    token = _inputs.set({})
    try:
        yield
    finally:
        _inputs.reset(token)


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
    inputs = _inputs.get()
    if inputs is None or isinstance(value, mx.array):
        return value
    # Each stream has its own: to wait for another costs more than to compute it.
    key = (type(value), value, str(mx.default_stream(mx.default_device())))
    if key not in inputs:
        inputs[key] = mx.contiguous(mx.array(value, mx.int32 if isinstance(value, int) else mx.float32))
    return inputs[key]
