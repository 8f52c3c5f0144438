"""Sharing things of unequal size out among ranks."""

from collections.abc import Sequence


def dealt(sizes: Sequence[int], ranks: int) -> list[int]:
    """The rank of each thing: the largest first, each to the rank that has least so far.

    Args:
        sizes: What each weighs.
        ranks: How many share.

    Example:
        >>> dealt([1, 5, 3, 2], 2)
        [0, 0, 1, 1]
    """
    loads, owners = [0] * ranks, [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        owners[place] = loads.index(min(loads))
        loads[owners[place]] += sizes[place]
    return owners
