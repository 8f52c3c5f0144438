"""Keeping parameters where they may be."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import EmptyState, GradientTransformation, Params, Updates, identity
from mlxopt.readable import readable


@readable
def keep_params_nonnegative() -> GradientTransformation:
    """Stop parameters at zero that an update would make negative; put it last in a chain.

    Example:
        >>> tx = keep_params_nonnegative()
        >>> params = {"w": mx.array([1.0, 0.2])}
        >>> tx.update({"w": mx.array([-0.5, -0.5])}, tx.init(params), params)[0]
        {'w': array([-0.5, -0.2], dtype=float32)}
    """

    def update_fn(updates: Updates, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        return tree.map(lambda u, p: mx.maximum(u, -p), updates, params), state

    return GradientTransformation(identity().init, update_fn, reach="element")


@readable
def constrain(projection: Callable[..., Params], *arguments: Any) -> GradientTransformation:
    """Step to the projection of where the updates lead, so that parameters stay in a set; put it last in a chain.

    Args:
        projection: Function of the parameters to the nearest ones that are allowed, such as :func:`projection_l2_ball`.
        arguments: Further arguments of that function.

    Example:
        >>> import mlx.core as mx
        >>> from mlxopt import chain, projection_box, sgd
        >>> tx = chain(sgd(1.0), constrain(projection_box, 0.0, 1.0))
        >>> params = {"w": mx.array([0.25, 0.5])}
        >>> tx.update({"w": mx.array([1.0, 0.25])}, tx.init(params), params)[0]
        {'w': array([-0.25, -0.25], dtype=float32)}
    """
    if not callable(projection):
        raise TypeError(f"constrain: projection must be a function, got {projection!r}. Pass projection_l2_ball, say.")

    def update_fn(updates: Updates, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        return tree.sub(projection(tree.add(params, updates), *arguments), params), state

    return GradientTransformation(identity().init, update_fn)
