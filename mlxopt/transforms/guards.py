"""Keeping broken numbers out."""

from collections.abc import Callable
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
    """Replace NaNs by zeros, and remember in which leaves there were any; :func:`zero_infs` does it for infinities.

    Example:
        >>> tx = zero_nans()
        >>> tx.update({"w": mx.array([float("nan"), 1.0])}, tx.init({"w": mx.zeros((2,))}))
        ({'w': array([0, 1], dtype=float32)}, ZeroNansState(found_nan={'w': array(True, dtype=bool)}))
    """

    def init_fn(params: Params) -> ZeroNansState:
        return ZeroNansState(_nowhere(params))

    def update_fn(
        updates: Updates, state: ZeroNansState, params: Params | None = None
    ) -> tuple[Updates, ZeroNansState]:
        del state, params
        zeroed, found = _zeroed(mx.isnan, updates)
        return zeroed, ZeroNansState(found)

    return GradientTransformation(init_fn, update_fn, reach="leaf")


class ZeroInfsState(NamedTuple):
    """Memory of :func:`zero_infs`."""

    found_inf: Updates  # bool of each leaf: did the last update hold an infinity?


@readable
def zero_infs() -> GradientTransformation:
    """Replace infinities by zeros, and remember in which leaves there were any.

    One that reaches a running mean stays in it for good, or becomes a NaN there.

    Example:
        >>> tx = zero_infs()
        >>> tx.update({"w": mx.array([float("inf"), 1.0])}, tx.init({"w": mx.zeros((2,))}))
        ({'w': array([0, 1], dtype=float32)}, ZeroInfsState(found_inf={'w': array(True, dtype=bool)}))
    """

    def init_fn(params: Params) -> ZeroInfsState:
        return ZeroInfsState(_nowhere(params))

    def update_fn(
        updates: Updates, state: ZeroInfsState, params: Params | None = None
    ) -> tuple[Updates, ZeroInfsState]:
        del state, params
        zeroed, found = _zeroed(mx.isinf, updates)
        return zeroed, ZeroInfsState(found)

    return GradientTransformation(init_fn, update_fn, reach="leaf")


def _nowhere(params: Params) -> Updates:
    return tree.map(lambda _: mx.array(False), params)


def _zeroed(is_broken: Callable[[mx.array], mx.array], updates: Updates) -> tuple[Updates, Updates]:
    """The updates with zeros in the place of broken elements, and whether there were any in each leaf."""
    found = tree.map(lambda u: mx.any(is_broken(u)), updates)
    return tree.map(lambda u: mx.where(is_broken(u), 0.0, u), updates), found
