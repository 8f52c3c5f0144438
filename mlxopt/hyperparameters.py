"""Hyperparameters in the state: numbers to read and set there, or schedules."""

import functools
import inspect
import typing
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt.base import GradientTransformation, Inner, Params, State, Updates
from mlxopt.numerics.number import Held, NeedsValueError
from mlxopt.numerics.scalars import as_scalar, new_count, safe_increment, scheduled
from mlxopt.readable import arguments_as_text
from mlxopt.schedules.stateful import StatefulSchedule
from mlxopt.signatures import keywords_of
from mlxopt.tracing import inside


class InjectHyperparamsState(NamedTuple):
    """Memory of what :func:`inject_hyperparams` makes."""

    count: mx.array  # int32: updates seen
    hyperparams: dict[str, mx.array]  # float32: values of the last update; those that follow no schedule may be set
    schedule_states: tuple[State, ...]  # memory of the schedules that have one, in the order of hyperparams
    inner_state: State


def inject_hyperparams(
    inner_factory: Callable[..., GradientTransformation], static_args: str | Iterable[str] = ()
) -> Callable[..., GradientTransformation]:
    """Keep the hyperparameters of a transformation in its state, and let each of them follow a schedule.

    What the factory that comes back builds has the numbers among its arguments in its state, where
    ``tree.get(state, name)`` reads and ``tree.set(state, name=value)`` sets them, without a new trace. A schedule in
    the place of a number has its value at the count of updates, and the last word over what is set; a
    :class:`StatefulSchedule` has the value that its memory gives after this update.

    Arguments are such hyperparameters if they are floats, 0-d arrays or schedules, and stand for a number by their
    annotation, if they have one. Integers, masks and whatever else decides about shapes, loops or conditions
    stay as they are; so do defaults on which a condition depends.

    Args:
        inner_factory: Function that builds a transformation.
        static_args: Names of further arguments that stay as they are.

    Example:
        >>> from mlxopt import clip_by_global_norm, linear_schedule, tree
        >>> tx = inject_hyperparams(clip_by_global_norm)(linear_schedule(1.0, 0.5, 100))
        >>> state = tx.init({"w": mx.zeros((2,))})
        >>> updates, state = tx.update({"w": mx.array([3.0, 4.0])}, state)
        >>> updates, tree.get(state, "max_norm")
        ({'w': array([0.6, 0.8], dtype=float32)}, array(1, dtype=float32))
    """
    if not callable(inner_factory):
        raise TypeError(f"inject_hyperparams: inner_factory must be a function, got {inner_factory!r}. Pass adam, say.")
    fixed = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    for name in sorted(fixed - signature.parameters.keys()):
        raise ValueError(
            f"inject_hyperparams: static_args must name arguments, got {name!r}. There are {[*signature.parameters]}."
        )
    numbers = _numbers_among(inner_factory)

    def build(*args: Any, **kwargs: Any) -> GradientTransformation:
        bound = signature.bind(*args, **kwargs)
        said = {*bound.arguments}
        bound.apply_defaults()
        more = f", static_args={sorted(fixed)}" if fixed else ""
        name = f"inject_hyperparams({getattr(inner_factory, '__name__', 'factory')}{more})"

        def built(values: Mapping[str, Any]) -> GradientTransformation:
            arguments = inspect.BoundArguments(signature, OrderedDict({**bound.arguments, **values}))
            return inner_factory(*arguments.args, **arguments.kwargs)

        given = {
            argument: value
            for argument, value in bound.arguments.items()
            if argument not in fixed
            and argument in numbers
            and _is_hyperparameter(value, is_annotated=numbers[argument])
        }
        while True:
            try:
                tx = _with_hyperparams(built, given)
            except NeedsValueError as refused:
                if refused.name in said or refused.name not in given:
                    raise
                del given[refused.name]  # a default on which a condition depends
            else:
                return tx.spelled(name, lambda: f"{name}({arguments_as_text(bound)})")

    return build


def _numbers_among(factory: Callable[..., Any]) -> dict[str, bool]:
    """The parameters that may stand for a number, and whether their annotation says so."""
    innermost = inspect.unwrap(factory)
    while isinstance(innermost, functools.partial):
        innermost = inspect.unwrap(innermost.func)
    try:
        hints = typing.get_type_hints(innermost)
    except NameError:  # an annotation that is text and names something local
        hints = {}
    names = inspect.signature(factory).parameters
    return {name: name in hints for name in names if name not in hints or _admits_float(hints[name])}


def _admits_float(hint: Any) -> bool:
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return any(_admits_float(part) for part in typing.get_args(hint))
    return hint is float


def _is_hyperparameter(value: Any, is_annotated: bool) -> bool:
    if isinstance(value, Held):  # by the state of a transformation around this one
        return False
    if isinstance(value, mx.array):
        return value.ndim == 0
    follows = callable(value) or isinstance(value, StatefulSchedule)
    return follows or type(value) is float or (type(value) is int and is_annotated)


def _with_hyperparams(
    build: Callable[[Mapping[str, Any]], GradientTransformation], given: Mapping[str, Any]
) -> GradientTransformation:
    """A transformation that is built anew at every update, from the values of its hyperparameters in the state."""
    stateful = {name: value for name, value in given.items() if isinstance(value, StatefulSchedule)}
    extras = frozenset[str]().union(*(keywords_of(schedule.update)[0] for schedule in stateful.values()))

    def first(name: str) -> mx.array:
        value = given[name]
        if name in stateful:
            return as_scalar(value.value(value.init()))
        return as_scalar(value(new_count()) if callable(value) else value)

    def held(values: Mapping[str, mx.array]) -> GradientTransformation:
        return build({name: Held(value, name) for name, value in values.items()})

    held({name: first(name) for name in given})
    # Numbers are checked here once, as they were given; what is in the state later is not asked for its value.
    moving = [name for name, value in given.items() if callable(value) or name in stateful]
    prototype = build({name: Held(first(name), name) for name in moving})

    def init_fn(params: Params) -> InjectHyperparamsState:
        values = {name: first(name) for name in given}
        memories = tuple(schedule.init() for schedule in stateful.values())
        return InjectHyperparamsState(new_count(), values, memories, held(values).init(params))

    def update_fn(
        updates: Updates, state: InjectHyperparamsState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, InjectHyperparamsState]:
        if state.hyperparams.keys() != given.keys():
            raise TypeError(
                f"inject_hyperparams: state must hold the hyperparameters {[*given]}, got {[*state.hyperparams]}. "
                "Pass the state that this transformation's init or last update returned."
            )
        values = {name: scheduled(given[name], state.count, state.hyperparams[name]) for name in given}
        memories = []
        for (name, schedule), memory in zip(stateful.items(), state.schedule_states, strict=True):
            memories.append(_advanced(name, schedule, memory, extra))
            values[name] = as_scalar(inside(schedule.value)(memories[-1]))
        updates, inner_state = held(values).update(updates, state.inner_state, params, **extra)
        return updates, InjectHyperparamsState(safe_increment(state.count), values, tuple(memories), inner_state)

    inner = [Inner(prototype, ("inner_state",))]
    return GradientTransformation(init_fn, update_fn, inner=inner, extras=extras, as_stored=True, reach="element")


def _advanced(name: str, schedule: StatefulSchedule, memory: State, extra: Mapping[str, Any]) -> State:
    asked, required = keywords_of(schedule.update)
    for missing in sorted(required - extra.keys()):
        raise TypeError(
            f"inject_hyperparams: the schedule of '{name}' needs the extra argument '{missing}', got none. "
            f"Call update(..., {missing}=...)."
        )
    return inside(schedule.update)(memory, **{key: extra[key] for key in asked & extra.keys()})
