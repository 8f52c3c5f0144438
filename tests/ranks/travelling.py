"""What goes from process to process: cases and values, and how a rank may fail."""

import io
import pickle
from typing import Any, NamedTuple

import mlx.core as mx

WORDS = {1: "B", 2: "H", 4: "I", 8: "Q"}
UNSIGNED = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}


class Raised(NamedTuple):
    """A rank answered with an exception; the traceback is in its log."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"raised {self.kind}: {self.text}"


class Ended(NamedTuple):
    """A process ended before it answered, with this code, or by minus this signal; under mpirun nobody knows."""

    code: int | None

    def __str__(self) -> str:
        return f"ended with {self.code}"


class Hung(NamedTuple):
    """A process was still running after so many seconds; its log tells where."""

    seconds: float

    def __str__(self) -> str:
        return f"was still running after {self.seconds:.3g} s"


Failure = Raised | Ended | Hung


class _Pickler(pickle.Pickler):
    """Arrays go as their bits, without numpy, and functions by their names."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, mx.array):
            words: Any = value.view(UNSIGNED[value.dtype.size])
            return _array, (bytes(memoryview(words)) if value.size else b"", value.dtype, value.shape)
        if isinstance(value, mx.Dtype):
            return _dtype, (str(value).rpartition(".")[2],)
        return NotImplemented


def _array(data: bytes, dtype: mx.Dtype, shape: tuple[int, ...]) -> mx.array:
    if not data:
        return mx.zeros(shape, dtype)
    words: Any = memoryview(data)
    return mx.array(words.cast(WORDS[dtype.size], shape)).view(dtype)


def _dtype(name: str) -> mx.Dtype:
    return getattr(mx, {"bool": "bool_"}.get(name, name))  # type: ignore[no-any-return]


def packed(value: Any) -> bytes:
    """The bytes of a value that may hold arrays and dtypes, for ``pickle.loads``."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return buffer.getvalue()
