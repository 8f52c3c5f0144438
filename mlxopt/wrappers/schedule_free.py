"""Schedule-free steps: an average of the parameters in place of a decay of the learning rate."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import (
    GradientTransformation,
    Inner,
    Mask,
    Params,
    ScalarOrSchedule,
    State,
    Updates,
    require_transformation,
)
from mlxopt.combine import chain
from mlxopt.hyperparameters import inject_hyperparams
from mlxopt.numerics.dtypes import LOW_PRECISION, widen
from mlxopt.numerics.scalars import as_scalar, is_zero, new_count, safe_increment, unless_zero, value_at
from mlxopt.optimizers.radam import rectification
from mlxopt.optimizers.rmsprop import scale_by_rms
from mlxopt.readable import readable
from mlxopt.schedules.decay import linear_schedule
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale, scale_by_schedule
from mlxopt.tree.structure import MaskedNode
from mlxopt.update import in_place_of
from mlxopt.wrappers.averaging import remembered


class ScheduleFreeState(NamedTuple):
    """Memory of :func:`schedule_free`."""

    step: mx.array  # int32: steps made
    share: mx.array  # float32: b1 of the last step, the share of the average in the parameters
    max_lr: mx.array  # float32: largest learning rate so far
    weight_sum: mx.array  # float32: weights of all steps, in units of that of the last one
    z: Params  # what the inner optimizer moves, float32 for low precision
    y: Params  # parameters of low precision before they were rounded; holes for the others
    inner_state: State

    def eval_params(self, params: Params) -> Params:
        beyond = 1 / self.share - 1

        def average(exact: mx.array, z: mx.array | None) -> mx.array | MaskedNode:
            if z is None:
                return MaskedNode()
            tree.require_same_shape(z, exact)
            return exact + beyond * (exact - z)

        exact = tree.map(_exact, params, self.y, holes=True)
        return in_place_of(params, tree.map(average, exact, self.z, holes=True))


@readable
def schedule_free(
    inner: GradientTransformation, learning_rate: ScalarOrSchedule, b1: float = 0.9, weight_lr_power: float = 2.0
) -> GradientTransformation:
    r"""Let an optimizer move a point, and take gradients between that point and the average of where it was.

    .. math:: z \leftarrow z + u(\nabla f(y)), \qquad x \leftarrow (1 - c) x + c z, \qquad
        y \leftarrow (1 - \beta_1) z + \beta_1 x

    where :math:`u` is the inner update and :math:`c` the weight of a step, the power ``weight_lr_power`` of the largest
    learning rate so far, over the sum of all weights. The parameters that are trained are y, and :func:`eval_params`
    gives x, which float32 parameters and z determine; of bfloat16 and float16 ones the state keeps y in float32.
    Nothing may change the updates behind it.

    Args:
        inner: Whole optimizer without momentum, for which b1 stands.
        learning_rate: That of the inner optimizer, number or schedule, for the weights of the steps: those of a warm-up
            count less.
        b1: Share of the average in the parameters, above 0 and at most 1.
        weight_lr_power: Power of the learning rate by which a step is weighed; 0 weighs all steps alike.

    Example:
        >>> from mlxopt import apply_updates, eval_params, sgd
        >>> tx, params = schedule_free(sgd(1.0), 1.0, b1=0.5), {"w": mx.array(4.0)}
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     updates, state = tx.update({"w": mx.array(1.0)}, state, params)
        ...     params = apply_updates(params, updates)
        >>> params, eval_params(state, params)
        ({'w': array(1.5, dtype=float32)}, {'w': array(2, dtype=float32)})

    Reference:
        Defazio et al., "The Road Less Scheduled", 2024, arXiv:2405.15682.
    """
    require_transformation("schedule_free", inner)
    checks.scalar_or_schedule("schedule_free", low=0.0, learning_rate=learning_rate)
    _require_average("schedule_free", b1, weight_lr_power)

    def init_fn(params: Params) -> ScheduleFreeState:
        z, nothing = tree.map(remembered, params), mx.zeros(())
        exact = tree.map(lambda p: widen(p) if p.dtype in LOW_PRECISION else MaskedNode(), params)
        return ScheduleFreeState(new_count(), as_scalar(b1), nothing, nothing, z, exact, inner.init(params))

    def update_fn(
        updates: Updates, state: ScheduleFreeState, params: Params, **extra: object
    ) -> tuple[Updates, ScheduleFreeState]:
        moves, inner_state = inner.update(updates, state.inner_state, params, **extra)
        rate = value_at(learning_rate, state.step) if callable(learning_rate) else as_scalar(learning_rate)
        max_lr = mx.maximum(state.max_lr, rate)
        shrunk = unless_zero(max_lr, state.max_lr / max_lr) ** weight_lr_power
        weight_sum = 1 + shrunk * state.weight_sum
        c = 1 / weight_sum
        # With x = y + (1 / share - 1) (y - z) put in, y moves by of_move (new_z - z) + of_way (z - y): it needs no x.
        of_move = (1 - b1) + b1 * c
        of_way = c + (1 - c) * (1 - b1 / state.share)
        part = of_way / of_move

        def change(y: mx.array, z: mx.array | None, new_z: mx.array | None, move: mx.array | None) -> mx.array | None:
            # By where z came, not by its move, of which rounding takes a part: x stays the average of what z was.
            if move is None or z is None or new_z is None:
                return move
            return of_move * (new_z - (z - part * (z - y)))

        new_z = tree.map(_moved, params, state.z, moves, holes=True)
        exact = tree.map(_exact, params, state.y, holes=True)
        changes = tree.map(change, exact, state.z, new_z, moves, holes=True)
        new_y = tree.map(_moved, params, state.y, changes, holes=True)
        steps = tree.map(_step, params, new_y, changes, holes=True)
        return steps, ScheduleFreeState(
            safe_increment(state.step), as_scalar(b1), max_lr, weight_sum, new_z, new_y, inner_state
        )

    return GradientTransformation(
        init_fn, update_fn, inner=[Inner(inner, ("inner_state",))], as_stored=True, reach="element"
    )


def _require_average(where: str, b1: float, weight_lr_power: float) -> None:
    checks.number(where, low=0.0, high=1.0, b1=b1)
    if is_zero(b1):
        raise ValueError(
            f"{where}: b1 must be above 0, got {b1}: the parameters would not hold the average. "
            "Use chain(inner, average_params(None)), which is the same."
        )
    checks.positive(where, b1=b1)
    checks.non_negative(where, weight_lr_power=weight_lr_power)


def _exact(param: mx.array, y: mx.array | None) -> mx.array:
    return param if y is None else y


def _moved(param: mx.array, point: mx.array | None, move: mx.array | None) -> mx.array | MaskedNode:
    del param  # which says where the tree has leaves: points are holes where nothing is remembered
    if point is None:
        return MaskedNode()
    return point if move is None else point + move


def _step(param: mx.array, y: mx.array | None, change: mx.array | None) -> mx.array | None:
    """What brings a parameter to the new y: if it is the old one, the change itself."""
    return change if change is None or y is None else y - param


# Whole optimizers


def _warmed_up(where: str, learning_rate: ScalarOrSchedule, warmup_steps: int) -> ScalarOrSchedule:
    """The learning rate of the authors' warm-up, whose first step is no loss: it has the rate ``1 / warmup_steps``."""
    checks.scalar_or_schedule(where, low=0.0, learning_rate=learning_rate)
    checks.whole(where, warmup_steps=warmup_steps)
    if warmup_steps < 2:
        return learning_rate
    ramp = linear_schedule(1 / warmup_steps, 1.0, warmup_steps - 1)
    return lambda count: ramp(count) * (learning_rate(count) if callable(learning_rate) else learning_rate)


@readable
def schedule_free_sgd(
    learning_rate: ScalarOrSchedule = 1.0,
    warmup_steps: int = 0,
    b1: float = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    weight_lr_power: float = 2.0,
) -> GradientTransformation:
    """Step as SGD does, with an average of the parameters in place of momentum and of a decay of the learning rate.

    Args:
        learning_rate: Number or schedule; a constant one is meant.
        warmup_steps: Steps of a linear warm-up, the last of which has the whole rate.
        b1: Share of the average in the parameters, above 0 and at most 1.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        weight_lr_power: Power of the learning rate by which a step is weighed in the average.

    Example:
        >>> schedule_free_sgd(0.5)
        schedule_free_sgd(learning_rate=0.5, b1=0.9, weight_lr_power=2.0)

    Reference:
        Defazio et al., "The Road Less Scheduled", 2024, arXiv:2405.15682.
    """
    _require_average("schedule_free_sgd", b1, weight_lr_power)

    def at(learning_rate: float) -> GradientTransformation:
        inner = chain(add_decayed_weights(weight_decay, mask), scale(-learning_rate))
        return schedule_free(inner, learning_rate, b1, weight_lr_power)

    return inject_hyperparams(at)(_warmed_up("schedule_free_sgd", learning_rate, warmup_steps))


@readable
def schedule_free_adamw(
    learning_rate: ScalarOrSchedule = 0.0025,
    warmup_steps: int = 0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    weight_lr_power: float = 2.0,
) -> GradientTransformation:
    """Step as AdamW does, with an average of the parameters in place of momentum and of a decay of the learning rate.

    Args:
        learning_rate: Number or schedule; a constant one is meant, larger than AdamW's.
        warmup_steps: Steps of a linear warm-up, the last of which has the whole rate.
        b1: Share of the average in the parameters, above 0 and at most 1.
        b2: Decay of the power.
        eps: Added to the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        weight_lr_power: Power of the learning rate by which a step is weighed in the average.

    Example:
        >>> schedule_free_adamw(0.0025, warmup_steps=1000).init({"w": mx.zeros((2,))}).hyperparams
        {'learning_rate': array(2.5e-06, dtype=float32)}

    Reference:
        Defazio et al., "The Road Less Scheduled", 2024, arXiv:2405.15682.
    """
    _require_average("schedule_free_adamw", b1, weight_lr_power)

    def at(learning_rate: float) -> GradientTransformation:
        direction = scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
        inner = chain(direction, add_decayed_weights(weight_decay, mask), scale(-learning_rate))
        return schedule_free(inner, learning_rate, b1, weight_lr_power)

    return inject_hyperparams(at)(_warmed_up("schedule_free_adamw", learning_rate, warmup_steps))


@readable
def schedule_free_radam(
    learning_rate: ScalarOrSchedule = 0.0025,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    weight_lr_power: float = 2.0,
) -> GradientTransformation:
    """Step as schedule-free AdamW does, with RAdam's correction in place of a warm-up.

    While the power is not known well enough (four steps, or about so many) nothing moves.

    Args:
        learning_rate: Number or schedule; a constant one is meant.
        b1: Share of the average in the parameters, above 0 and at most 1.
        b2: Decay of the power, above 0.
        eps: Added to the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        weight_lr_power: Power of the learning rate, corrected, by which a step is weighed in the average.

    Example:
        >>> schedule_free_radam(0.0025).init({"w": mx.zeros((2,))}).hyperparams
        {'learning_rate': array(0.0025, dtype=float32)}

    Reference:
        Defazio et al., "The Road Less Scheduled", 2024, arXiv:2405.15682; Liu et al., arXiv:1908.03265.
    """
    _require_average("schedule_free_radam", b1, weight_lr_power)
    checks.scalar_or_schedule("schedule_free_radam", low=0.0, learning_rate=learning_rate)
    checks.decay_rate("schedule_free_radam", b2=b2)
    checks.positive("schedule_free_radam", b2=b2)
    corrected = rectification(b2, 4.0)

    def at(learning_rate: float) -> GradientTransformation:
        def rate(count: mx.array) -> mx.array:
            return learning_rate * corrected(safe_increment(count))

        direction = scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
        steps = scale_by_schedule(lambda count: -rate(count))
        return schedule_free(
            chain(direction, add_decayed_weights(weight_decay, mask), steps), rate, b1, weight_lr_power
        )

    return inject_hyperparams(at)(learning_rate)
