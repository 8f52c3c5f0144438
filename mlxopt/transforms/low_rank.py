"""Transforming matrices in a space of fewer dimensions."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import mlx.core as mx
from typing_extensions import Self

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Inner, Mask, Params, State, Updates, require_transformation
from mlxopt.extras import told
from mlxopt.numerics.matrices import singular_directions
from mlxopt.numerics.scalars import new_count, safe_increment, surely
from mlxopt.readable import readable
from mlxopt.tree.choice import Choice
from mlxopt.tree.structure import MaskedNode


class Projector:
    """A way to make matrices smaller and larger again: four functions of a matrix and of a basis.

    Args:
        init: Function of rows and columns to the first basis, an array.
        refresh: Function of a matrix and the old basis to the new one, of the same shape.
        down: Function of a matrix and the basis to a smaller matrix.
        up: Function of a smaller matrix, the basis and the old shape to a matrix of that shape.
        update_interval: Updates from one refresh to the next; ``None`` for no more.

    Example:
        >>> left_half = Projector(
        ...     init=lambda rows, columns: mx.eye(columns)[:, : columns // 2],
        ...     refresh=lambda matrix, basis: basis,
        ...     down=lambda matrix, basis: matrix @ basis,
        ...     up=lambda smaller, basis, shape: smaller @ basis.T,
        ... )
        >>> basis = left_half.init(1, 2)
        >>> left_half.up(left_half.down(mx.ones((1, 2)), basis), basis, (1, 2))
        array([[1, 0]], dtype=float32)
    """

    def __init__(
        self,
        init: Callable[[int, int], mx.array],
        refresh: Callable[[mx.array, mx.array], mx.array],
        down: Callable[[mx.array, mx.array], mx.array],
        up: Callable[[mx.array, mx.array, tuple[int, ...]], mx.array],
        update_interval: int | None = None,
    ) -> None:
        if update_interval is not None:
            checks.whole("Projector", low=1, update_interval=update_interval)
        self.init, self.refresh, self.down, self.up = init, refresh, down, up
        self.update_interval = update_interval
        self._spell: Callable[[], str] = lambda: "Projector(...)"

    def spelled(self, name: str, spell: Callable[[], str]) -> Self:
        """The same under another expression."""
        del name
        self._spell = spell
        return self

    def __repr__(self) -> str:
        return self._spell()


Side = Literal["smaller", "larger"]


@readable
def galore_projector(
    rank: int = 128, update_interval: int | None = 200, scale: float = 1.0, *, side: Side = "smaller"
) -> Projector:
    """Make the projector of GaLore: onto the first singular vectors of the gradient, which is decomposed now and then.

    Args:
        rank: Number of vectors; fewer, where a matrix has fewer rows or columns.
        update_interval: Updates from one decomposition to the next; ``None`` for no more.
        scale: Factor of what goes back to the old shape.
        side: Space that the vectors are from, "smaller" or "larger" of inputs and outputs. From the smaller one the
            basis is small, from the larger one the memory of the inner transformation.

    Example:
        >>> galore_projector(64)
        galore_projector(rank=64, update_interval=200, scale=1.0, side='smaller')

    Reference:
        Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", 2024, arXiv:2403.03507.
    """
    checks.whole("galore_projector", low=1, rank=rank)
    checks.number("galore_projector", scale=scale)
    checks.choice("galore_projector", "side", side, get_args(Side))
    if update_interval is not None:
        checks.whole("galore_projector", low=1, update_interval=update_interval)

    def is_right(rows: int, columns: int) -> bool:
        return (rows >= columns) == (side == "smaller")

    def init(rows: int, columns: int) -> mx.array:
        return mx.zeros((columns if is_right(rows, columns) else rows, min(rank, rows, columns)))

    def refresh(matrix: mx.array, basis: mx.array) -> mx.array:
        newest = singular_directions(matrix, basis.shape[1], "right" if is_right(*matrix.shape) else "left")
        # A singular vector has either sign; with the old one, what an inner mean remembers goes on in its direction.
        return mx.where(mx.sum(newest * basis, axis=0) < 0, -newest, newest)

    def down(matrix: mx.array, basis: mx.array) -> mx.array:
        return matrix @ basis if is_right(*matrix.shape) else basis.T @ matrix

    def up(smaller: mx.array, basis: mx.array, shape: tuple[int, ...]) -> mx.array:
        return scale * (smaller @ basis.T if is_right(*shape) else basis @ smaller)

    return Projector(init, refresh, down, up, update_interval)


class LowRankState(NamedTuple):
    """Memory of :func:`low_rank`."""

    count: mx.array  # int32: updates seen
    basis: Any  # of every matrix; holes where leaves are no matrices
    inner_state: State


def _is_matrix(path: str, leaf: mx.array) -> bool:
    del path
    return leaf.ndim > 1 and leaf.size > 0


@readable
def low_rank(
    inner: GradientTransformation, projector: Projector, *, matrices: Mask | None = None
) -> GradientTransformation:
    """Apply a transformation to matrices that are made smaller, and make what it returns larger again.

    So the memory of the inner transformation is that of smaller matrices. A leaf with more than two axes is a matrix of
    its first axis by all others; vectors and scalars go to the inner transformation as they are. It sees parameters
    made smaller in the same way: put weight decay behind it.

    MLX has no conditional: a compiled step refreshes every basis every time, and only now and then takes it. To pay for
    those that are taken only, compile two steps that share their state: one whose projector has ``update_interval=1``,
    for every two-hundredth batch, say, and one with ``None`` for the others.

    Args:
        inner: Transformation of smaller matrices.
        projector: How to make them smaller, such as :func:`galore_projector`.
        matrices: Leaves that are made smaller: a function of path and leaf, or a tree of bools; all of two axes and
            more by default.

    Example:
        >>> from mlxopt import scale_by_adam
        >>> tx = low_rank(scale_by_adam(), galore_projector(rank=2))
        >>> tree.get(tx.init({"w": mx.zeros((8, 4)), "b": mx.zeros((8,))}), "mu.w").shape
        (8, 2)

    Reference:
        Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", 2024, arXiv:2403.03507.
    """
    require_transformation("low_rank", inner)
    if not isinstance(projector, Projector):
        raise TypeError(f"low_rank: projector must be a Projector, got {projector!r}. Pass galore_projector(), say.")
    chosen = Choice("low_rank", "matrices", _is_matrix if matrices is None else matrices)
    refresh, down, up, interval = projector.refresh, projector.down, projector.up, projector.update_interval

    def first_basis(params: Params) -> Any:
        def basis(leaf: mx.array, is_chosen: bool) -> mx.array | MaskedNode:
            return projector.init(*_as_matrix(leaf).shape) if is_chosen else MaskedNode()

        return tree.map(basis, params, chosen.first(params).values)

    def smaller(leaves: Updates, basis: Any) -> Updates:
        return tree.map(lambda leaf, b: leaf if b is None else down(_as_matrix(leaf), b), leaves, basis, holes=True)

    def newest(updates: Updates, basis: Any) -> Any:
        def renewed(u: mx.array, b: mx.array | None) -> mx.array | MaskedNode:
            return MaskedNode() if b is None else refresh(_as_matrix(u), b)

        return tree.map(renewed, updates, basis, holes=True)

    def larger(like: Updates, leaves: Updates, basis: Any) -> Updates:
        def enlarged(whole: mx.array, leaf: mx.array, b: mx.array | None) -> mx.array:
            return leaf if b is None else up(leaf, b, _as_matrix(whole).shape).reshape(whole.shape)

        return tree.map(enlarged, like, leaves, basis, holes=True)

    def init_fn(params: Params) -> LowRankState:
        basis = first_basis(params)
        return LowRankState(new_count(), basis, inner.init(smaller(tree.memory_of(params), basis)))

    def update_fn(
        updates: Updates, state: LowRankState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, LowRankState]:
        basis = state.basis
        if interval is not None and not surely(state.count % interval != 0):
            basis = tree.where(state.count % interval == 0, newest(updates, basis), basis)
        own_params = None if params is None else smaller(params, basis)
        # Arrays of their own for the inner one: where it takes a gradient, MLX puts others into those that it hands on.
        shown = tree.map(lambda p: p[...], own_params)
        known = told(
            extra,
            inner,
            shown=lambda leaves: smaller(leaves, basis),
            back=lambda own: tree.add(params, larger(params, tree.sub(own, own_params), basis)),
        )
        changed, inner_state = inner.update(smaller(updates, basis), state.inner_state, shown, **known)
        return larger(updates, changed, basis), LowRankState(safe_increment(state.count), basis, inner_state)

    seen = Inner(inner, ("inner_state",), lambda params: smaller(params, first_basis(params)))
    return GradientTransformation(init_fn, update_fn, inner=[seen], reach="leaf")


def _as_matrix(leaf: mx.array) -> mx.array:
    if not leaf.ndim or not leaf.size:
        kind = "an empty array" if leaf.ndim else "a scalar"
        raise tree.TreeError(f"{kind} is no matrix. Choose others by matrices=")
    return leaf.reshape(leaf.shape[0], -1)
