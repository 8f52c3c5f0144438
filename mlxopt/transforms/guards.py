"""Keeping broken numbers out."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, Updates
from mlxopt.readable import readable


class ZeroNansState(NamedTuple):
    """Memory of :func:`zero_nans`."""

    found_nan: Updates  # bool of each leaf: did the last update hold a NaN?


@readable
def zero_nans() -> GradientTransformation:
    """Replace NaNs by zeros, and remember in which leaves there were any; infinities stay.

    Example:
        >>> tx = zero_nans()
        >>> tx.update({"w": mx.array([float("nan"), 1.0])}, tx.init({"w": mx.zeros((2,))}))
        ({'w': array([0, 1], dtype=float32)}, ZeroNansState(found_nan={'w': array(True, dtype=bool)}))
    """

    def init_fn(params: Params) -> ZeroNansState:
        return ZeroNansState(tree.map(lambda _: mx.array(False), params))

    def update_fn(
        updates: Updates, state: ZeroNansState, params: Params | None = None
    ) -> tuple[Updates, ZeroNansState]:
        del state, params
        found = tree.map(lambda u: mx.any(mx.isnan(u)), updates)
        return tree.map(lambda u: mx.where(mx.isnan(u), 0.0, u), updates), ZeroNansState(found)

    return GradientTransformation(init_fn, update_fn)
