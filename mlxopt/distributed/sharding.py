"""Memory shared out over ranks: each keeps that of its part of the parameters, and steps for the others too."""

from typing import Any, NamedTuple, get_args

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Inner, Params, State, Updates, require_transformation
from mlxopt.distributed.agreement import of_one_rank
from mlxopt.distributed.averages import average_of_parts
from mlxopt.distributed.exchange import BUCKET_BYTES, group_of
from mlxopt.distributed.line import LINE, gathering
from mlxopt.distributed.shares import By, Share, gathered_parts, owners, part_of, ranges, remembered_of
from mlxopt.reach import NEAREST_FIRST
from mlxopt.readable import readable


@of_one_rank
class ShardedState(NamedTuple):
    """Memory of :func:`shard`, of which each rank has a part."""

    inner_state: State  # has holes at the leaves of others; of a cut leaf a vector, under the name of its range

    def eval_params(self, params: Params) -> Params:
        return average_of_parts(self.inner_state, params)


@readable
def shard(
    inner: GradientTransformation, group: mx.distributed.Group | None = None, *, by: By = "leaf"
) -> GradientTransformation:
    """Share the memory of a transformation out over ranks, each of which updates its part and sends it to the others.

    Updates are those of ``inner``, to the bit, and each rank remembers about 1/N of what that does. Gradients must be
    means when they come here: in ``compile_step(..., group=group)`` they are, in loops of your own behind
    :func:`average_gradients`. All ranks must hold the same parameters, by :func:`replicate`, and make the same updates
    in the same order. What is sent are updates in float32: sharding saves memory, and takes time.

    Where parameters are averaged inside, :func:`eval_params` sends messages as well: call it on all ranks.

    Args:
        inner: Transformation that looks at one leaf, or at one element at a time, as its ``reach`` says. What looks
            further stands before it: ``chain(clip_by_global_norm(1.0), shard(adamw(1e-3)))``.
        group: Ranks; all that the launcher started by default. For one rank this changes nothing.
        by: "leaf" deals whole leaves out by the bytes that are remembered of them, right for whatever works leaf by
            leaf, as Muon and Adafactor do. "element" cuts all elements into equal ranges, for optimizers that work
            element by element, as AdamW does, where a few leaves are large: to ``inner`` a range of a leaf is a vector.

    Example:
        >>> from mlxopt import adamw
        >>> tx = shard(adamw(0.5))
        >>> params = {"w": mx.array([1.0, 2.0])}
        >>> tx.update({"w": mx.array([0.1, -0.1])}, tx.init(params), params)[0]
        {'w': array([-0.505, 0.49], dtype=float32)}

    Reference:
        Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020,
        arXiv:1910.02054.
    """
    require_transformation("shard", inner)
    checks.choice("shard", "by", by, get_args(By))
    _require_reach(inner, by)
    together = group_of("shard", group)
    rank, size = together.rank(), together.size()
    shares_of = _Shares(inner, size, by)

    def own(node: tree.Tree, shares: list[Share]) -> tree.Tree:
        return node if size == 1 else part_of(node, shares[rank])

    def init_fn(params: Params) -> ShardedState:
        return ShardedState(inner.init(own(params, shares_of(params))))

    def update_fn(
        updates: Updates, state: ShardedState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ShardedState]:
        if size == 1:
            changed, new = inner.update(updates, state.inner_state, params, **extra)
            return changed, ShardedState(new)
        if params is None:
            raise ValueError("shard: update needs params, got None. Call update(updates, state, params).")
        shares = shares_of(params)
        if "grad" in inner.extras and extra.get("grad") is not None:
            extra = {**extra, "grad": own(extra["grad"], shares)}
        changed, new = inner.update(own(updates, shares), state.inner_state, own(params, shares), **extra)
        with LINE.together(tree.leaves(updates)) as behind_all:
            whole = gathered_parts(changed, rank, shares, updates, send, BUCKET_BYTES)
            return tree.with_leaves(whole, behind_all(tree.leaves(whole))), ShardedState(new)

    def send(row: mx.array) -> mx.array:
        return LINE.send(gathering(together), row)

    seen = Inner(inner, ("inner_state",), lambda params: own(params, shares_of(params)))
    # The tree: inside of another one, each rank would share out other leaves.
    return GradientTransformation(init_fn, update_fn, inner=[seen], as_stored=True, reach="tree")


class _Shares:
    """What each rank keeps of parameters: worked out once for parameters of the same form."""

    def __init__(self, inner: GradientTransformation, size: int, by: By) -> None:
        self._inner, self._size, self._by = inner, size, by
        self._known: dict[tuple[Any, ...], list[Share]] = {}

    def __call__(self, params: Params) -> list[Share]:
        form = tuple((path, leaf.shape, leaf.dtype) for path, leaf in tree.items(params))
        if form not in self._known:
            self._known[form] = self._found(params)
        return self._known[form]

    def _found(self, params: Params) -> list[Share]:
        if self._size == 1 or self._by == "element":
            return ranges(params, self._size)
        return owners(params, self._size, remembered_of(params, self._inner.init(params)))


def _require_reach(inner: GradientTransformation, by: By) -> None:
    def looks_further(tx: GradientTransformation) -> bool:
        return NEAREST_FIRST.index(tx.reach) > NEAREST_FIRST.index(by)

    if not looks_further(inner):
        return
    culprit = inner
    while any(looks_further(part.tx) for part in culprit.inner):
        culprit = next(part.tx for part in culprit.inner if looks_further(part.tx))
    if culprit.reach == "leaf":
        raise ValueError(
            f"shard: by='element' needs what looks at one element at a time, but {culprit!r} looks at whole leaves. "
            "Pass by='leaf'."
        )
    raise ValueError(
        f"shard: inner must look at one {by} at a time, but {culprit!r} looks at the whole tree, and would see a part "
        f"of it. Put it before: chain({culprit.name}(...), shard(...)). One of your own that looks no further says so: "
        f"GradientTransformation(..., reach={by!r})."
    )
