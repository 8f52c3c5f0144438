"""Shrinking updates once the loss no longer falls."""

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, Updates
from mlxopt.readable import readable
from mlxopt.schedules.plateau import ReduceLROnPlateauState, plateau


@readable
def reduce_on_plateau(
    factor: float = 0.1,
    patience: int = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: float = 0.0,
) -> GradientTransformation:
    """Multiply updates by a scale that is reduced whenever the loss no longer improves; put it behind an optimizer.

    The loss comes as ``value``. A check compares the mean of ``accumulation_size`` losses with the best one so far. It
    is an improvement if it is lower by more than ``rtol * abs(best) + atol``; a NaN never is.

    Args:
        factor: Factor of a reduction.
        patience: Checks in a row without improvement that lead to one, at least 1.
        rtol: Share of the best mean that is no improvement yet.
        atol: Difference that is no improvement yet.
        cooldown: Checks after a reduction whose outcome does not count.
        accumulation_size: Losses for a check.
        min_scale: Lowest scale.

    Example:
        >>> tx = reduce_on_plateau(factor=0.5, patience=1)
        >>> updates = {"w": mx.array(1.0)}
        >>> state = tx.init(updates)
        >>> for loss in (3.0, 3.0):
        ...     scaled, state = tx.update(updates, state, value=mx.array(loss))
        >>> scaled
        {'w': array(0.5, dtype=float32)}
    """
    schedule = plateau("reduce_on_plateau", factor, patience, rtol, atol, cooldown, accumulation_size, min_scale)
    first, after = schedule.init, schedule.update

    def init_fn(params: Params) -> ReduceLROnPlateauState:
        del params
        state: ReduceLROnPlateauState = first()
        return state

    def update_fn(
        updates: Updates, state: ReduceLROnPlateauState, params: Params | None = None, *, value: mx.array
    ) -> tuple[Updates, ReduceLROnPlateauState]:
        del params
        new_state = after(state, value=value)
        return tree.scale(new_state.scale, updates), new_state

    return GradientTransformation(init_fn, update_fn, reach="element")
