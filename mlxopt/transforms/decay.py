"""Weight decay."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import Choice, GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.combine import masked, require_mask
from mlxopt.numerics import new_count, safe_increment, scheduled
from mlxopt.readable import readable


class AddDecayedWeightsState(NamedTuple):
    """Memory of :func:`add_decayed_weights`."""

    count: mx.array  # int32: updates seen
    weight_decay: mx.array  # float32: decay of the last update; a constant one may be set here


@readable
def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, mask: Choice | None = None) -> GradientTransformation:
    """Add ``weight_decay`` times the parameter to its update.

    Before ``scale_by_learning_rate`` this is decoupled weight decay, at the start of a chain it is an L2 penalty.

    Args:
        weight_decay: Number or schedule.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default. Patterns that match
            no leaf are an error.

    Example:
        >>> tx = add_decayed_weights(0.1)
        >>> params = {"w": mx.array(2.0)}
        >>> tx.update({"w": mx.array(1.0)}, tx.init(params), params)[0]
        {'w': array(1.2, dtype=float32)}

    Reference:
        Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv:1711.05101.
    """
    checks.scalar_or_schedule("add_decayed_weights", low=0.0, weight_decay=weight_decay)
    if mask is not None:
        require_mask("add_decayed_weights", mask)

    def init_fn(params: Params) -> AddDecayedWeightsState:
        del params
        return AddDecayedWeightsState(new_count(), scheduled(weight_decay, new_count()))

    def update_fn(
        updates: Updates, state: AddDecayedWeightsState, params: Params
    ) -> tuple[Updates, AddDecayedWeightsState]:
        decay = scheduled(weight_decay, state.count, state.weight_decay)
        return tree.add_scale(updates, decay, params), AddDecayedWeightsState(safe_increment(state.count), decay)

    everywhere = GradientTransformation(init_fn, update_fn)
    return everywhere if mask is None else masked(everywhere, mask, otherwise="pass")
