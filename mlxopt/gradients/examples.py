"""Gradients of single examples."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.gradients.microbatching import microbatch, require_accumulator
from mlxopt.numerics.dtypes import widen
from mlxopt.tree.gradients import value_and_grad


def micro_grad(
    fun: Callable[..., Any],
    *,
    microbatch_size: int | None = None,
    accumulator: str = "sum",
    transform_fn: Callable[[Any], Any] | None = None,
) -> Callable[..., tuple[mx.array, Any]]:
    """Differentiate a function for each example of a batch, and gather what a function makes of each gradient.

    Args:
        fun: Function ``(params, *example)`` of one example, without an axis for the batch, to a scalar. What it draws
            from MLX's global random state is the same for all examples of a micro-batch.
        microbatch_size: Examples at a time, which must divide their number; ``None`` takes all at once. With 1 there is
            no ``mx.vmap``, which some operations of MLX do not have (convolutions, for one).
        accumulator: "sum", "mean", or "concat", which keeps an axis for the examples.
        transform_fn: Function of the gradient of one example; without it they are gathered as they are.

    Returns:
        Function ``(params, *batch) -> (values, gathered)``, with a value for each example; sums and means of low
        precision are float32.

    Example:
        >>> gradients = micro_grad(lambda w, x: mx.square(w * x), transform_fn=mx.abs)
        >>> gradients(mx.array(1.0), mx.array([1.0, -2.0]))
        (array([1, 4], dtype=float32), array(10, dtype=float32))
    """
    if not callable(fun):
        raise TypeError(f"micro_grad: fun must be a function, got {fun!r}. Pass micro_grad(fun).")
    require_accumulator("micro_grad", accumulator)
    made_of = transform_fn or (lambda gradient: gradient)
    reduced = _REDUCED[accumulator]

    def run(params: Any, *batch: Any) -> tuple[mx.array, Any]:
        form: list[Any] = []

        def of_one(leaves: list[mx.array], example: tuple[Any, ...]) -> tuple[mx.array, list[mx.array]]:
            value, gradient = value_and_grad(lambda at: fun(at, *example), tree.with_leaves(params, leaves))
            made = made_of(gradient)
            form[:] = [tree.map(lambda _: 0, made)]
            return value, tree.leaves(made)

        def of_some(leaves: list[mx.array], batch: tuple[Any, ...]) -> tuple[mx.array, list[mx.array]]:
            values, made = _each(of_one, one_by_one=microbatch_size == 1)(leaves, batch)
            return values, [reduced(leaf) for leaf in made]

        values, gathered = microbatch(of_some, 1, microbatch_size, ("concat", accumulator))(tree.leaves(params), batch)
        return values, tree.with_leaves(form[0], gathered)

    return run


def _each(f: Callable[..., Any], *, one_by_one: bool) -> Callable[..., Any]:
    """A function of shared leaves and of a batch, from one of an example."""

    def alone(shared: Any, batch: Any) -> Any:
        return tree.map(lambda leaf: leaf[None], f(shared, tree.map(lambda leaf: leaf[0], batch)))

    def together(shared: Any, batch: Any) -> Any:
        try:
            return mx.vmap(f, in_axes=(None, 0))(shared, batch)
        except ValueError as error:
            if "vmap" not in str(error):
                raise
            raise ValueError(
                f"micro_grad: fun must be made of operations that mx.vmap knows, got '{error}'. "
                "Pass microbatch_size=1, which takes examples one by one."
            ) from error

    return alone if one_by_one else together


_REDUCED: dict[str, Callable[[mx.array], mx.array]] = {
    "sum": lambda leaf: mx.sum(widen(leaf), axis=0),
    "mean": lambda leaf: mx.mean(widen(leaf), axis=0),
    "concat": lambda leaf: leaf,
}
