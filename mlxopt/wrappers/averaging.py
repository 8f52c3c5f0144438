"""Averages of the parameters, to evaluate with."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.numerics.dtypes import widen
from mlxopt.numerics.scalars import new_count, safe_increment, unless_zero, value_at
from mlxopt.readable import readable
from mlxopt.tree.structure import MaskedNode
from mlxopt.update import apply_updates, in_place_of


class AverageParamsState(NamedTuple):
    """Memory of :func:`average_params`."""

    step: mx.array  # int32: steps seen
    weight: mx.array  # float32: share of the average that parameters of averaged steps make up
    average: Params  # float32 for low precision

    def eval_params(self, params: Params) -> Params:
        return in_place_of(params, self.average)


@readable
def average_params(
    decay: ScalarOrSchedule | None, *, debias: bool = True, start: int = 0, every: int = 1
) -> GradientTransformation:
    """Keep an average of the parameters, and pass updates on; put it last in a chain.

    :func:`eval_params` reads the average. It is float32, of the parameters as a step leaves them, not yet rounded.

    Args:
        decay: Share of the old average that stays: a number, a schedule of the count of averaged steps, or ``None`` for
            the plain mean of all averaged steps.
        debias: Weigh only parameters that steps have made; otherwise those before the first averaged step keep the
            weight that ``decay`` leaves them.
        start: Steps that are left out first; until then the average is the parameters themselves.
        every: Average each ``every``-th step only.

    Example:
        >>> from mlxopt import apply_updates, chain, eval_params, sgd
        >>> tx = chain(sgd(1.0), average_params(None))
        >>> params = {"w": mx.array(4.0)}
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     updates, state = tx.update({"w": mx.array(1.0)}, state, params)
        ...     params = apply_updates(params, updates)
        >>> params, eval_params(state, params)
        ({'w': array(1, dtype=float32)}, {'w': array(2, dtype=float32)})

    Reference:
        Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
    """
    if decay is not None and not callable(decay):
        checks.decay_rate("average_params", decay=decay)
    checks.whole("average_params", low=0, start=start)
    checks.whole("average_params", low=1, every=every)

    def decay_after(averaged: mx.array) -> float | mx.array:
        if decay is None:
            return averaged / (averaged + 1)
        return value_at(decay, averaged) if callable(decay) else decay

    def init_fn(params: Params) -> AverageParamsState:
        weight = mx.zeros(()) if debias else mx.ones(())
        return AverageParamsState(new_count(), weight, tree.map(remembered, params))

    def update_fn(updates: Updates, state: AverageParamsState, params: Params) -> tuple[Updates, AverageParamsState]:
        since = state.step - start
        share = decay_after(mx.maximum(since, 0) // every)
        kept = share * state.weight
        weight = kept + (1 - share)
        of_mean = mx.where(since < 0, 0.0, unless_zero(weight, kept / weight))

        def moved(param: mx.array, mean: mx.array | None) -> mx.array | MaskedNode:
            # Written so that it is the parameter to the bit where the mean has no share.
            return MaskedNode() if mean is None else param + of_mean * (mean - param)

        average = tree.map(moved, apply_updates(params, updates), state.average, holes=True)
        between = mx.logical_and(since >= 0, since % every != 0)
        return updates, AverageParamsState(
            safe_increment(state.step),
            mx.where(mx.logical_or(since < 0, between), state.weight, weight),
            average if every == 1 else tree.where(between, state.average, average),
        )

    return GradientTransformation(init_fn, update_fn, reach="element")


def remembered(param: mx.array) -> mx.array | MaskedNode:
    """What an average of a parameter begins with, float32 for low precision; whole numbers have none."""
    return widen(param)[...] if mx.issubdtype(param.dtype, mx.inexact) else MaskedNode()
