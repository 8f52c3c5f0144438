"""The processes of a world: how they start, are asked, and end."""

import contextlib
import ctypes.util
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from ranks.serving import START_DEADLINE, imported, sums
from ranks.travelling import Ended, Failure, Hung, packed

Engine = Literal["ring", "mpi"]

GRACE = 2.0
"""Seconds that the others have once a rank has failed: either they fail for the same reason, or they hang."""

SOCKETS = Path("/proc/net/tcp")
LISTENING = "0A"
MPIRUN = (
    *("mpirun", "--quiet", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"),
    *("--mca", "opal_signal", ""),  # ranks tell by themselves where they were aborted
    *("--mca", "odls_base_sigkill_timeout", "0"),  # a second less when they end
)
MPIRUN_DEADLINE = 3.0
"""Seconds that mpirun has to notice the end of its ranks; it needs a tenth of one."""


class RanksError(Exception):
    """A case failed on some rank; the message tells what happened on each, and holds the logs."""


class Processes:
    """A world while it runs. Each process leads a group of its own, to which the compilers belong that it starts."""

    def __init__(self, size: int, engine: Engine) -> None:
        self._engine = engine
        self._folder = Path(tempfile.mkdtemp(prefix="w-"))  # short: so must be the path of a socket
        self._reserved = [_reserved() for _ in range(size)] if engine == "ring" else []
        self._started: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection[Any, Any]] = []
        self._modules: set[str] = set()
        self._hanging: list[int] = []
        self._read: dict[Path, int] = {}  # how far each log was read
        self.pids: list[int] = []
        found = False
        try:
            found = self._start(size)
        finally:
            log = "" if found else self.end()
        if not found:
            raise RanksError(f"{size} ranks of {engine} did not find together:\n{log}")

    def _start(self, size: int) -> bool:
        """Start all ranks, the last one when the others listen: where it finds nobody it sleeps for a second."""
        ports = [port.getsockname()[1] for port in self._reserved]
        hosts = self._folder / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._folder / "socket"))
            listener.listen(size)
            if self._engine == "ring":
                for rank in range(size):
                    self._spawn(f"rank {rank}", [], MLX_RANK=str(rank), MLX_HOSTFILE=str(hosts))
            else:
                library = ctypes.util.find_library("mpi")  # MLX looks for the name that developers' packages have
                self._spawn("mpirun", [*MPIRUN, "-n", str(size)], MLX_MPI_LIBNAME=str(library))
            if not self._accept(listener, size):
                return False
        first, last = range(size - 1), [size - 1]
        self._send(b"init", first)
        _await_listening(ports[:-1])
        self._send(b"init", last)
        return self._gathered(START_DEADLINE) == [(rank, size) for rank in range(size)]

    def _spawn(self, name: str, launcher: list[str], **variables: str) -> None:
        command = f"from ranks.serving import serve; serve({str(self._folder)!r}, {self._engine!r})"
        path = os.pathsep.join(map(os.path.abspath, sys.path))  # where pytest finds the files of the tests
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*launcher, sys.executable, "-c", command],
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)

    def _accept(self, listener: socket.socket, size: int) -> bool:
        """Wait until all ranks have dialled, in any order; false if one cannot."""
        over = time.monotonic() + START_DEADLINE
        dialled: dict[int, tuple[int, Connection[Any, Any]]] = {}
        listener.settimeout(0.05)
        while len(dialled) < size:
            if time.monotonic() > over or any(process.poll() is not None for process in self._started):
                return False
            with contextlib.suppress(TimeoutError):
                connection: Connection[Any, Any] = Connection(listener.accept()[0].detach())
                rank, pid = connection.recv()
                dialled[rank] = pid, connection
        self.pids, self._connections = map(list, zip(*(dialled[rank] for rank in range(size)), strict=True))
        return True

    def outcomes(self, case: Callable[..., Any], args: Sequence[Any], deadline: float, to_the_end: bool) -> list[Any]:
        """Send a case and gather what comes of it; that its file is imported first does not count as its time."""
        if case.__module__ not in self._modules:
            self._send(packed((imported, [case])))
            outcomes = self._gathered(START_DEADLINE)
            if any(isinstance(outcome, Failure) for outcome in outcomes):
                return outcomes
            self._modules.add(case.__module__)
        self._send(packed((case, args)))
        if to_the_end:
            self._send(b"")
        return self._gathered(deadline, to_the_end)

    def still_sum(self) -> bool:
        """Whether the group is as good as new."""
        self._send(packed((sums, [])))
        return self._gathered(GRACE) == [True] * len(self.pids)

    def _send(self, message: bytes, ranks: Sequence[int] | None = None) -> None:
        for rank in range(len(self.pids)) if ranks is None else ranks:
            with contextlib.suppress(OSError):  # one that is gone is found when its answer is awaited
                self._connections[rank].send_bytes(message)

    def _gathered(self, deadline: float, to_the_end: bool = False) -> list[Any]:
        outcomes: dict[int, Any] = {}
        answers: dict[int, Any] = {}
        begin = time.monotonic()
        over = begin + deadline
        while missing := [rank for rank in range(len(self.pids)) if rank not in outcomes]:
            ready = wait([self._connections[rank] for rank in missing], max(0.0, over - time.monotonic()))
            if not ready:
                break
            for rank in (rank for rank in missing if self._connections[rank] in ready):
                outcome = self._received(rank)
                if to_the_end and not isinstance(outcome, Ended):
                    answers[rank] = outcome
                    continue
                if isinstance(outcome, Ended) and outcome.code in (0, 1, None):
                    outcome = answers.get(rank, outcome)
                outcomes[rank] = outcome
                if isinstance(outcome, Failure) and not to_the_end:
                    over = min(over, time.monotonic() + GRACE)
        self._hanging = missing
        return [outcomes.get(rank, Hung(time.monotonic() - begin)) for rank in range(len(self.pids))]

    def _received(self, rank: int) -> Any:
        """An answer, or how the process ended: only then does the kernel close its end."""
        try:
            return pickle.loads(self._connections[rank].recv_bytes())
        except (EOFError, OSError):
            if self._engine == "mpi":
                return Ended(None)
            _signal(self._started[rank], signal.SIGKILL)  # what it started; it is over itself, and keeps its code
            return Ended(self._started[rank].wait())

    def new_log(self) -> str:
        """What the processes have printed since this was last asked."""
        parts = []
        for file in sorted(self._folder.glob("*.log")):
            printed = file.read_bytes()
            if new := printed[self._read.get(file, 0) :].decode(errors="replace").rstrip():
                parts.append(f"--- log of {file.stem}\n{new}")
            self._read[file] = len(printed)
        return "\n".join(parts)

    def end(self) -> str:
        """End all processes and return what is new in their logs: for one that hung, where it did."""
        for rank in self._hanging:
            for number in (signal.SIGABRT, signal.SIGCONT):  # one that is stopped goes on to notice the first
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pids[rank], number)
        over = time.monotonic() + GRACE
        while self._hanging and time.monotonic() < over:
            ready = wait([self._connections[rank] for rank in self._hanging], over - time.monotonic())
            self._hanging = [
                rank
                for rank in self._hanging
                if self._connections[rank] not in ready or not isinstance(self._received(rank), Ended)
            ]
        for connection in self._connections:
            connection.close()
        for port in self._reserved:
            port.close()
        for process in self._started:
            if self._engine == "mpi":  # ranks end when their connections do, and mpirun when they have
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(MPIRUN_DEADLINE)
            _signal(process, signal.SIGKILL)
            process.wait()
        log = self.new_log()
        shutil.rmtree(self._folder, ignore_errors=True)
        return log


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Signal a process and those that it started, unless it is known to be over, when its number may be another's."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses where all are over
            os.killpg(process.pid, number)


def _reserved() -> socket.socket:
    """A socket that keeps its port from others for as long as it is open; MLX can bind beside it."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _await_listening(ports: list[int]) -> None:
    """Wait until all ports listen, without dialling them, which a ring would take for a neighbour."""
    if not SOCKETS.exists():
        time.sleep(0.3)  # macOS tells nobody; if it is too short, the start of the world takes a second more
        return
    over = time.monotonic() + START_DEADLINE
    while time.monotonic() < over:
        rows = (line.split() for line in SOCKETS.read_text().splitlines()[1:])
        listening = {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENING}
        if listening.issuperset(ports):
            return
        time.sleep(0.002)
