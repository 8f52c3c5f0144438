"""The order of messages: one after the other on one stream of one thread, whatever is evaluated first."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx

Collective = Callable[[mx.array], mx.array]
"""A function of MLX's engine: what all ranks make together of the array of each."""


def summing(group: mx.distributed.Group) -> Collective:
    """The sum of the arrays of all ranks."""
    return lambda array: mx.distributed.all_sum(array, group=group)


def gathering(group: mx.distributed.Group) -> Collective:
    """The arrays of all ranks, one behind the other along the first axis."""
    return lambda array: mx.distributed.all_gather(array, group=group)


class Line:
    """All messages of a process, each waiting for the one before.

    MLX's engines know messages by their order alone, and send when an array is evaluated: two streams, two threads, or
    a rank that looks at its loss before the others do would mix them up, and sums would be wrong without a word.
    """

    def __init__(self) -> None:
        self._place: tuple[int, mx.Stream] | None = None  # thread and stream
        self._last: mx.array | None = None
        self._in_program = False

    def send(self, collective: Collective, array: mx.array) -> mx.array:
        """Send a message behind all earlier ones."""
        stream = self._own_stream()
        (waiting,) = [array] if self._last is None else mx.depends([array], [self._last])
        with mx.stream(stream):
            received = collective(waiting)
        (self._last,) = mx.depends([mx.zeros(())], [received])
        return received

    def send_now(self, collective: Collective, array: mx.array) -> mx.array:
        """Send a message and wait until it has come back."""
        received = self.send(collective, array)
        mx.eval(received)
        self._last = None
        return received

    @contextlib.contextmanager
    def within_program(self, before: mx.array) -> Iterator[Callable[[], mx.array]]:
        """Trace a program whose messages wait for ``before``; yields a function to the array that waits for the last.

        Both are input and output of the program, so that programs stand in line whatever is evaluated of them.
        """
        outside, self._last, self._in_program = self._last, before, True
        try:
            yield self.end
        finally:
            self._last, self._in_program = outside, False

    @contextlib.contextmanager
    def together(self, given: Sequence[mx.array]) -> Iterator[Callable[[list[mx.array]], list[mx.array]]]:
        """Send messages of one update; yields a function to what waits for all of them.

        In a program of the line they stand in it. Anywhere else nothing tells of it, so they wait for all that the
        update was given, also on a rank that sends nothing of that, and whoever needs one of them waits for all.
        """
        if self._in_program:
            yield list
            return
        outside, self._last = self._last, None
        if given:
            (self._last,) = mx.depends([mx.zeros(())], list(given))
        try:
            yield lambda received: received if self._last is None else list(mx.depends(received, [self._last]))
        finally:
            self._last = outside

    def end(self) -> mx.array:
        """What the next program must wait for."""
        return mx.zeros(()) if self._last is None else self._last

    def go_on_after(self, last: mx.array) -> None:
        """Take note of the last message of a program."""
        self._last = last

    def _own_stream(self) -> mx.Stream:
        here = threading.get_ident()
        if self._place is None:
            self._place = here, mx.default_stream(mx.default_device())
        thread, stream = self._place
        if here != thread:
            raise RuntimeError(
                "distributed: all messages must be sent by one thread, got a second one. MLX's engines would mix them "
                "up; call steps and all else that sends from the thread that sent first."
            )
        return stream


LINE = Line()
"""That of this process; engines are shared by all groups."""
