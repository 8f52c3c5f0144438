"""Sharing large leaves out over the streams of the CPU; what MLX keeps of a thread."""

import os
import threading
import weakref
from collections.abc import Mapping

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import Params
from mlxopt.tree.structure import path_within

LARGE = 2**15
"""Elements from which a leaf is worth a stream of its own, and memory worth handing on."""

_of_thread = threading.local()


def cpu_streams() -> list[mx.Stream]:
    """A few streams of the CPU: MLX runs each on one thread, and knows each only in the thread that made it."""
    if not hasattr(_of_thread, "streams"):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        more = [mx.new_stream(mx.cpu) for _ in range(min(cores, 4) - 1)]
        _of_thread.streams = [mx.default_stream(mx.cpu), *more]
    streams: list[mx.Stream] = _of_thread.streams
    return streams


class _Presence:
    """Goes when its thread ends."""


def clear_at_the_end_of_this_thread() -> None:
    """Have MLX drop its streams and its random state of this thread while Python still runs in it.

    MLX would do it later, when the thread can be joined already, and ask for Python again: if the process exits in that
    moment, it aborts.
    """
    is_made_by_python = not isinstance(threading.current_thread(), threading._DummyThread)
    is_main = threading.current_thread() is threading.main_thread()
    if is_made_by_python and not is_main and not hasattr(_of_thread, "presence"):
        _of_thread.presence = _Presence()
        weakref.finalize(_of_thread.presence, mx.clear_streams).atexit = False


def streams_by_path(params: Params) -> dict[str, mx.Stream]:
    """Share large leaves out: largest first, each to the stream with least to do."""
    large = [(leaf.size, path) for path, leaf in tree.items(params) if leaf.size >= LARGE]
    if len(large) < 2:
        return {}
    streams = cpu_streams()
    work, chosen = [0] * len(streams), {}
    for size, path in sorted(large, reverse=True):
        index = work.index(min(work))
        work[index] += size
        chosen[path] = streams[index]
    return chosen


def stream_below(path: str, streams: Mapping[str, mx.Stream]) -> mx.Stream | None:
    """The stream of the parameter that a leaf of the state belongs to: the one whose path its own ends with."""
    own = path_within(path, streams)
    return None if own is None else streams[own]
