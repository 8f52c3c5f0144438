"""Stepping only sometimes: guards, and transformations that wait for a condition."""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Inner, Params, State, Updates, require_transformation
from mlxopt.numerics.scalars import count_if, new_count, safe_increment
from mlxopt.readable import readable
from mlxopt.signatures import keywords_of

Condition = Callable[..., Any]
"""Function of the count of updates, and of extra arguments that it asks for by keyword, to a truth value."""


class ApplyIfFiniteState(NamedTuple):
    """Memory of :func:`apply_if_finite`."""

    notfinite_count: mx.array  # int32: updates in a row that were not finite
    last_finite: mx.array  # bool: were the last updates finite?
    total_notfinite: mx.array  # int32: updates that were not finite, in all
    inner_state: State


@readable
def apply_if_finite(inner: GradientTransformation, max_consecutive_errors: int) -> GradientTransformation:
    """Leave out updates that hold a NaN or an infinity: parameters and inner state stay as they are.

    After ``max_consecutive_errors`` of them in a row it lets the next ones through until finite updates come again: a
    run that is broken for good should not look as if it went on. The state counts them.

    Args:
        inner: Transformation that sees finite updates only.
        max_consecutive_errors: Bad updates in a row that are left out.

    Example:
        >>> from mlxopt import sgd
        >>> tx = apply_if_finite(sgd(0.5), 3)
        >>> params = {"w": mx.array(1.0)}
        >>> updates, state = tx.update({"w": mx.array(float("nan"))}, tx.init(params), params)
        >>> updates, tree.get(state, "total_notfinite")
        ({'w': array(0, dtype=float32)}, array(1, dtype=int32))
    """
    require_transformation("apply_if_finite", inner)
    checks.whole("apply_if_finite", low=0, max_consecutive_errors=max_consecutive_errors)

    def init_fn(params: Params) -> ApplyIfFiniteState:
        return ApplyIfFiniteState(new_count(), mx.array(True), new_count(), inner.init(params))

    def update_fn(
        updates: Updates, state: ApplyIfFiniteState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ApplyIfFiniteState]:
        finite = tree.all_finite(updates)
        in_a_row = mx.where(finite, 0, safe_increment(state.notfinite_count))
        in_all = count_if(~finite, state.total_notfinite)
        stepped = inner.update(updates, state.inner_state, params, **extra)
        waited = tree.zeros_like(updates), state.inner_state
        changed, inner_state = tree.where(finite | (in_a_row > max_consecutive_errors), stepped, waited)
        return changed, ApplyIfFiniteState(in_a_row, finite, in_all, inner_state)

    return GradientTransformation(init_fn, update_fn, inner=[Inner(inner, ("inner_state",))], as_stored=True)


class ConditionallyTransformState(NamedTuple):
    """Memory of :func:`conditionally_transform` and :func:`conditionally_mask`."""

    step: mx.array  # int32: updates seen
    inner_state: State


@readable
def conditionally_transform(inner: GradientTransformation, should_transform_fn: Condition) -> GradientTransformation:
    """Apply a transformation to the updates for which a condition holds, and pass the others on unchanged.

    Args:
        inner: Transformation of some updates; of the others it sees and remembers nothing.
        should_transform_fn: Function of the count of updates so far, and of any extra argument of ``update`` that it
            names as a keyword-only parameter, such as ``value``.

    Example:
        >>> from mlxopt import scale
        >>> tx = conditionally_transform(scale(10.0), lambda step: step % 2 == 1)
        >>> grads = {"w": mx.array(1.0)}
        >>> first, state = tx.update(grads, tx.init(grads))
        >>> second, state = tx.update(grads, state)
        >>> first, second
        ({'w': array(1, dtype=float32)}, {'w': array(10, dtype=float32)})
    """
    return _conditional("conditionally_transform", inner, should_transform_fn, lambda updates: updates)


@readable
def conditionally_mask(inner: GradientTransformation, should_transform_fn: Condition) -> GradientTransformation:
    """Apply a transformation to the updates for which a condition holds, and replace the others by zeros.

    Args:
        inner: Transformation of some updates; of the others it sees and remembers nothing.
        should_transform_fn: Function of the count of updates so far, and of any extra argument of ``update`` that it
            names as a keyword-only parameter, such as ``value``.

    Example:
        >>> from mlxopt import sgd
        >>> tx = conditionally_mask(sgd(0.5), lambda step, *, value: value < 10.0)
        >>> params = {"w": mx.array(1.0)}
        >>> tx.update({"w": mx.array(2.0)}, tx.init(params), params, value=mx.array(1e6))[0]
        {'w': array(0, dtype=float32)}
    """
    return _conditional("conditionally_mask", inner, should_transform_fn, tree.zeros_like)


def _conditional(
    name: str, inner: GradientTransformation, condition: Condition, otherwise: Callable[[Updates], Updates]
) -> GradientTransformation:
    require_transformation(name, inner)
    if not callable(condition):
        raise TypeError(f"{name}: should_transform_fn must be a function of the count, got {condition!r}. Pass one.")
    asked, required = keywords_of(condition)

    def init_fn(params: Params) -> ConditionallyTransformState:
        return ConditionallyTransformState(new_count(), inner.init(params))

    def update_fn(
        updates: Updates, state: ConditionallyTransformState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ConditionallyTransformState]:
        for missing in sorted(required - extra.keys()):
            raise TypeError(
                f"{name}: its condition needs the extra argument '{missing}'. Call update(..., {missing}=...)."
            )
        holds = condition(state.step, **{key: extra[key] for key in asked & extra.keys()})
        stepped = inner.update(updates, state.inner_state, params, **extra)
        changed, inner_state = tree.where(_truth(name, holds), stepped, (otherwise(updates), state.inner_state))
        return changed, ConditionallyTransformState(safe_increment(state.step), inner_state)

    return GradientTransformation(
        init_fn, update_fn, inner=[Inner(inner, ("inner_state",))], extras=asked, as_stored=True, reach="element"
    )


def _truth(name: str, holds: Any) -> mx.array:
    truth = mx.array(holds)
    if truth.shape != () or truth.dtype != mx.bool_:
        raise TypeError(
            f"{name}: should_transform_fn must return one truth value, got {truth.dtype} of shape {truth.shape}. "
            "Return a comparison."
        )
    return truth
