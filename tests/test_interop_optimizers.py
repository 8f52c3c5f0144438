"""The drop-in for mlx.optimizers, held against the original: numbers, layout of the state, manners."""

import inspect
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as theirs
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from test_kernels import kernels

import mlxopt.interop.optimizers as ours
from mlxopt import tree
from mlxopt.testing.comparing import are_within, same, shape_of, ulp

STEPS = 24

CASES: dict[str, dict[str, Any]] = {
    "SGD": {},
    "SGD momentum": {"momentum": 0.9},
    "SGD nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "SGD dampening": {"momentum": 0.8, "dampening": 0.3},
    "SGD decay": {"weight_decay": 0.2},
    "RMSprop": {},
    "RMSprop options": {"alpha": 0.5, "eps": 1e-3},
    "Adagrad": {},
    "Adagrad options": {"eps": 0.1},
    "AdaDelta": {},
    "AdaDelta options": {"rho": 0.5, "eps": 1e-2},
    "Adam": {},
    "Adam bias": {"bias_correction": True},
    "Adam options": {"betas": (0.5, 0.9), "eps": 1e-2, "bias_correction": True},
    "Adam no memory": {"betas": [0.0, 0.0], "eps": 1.0},
    "AdamW": {},
    "AdamW bias": {"bias_correction": True, "weight_decay": 0.3},
    "AdamW no decay": {"betas": [0.5, 0.9], "eps": 1e-2, "weight_decay": 0.0},
    "Adamax": {},
    "Adamax options": {"betas": [0.5, 0.9], "eps": 0.3},
    "Lion": {},
    "Lion options": {"betas": [0.5, 0.6], "weight_decay": 0.5},
    "Adafactor": {},
    "Adafactor rate": {"relative_step": False, "beta_1": 0.9, "weight_decay": 0.1},
    "Adafactor warmup": {"scale_parameter": False, "warmup_init": True, "weight_decay": 0.5},
    "Adafactor options": {"clip_threshold": 0.3, "decay_rate": -0.5, "eps": (1e-5, 0.1)},
    "Muon": {},
    "Muon options": {"momentum": 0.5, "weight_decay": 0.0, "nesterov": False, "ns_steps": 3},
}

CLASSES = ["SGD", "RMSprop", "Adagrad", "AdaDelta", "Adam", "AdamW", "Adamax", "Lion", "Adafactor", "Muon"]


def build(module: Any, case: str, learning_rate: Any = 0.05) -> Any:
    return getattr(module, case.split()[0])(learning_rate, **CASES[case])


def problem(seed: int, dtype: mx.Dtype = mx.float32) -> Any:
    """Nested parameters or gradients: 0 to 4 axes, dicts, lists, a tuple, a layer without parameters."""
    keys = iter(mx.random.split(mx.random.key(seed), 10))

    def leaf(*shape: int) -> mx.array:
        return mx.random.normal(shape, key=next(keys)).astype(dtype)

    return {
        "layers": [{"weight": leaf(4, 3), "bias": leaf(4)}, {"weight": leaf(3, 8)}, {}],
        "kernel": leaf(6, 3, 2, 4),
        "scale": leaf(),
        "pair": (leaf(5), leaf(2, 2)),
    }


def rounding(case: str, step: int) -> float:
    """By what share a step of one may differ from that of the other, both being float32 arithmetic.

    The formulas agree; they are rounded in another order, in less than 16 operations. With bias correction MLX takes
    from 1 a power that is rounded to 2**-24, which at first costs digits that we keep. Newton-Schulz multiplies the
    rounding of small singular values by 3.4445 at every step.
    """
    options = CASES[case]
    share = 16 * 2.0**-24
    if options.get("bias_correction"):
        share += sum(2.0**-24 / (1 - beta**step) for beta in options.get("betas", [0.9, 0.999]))
    if case.startswith("Muon"):
        share *= 3.4445 ** options.get("ns_steps", 5)
    return float(share)


@pytest.mark.parametrize("case", CASES)
def test_same_numbers_and_same_state(case: str) -> None:
    """Parameters may drift apart by the rounding of each step and by one unit in the last place for adding it."""
    original, drop_in = build(theirs, case), build(ours, case)
    expected = params = problem(0)
    bound = tree.zeros_like(params)
    for step in range(1, STEPS + 1):
        before, grads = expected, problem(step)
        expected = original.apply_gradients(tree.map(mx.array, grads), tree.map(mx.array, expected))
        params = drop_in.apply_gradients(grads, params)
        share = rounding(case, step)
        bound = tree.map(
            lambda b, old, new, share=share: (
                b + share * mx.max(mx.abs(new - old)) + 2 * ulp(mx.maximum(abs(old), 1e-2))
            ),
            bound,
            before,
            expected,
        )
        assert are_within(lambda p, q, b: b, params, expected, bound)
    assert shape_of(drop_in.state) == shape_of(original.state)
    assert tree.allclose(drop_in.state, original.state, rtol=1e-5, atol=1e-6)


def test_signatures_are_those_of_mlx() -> None:
    names = [name for name, value in vars(theirs).items() if getattr(value, "__module__", "").startswith("mlx.optim")]
    assert {"AdamW", "MultiOptimizer", "clip_grad_norm", "join_schedules"} <= set(names)
    for name in names:
        expected, own = (inspect.signature(getattr(module, name)).parameters for module in (theirs, ours))
        for parameter, counterpart in zip(expected.values(), list(own.values())[: len(expected)], strict=True):
            assert (parameter.name, parameter.kind) == (counterpart.name, counterpart.kind)
            same_default = counterpart.default == parameter.default
            assert same_default or list(counterpart.default) == list(parameter.default)


def test_classes_descend_from_one_another_as_in_mlx() -> None:
    for name in [*CLASSES, "MultiOptimizer"]:
        expected = [base.__name__ for base in getattr(theirs, name).__mro__]
        assert [base.__name__ for base in getattr(ours, name).__mro__ if base.__name__ != "Transformed"] == expected
    assert ours.schedulers.cosine_decay is ours.cosine_decay


def test_only_the_optimizers_of_mlx_are_in_the_module() -> None:
    """Programs that look for all optimizers find no others."""
    found = {name for name, value in vars(ours).items() if inspect.isclass(value)}
    assert found == {*CLASSES, "Optimizer", "MultiOptimizer"}


# State: lived in, saved, exchanged


def form(state: Any) -> dict[str, Any]:
    """Paths, shapes and dtypes of a state; a file keeps no order of keys, and MLX none of a MultiOptimizer."""
    return {path: (leaf.shape, leaf.dtype) for path, leaf in tree.items(state)}


def saved_and_loaded(state: Any) -> Any:
    """MLX's recipe for saving and loading."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "optimizer.safetensors")
        mx.save_safetensors(file, dict(tree_flatten(state)))
        loaded = mx.load(file)
        assert isinstance(loaded, dict)
        mx.eval(loaded)
    return tree_unflatten(loaded)


def shorter(seed: int) -> Any:
    """Without the tuple and the empty layer, with which MLX's MultiOptimizer and files have their difficulties."""
    whole = problem(seed)
    return {"layers": whole["layers"][:2], "kernel": whole["kernel"], "scale": whole["scale"]}


def advanced(optimizer: Any, params: Any, steps: range) -> Any:
    for step in steps:
        params = optimizer.apply_gradients(shorter(step), params)
    return params


def multi(module: Any) -> Any:
    return module.MultiOptimizer(
        [module.Muon(0.05), module.AdamW(0.05), module.SGD(0.05, momentum=0.9)],
        [lambda path, leaf: leaf.ndim > 1, lambda path, leaf: path.endswith("bias")],
    )


@pytest.mark.parametrize(("first", "second"), [(theirs, ours), (ours, theirs), (ours, ours)])
@pytest.mark.parametrize("case", [*CLASSES, "Adafactor rate", "multi"])
def test_one_continues_where_the_other_stopped(case: str, first: Any, second: Any) -> None:
    def new(module: Any) -> Any:
        return multi(module) if case == "multi" else build(module, case, module.cosine_decay(0.1, 20))

    whole = advanced(new(first), shorter(0), range(1, 11))
    stopped, resumed = new(first), new(second)
    params = advanced(stopped, shorter(0), range(1, 6))
    resumed.state = saved_and_loaded(stopped.state)
    resumed_params = advanced(resumed, params, range(6, 11))
    assert tree.allclose(resumed_params, whole, rtol=2e-5, atol=2e-6)
    if first is second:
        assert same(resumed_params, whole)
    continued = advanced(stopped, params, range(6, 11))
    assert same(continued, whole)
    assert form(resumed.state) == form(stopped.state)


def test_a_bfloat16_state_of_mlx_is_widened() -> None:
    original: Any = theirs.AdamW(0.1)
    drop_in = ours.AdamW(0.1)
    params, grads = ({"w": mx.full((3,), value, mx.bfloat16)} for value in (1.0, 0.5))
    original.update(params, grads)
    drop_in.state = saved_and_loaded(original.state)
    drop_in.update(params, grads)
    assert form(drop_in.state["w"]) == form({"m": mx.zeros((3,)), "v": mx.zeros((3,))})
    assert mx.allclose(drop_in.state["w"]["m"], mx.array(0.095), rtol=2**-8)
    assert drop_in.step == 2


@pytest.mark.parametrize("case", CLASSES)
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_low_precision_is_trained_in_float32(case: str, dtype: mx.Dtype) -> None:
    """The parameters of one step are those of float32 training, rounded once; the memory is exactly the same."""
    rounded, exact = build(ours, case), build(ours, case)
    params, grads = problem(0, dtype), problem(1, dtype)
    result = rounded.apply_gradients(grads, params)
    expected = exact.apply_gradients(tree.cast(grads, mx.float32), tree.cast(params, mx.float32))
    assert same(result, tree.cast(expected, dtype))
    assert same(rounded.state, exact.state)


def test_a_zero_gradient_in_float16_is_harmless() -> None:
    zeros = {"w": mx.zeros((2,), mx.float16)}
    assert mx.all(mx.isnan(theirs.Adam(0.1).apply_gradients(zeros, zeros)["w"]))
    assert same(ours.Adam(0.1).apply_gradients(zeros, zeros), zeros)


def test_the_state_is_one_dict_for_ever() -> None:
    optimizer = ours.Adam(0.1)
    state = optimizer.state
    state["hello"] = "world"
    assert list(state) == ["step", "learning_rate", "hello"]
    model = {"w": mx.array(1.0), "frozen": mx.array(3.0)}
    optimizer.update(model, {"w": mx.array(1.0)})
    memory = state["w"]
    optimizer.update(model, {"w": mx.array(1.0)})
    assert optimizer.state is state
    assert state["w"] is memory
    assert state["hello"] == "world"
    assert model["frozen"] == 3.0
    given = {"step": mx.array(7, mx.int32), "learning_rate": mx.array(0.5), "w": dict(memory)}
    optimizer.state = given
    optimizer.update(model, {"w": mx.array(1.0)})
    assert optimizer.state is state
    assert given["step"] == 7  # what was assigned is not written to
    assert optimizer.step == 8
    assert optimizer.step.dtype == mx.uint64
    optimizer.state = optimizer.state
    assert optimizer.step == 8


def test_anything_may_be_assigned_but_not_used() -> None:
    optimizer = ours.SGD(0.1)
    optimizer.state = {0: 1}
    assert optimizer.state == {0: 1}
    with pytest.raises(KeyError, match=r"SGD: the state must have a 'step', got \[0\]"):
        optimizer.update({}, {})
    with pytest.raises(TypeError, match="SGD: state must be a dict, got 3"):
        optimizer.state = 3  # type: ignore[assignment]


def test_a_state_that_does_not_fit_is_an_error_and_names_the_place() -> None:
    adam, lion = ours.Adam(0.1), ours.Lion(0.1)
    params = {"layers": [{"w": mx.zeros((2, 2))}]}
    lion.init(params)
    adam.state = lion.state
    with pytest.raises(tree.TreeError, match=r"Adam: at 'layers.0.w': the state must hold \['m', 'v'\], got \['m'\]"):
        adam.apply_gradients(params, params)
    lion.state = {**lion.state, "layers": [{"w": {"m": mx.zeros((2, 3))}}]}
    with pytest.raises(tree.TreeError, match=r"Lion: at 'layers.0.w': shape \(2, 3\) does not fit shape \(2, 2\)"):
        lion.apply_gradients(params, params)


def test_parameters_may_not_have_the_names_of_scalars() -> None:
    for name in ("step", "learning_rate"):
        for parameter in (mx.array(1.0), {"w": mx.array(1.0)}):
            with pytest.raises(tree.TreeError, match=f"SGD: at '{name}': the state keeps an array of shape"):
                ours.SGD(0.1).init({name: parameter})
    ours.SGD(0.1).init({"layer": {"step": mx.array(1.0)}})


def test_parameters_and_gradients_must_fit() -> None:
    optimizer, w = ours.SGD(0.1), mx.zeros((2, 2))
    with pytest.raises(TypeError, match=r"SGD: parameters must be a dict, got \[array"):
        optimizer.init([w])
    with pytest.raises(tree.TreeError, match=r"SGD: at 'a.b': there is a gradient, but no parameter"):
        optimizer.apply_gradients({"a": {"b": w}}, {"a": {}})
    with pytest.raises(tree.TreeError, match=r"SGD: at 'a': expected two arrays, got an array .* for a list"):
        optimizer.apply_gradients({"a": w}, {"a": [w]})
    with pytest.raises(tree.TreeError, match=r"at 'a.b': shape \(2, 1\) does not fit shape \(2, 2\)"):
        ours.SGD(0.1).apply_gradients({"a": {"b": w[:, :1]}}, {"a": {"b": w}})
    with pytest.raises(tree.TreeError, match=r"SGD: .*dotted paths must differ, got \['a.b', 'a.b'\]"):
        ours.SGD(0.1).apply_gradients({"a": {"b": w}, "a.b": w}, {"a": {"b": w}, "a.b": w})


def test_a_failed_update_changes_nothing() -> None:
    params = {"a": mx.ones((2,)), "b": mx.ones((2,))}
    optimizer = ours.Adam(ours.linear_schedule(0.1, 0.0, 10))
    for _ in range(2):  # before and after the first update
        before = tree.map(lambda leaf: leaf, {"step": optimizer.step, "learning_rate": optimizer.learning_rate})
        with pytest.raises(tree.TreeError, match=r"at 'b': shape \(1,\) does not fit shape \(2,\)"):
            optimizer.apply_gradients({"a": mx.ones((2,)), "b": mx.ones((1,))}, params)
        assert same({"step": optimizer.step, "learning_rate": optimizer.learning_rate}, before)
        optimizer.apply_gradients(params, params)
    assert same(optimizer.state["a"], optimizer.state["b"])
    assert optimizer.step == 2


def test_thawed_layers_get_a_memory_by_init() -> None:
    optimizer, params = ours.Adam(0.1), {"a": mx.array(1.0), "b": mx.array(1.0)}
    optimizer.apply_gradients({"a": params["a"]}, params)
    with pytest.raises(tree.TreeError, match=r"Adam: at 'b': the state has no memory of this parameter. Call init"):
        optimizer.apply_gradients(params, params)
    optimizer.init(params)
    assert optimizer.state["a"]["m"] > 0
    assert optimizer.apply_gradients(params, params)["b"] < 1.0


def test_layers_without_parameters_come_back_from_a_file() -> None:
    params = {"layers": [{}, {"w": mx.array(1.0)}, {}], "act": {}}
    for module in (theirs, ours):
        optimizer, other = module.Adam(0.1), module.Adam(0.1)
        optimizer.init(params)
        assert optimizer.state["layers"][::2] == [{}, {}]
        other.state = saved_and_loaded(optimizer.state)
        other.apply_gradients(params, params)
        assert form(other.state) == form(optimizer.state)
        assert other.state["layers"][::2] == [{}, {}]


# Learning rates and other settings


def test_the_learning_rate_may_be_set_and_a_schedule_overrules_it() -> None:
    optimizer = ours.SGD(0.5)
    optimizer.learning_rate = 1
    assert optimizer.learning_rate.dtype == mx.float32
    assert optimizer.apply_gradients({"w": mx.array(1.0)}, {"w": mx.array(3.0)})["w"] == 2.0
    optimizer = ours.SGD(-0.5)
    assert optimizer.apply_gradients({"w": mx.array(1.0)}, {"w": mx.array(3.0)})["w"] == 3.5
    optimizer = ours.SGD(lambda step: 0.5)  # a number from a schedule crashes in MLX
    optimizer.learning_rate = 7.0
    assert optimizer.apply_gradients({"w": mx.array(1.0)}, {"w": mx.array(3.0)})["w"] == 2.5
    with pytest.raises(KeyError, match=r"Adafactor: the state holds no learning_rate, got \['step'\]"):
        _ = ours.Adafactor().learning_rate
    with pytest.raises(KeyError, match="Adafactor: the state holds no learning_rate"):
        ours.Adafactor(relative_step=False).apply_gradients({"w": mx.array(1.0)}, {"w": mx.array(3.0)})


def test_schedules_count_from_zero_and_below_a_boundary_do_not_wrap() -> None:
    seen: list[Any] = []

    def schedule(step: mx.array) -> mx.array:
        seen.append((step - 2).item())  # with MLX's unsigned step, 2**64 - 2
        return 0.1 / (1 + step)

    original: Any = theirs.SGD(lambda step: 0.1 / (1 + step))
    optimizer = ours.SGD(schedule)
    for _ in range(3):
        original.update({}, {})
        optimizer.update({}, {})
        assert mx.allclose(original.learning_rate, optimizer.learning_rate)
    assert seen == [-2, -2, -1, 0]


@pytest.mark.parametrize(
    ("schedule", "updates", "documented"),
    [
        (ours.exponential_decay(1e-1, 0.9), 5, 0.06561),
        (ours.step_decay(1e-1, 0.9, 10), 21, 0.081),
        (ours.cosine_decay(1e-1, 1000), 5, 0.0999961),
        (ours.linear_schedule(0, 1e-1, 100), 101, 0.1),
        (
            ours.join_schedules([ours.linear_schedule(0, 1e-1, steps=10), ours.cosine_decay(1e-1, 200)], [10]),
            12,
            0.0999938,
        ),
    ],
    ids=["exponential_decay", "step_decay", "cosine_decay", "linear_schedule", "join_schedules"],
)
def test_the_numbers_in_the_documentation_of_mlx(schedule: Any, updates: int, documented: float) -> None:
    optimizer = ours.Adam(learning_rate=schedule)
    assert optimizer.learning_rate == schedule(0)
    for _ in range(updates):
        optimizer.update({}, {})
    assert float(f"{optimizer.learning_rate.item():.6g}") == documented


def test_settings_may_be_changed_as_attributes() -> None:
    optimizers: list[Any] = [ours.AdamW(0.1), theirs.AdamW(0.1)]
    params, grads = {"w": mx.array([1.0, -2.0])}, {"w": mx.array([0.5, 0.5])}
    for each in optimizers:
        each.betas, each.eps, each.weight_decay, each.bias_correction = [0.5, 0.5], 0.1, 0.5, True
    moved, expected = (each.apply_gradients(grads, params) for each in optimizers)
    assert tree.allclose(moved, expected, rtol=1e-6)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("SGD", {"momentum": 1.5}, "momentum must be in"),
    ("SGD", {"momentum": -0.5}, "momentum must be in"),
    ("SGD", {"weight_decay": -1.0}, "weight_decay must be in"),
    ("SGD", {"dampening": 2.0}, "dampening must be in"),
    ("SGD", {"nesterov": True}, "nesterov must come with a momentum and without dampening, got momentum=0.0"),
    ("RMSprop", {"alpha": 1.0}, "alpha must be in"),
    ("RMSprop", {"eps": 0.0}, "eps must be >0, got 0.0"),
    ("Adagrad", {"eps": -1.0}, "eps must be >0, got -1.0"),
    ("AdaDelta", {"rho": -0.1}, "rho must be in"),
    ("AdaDelta", {"eps": 0.0}, "eps must be >0"),
    ("Adam", {"betas": [0.9, 1.0]}, r"betas\[1\] must be in"),
    ("Adam", {"betas": [0.9]}, r"betas must be two numbers, got \[0.9\]"),
    ("Adam", {"eps": -1.0}, "eps must be in"),
    ("AdamW", {"weight_decay": -1.0}, "weight_decay must be in"),
    ("Adamax", {"betas": [-0.1, 0.9]}, r"betas\[0\] must be in"),
    ("Lion", {"betas": [0.9, 1.0]}, r"betas\[1\] must be in"),
    ("Lion", {"weight_decay": -1.0}, "weight_decay must be in"),
    ("Adafactor", {"decay_rate": 0.8}, "decay_rate must be in"),
    ("Adafactor", {"eps": (0.0, 1e-3)}, r"eps\[0\] must be above 0"),
    ("Adafactor", {"clip_threshold": 0.0}, "clip_threshold must be above 0"),
    ("Adafactor", {"beta_1": 1.0}, "beta_1 must be in"),
    ("Muon", {"momentum": 1.0}, "momentum must be in"),
    ("Muon", {"ns_steps": 0}, "ns_steps must be in"),
    ("Muon", {"weight_decay": -1.0}, "weight_decay must be in"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_settings_are_checked(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        getattr(ours, name)(0.1, **options)


# Compiled with captured state, on two leaves: every new graph costs half a second of g++


def small(seed: int) -> Any:
    whole = problem(seed)
    return {"layers": [whole["layers"][0]]}


@pytest.mark.parametrize("case", ["SGD momentum", "AdamW bias", "Adafactor rate", "Muon"])
def test_captured_in_a_compiled_step(case: str) -> None:
    """Lazily made state costs a second trace, a rate that is set none, and the numbers are those of an eager step."""
    optimizer, eager, traces = build(ours, case), build(ours, case), []
    model, expected = small(0), small(0)
    state = [model, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(grads: Any) -> None:
        traces.append(1)
        optimizer.update(model, grads)

    for index in range(1, 6):
        optimizer.learning_rate = eager.learning_rate = 0.1 / index
        step(small(index))
        expected = eager.apply_gradients(small(index), expected)
        mx.eval(state)
        assert tree.allclose(model, expected, rtol=1e-5, atol=1e-6)
    assert tree.allclose(optimizer.state, eager.state, rtol=1e-5, atol=1e-6)
    assert len(traces) == 2


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_captured_step_is_one_kernel_for_each_leaf(tmp_path: Path, dtype: mx.Dtype) -> None:
    def count(leaves: int) -> int:
        optimizer = ours.AdamW(0.1, bias_correction=True)
        model = {f"w{index}": mx.ones((8, 8), dtype) for index in range(leaves)}
        grads = {name: mx.ones((8, 8), dtype) for name in model}
        optimizer.init(model)
        state = [model, optimizer.state]
        mx.eval(state, grads)
        mx.compile(lambda grads: optimizer.update(model, grads), inputs=state, outputs=state)(grads)
        return kernels(tmp_path, state).total()

    assert count(5) - count(3) == 2


@pytest.mark.parametrize("case", ["AdamW", "multi"])
def test_a_captured_state_may_be_loaded_anew(case: str) -> None:
    """The program finds the arrays of a file, in which the keys have another order, at the places of the old ones."""

    def new() -> Any:
        return multi(ours) if case == "multi" else ours.AdamW(0.05)

    optimizer, eager = new(), new()
    model, expected = small(0), small(0)
    optimizer.init(model)
    state = [model, optimizer.state]
    step = mx.compile(lambda grads: optimizer.update(model, grads), inputs=state, outputs=state)
    for index in range(1, 4):
        step(small(index))
        expected = eager.apply_gradients(small(index), expected)
        optimizer.state = saved_and_loaded(optimizer.state)
    assert tree.allclose(model, expected, rtol=1e-5, atol=1e-6)


def test_captured_with_a_schedule_and_with_inputs_only() -> None:
    optimizer = ours.SGD(ours.exponential_decay(0.1, 0.9))
    update = mx.compile(lambda: optimizer.update({}, {}), inputs=optimizer.state, outputs=optimizer.state)
    for index in range(4):
        update()
        assert mx.allclose(optimizer.learning_rate, mx.array(0.1 * 0.9**index))
    optimizer = ours.SGD(-1.0)
    params, grads = {"w": mx.ones((5, 5))}, {"w": mx.ones((5, 5))}
    apply = mx.compile(lambda grads: optimizer.apply_gradients(grads, params), inputs=optimizer.state)
    assert mx.all(apply(grads)["w"] == 2.0)
    optimizer.learning_rate = -2.0
    assert mx.all(apply(grads)["w"] == 3.0)


def test_a_pure_step_takes_the_state_and_returns_it() -> None:
    model = nn.Linear(3, 2)
    start, x = model.parameters(), mx.ones((4, 3))

    def loss(params: Any, x: mx.array) -> Any:
        model.update(params)
        return mx.sum(mx.square(model(x)))

    def run(transform: Callable[..., Any]) -> Any:
        optimizer = ours.SGD(0.01, momentum=0.9)

        def step(params: Any, state: Any, x: mx.array) -> tuple[Any, Any]:
            optimizer.state = state
            return optimizer.apply_gradients(mx.grad(loss)(params, x), params), optimizer.state

        optimizer.init(start)
        params, state, advance = start, optimizer.state, transform(step)
        for _ in range(3):
            params, state = advance(params, state, x)
        return params

    assert tree.allclose(run(mx.compile), run(lambda step: step), rtol=1e-5)


def test_a_module_keeps_what_is_frozen() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    model.layers[0].freeze()
    frozen = model.layers[0].weight

    def loss(model: Any, x: mx.array) -> mx.array:
        return mx.mean(mx.square(model(x) - 1.0))

    optimizer, x = ours.AdamW(0.05), mx.array([[1.0, 2.0], [0.5, -1.0]])
    optimizer.init(model)  # of a module, what can be trained
    first, _ = nn.value_and_grad(model, loss)(model, x)
    for _ in range(40):
        last, grads = nn.value_and_grad(model, loss)(model, x)
        optimizer.update(model, grads)
        mx.eval(model.parameters(), optimizer.state)
    assert last < 0.1 * first
    assert mx.array_equal(model.layers[0].weight, frozen)
    assert list(dict(tree.items(optimizer.state))) == [
        "step",
        "learning_rate",
        *(f"layers.2.{name}.{memory}" for name in ("weight", "bias") for memory in "mv"),
    ]


# Optimizers of the user


def shrinking(module: Any) -> Any:
    """A subclass written for MLX, with a scheduled setting."""

    class Shrinking(module.Optimizer):  # type: ignore[misc]
        def __init__(self, learning_rate: Any, share: Any) -> None:
            super().__init__()
            self._maybe_schedule("learning_rate", learning_rate)
            self._maybe_schedule("share", share)

        def init_single(self, parameter: mx.array, state: dict[str, Any]) -> None:
            state["sum"] = mx.zeros_like(parameter)

        def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
            state["sum"] = state["sum"] + gradient
            share = self.state["share"]
            moved: mx.array = parameter * (1 - share) - self.learning_rate * state["sum"] / self.step
            return moved

    return Shrinking(0.1, module.linear_schedule(0.5, 0.0, 4))


def halving_vectors(module: Any) -> Any:
    """A subclass of an optimizer, which calls its rule."""

    class HalvingVectors(module.AdamW):  # type: ignore[misc]
        def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
            moved: mx.array = super().apply_single(gradient, parameter, state)
            return moved if parameter.ndim > 1 else (moved + parameter) / 2

    return HalvingVectors(0.1, bias_correction=True)


@pytest.mark.parametrize("subclass", [shrinking, halving_vectors])
def test_subclasses_work_as_in_mlx(subclass: Callable[[Any], Any]) -> None:
    original, drop_in = subclass(theirs), subclass(ours)
    expected = params = problem(0)
    for step in range(1, 8):
        expected = original.apply_gradients(problem(step), expected)
        params = drop_in.apply_gradients(problem(step), params)
    assert tree.allclose(params, expected, rtol=1e-5, atol=1e-5)
    assert shape_of(drop_in.state) == shape_of(original.state)


def test_a_subclass_may_remember_more() -> None:
    class Counting(ours.Lion):
        def init_single(self, parameter: mx.array, state: dict[str, Any]) -> None:
            super().init_single(parameter, state)
            state["seen"] = mx.array(0)

        def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
            state["seen"] = state["seen"] + 1
            return super().apply_single(gradient, parameter, state)

    optimizer = Counting(0.1)
    for _ in range(3):
        optimizer.apply_gradients({"w": mx.array(1.0)}, {"w": mx.array(1.0)})
    assert optimizer.state["w"]["seen"] == 3


def test_what_a_subclass_must_write() -> None:
    class Silent(ours.Optimizer):
        pass

    class Remembering(ours.Optimizer):
        def init_single(self, parameter: mx.array, state: dict[str, Any]) -> None:
            state["m"] = parameter

    with pytest.raises(NotImplementedError, match="Silent: init_single must be written"):
        Silent().init({"w": mx.array(1.0)})
    with pytest.raises(NotImplementedError, match="Remembering: apply_single must be written"):
        Remembering().apply_gradients({"w": mx.array(1.0)}, {"w": mx.array(1.0)})


# Several optimizers in one


def test_multi_optimizer_has_the_numbers_and_the_state_of_mlx() -> None:
    original, drop_in = multi(theirs), multi(ours)
    expected, params = (advanced(optimizer, shorter(0), range(1, 8)) for optimizer in (original, drop_in))
    assert list(params) == list(shorter(0))
    assert tree.allclose(params, expected, rtol=1e-4, atol=1e-5)
    assert form(drop_in.state) == form(original.state)


def test_multi_optimizer_takes_what_that_of_mlx_does_not() -> None:
    layers = {"layers": [{"w": mx.ones((2, 2)), "bias": mx.ones((2,))}, {}, {"w": mx.ones((2, 2))}], "s": mx.array(1.0)}
    with pytest.raises(ValueError, match="same locations"):
        multi(theirs).apply_gradients(layers, layers)
    for params in (layers, problem(0), {"blocks": {"1": mx.ones((2,)), "0": mx.ones((2, 2))}}):
        optimizer = multi(ours)
        for _ in range(2):
            assert shape_of(optimizer.apply_gradients(params, params)) == shape_of(params)
        optimizer.state = saved_and_loaded(optimizer.state)
        optimizer.apply_gradients(params, params)
        assert optimizer.step == 3


def test_multi_optimizer_has_the_manners_of_an_optimizer() -> None:
    optimizer = multi(ours)
    state = optimizer.state
    optimizer.init(problem(0))
    optimizer.apply_gradients(problem(1), problem(0))
    assert optimizer.state is state
    assert optimizer.step == 1
    optimizer.learning_rate = 0.5
    assert [part.learning_rate.item() for part in optimizer.optimizers] == [0.5] * 3
    assert optimizer.learning_rate == 0.5
    wrong: Any
    for wrong in ({}, {"states": []}, [], {"states": 3}):
        with pytest.raises(ValueError, match="MultiOptimizer: state must be a dict with 3 'states'"):
            optimizer.state = wrong
    assert optimizer.step == 1
    with pytest.raises(ValueError, match="filters must be one fewer than optimizers, got 0 for 2"):
        ours.MultiOptimizer([ours.SGD(0.1), ours.SGD(0.1)])
    with pytest.raises(tree.TreeError, match="MultiOptimizer: at 'w': there is a gradient, but no parameter"):
        optimizer.apply_gradients({"w": mx.array(1.0)}, {})


def test_filters_see_parameters_at_init_and_at_update() -> None:
    params, grads = {"a": mx.zeros((2,), mx.bfloat16), "b": mx.zeros((2,))}, {"a": mx.ones((2,)), "b": mx.ones((2,))}
    for initialize in (True, False):
        optimizer = ours.MultiOptimizer(
            [ours.SGD(1.0), ours.SGD(2.0)], [lambda path, parameter: parameter.dtype == mx.bfloat16]
        )
        if initialize:
            optimizer.init(params)
        moved = optimizer.apply_gradients(grads, params)
        assert [moved[name][0].item() for name in "ab"] == [-1.0, -2.0]


def test_a_parameter_that_several_filters_take_goes_to_the_first_of_them() -> None:
    for module in (ours, theirs):
        parts = [module.SGD(1.0), module.SGD(2.0), module.SGD(3.0)]
        optimizer = module.MultiOptimizer(parts, [lambda path, leaf: path != "b", lambda path, leaf: path != "c"])
        moved = optimizer.apply_gradients(
            {name: mx.ones((1,)) for name in "ab"}, {name: mx.zeros((1,)) for name in "ab"}
        )
        assert [moved[name].item() for name in "ab"] == [-1.0, -2.0]


def has_axes(axes: int, path: str, leaf: mx.array) -> bool:
    del path
    return leaf.ndim == axes


def test_optimizers_for_none_or_all_parameters() -> None:
    for axes in (0, 1):
        optimizer = ours.MultiOptimizer([ours.SGD(1.0), ours.Adam(1.0)], [partial(has_axes, axes)])
        assert optimizer.apply_gradients({"w": mx.array(1.0)}, {"w": mx.array(2.0)})["w"] < 2.0
        assert optimizer.step == 1
        optimizer.update({}, {})
        assert optimizer.step == 2
    alone, original = (module.MultiOptimizer([module.Adam(1.0)]) for module in (ours, theirs))
    for each in (alone, original):
        each.init(problem(0))
    assert shape_of(alone.state) == shape_of(original.state)
    nested = ours.MultiOptimizer([multi(ours), ours.SGD(1.0)], [lambda path, leaf: path.startswith("layers")])
    assert shape_of(nested.apply_gradients(problem(1), problem(0))) == shape_of(problem(0))


def test_multi_optimizer_captured_in_a_compiled_step() -> None:
    optimizer, eager = multi(ours), multi(ours)
    model, expected = small(0), small(0)
    optimizer.init(model)
    state = [model, optimizer.state]
    step = mx.compile(lambda grads: optimizer.update(model, grads), inputs=state, outputs=state)
    for index in range(1, 4):
        step(small(index))
        expected = eager.apply_gradients(small(index), expected)
    assert tree.allclose(model, expected, rtol=1e-5, atol=1e-6)
    assert optimizer.step == 3


# Clipping


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 100.0])
def test_clip_grad_norm(max_norm: float) -> None:
    clipped, norm = ours.clip_grad_norm(problem(0), max_norm)
    expected, expected_norm = theirs.clip_grad_norm(problem(0), max_norm)
    assert tree.allclose(clipped, expected, rtol=1e-6)
    assert mx.allclose(norm, expected_norm, rtol=1e-6)
    assert shape_of(clipped) == shape_of(expected)


@pytest.mark.parametrize(("size", "max_norm"), [(1e-6, 1e-6), (3e-6, 1e-6), (0.0, 0.0), (0.0, 1.0)])
def test_clip_grad_norm_of_what_hardly_is_there(size: float, max_norm: float) -> None:
    (clipped, _), (expected, _) = (
        module.clip_grad_norm({"w": mx.array([size])}, max_norm) for module in (ours, theirs)
    )
    assert mx.allclose(clipped["w"], expected["w"], rtol=1e-6, atol=0.0)


def test_clip_grad_norm_keeps_dtypes_and_sums_in_float32() -> None:
    ones = {"a": mx.ones((1000,), mx.bfloat16)}
    assert theirs.clip_grad_norm(ones, 1.0)[1] != mx.sqrt(mx.array(1000.0))  # rounded to bfloat16
    grads = {**ones, "b": mx.zeros((2,), mx.float16), "c": mx.array([0, 0])}
    clipped, norm = ours.clip_grad_norm(grads, 1.0)
    assert mx.allclose(norm, mx.sqrt(mx.array(1000.0)))
    assert [clipped[name].dtype for name in "abc"] == [mx.bfloat16, mx.float16, mx.float32]
    assert ours.clip_grad_norm({}, 1.0)[1] == 0.0
    with pytest.raises(ValueError, match="clip_grad_norm: max_norm must be in"):
        ours.clip_grad_norm(grads, -1.0)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["Adam", "MultiOptimizer"])
def test_the_step_may_be_set_to_a_python_number(name: str, compiled: bool) -> None:
    def run(module: Any, step: Any) -> Any:
        single = module.Adam(lambda count: 0.1 / (1 + count), bias_correction=True)
        optimizer = module.MultiOptimizer([single, module.SGD(0.1)], [lambda *_: True]) if name != "Adam" else single
        params = problem(0)
        optimizer.init(params)
        (single.state if name != "Adam" else optimizer.state)["step"] = step

        def update(grads: Any, params: Any) -> Any:
            return optimizer.apply_gradients(grads, params)

        if compiled:
            update = mx.compile(update, inputs=optimizer.state, outputs=optimizer.state)
        for seed in range(3):
            params = update(problem(seed), params)
        return params, single.state["step"]

    params, step = run(ours, 100)
    assert step.item() == 103
    assert tree.allclose(params, run(ours, mx.array(100, mx.uint64))[0], rtol=1e-5, atol=1e-6)


def test_a_schedule_cannot_be_set_as_learning_rate() -> None:
    optimizer = ours.Adam(0.1)
    optimizer.apply_gradients(problem(1), problem(0))
    schedule = ours.cosine_decay(0.1, 10)
    with pytest.raises(
        TypeError, match=r"Adam: learning_rate must be set to a number, got cosine_decay\(.* new\.state ="
    ):
        optimizer.learning_rate = schedule  # type: ignore[assignment]
    new = ours.Adam(schedule)
    new.state = optimizer.state
    new.apply_gradients(problem(2), problem(0))
    assert new.step.item() == 2
    assert mx.allclose(new.learning_rate, schedule(1))
