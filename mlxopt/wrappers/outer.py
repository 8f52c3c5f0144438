"""Two loops: an inner optimizer walks for some steps, and what it walked is a gradient for an outer one."""

from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import (
    GradientTransformation,
    Inner,
    Params,
    ScalarOrSchedule,
    State,
    Updates,
    require_transformation,
)
from mlxopt.combine import chain
from mlxopt.hyperparameters import inject_hyperparams
from mlxopt.numerics.dtypes import widen
from mlxopt.numerics.scalars import new_count, safe_increment
from mlxopt.readable import readable
from mlxopt.transforms.momentum import trace
from mlxopt.transforms.scaling import scale
from mlxopt.tree.structure import MaskedNode
from mlxopt.update import apply_updates, in_place_of
from mlxopt.wrappers.averaging import remembered


def outer_update(
    outer: GradientTransformation, anchor: Params, way_back: Updates, outer_state: State, **extra: Any
) -> tuple[Params, State]:
    """Take the way back from where an inner optimizer arrived for a gradient, and step from the anchor by an outer one.

    Args:
        outer: Whole optimizer.
        anchor: Parameters from which the inner one set out.
        way_back: The anchor minus where it arrived; the mean of that, if several machines set out.
        outer_state: State of the outer one.
        extra: Extra arguments for it.

    Example:
        >>> from mlxopt import sgd
        >>> outer, start = sgd(0.5), {"w": mx.array(1.0)}
        >>> outer_update(outer, start, {"w": mx.array(-2.0)}, outer.init(start))[0]
        {'w': array(2, dtype=float32)}
    """
    updates, outer_state = outer.update(way_back, outer_state, anchor, **extra)
    return apply_updates(anchor, updates), outer_state


class OuterOptimizerState(NamedTuple):
    """Memory of :func:`outer_optimizer`, :func:`outer_nesterov` and :func:`lookahead`."""

    mini_step: mx.array  # int32: inner steps since the last outer one
    anchor: Params  # parameters after the last outer step, float32 for low precision
    inner_state: State
    outer_state: State

    def eval_params(self, params: Params) -> Params:
        return in_place_of(params, self.anchor)


@readable
def outer_optimizer(
    inner: GradientTransformation, every: int, outer: GradientTransformation, *, reset_state: bool = False
) -> GradientTransformation:
    """Step with one optimizer, and after every few steps take their sum for the step of another one.

    The outer optimizer starts where its last step ended, at the *anchor*; its gradient is the anchor minus where the
    inner one arrived, and from its result the inner one goes on. :func:`eval_params` gives the anchor. Both must be
    whole optimizers, and nothing may change the updates behind them. The outer one computes in every step, since MLX
    has no conditional, and its result is chosen when it is due.

    Args:
        inner: Optimizer of every step.
        every: Inner steps for an outer one.
        outer: Optimizer of outer steps.
        reset_state: Start the inner optimizer anew after every outer step: its memory, its counts and what was set in
            its state.

    Example:
        >>> from mlxopt import apply_updates, eval_params, sgd
        >>> tx, params = outer_optimizer(sgd(1.0), 2, sgd(0.5)), {"w": mx.array(4.0)}
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     updates, state = tx.update({"w": mx.array(1.0)}, state, params)
        ...     params = apply_updates(params, updates)
        >>> params, eval_params(state, params)
        ({'w': array(2, dtype=float32)}, {'w': array(3, dtype=float32)})

    Reference:
        Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023, arXiv:2311.08105.
    """
    require_transformation("outer_optimizer", inner)
    require_transformation("outer_optimizer", outer)
    checks.whole("outer_optimizer", low=1, every=every)

    def init_fn(params: Params) -> OuterOptimizerState:
        anchor = tree.map(remembered, params)
        return OuterOptimizerState(new_count(), anchor, inner.init(params), outer.init(anchor))

    def update_fn(
        updates: Updates, state: OuterOptimizerState, params: Params, **extra: Any
    ) -> tuple[Updates, OuterOptimizerState]:
        steps, inner_state = inner.update(updates, state.inner_state, params, **extra)
        arrived = tree.map(_arrived, params, state.anchor, steps, holes=True)
        stepped = outer_update(outer, state.anchor, tree.sub(state.anchor, arrived), state.outer_state, **extra)
        mini_step = safe_increment(state.mini_step)
        due = mini_step >= every
        anchor, outer_state = tree.where(due, stepped, (state.anchor, state.outer_state))
        jumps = tree.map(_jump, params, anchor, steps, holes=True)
        if reset_state:
            inner_state = tree.where(due, inner.init(in_place_of(params, anchor)), inner_state)
        return tree.where(due, jumps, steps), OuterOptimizerState(
            mx.where(due, 0, mini_step), anchor, inner_state, outer_state
        )

    parts = [Inner(inner, ("inner_state",)), Inner(outer, ("outer_state",))]
    return GradientTransformation(init_fn, update_fn, inner=parts, as_stored=True, reach="element")


def _arrived(param: mx.array, anchor: mx.array | None, step: mx.array | None) -> mx.array | MaskedNode:
    if anchor is None:
        return MaskedNode()
    return widen(param) if step is None else widen(param) + step


def _jump(param: mx.array, anchor: mx.array | None, step: mx.array | None) -> mx.array | None:
    return step if anchor is None or step is None else anchor - param


@readable
def outer_nesterov(
    inner: GradientTransformation,
    every: int,
    outer_learning_rate: ScalarOrSchedule = 0.7,
    momentum: float = 0.9,
) -> GradientTransformation:
    r"""Take the sum of every few steps for the gradient of an outer optimizer with Nesterov's momentum.

    .. math:: s = \bar w - w, \qquad b \leftarrow \mu b + s, \qquad
        w, \bar w \leftarrow \bar w - \eta (s + \mu b)

    every ``every`` steps, where :math:`\bar w` is the last result; :func:`eval_params` gives it.

    Args:
        inner: Whole optimizer of every step.
        every: Inner steps for an outer one.
        outer_learning_rate: Number or schedule of outer steps; the state shows it.
        momentum: Decay of the sum of outer gradients, below 1.

    Example:
        >>> from mlxopt import sgd
        >>> outer_nesterov(sgd(0.1), 30)
        outer_nesterov(sgd(0.1), 30, outer_learning_rate=0.7, momentum=0.9)

    Reference:
        Kallusky et al., "SNOO: Step-K Nesterov Outer Optimizer", 2025, arXiv:2510.15830.
    """
    require_transformation("outer_nesterov", inner)
    checks.whole("outer_nesterov", low=1, every=every)
    checks.scalar_or_schedule("outer_nesterov", low=0.0, outer_learning_rate=outer_learning_rate)
    checks.decay_rate("outer_nesterov", momentum=momentum)

    def step(outer_learning_rate: float) -> GradientTransformation:
        return scale(-outer_learning_rate)

    outer = chain(trace(momentum, nesterov=True), inject_hyperparams(step)(outer_learning_rate))
    return outer_optimizer(inner, every, outer)


@readable
def lookahead(
    inner: GradientTransformation, sync_period: int, slow_step_size: float, reset_state: bool = False
) -> GradientTransformation:
    """Let fast parameters run ahead, and pull them back part of the way to slow ones that follow them.

    The fast parameters are those that are trained. The state keeps the slow ones, and :func:`eval_params` gives them.

    Args:
        inner: Whole optimizer of the fast parameters.
        sync_period: Steps after which the two meet.
        slow_step_size: Part of the way to the fast parameters at which they meet, in [0, 1].
        reset_state: Start the inner optimizer anew after every meeting: its memory, its counts and what was set in its
            state.

    Example:
        >>> from mlxopt import apply_updates, eval_params, sgd
        >>> tx, params = lookahead(sgd(1.0), 2, 0.5), {"w": mx.array(4.0)}
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     updates, state = tx.update({"w": mx.array(1.0)}, state, params)
        ...     params = apply_updates(params, updates)
        >>> params, eval_params(state, params)
        ({'w': array(2, dtype=float32)}, {'w': array(3, dtype=float32)})

    Reference:
        Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019, arXiv:1907.08610.
    """
    require_transformation("lookahead", inner)
    checks.whole("lookahead", low=1, sync_period=sync_period)
    checks.number("lookahead", low=0.0, high=1.0, slow_step_size=slow_step_size)
    return outer_optimizer(inner, sync_period, scale(-slow_step_size), reset_state=reset_state)
