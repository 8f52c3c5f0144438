"""An end to waiting: a rank that waits too long for the others stops, and says so."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator

from mlxopt import checks

EXIT_CODE = 75
"""Of a process that waited too long: by the habit of Unix, a failure that may pass if it is tried again."""


class _Watch:
    """One thread that ends the process when what it watches takes too long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ends: dict[object, tuple[float, float]] = {}  # when each is too late, and the seconds that it was given
        self._thread: threading.Thread | None = None

    def add(self, seconds: float) -> object:
        mark = object()
        with self._changed:
            self._ends[mark] = time.monotonic() + seconds, seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mlxopt deadline", daemon=True)
                self._thread.start()
            self._changed.notify()
        return mark

    def remove(self, mark: object) -> None:
        with self._changed:
            del self._ends[mark]

    def _run(self) -> None:
        with self._changed:
            while True:
                first, seconds = min(self._ends.values(), default=(None, 0.0))
                if first is not None and first <= time.monotonic():
                    _end_process(seconds)
                self._changed.wait(None if first is None else first - time.monotonic())


_WATCH = _Watch()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer: a message to ranks that are gone or elsewhere never returns.

    MLX waits for ever for a rank that hangs, and for one that was lost unless it is a neighbour. A launcher ends all
    ranks when one of them ends; so the first to run out of patience ends the run, and it can start again from its last
    checkpoint. The block must evaluate what it computes, and must not be shorter than the others may take to join it:
    a rank that saves or tests while others wait needs its time.

    Args:
        seconds: Time for the block.

    Example:
        >>> with deadline(60.0):
        ...     params = {"w": 1.0}
    """
    checks.positive("deadline", seconds=seconds)
    mark = _WATCH.add(float(seconds))
    try:
        yield
    finally:
        _WATCH.remove(mark)


def _end_process(seconds: float) -> None:
    rank = os.environ.get("MLX_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "?"))
    sys.stderr.write(
        f"deadline: rank {rank} has waited {seconds:g} s, for ranks that are gone or do something else. It ends here; "
        "start all of them again from the last checkpoint. It waited in:\n"
    )
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.flush()
    os._exit(EXIT_CODE)
