"""Laws of what is built from a learning rate or a weight decay."""

import mlx.core as mx

import mlxopt as mo
from mlxopt import tree
from mlxopt.testing.comparing import number, require, same
from mlxopt.testing.problems import Extras, plain_problem
from mlxopt.testing.subjects import Recipe, Subject, run


def require_schedule_equals_number(build: Recipe, value: float, extras: Extras) -> None:
    """A constant schedule gives what the number gives, with the same form of state."""
    problem = plain_problem()._replace(extras=extras)
    number, schedule = run(build(value), problem), run(build(mo.constant_schedule(value)), problem)
    require(same(number.updates, schedule.updates))
    require(same(number.states, schedule.states))


def recipe_of(subject: Subject) -> tuple[Recipe, float]:
    """A whole optimizer by its learning rate, and the rate that suits it."""
    if subject.recipe is None or subject.rate is None:
        raise TypeError(f"{subject.name}: a learning rate must be given, got none. Pass rate=0.1.")
    return subject.recipe, subject.rate


def schedule_equals_number(subject: Subject) -> None:
    """A constant schedule gives what the number gives, with the same form of state."""
    require_schedule_equals_number(*recipe_of(subject), subject.extras)


def learning_rate_is_visible(subject: Subject) -> None:
    """The state shows the learning rate of the last update, and a constant one can be set there."""
    (build, rate), problem = recipe_of(subject), plain_problem()._replace(extras=subject.extras)
    falling = run(build(mo.linear_schedule(1.0, 0.0, 4)), problem)
    require([tree.get(state, "learning_rate").item() for state in falling.states] == [1.0, 1.0, 0.75, 0.5, 0.25])
    tx, grads = build(rate), problem.grads[0]
    stopped = tree.set(tx.init(problem.params), learning_rate=0.0)
    updates, _ = tx.update(grads, stopped, problem.params, **problem.extras(grads))
    require(same(tree.map(mx.abs, updates), tree.zeros_like(updates)))


def goes_downhill(subject: Subject) -> None:
    """From one side of an elongated bowl the loss falls to less than a quarter."""
    steps, (build, rate) = 150, recipe_of(subject)
    tx = build(mo.linear_schedule(rate, 0.0, steps))
    params = {"x": mx.array([3.0, -2.0])}
    curvature, state = mx.array([1.0, 0.2]), tx.init(params)
    for _ in range(steps):
        grads = {"x": curvature * params["x"]}
        updates, state = tx.update(grads, state, params, **subject.extras(grads))
        params = mo.apply_updates(params, updates)
    start, end = mx.sum(curvature * mx.array([9.0, 4.0])), mx.sum(curvature * mx.square(params["x"]))
    require(number(end) < 0.25 * number(start))


def decay_of(subject: Subject) -> Recipe:
    if subject.decay is None:
        raise TypeError(f"{subject.name}: the factory must take a weight_decay, got none. Leave this law out.")
    return subject.decay


def decay_schedule_equals_number(subject: Subject) -> None:
    """A constant schedule of the weight decay gives what the number gives, with the same form of state."""
    require_schedule_equals_number(decay_of(subject), 0.1, subject.extras)


def weight_decay_is_visible(subject: Subject) -> None:
    """The state shows the weight decay of the last update, and a constant one can be set there."""
    build, problem = decay_of(subject), plain_problem()._replace(extras=subject.extras)
    falling = run(build(mo.linear_schedule(1.0, 0.0, 4)), problem)
    require([tree.get(state, "weight_decay").item() for state in falling.states] == [1.0, 1.0, 0.75, 0.5, 0.25])
    stopped = tree.set(build(0.1).init(problem.params), weight_decay=0.0)
    require(same(run(build(0.1), problem, stopped).updates, run(build(0.0), problem).updates))
    require(not same(run(build(0.1), problem).updates, run(build(0.0), problem).updates))
