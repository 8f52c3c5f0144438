"""Worlds of ranks: processes with a group of mx.distributed between them, which run the cases of tests.

A group cannot be rebuilt in a process, so one world serves many cases. A case is a function at the top of a test's
file. Every rank calls it with the group and the same further arguments, and what it returns comes back by rank:

    def total(group: mx.distributed.Group, x: mx.array) -> mx.array:
        return mx.distributed.all_sum(x, group=group)

    def test_ranks_sum(two: World) -> None:
        assert [result.item() for result in two.run(total, mx.array(1.0))] == [2, 2]

It goes there by its name, and each rank imports the file, so that should import little. Arguments and results are what
pickle takes; arrays among them, of any dtype, arrive to the bit.
"""

from ranks.processes import Engine, RanksError
from ranks.travelling import Ended, Failure, Hung, Raised
from ranks.world import DEADLINE, World

__all__ = ["DEADLINE", "Ended", "Engine", "Failure", "Hung", "RanksError", "Raised", "World"]
