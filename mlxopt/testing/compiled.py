"""Laws of what a factory builds, held on small fixed problems: compiled, printed, and with injected hyperparameters."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation
from mlxopt.testing.comparing import are_within, number, require, shape_of, ulp
from mlxopt.testing.problems import Problem, nested_problem, plain_problem, problem_without_scalar
from mlxopt.testing.subjects import Subject, run


class Step(NamedTuple):
    """Parameters and state after one step from the same start, compiled and eager, and the eager updates."""

    compiled: tuple[Any, Any]
    eager: tuple[Any, Any]
    updates: Any


class CompiledRun(NamedTuple):
    """The steps of a compiled loop, and how often it was traced."""

    steps: list[Step]
    traces: int


def set_anew(state: Any, index: int) -> Any:
    """Set every learning rate and weight decay in a state; a state without one stays as it is."""
    values = {"learning_rate": 0.1 / (1 + index), "weight_decay": 0.02 * index}
    return tree.set(state, {path: value for name, value in values.items() for path in tree.get_all(state, name)})


def functions_among(extra: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part extra arguments into functions, which a compiled program can only close over, and arrays."""
    functions = {name: value for name, value in extra.items() if callable(value)}
    return functions, {name: value for name, value in extra.items() if name not in functions}


def compiled_run(build: Callable[[], GradientTransformation], problem: Problem) -> CompiledRun:
    """Run with hyperparameters that are set anew at every step."""
    tx, traces = build(), []
    functions, _ = functions_among(problem.extras(problem.grads[0]))

    def counted(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        traces.append(1)
        return tx.update(updates, state, params, **extra, **functions)

    step = mo.compile_update(GradientTransformation(tx.init, counted))
    params, state, steps = problem.params, tx.init(problem.params), []
    for index, grads in enumerate(problem.grads):
        state, extra = set_anew(state, index), problem.extras(grads)
        updates, eager_state = tx.update(grads, state, params, **extra)
        eager = mo.apply_updates(params, updates), eager_state
        params, state = step(grads, state, params, **functions_among(extra)[1])
        steps.append(Step((params, state), eager, updates))
    return CompiledRun(steps, len(traces))


@functools.cache
def plain_run(subject: Subject) -> CompiledRun:
    # Scalars are another graph; whole optimizers are chains of what is compiled with them as well.
    problem = problem_without_scalar() if subject.recipe else plain_problem()
    return compiled_run(subject.build, problem._replace(extras=subject.extras))


@functools.cache
def nested_run(subject: Subject) -> CompiledRun:
    problem = nested_problem(last=(2,) if subject.recipe else ())
    return compiled_run(subject.build, problem._replace(extras=subject.extras))


@functools.cache
def bfloat16_run(subject: Subject) -> CompiledRun:
    return compiled_run(subject.build, problem_without_scalar(mx.bfloat16)._replace(extras=subject.extras))


def require_equal(steps: list[Step]) -> None:
    for step in steps:
        require(shape_of(step.compiled) == shape_of(step.eager))
        require(tree.allclose(step.compiled, step.eager, rtol=1e-5, atol=1e-6))


def compiled_equals_eager(subject: Subject) -> None:
    """A compiled step gives what eager calls give, also where hyperparameters are set between steps."""
    require_equal(plain_run(subject).steps)


def compiled_equals_eager_in_nested_trees(subject: Subject) -> None:
    """A compiled step gives what eager calls give in nested trees with holes and in any key order."""
    require_equal(nested_run(subject).steps)


def compiled_follows_eager_in_bfloat16(subject: Subject) -> None:
    """In bfloat16 a compiled step differs from eager calls by no more than their additional rounding."""
    for step in bfloat16_run(subject).steps:
        (params, state), (eager_params, eager_state) = step.compiled, step.eager
        require(
            are_within(lambda p, q, u: mx.maximum(ulp(p), ulp(q)) + 0.5 * ulp(u), params, eager_params, step.updates)
        )
        require(shape_of(state) == shape_of(eager_state))
        require(are_within(lambda x, y: 1e-5 * mx.abs(y) + ulp_of_memory(y), state, eager_state))


def ulp_of_memory(x: mx.array) -> mx.array:
    """Memory in bfloat16 may be rounded the other way."""
    return ulp(x) if x.dtype == mx.bfloat16 else mx.array(0.0)


def one_trace_is_enough(subject: Subject) -> None:
    """One trace serves all steps, also where hyperparameters are set between them."""
    require(plain_run(subject).traces == 1)
    require(nested_run(subject).traces == 1)


def prints_as_its_expression(subject: Subject) -> None:
    """What is printed builds the same again."""
    tx = subject.build()
    printed = repr(tx)
    require(printed.startswith(f"{tx.name}("))
    require("(...)" not in printed, "decorate the factory with mlxopt.readable")
    if "<lambda>" not in printed:
        names = {**subject.names, **vars(mo), **vars(mo.schedules), "mx": mx}
        require(repr(eval(printed, names)) == printed)


def injected_hyperparameters_change_nothing(subject: Subject) -> None:
    """Numbers that are read from the state give the same updates as where they are not, to 1e-5 of the largest."""
    problem = plain_problem()._replace(extras=subject.extras)
    build = mo.inject_hyperparams(subject.factory, static_args=subject.static)
    plain, injected = run(subject.build(**in_float32(subject)), problem), run(build(**subject.settings), problem)
    for one, other in zip(plain.updates, injected.updates, strict=True):
        require(shape_of(one) == shape_of(other))
        require(are_within(lambda x, y: 1e-5 * mx.max(mx.abs(x)), one, other))


def in_float32(subject: Subject) -> dict[str, float]:
    """The numbers among the arguments as a state holds them: in the place of 0.9999 it is 0.99989998."""
    bound = inspect.signature(subject.factory).bind(**subject.settings)
    bound.apply_defaults()
    numbers = {name: value for name, value in bound.arguments.items() if type(value) is float}
    return {name: number(mx.array(value)) for name, value in numbers.items() if name not in subject.static}
