"""Step by step against mlx.optimizers, run live."""

from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim
import pytest

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation, Schedule
from mlxopt.testing.problems import plain_problem

STEPS = 12

PAIRS: dict[str, tuple[Callable[[], optim.Optimizer], Callable[[], GradientTransformation]]] = {
    "SGD": (lambda: optim.SGD(0.1), lambda: mo.sgd(0.1)),
    "SGD momentum": (
        lambda: optim.SGD(0.1, momentum=0.9, dampening=0.2),
        lambda: mo.sgd(0.1, momentum=0.9, dampening=0.2),
    ),
    "SGD nesterov": (
        lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda: mo.chain(mo.add_decayed_weights(0.01), mo.sgd(0.1, momentum=0.9, nesterov=True)),
    ),
    "RMSprop": (lambda: optim.RMSprop(0.01), lambda: mo.rmsprop(0.01, decay=0.99, eps_in_sqrt=False)),
    "Adagrad": (lambda: optim.Adagrad(0.1), lambda: mo.adagrad(0.1, 0.0, 1e-8, eps_in_sqrt=False)),
    "AdaDelta": (lambda: optim.AdaDelta(1.0), mo.adadelta),
    "Adam": (lambda: optim.Adam(0.05), lambda: mo.adam(0.05, bias_correction=False)),
    "Adam bias correction": (lambda: optim.Adam(0.05, bias_correction=True), lambda: mo.adam(0.05)),
    "AdamW": (lambda: optim.AdamW(0.05), lambda: mo.adamw(0.05, bias_correction=False)),
    "AdamW bias correction": (lambda: optim.AdamW(0.05, bias_correction=True), lambda: mo.adamw(0.05)),
    "Adamax": (lambda: optim.Adamax(0.05), lambda: mo.adamax(0.05, bias_correction=False)),
    "Lion": (lambda: optim.Lion(0.01, weight_decay=0.1), lambda: mo.lion(0.01, weight_decay=0.1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_same_parameters_at_every_step(name: str) -> None:
    theirs, tx = PAIRS[name][0](), PAIRS[name][1]()
    problem = plain_problem(steps=STEPS)
    expected = params = problem.params
    state = tx.init(params)
    for grads in problem.grads:
        # Before 0.32.4 SGD with weight decay changes the gradients it is given: let it have its own.
        expected = theirs.apply_gradients(tree.map(mx.array, grads), expected)
        updates, state = tx.update(grads, state, params)
        params = mo.apply_updates(params, updates)
        # mlx.optimizers forms 1 - b2**t in float32, which costs it up to 1e-5 in the first steps.
        assert tree.allclose(params, expected, rtol=2e-5, atol=2e-6)


SCHEDULES: dict[str, tuple[Schedule, Schedule]] = {
    "cosine_decay": (optim.cosine_decay(0.1, 8, 0.01), mo.cosine_decay(0.1, 8, 0.01)),
    "exponential_decay": (optim.exponential_decay(0.1, 0.9), mo.exponential_decay(0.1, 0.9)),
    "step_decay": (optim.step_decay(0.1, 0.5, 4), mo.step_decay(0.1, 0.5, 4)),
    "linear_schedule": (optim.linear_schedule(0.0, 0.1, 8), mo.linear_schedule(0.0, 0.1, 8)),
    "join_schedules": (
        optim.join_schedules([optim.linear_schedule(0.0, 0.1, 4), optim.cosine_decay(0.1, 6)], [4]),
        mo.join_schedules([mo.linear_schedule(0.0, 0.1, 4), mo.cosine_decay(0.1, 6)], [4]),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_same_learning_rate_after_every_step(name: str) -> None:
    """The rate read from the state after a step is the one the step used, in both."""
    theirs, tx = optim.SGD(SCHEDULES[name][0]), mo.sgd(SCHEDULES[name][1])
    problem = plain_problem(steps=STEPS)
    state, params = tx.init(problem.params), problem.params
    for grads in problem.grads:
        params = theirs.apply_gradients(grads, params)
        _, state = tx.update(grads, state)
        assert mx.allclose(tree.get(state, "learning_rate"), theirs.learning_rate, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("schedule", "updates", "documented"),
    [
        (mo.exponential_decay(1e-1, 0.9), 5, 0.06561),
        (mo.step_decay(1e-1, 0.9, 10), 21, 0.081),
        (mo.cosine_decay(1e-1, 1000), 5, 0.0999961),
    ],
    ids=["exponential_decay", "step_decay", "cosine_decay"],
)
def test_the_numbers_in_the_documentation_of_mlx(schedule: Schedule, updates: int, documented: float) -> None:
    tx = mo.sgd(schedule)
    state = tx.init({"w": mx.array(0.0)})
    for _ in range(updates):
        _, state = tx.update({"w": mx.array(1.0)}, state)
    assert float(f"{tree.get(state, 'learning_rate').item():.6g}") == documented


def test_clip_grad_norm() -> None:
    problem = plain_problem(steps=1)
    for bound in (0.5, 100.0):
        clipped, norm = optim.clip_grad_norm(problem.grads[0], bound)
        tx = mo.clip_by_global_norm(bound)
        updates, state = tx.update(problem.grads[0], tx.init(problem.params))
        assert tree.allclose(updates, clipped, rtol=1e-5)
        assert mx.allclose(state.global_norm, norm)
