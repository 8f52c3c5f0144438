"""Who keeps what of a tree: whole leaves, or ranges of all its elements, shared out over ranks."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.distributed.dealing import dealt
from mlxopt.distributed.messages import WORDS, as_words, from_words
from mlxopt.tree.structure import path_within

By = Literal["leaf", "element"]


class Span(NamedTuple):
    """A range of the elements of a leaf, in the order in which they lie."""

    start: int
    stop: int
    size: int  # elements of the whole leaf

    @property
    def key(self) -> str:
        """Name of the range: a leaf that is cut becomes a dict of one entry."""
        return f"{self.start}:{self.stop} of {self.size}"

    def of(self, path: str) -> str:
        """The path of this range of a leaf."""
        return path if self.is_whole else f"{path}.{self.key}".removeprefix(".")

    @property
    def is_whole(self) -> bool:
        return self.stop - self.start == self.size


Share = Mapping[str, Span]
"""What one rank keeps, by the paths of the leaves."""

_KEY = re.compile(r"(?:(.*)\.)?(\d+):(\d+) of (\d+)")


def span_at(path: str) -> tuple[str, Span | None]:
    """The path of a leaf and the range that a path names; nothing if that is the path of a whole leaf.

    Example:
        >>> span_at("mu.w.2:6 of 9"), span_at("mu.b")
        (('mu.w', Span(start=2, stop=6, size=9)), ('mu.b', None))
    """
    found = _KEY.fullmatch(path)
    if found is None:
        return path, None
    start, stop, size = map(int, found.groups()[1:])
    return found[1] or "", Span(start, stop, size)


def owners(params: tree.Tree, size: int, remembered: Mapping[str, int] | None = None) -> list[Share]:
    """Deal whole leaves out: the largest first, each to the rank that has least.

    Args:
        params: Tree of arrays; only paths and sizes matter.
        size: Number of ranks.
        remembered: Bytes that are remembered of leaves, by path; by default they weigh what they are large. Leaves of
            which nothing is remembered are dealt out by themselves.

    Returns:
        For each rank its leaves.

    Example:
        >>> owners({"a": mx.zeros((2,)), "b": mx.zeros((5,)), "c": mx.zeros((2, 2))}, 2)
        [{'b': Span(start=0, stop=5, size=5)}, {'a': Span(start=0, stop=2, size=2), 'c': Span(start=0, stop=4, size=4)}]
    """
    sizes, memory = _sizes(params), remembered or {}
    shares: list[dict[str, Span]] = [{} for _ in range(size)]
    known = [path for path in sorted(sizes) if memory.get(path)]
    others = [path for path in sorted(sizes) if not memory.get(path)]
    for paths, weights in ((known, memory), (others, sizes)):
        for path, rank in zip(paths, dealt([weights[path] for path in paths], size), strict=True):
            shares[rank][path] = Span(0, sizes[path], sizes[path])
    return [*shares]


def ranges(params: tree.Tree, size: int) -> list[Share]:
    """Cut all elements, in the order of their paths, into one range for each rank; they differ by one element at most.

    Args:
        params: Tree of arrays; only paths and sizes matter.
        size: Number of ranks.

    Returns:
        For each rank the leaves of which it has something, and what.

    Example:
        >>> [[*share.items()] for share in ranges({"w": mx.zeros((2, 3))}, 2)]
        [[('w', Span(start=0, stop=3, size=6))], [('w', Span(start=3, stop=6, size=6))]]
    """
    sizes = _sizes(params)
    total = sum(sizes.values())
    bounds = [total * rank // size for rank in range(size + 1)]
    shares: list[dict[str, Span]] = [{} for _ in range(size)]
    shares[0].update({path: Span(0, 0, 0) for path in sizes if not sizes[path]})
    begin = 0
    for path in sorted(sizes):
        end = begin + sizes[path]
        for share, low, high in zip(shares, bounds, bounds[1:], strict=False):
            if max(low, begin) < min(high, end):
                share[path] = Span(max(low, begin) - begin, min(high, end) - begin, sizes[path])
        begin = end
    return [*shares]


def remembered_of(params: tree.Tree, state: tree.Tree) -> dict[str, int]:
    """Bytes of a state that belong to each leaf: those of paths that end with its own."""
    found = dict.fromkeys(tree.paths(params), 0)
    for path, leaf in tree.items(state):
        own = path_within(path, found)
        if own is not None:
            found[own] += leaf.nbytes
    return found


def _sizes(params: tree.Tree) -> dict[str, int]:
    rows = tree.items(params)
    sizes = {path: leaf.size for path, leaf in rows}
    if len(sizes) < len(rows):
        paths = [path for path, _ in rows]
        twice = next(path for path in paths if paths.count(path) > 1)
        raise tree.TreeError(f"'{twice}' is the path of two leaves. Rename a key; best without dots")
    return sizes


def part_of(node: tree.Tree, share: Share) -> tree.Tree:
    """A tree with holes in the place of what is not in a share, and a vector of what is there of a leaf that is cut."""

    def part(path: str, leaf: mx.array) -> mx.array | tree.MaskedNode | dict[str, mx.array]:
        span = share.get(path)
        if span is None:
            return tree.MaskedNode()
        return leaf if span.is_whole else {span.key: leaf.reshape(-1)[span.start : span.stop]}

    return tree.map_with_path(part, node)


def gathered_parts(
    part: tree.Tree,
    rank: int,
    shares: Sequence[Share],
    like: tree.Tree,
    gathered: Callable[[mx.array], mx.array],
    nbytes: int,
) -> tree.Tree:
    """The whole tree of the parts of all ranks, exact to the bit.

    Args:
        part: That of this rank.
        rank: This rank.
        shares: What each rank has.
        like: Tree of the same leaves, which tells forms; what no rank has is taken from it.
        gathered: Function from a matrix of one row to that of the rows of all ranks; one message.
        nbytes: Size of what comes with a message.
    """
    mine, forms = dict(tree.items(part)), dict(sorted(tree.items(like)))
    found: dict[str, list[mx.array]] = {}
    for word in dict.fromkeys(WORDS[leaf.dtype.size] for leaf in forms.values()):
        rows = [_row(share, forms, word) for share in shares]
        width = max(row[-1].stop if row else 0 for row in rows)
        own = [as_words(mine[piece.part]) for piece in rows[rank]]
        padding = mx.zeros((width - sum(words.size for words in own),), word)
        vector = mx.concatenate([*own, padding])[None]
        at_once = max(nbytes // (word.size * len(shares)), 1)
        came = [gathered(vector[:, start : start + at_once]) for start in range(0, width, at_once)]
        for place, row in enumerate(rows):
            of_rank = [message[place] for message in came]
            for piece in row:
                found.setdefault(piece.path, []).extend(_stretch(of_rank, at_once, piece))

    def joined(path: str, leaf: mx.array) -> mx.array:
        words = found.get(path, [])
        return from_words(words[0] if len(words) == 1 else mx.concatenate(words), leaf) if words else leaf

    return tree.map_with_path(joined, like)


class _Piece(NamedTuple):
    """Where a part of a leaf stands among the words that a rank sends."""

    path: str  # of the leaf
    part: str  # of the part, in the tree of this rank
    start: int
    stop: int


def _row(share: Share, forms: Mapping[str, mx.array], word: mx.Dtype) -> list[_Piece]:
    """All that a rank sends in words of this size."""
    row, end = [], 0
    for path, leaf in forms.items():
        span = share.get(path)
        if span is not None and WORDS[leaf.dtype.size] == word:
            begin, end = end, end + (span.stop - span.start) * leaf.dtype.size // word.size
            row.append(_Piece(path, span.of(path), begin, end))
    return row


def _stretch(messages: Sequence[mx.array], length: int, piece: _Piece) -> Iterator[mx.array]:
    """What a rank sent of a piece, from the messages that it is in."""
    for number in range(piece.start // length, (piece.stop - 1) // length + 1):
        yield messages[number][max(piece.start - number * length, 0) : piece.stop - number * length]
