"""Worlds, as tests see them."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

from ranks.processes import Engine, Processes, RanksError
from ranks.travelling import Failure, Raised

T = TypeVar("T")

DEADLINE = 20.0
"""Seconds for a case that names no others."""


class World:
    """The ranks of a group, started when the first case comes, and anew after they were ended.

    Args:
        size: How many.
        engine: What connects them.
    """

    def __init__(self, size: int, engine: Engine = "ring") -> None:
        self.size, self.engine = size, engine
        self.log = ""  # what the ranks printed during the last case
        self._processes: Processes | None = None

    @property
    def pids(self) -> list[int]:
        """The processes by rank, none before the first case and after an end."""
        return self._processes.pids if self._processes else []

    def run(self, case: Callable[..., T], *args: Any, deadline: float = DEADLINE) -> list[T]:
        """What a case returns on each rank; a :class:`RanksError` if it fails on any.

        Args:
            case: Function of the group and ``args``, at the top of a file.
            args: What every rank gets.
            deadline: Seconds after which the world is ended.
        """
        outcomes: list[Any] = self.outcomes(case, *args, deadline=deadline)
        if any(isinstance(outcome, Failure) for outcome in outcomes):
            told = (outcome if isinstance(outcome, Failure) else "returned" for outcome in outcomes)
            lines = (f"rank {rank} {what}" for rank, what in enumerate(told))
            name = f"{case.__module__}.{case.__qualname__}"
            raise RanksError("\n".join([f"{name} on {self.size} ranks of {self.engine}:", *lines, self.log]))
        return outcomes

    def outcomes(self, case: Callable[..., T], *args: Any, deadline: float = DEADLINE) -> list[T | Failure]:
        """What a case returns on each rank, or how it fails there.

        When one has failed, the others get two seconds more. If all raise and can still sum, the world stays.
        """
        return self._outcomes(case, args, deadline, to_the_end=False)

    def run_to_the_end(self, case: Callable[..., T], *args: Any, deadline: float = DEADLINE) -> list[T | Failure]:
        """What a case returns on each rank, or how it fails there, if its process ends with it, as a program does.

        All get the whole time. Nothing is left of the world.
        """
        return self._outcomes(case, args, deadline, to_the_end=True)

    def end(self) -> None:
        """End all processes, whatever they do."""
        if self._processes:
            self.log = self._processes.end()
        self._processes = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _outcomes(self, case: Callable[..., T], args: Sequence[Any], deadline: float, to_the_end: bool) -> list[Any]:
        self._processes = self._processes or Processes(self.size, self.engine)
        stays = False
        try:
            outcomes = self._processes.outcomes(case, args, deadline, to_the_end)
            failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
            all_raised = len(failures) == self.size and all(isinstance(failure, Raised) for failure in failures)
            stays = not to_the_end and (not failures or (all_raised and self._processes.still_sum()))
            if stays:
                self.log = self._processes.new_log()
        finally:  # also if the tests are interrupted
            if not stays:
                self.end()
        return outcomes
