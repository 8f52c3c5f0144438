"""Modules of mlx.nn as pure functions; and what importing the room costs."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from test_architecture import loaded_by

import mlxopt as mo
from mlxopt import tree
from mlxopt.interop import functional
from mlxopt.testing.comparing import same

X, Y = mx.array([[1.0, -1.0], [2.0, 0.5], [0.0, 1.0]]), mx.array([[0.0], [1.0], [0.5]])


def mse(model: Any, x: mx.array, y: mx.array) -> mx.array:
    return nn.losses.mse_loss(model(x), y)


def contents(model: Any) -> Any:
    """Everything in a model that a call could change: arrays, modes, what is frozen, in their order."""
    return [
        (path, type(part).__name__, list(part), dict(vars(part), _no_grad=set(part._no_grad)))
        for path, part in model.named_modules()
    ], [(path, id(leaf)) for path, leaf in dict(tree_flatten(model)).items()]


def test_a_model_is_a_function_of_its_parameters() -> None:
    model = nn.Linear(2, 1)
    loss, params = functional(model, mse), model.trainable_parameters()
    assert loss(params, X, Y) == mse(model, X, Y)
    other = tree.map(lambda p: p + 1.0, params)
    value, grads = mx.value_and_grad(loss)(other, X, Y)
    assert mx.array_equal(model.weight, params["weight"])
    model.update(other)
    expected, expected_grads = nn.value_and_grad(model, mse)(model, X, Y)
    assert value == expected
    assert same(grads, expected_grads)


def test_a_compiled_loop_leaves_no_placeholder_in_the_model() -> None:
    mx.random.seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    before = contents(model)
    tx = mo.adamw(0.05)
    params = model.trainable_parameters()
    state, step = tx.init(params), mo.compile_step(functional(model, mse), tx)
    first = mse(model, X, Y)
    for _ in range(60):
        params, state, loss = step(params, state, X, Y)
        mx.eval(params, state)
        assert contents(model) == before
    assert loss < 0.1 * first
    assert mse(model, X, Y) == first
    model.update(params)
    assert mse(model, X, Y) < loss + 1e-3


def test_some_parameters_are_enough() -> None:
    """Frozen layers, as in the fine-tuning of adapters, keep what the model has."""
    model = nn.Sequential(nn.QuantizedLinear(64, 64), nn.Linear(64, 1))
    model.layers[0].freeze()
    params = model.trainable_parameters()
    assert tree.paths(params) == ["layers.1.weight", "layers.1.bias"]
    x = mx.ones((1, 64))
    loss = functional(model, lambda model, x: mx.sum(model(x)))
    assert mx.allclose(loss(tree.zeros_like(params), x), mx.array(0.0))
    grads = mx.grad(loss)(params, x)
    assert tree.paths(grads) == tree.paths(params)
    masked = {"layers": [{}, {"weight": mx.zeros((1, 64)), "bias": None}]}
    assert loss(masked, x) == model.layers[1].bias
    digits = {"layers": {"1": params["layers"][1]}}
    assert loss(digits, x) == loss(params, x)


class Careless(nn.Module):
    """A layer that writes all kinds of things into itself."""

    cache: Any
    layers: Any

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weight = mx.array([1.0, 2.0])
        self.cache = mx.array(0.0)
        self.seen = [mx.array(0.0)]
        self.layers = (nn.Linear(2, 2),)
        self.name = "before"

    def __call__(self, x: mx.array) -> mx.array:
        self.cache = x
        self.seen.append(x)
        self.seen[0] = x
        self.added = x * self.weight
        self.layers[0].weight = x
        self.layers = []
        self.name = "after"
        self.cache = None
        self.eval()
        return self.added


def test_what_a_call_writes_is_undone() -> None:
    model = Careless()
    seen, before = model.seen, contents(model)
    double = functional(model, lambda model, x: 2 * model(x))
    assert double({"weight": mx.array([3.0, 4.0])}, mx.array([1.0, 1.0])).tolist() == [6.0, 8.0]
    mx.eval(mx.compile(double)({"weight": mx.array([3.0, 4.0])}, mx.array([1.0, 1.0])))
    assert contents(model) == before
    assert model.seen is seen
    assert model.name == "before"
    assert model.training


def test_the_model_is_restored_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    before = contents(model)

    def failing(model: Any) -> None:
        model.layers[0].weight = mx.zeros((1,))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        functional(model, failing)(tree.zeros_like(model.parameters()))
    with pytest.raises(tree.TreeError, match=r"functional: at 'layers.1.weight': shape \(3,\) does not fit shape"):
        functional(model, mse)({"layers": [{"bias": mx.zeros((2,))}, {"weight": mx.zeros((3,))}]}, X, Y)
    assert contents(model) == before


def test_running_statistics_are_handed_in_and_out() -> None:
    mx.random.seed(0)
    norm = nn.BatchNorm(3)
    model = nn.Sequential(nn.Linear(2, 3), norm, nn.Linear(3, 1))
    reference = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm(3), nn.Linear(3, 1))
    reference.update(model.parameters())

    def normed_loss(model: Any, stats: Any, x: mx.array, y: mx.array) -> Any:
        norm.update(stats)
        loss = mse(model, x, y)
        return loss, {"running_mean": norm.running_mean, "running_var": norm.running_var}

    tx = mo.sgd(0.1)
    params, stats = model.trainable_parameters(), {name: norm[name] for name in ("running_mean", "running_var")}
    state, step = tx.init(params), mo.compile_step(functional(model, normed_loss), tx, has_aux=True)
    for _ in range(3):
        params, state, loss, stats = step(params, state, stats, X, Y)
        expected, grads = nn.value_and_grad(reference, mse)(reference, X, Y)
        reference.update(mo.apply_updates(reference.trainable_parameters(), tree.scale(-0.1, grads)))
        assert mx.allclose(loss, expected, rtol=1e-5)
    assert norm.running_mean.tolist() == [0.0, 0.0, 0.0]
    model.update(params)
    norm.update(stats)
    assert tree.allclose(model.parameters(), reference.parameters(), rtol=1e-4, atol=1e-5)


def test_dropout_differs_from_step_to_step() -> None:
    mx.random.seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 1))
    tx = mo.sgd(0.0)
    params = model.trainable_parameters()
    state, step = tx.init(params), mo.compile_step(functional(model, mse), tx)
    losses = {step(params, state, X, Y)[2].item() for _ in range(10)}
    assert len(losses) > 3
    silent = functional(model, lambda model, x, y: mse(model.eval(), x, y))
    assert silent(params, X, Y) == silent(params, X, Y)
    assert model.training


def test_gradients_may_be_taken_inside() -> None:
    """With gradient checkpointing layers write into themselves when the loss is known already."""
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    before, params = contents(model), model.trainable_parameters()
    first = nn.utils.checkpoint(model.layers[0])

    def loss(model: Any, x: mx.array, y: mx.array) -> mx.array:
        return nn.losses.mse_loss(model.layers[2](mx.tanh(first(x))), y)

    grads_fn = functional(model, nn.value_and_grad(model, loss))
    tx = mo.sgd(0.1)

    @mx.compile
    def step(params: Any, state: Any, x: mx.array, y: mx.array) -> Any:
        value, grads = grads_fn(params, x, y)
        updates, state = tx.update(grads, state, params)
        return mo.apply_updates(params, updates), state, value

    new_params, _, value = step(params, tx.init(params), X, Y)
    expected, grads = nn.value_and_grad(model, mse)(model, X, Y)
    assert mx.allclose(value, expected)
    assert tree.allclose(new_params, mo.apply_updates(params, tree.scale(-0.1, grads)), rtol=1e-5, atol=1e-6)
    model.update(params)
    assert contents(model) == before


def test_functions_may_call_each_other() -> None:
    model = nn.Linear(2, 1)
    inner = functional(model, mse)
    zero = tree.zeros_like(model.parameters())
    outer = functional(model, lambda model, x, y: (inner(zero, x, y), mse(model, x, y)))
    ones = tree.ones_like(zero)
    at_zero, at_ones = outer(ones, X, Y)
    assert at_zero == inner(zero, X, Y)
    assert at_ones == inner(ones, X, Y)
    stacked = tree.map(lambda a, b: mx.stack([a, b]), zero, ones)
    assert mx.allclose(mx.vmap(inner, in_axes=(0, None, None))(stacked, X, Y), mx.stack([at_zero, at_ones]))


def test_what_functional_does_not_take() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(TypeError, match=r"functional: model must be a module of mlx.nn, got a dict"):
        functional({}, mse)
    with pytest.raises(TypeError, match="functional: fn must be a function of the model, got 3"):
        functional(model, 3)  # type: ignore[arg-type]
    loss = functional(model, mse)
    wrong: list[tuple[Any, str]] = [
        (model, "functional: .* got the module Linear where a tree of arrays is needed"),
        ({"wieght": mx.zeros((1, 2))}, "functional: at 'wieght': the model has no such parameter"),
        ({"weight": {"a": mx.zeros((1, 2))}}, "functional: at 'weight': every leaf must be an mx.array, got {'a'"),
        ({"weight": 3.0}, "functional: at 'weight': every leaf must be an mx.array, got 3.0"),
        (mx.array(1.0), "functional: .*: expected a tree of parameters, got an array"),
        (None, "functional: .*: expected a tree of parameters, got None"),
    ]
    for params, message in wrong:
        with pytest.raises(tree.TreeError, match=message):
            loss(params, X, Y)
    with pytest.raises(tree.TreeError, match=r"functional: what fn returns: at '1': got the module Linear"):
        functional(model, lambda model: (mx.array(1.0), model))(model.parameters())


def test_importing_costs_nothing_before_it_is_used() -> None:
    assert not {name for name in loaded_by("import mlxopt") if name.startswith("mlxopt.interop")}
    loaded = loaded_by("import mlxopt.interop.optimizers as optim")
    assert "mlxopt.interop" in loaded
    assert not {"mlx.nn", "mlx.optimizers", "mlx.utils"} & loaded
