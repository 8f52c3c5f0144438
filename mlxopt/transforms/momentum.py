"""Accumulating updates over time."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, Updates
from mlxopt.numerics.scalars import bias_correction, is_zero, new_count, safe_increment
from mlxopt.readable import readable


class TraceState(NamedTuple):
    """Memory of :func:`trace`."""

    trace: Updates  # decayed sum of the updates


@readable
def trace(
    decay: float, nesterov: bool = False, accumulator_dtype: mx.Dtype | None = None, *, dampening: float = 0.0
) -> GradientTransformation:
    """Add a decayed sum of the earlier updates: ``t = (1 - dampening) * u + decay * t``.

    Args:
        decay: Share of the sum that stays from one update to the next, in [0, 1]; 1 makes it the plain sum.
        nesterov: Return ``u + decay * t`` instead of ``t``.
        accumulator_dtype: Dtype of the sum; float32 by default.
        dampening: Share of each update, the first included, that is kept out of the sum.

    Example:
        >>> tx = trace(0.9)
        >>> state = tx.init({"w": mx.array(0.0)})
        >>> for _ in range(2):
        ...     updates, state = tx.update({"w": mx.array(1.0)}, state)
        >>> updates
        {'w': array(1.9, dtype=float32)}

    Reference:
        Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.
    """
    checks.number("trace", low=0.0, high=1.0, decay=decay, dampening=dampening)
    checks.floating("trace", accumulator_dtype=accumulator_dtype)
    if nesterov and dampening != 0.0:
        raise ValueError(f"trace: dampening must be 0 with nesterov, got {dampening}. Choose one of the two.")

    def init_fn(params: Params) -> TraceState:
        return TraceState(tree.memory_like(params, dtype=accumulator_dtype))

    def update_fn(updates: Updates, state: TraceState, params: Params | None = None) -> tuple[Updates, TraceState]:
        del params
        kept = updates if is_zero(dampening) else tree.scale(1 - dampening, updates)
        traced = tree.map(lambda u, t: u + decay * t, kept, state.trace)
        ahead = tree.map(lambda u, t: u + decay * t, updates, traced) if nesterov else traced
        return ahead, TraceState(traced)

    return GradientTransformation(init_fn, update_fn, reach="element")


class EmaState(NamedTuple):
    """Memory of :func:`ema`."""

    count: mx.array  # int32: updates seen
    ema: Updates  # running mean of the updates, not debiased


@readable
def ema(
    decay: float, debias: bool = True, accumulator_dtype: mx.Dtype | None = None, *, nesterov: bool = False
) -> GradientTransformation:
    """Replace updates by their running mean.

    Args:
        decay: Share of the old mean that stays.
        debias: Make up for the start at zero.
        accumulator_dtype: Dtype of the mean; float32 by default.
        nesterov: Look one step ahead, as if the newest update came once more.

    Example:
        >>> tx = ema(0.9)
        >>> tx.update({"w": mx.array(2.0)}, tx.init({"w": mx.array(0.0)}))[0]
        {'w': array(2, dtype=float32)}
    """
    checks.decay_rate("ema", decay=decay)
    checks.floating("ema", accumulator_dtype=accumulator_dtype)

    def init_fn(params: Params) -> EmaState:
        return EmaState(new_count(), tree.memory_like(params, dtype=accumulator_dtype))

    def update_fn(updates: Updates, state: EmaState, params: Params | None = None) -> tuple[Updates, EmaState]:
        del params
        count = safe_increment(state.count)
        mean = tree.update_moment(updates, state.ema, decay, 1)
        seen = tree.look_ahead(updates, mean, decay, count, corrected=debias) if nesterov else mean
        return tree.scale(1 / bias_correction(decay, count), seen) if debias else seen, EmaState(count, mean)

    return GradientTransformation(init_fn, update_fn, reach="element")
