"""One rank of a world: a process that is sent cases, runs them, and answers with what came of each."""

import ctypes
import faulthandler
import os
import pickle
import queue
import resource
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mlx.core as mx

from ranks.travelling import Raised, packed

START_DEADLINE = 30.0
"""Seconds for a world to find together; some tenths of one are enough, where nothing else runs."""

PR_SET_PDEATHSIG = 1


def serve(folder: str, engine: str) -> None:
    """Dial the process of the tests, join the group when told to, and run cases until told to end."""
    _end_with_the_tests()
    rank = int(os.environ.get("MLX_RANK") or os.environ["OMPI_COMM_WORLD_RANK"])
    _print_into(Path(folder, f"rank {rank}.log"))
    own = Path(folder, f"rank {rank}")  # MLX does not write its kernel cache atomically
    own.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(own)
    connection = _dialled(Path(folder, "socket"))
    connection.send((rank, os.getpid()))
    connection.recv_bytes()
    faulthandler.dump_traceback_later(START_DEADLINE, exit=True)  # init knows no limit, and holds the GIL
    group = mx.distributed.init(strict=True, backend=engine)
    faulthandler.cancel_dump_traceback_later()
    faulthandler.enable()  # the tests abort a rank that hangs: its log tells where
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, requests), daemon=True).start()
    connection.send((group.rank(), group.size()))
    raised = False
    while request := requests.get():
        answer, raised = _answer(request, group)
        connection.send_bytes(answer)
    sys.exit(raised)


def _end_with_the_tests() -> None:
    """Also where the thread that listens cannot: while the process is stopped, or in a call that holds the GIL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _print_into(log: Path) -> None:
    """What mpirun prints for its ranks is lost where it fails."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)


def _dialled(address: Path) -> "Connection[Any, Any]":
    """A connection that the kernel closes, when the process is over, and not Python before that."""
    dialled = socket.socket(socket.AF_UNIX)
    dialled.connect(str(address))
    os.dup(dialled.fileno())
    return Connection(dialled.detach())


def _listen(connection: "Connection[Any, Any]", requests: "queue.SimpleQueue[bytes]") -> None:
    """Hand on what arrives; end the process, whatever it hangs in, when the tests are gone."""
    try:
        while True:
            requests.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


def _answer(request: bytes, group: mx.distributed.Group) -> tuple[bytes, bool]:
    """What a case returned, or what it raised, and which of both; its module is imported when it comes first."""
    try:
        case, args = pickle.loads(request)
        return packed(case(group, *args)), False
    except Exception as error:
        traceback.print_exc()
        return packed(Raised(type(error).__name__, str(error))), True


def sums(group: mx.distributed.Group) -> bool:
    """A case: whether a sum is what it should be, which it is not if a message of another one is still on its way."""
    return mx.distributed.all_sum(mx.array(2.0 ** group.rank()), group=group).item() == 2.0 ** group.size() - 1


def imported(group: mx.distributed.Group, case: Callable[..., Any]) -> None:
    """A case before the first one of a file: to send it is to import that."""
    del group, case
