"""Arrays in messages: small ones together, each message of one dtype."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx

WORDS = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint32}
"""Unsigned integers by the size of a dtype: sums of bits with zeros, which keep them."""


def in_messages(arrays: Sequence[mx.array], nbytes: int, exchanged: Callable[[mx.array], mx.array]) -> list[mx.array]:
    """Lay arrays end to end in vectors, exchange those, and cut the results.

    Args:
        arrays: What to send, in an order that is the same on all ranks.
        nbytes: Size of a message, unless one array alone is larger.
        exchanged: Function from a vector to one of the same length.
    """
    results: dict[int, mx.array] = {}
    for places in planned([(array.dtype, array.nbytes) for array in arrays], nbytes):
        flat = [arrays[place].reshape(-1) for place in places]
        came = exchanged(flat[0] if len(flat) == 1 else mx.concatenate(flat))
        ends = [*accumulate(part.size for part in flat)]
        parts: Any = mx.split(came, ends[:-1]) if len(flat) > 1 else [came]
        results.update({place: part.reshape(arrays[place].shape) for place, part in zip(places, parts, strict=True)})
    return [results.get(place, array) for place, array in enumerate(arrays)]


def planned(rows: Sequence[tuple[mx.Dtype, int]], nbytes: int) -> list[list[int]]:
    """Places of the arrays that go into each message; what is empty goes into none.

    Args:
        rows: Dtype and bytes of each array.
        nbytes: Size of a message.

    Example:
        >>> planned([(mx.float32, 4), (mx.float32, 4), (mx.uint8, 1), (mx.float32, 4)], 8)
        [[0, 1], [3], [2]]
    """
    messages: list[list[int]] = []
    for dtype in dict.fromkeys(dtype for dtype, _ in rows):
        filled = nbytes
        for place, (own, size) in enumerate(rows):
            if own != dtype or not size:
                continue
            if filled + size > nbytes:
                messages.append([])
                filled = 0
            messages[-1].append(place)
            filled += size
    return messages


def as_words(array: mx.array) -> mx.array:
    """The bits of an array as a vector of unsigned integers."""
    return array.reshape(-1).view(WORDS[array.dtype.size])


def from_words(words: mx.array, like: mx.array) -> mx.array:
    """An array of the bits that :func:`as_words` gave."""
    return words.view(like.dtype).reshape(like.shape)
