"""Averages of parameters that are shared out over ranks."""

from collections.abc import Sequence

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import Params, State
from mlxopt.distributed.agreement import gathered
from mlxopt.distributed.exchange import BUCKET_BYTES
from mlxopt.distributed.line import LINE, gathering
from mlxopt.distributed.shares import Share, Span, gathered_parts, part_of, span_at
from mlxopt.tree.structure import children, is_container, path_within
from mlxopt.update import eval_params


def average_of_parts(state: State, params: Params) -> Params:
    """What a state evaluates with of which each rank has a part: all of them must ask.

    Args:
        state: The part of this rank.
        params: Parameters that are trained.
    """
    group = mx.distributed.init()
    if group.size() == 1 or not _averages(state):
        return eval_params(state, params)
    spans = _spans(state, params)
    shown = part_of(params, spans)
    found = eval_params(state, shown)
    # What it has no average of stands there as it was.
    averaged = {path for (path, old), new in zip(tree.items(shown), tree.leaves(found), strict=True) if new is not old}
    mine = {path: span for path, span in spans.items() if span.of(path) in averaged}
    shares = _shares_of_all(mine, sorted(spans), group)
    _require_whole(shares, sorted(spans))

    def send(row: mx.array) -> mx.array:
        return LINE.send_now(gathering(group), row)

    return gathered_parts(tree.cast_like(found, shown), group.rank(), shares, params, send, BUCKET_BYTES)


def _averages(state: State) -> bool:
    if callable(getattr(type(state), "eval_params", None)):
        return True
    return is_container(state) and any(_averages(part) for _, part in children(state))


def _spans(state: State, params: Params) -> dict[str, Span]:
    """Of each leaf the range that a state has, as its paths tell, or all of it."""
    spans = {path: Span(0, leaf.size, leaf.size) for path, leaf in tree.items(params)}
    for path in tree.paths(state):
        whole, span = span_at(path)
        own = path_within(whole, spans)
        if span is not None and own is not None:
            spans[own] = span
    return spans


def _shares_of_all(mine: Share, paths: Sequence[str], group: mx.distributed.Group) -> list[Share]:
    """What each rank has averages of."""
    ends = [(mine[path].start, mine[path].stop, mine[path].size) if path in mine else (0, 0, 0) for path in paths]
    rows = gathered(group, mx.array([number for row in ends for number in row], mx.int64))
    shares = [{path: Span(*row[3 * place : 3 * place + 3]) for place, path in enumerate(paths)} for row in rows]
    return [{path: span for path, span in share.items() if span.size} for share in shares]


def _require_whole(shares: Sequence[Share], paths: Sequence[str]) -> None:
    for path in paths:
        spans = [share[path] for share in shares if path in share]
        ends = [0, *(span.stop for span in spans)]
        if spans and ([span.start for span in spans] != ends[:-1] or ends[-1] != spans[-1].size):
            told = ", ".join(f"{span.start}:{span.stop}" for span in spans)
            raise ValueError(
                f"eval_params: averages of '{path}' on all ranks must make up the whole leaf, got {told} of "
                f"{spans[0].size}. They are found where the group of shard(...) is that of all ranks; with a smaller "
                "one put average_params behind shard(...)."
            )
