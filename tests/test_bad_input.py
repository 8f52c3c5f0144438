"""Every argument that makes no sense is an error that says what to do; a call that fails changes nothing."""

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from strategies import plain

import mlxopt
from mlxopt import GradientTransformation, TreeError, apply_updates, incremental_update, tree

NAN, INF = math.nan, math.inf


# Hyperparameters: for every factory, each argument that is checked and the kind of number that it must be

KINDS: dict[str, list[Any]] = {
    "number": [NAN, INF, None, "0.1", 1j, [0.1]],
    "non-negative": [-0.1, NAN, INF, None, "0.1", (0.1,)],
    "positive": [0.0, -1, NAN, -INF, None, "0.1", {}],
    "decay": [-0.1, 1.0, 1, 2, NAN, None, "0.9", lambda count: 0.9],
    "optional positive": [0.0, -1, NAN, INF, "0.1"],
    "optional decay": [-0.1, 1.0, NAN, INF, "0.9"],
    "share": [-0.1, 1.5, NAN, None, "0.5"],
    "optional schedule": [-1e-3, NAN, INF, "0.1", [0.1], object()],
    "schedule or non-negative": [-1e-3, NAN, INF, None, "0.1", [0.1], object()],
}

MOMENTS = {"b1": "decay", "b2": "decay", "eps": "non-negative", "eps_root": "non-negative"}
RMS = {"decay": "decay", "eps": "non-negative", "initial_scale": "non-negative"}
RATE = {"learning_rate": "schedule or non-negative"}
DECAYED = {"weight_decay": "schedule or non-negative"}

# The arguments a factory cannot do without, and those that are checked.
FACTORIES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "adafactor": (
        {},
        {
            "learning_rate": "optional schedule",
            "decay_rate": "positive",
            "clipping_threshold": "optional positive",
            "momentum": "optional decay",
            "eps": "positive",
            **DECAYED,
        },
    ),
    "adabelief": (RATE, {**RATE, **MOMENTS, **DECAYED}),
    "adadelta": ({}, {**RATE, "rho": "decay", "eps": "positive", **DECAYED}),
    "adagrad": (RATE, {**RATE, "initial_accumulator_value": "non-negative", "eps": "non-negative"}),
    "adam": (RATE, {**RATE, **MOMENTS}),
    "adamax": (RATE, {**RATE, "b1": "decay", "b2": "decay", "eps": "positive"}),
    "adamaxw": (RATE, {**RATE, "b1": "decay", "b2": "decay", "eps": "positive", **DECAYED}),
    "adamw": (RATE, {**RATE, **MOMENTS, **DECAYED}),
    "amsgrad": (RATE, {**RATE, **MOMENTS}),
    "lion": (RATE, {**RATE, "b1": "decay", "b2": "decay", **DECAYED}),
    "muon": (RATE, {**RATE, "beta": "decay", "eps": "non-negative", "consistent_rms": "optional positive", **DECAYED}),
    "nadam": (RATE, {**RATE, **MOMENTS}),
    "nadamw": (RATE, {**RATE, **MOMENTS, **DECAYED}),
    "radam": (RATE, {**RATE, **MOMENTS, "threshold": "positive"}),
    "rmsprop": (RATE, {**RATE, **RMS, "momentum": "optional decay"}),
    "scale_by_adadelta": ({}, {"rho": "decay", "eps": "positive"}),
    "scale_by_adam": ({}, MOMENTS),
    "scale_by_adamax": ({}, {"b1": "decay", "b2": "decay", "eps": "positive"}),
    "scale_by_amsgrad": ({}, MOMENTS),
    "scale_by_belief": ({}, MOMENTS),
    "scale_by_factored_rms": ({}, {"decay_rate": "positive", "epsilon": "positive"}),
    "scale_by_muon": ({}, {"beta": "decay", "eps": "non-negative"}),
    "scale_by_lion": ({}, {"b1": "decay", "b2": "decay", "smooth_beta": "positive"}),
    "scale_by_radam": ({}, {**MOMENTS, "threshold": "positive"}),
    "scale_by_rms": ({}, RMS),
    "scale_by_rss": ({}, {"initial_accumulator_value": "non-negative", "eps": "non-negative"}),
    "scale_by_stddev": ({}, RMS),
    "sgd": (RATE, {**RATE, "momentum": "optional decay"}),
    "sign_sgd": (RATE, RATE),
    "signum": (RATE, {**RATE, "beta": "decay"}),
    "add_decayed_weights": ({}, DECAYED),
    "add_noise": ({"eta": 0.1, "gamma": 0.5, "key": 0}, {"eta": "non-negative", "gamma": "non-negative"}),
    "centralize": ({}, {}),
    "clip": ({"max_delta": 1.0}, {"max_delta": "non-negative"}),
    "clip_by_block_rms": ({"threshold": 1.0}, {"threshold": "positive"}),
    "clip_by_global_norm": ({"max_norm": 1.0}, {"max_norm": "positive"}),
    "ema": ({"decay": 0.9}, {"decay": "decay"}),
    "monitor": ({"measures": {"norm": tree.norm}}, {}),
    "orthogonalize": ({}, {"eps": "non-negative"}),
    "scale": ({"step_size": 1.0}, {"step_size": "number"}),
    "scale_by_learning_rate": (RATE, RATE),
    "scale_by_param_block_norm": ({}, {"min_scale": "non-negative"}),
    "scale_by_param_block_rms": ({}, {"min_scale": "non-negative"}),
    "scale_by_shape": ({}, {"consistent_rms": "optional positive"}),
    "scale_by_schedule": ({"step_size_fn": lambda count: 1.0}, {}),
    "scale_by_sign": ({}, {}),
    "trace": ({"decay": 0.9}, {"decay": "decay", "dampening": "share"}),
    "zero_nans": ({}, {}),
}

BAD_VALUES = [
    (factory, argument, value)
    for factory, (_, checked) in FACTORIES.items()
    for argument, kind in checked.items()
    for value in KINDS[kind]
]


def build(factory: str, **arguments: Any) -> GradientTransformation:
    needed = {name: 0.1 if name in RATE else value for name, value in FACTORIES[factory][0].items()}
    tx: GradientTransformation = getattr(mlxopt, factory)(**{**needed, **arguments})
    return tx


def spelled(value: Any) -> str:
    """A value as messages show it: numbers plain, the rest by their representation."""
    return re.escape(repr(value))


def test_the_table_has_every_factory() -> None:
    public = {
        name
        for room in (mlxopt.optimizers, mlxopt.transforms)
        for name, thing in vars(room).items()
        if inspect.isfunction(thing) and inspect.signature(thing).return_annotation is GradientTransformation
    }
    assert public == set(FACTORIES)


@pytest.mark.parametrize("factory", FACTORIES)
def test_defaults_are_good_input(factory: str) -> None:
    assert isinstance(build(factory), GradientTransformation)


@pytest.mark.parametrize(("factory", "argument", "value"), BAD_VALUES)
def test_a_bad_hyperparameter_is_an_error_that_names_argument_and_value(
    factory: str, argument: str, value: Any
) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^\w+: {argument} must be .*got {spelled(value)}\. "):
        build(factory, **{argument: value})


@pytest.mark.parametrize("wrong", [ValueError, TypeError])
def test_a_number_out_of_range_is_a_value_error_and_another_thing_a_type_error(wrong: type[Exception]) -> None:
    value = -1.0 if wrong is ValueError else "high"
    with pytest.raises(wrong, match=rf"^scale_by_adam: b1 must be .*got {value!r}"):
        mlxopt.adam(0.1, b1=value)  # type: ignore[arg-type]


SPECIAL: list[tuple[Callable[[], Any], str]] = [
    (lambda: mlxopt.scale_by_lion(mode="soft"), r"scale_by_lion: mode must be one of 'hard', 'smooth'.*got 'soft'"),  # type: ignore[arg-type]
    (lambda: mlxopt.scale_by_lion(mode=None), r"scale_by_lion: mode must be one of .*got None"),  # type: ignore[arg-type]
    (lambda: mlxopt.sgd(0.1, nesterov=True), r"sgd: nesterov and dampening must come with momentum, got nesterov=True"),
    (lambda: mlxopt.sgd(0.1, dampening=0.5), r"sgd: nesterov and dampening must come with momentum.*dampening=0\.5"),
    (lambda: mlxopt.sgd(0.1, 0.9, dampening=2), r"trace: dampening must be in \[0, 1\], got 2"),
    (lambda: mlxopt.sgd(0.1, 0.9, True, dampening=0.5), r"trace: dampening must be 0 with nesterov, got 0\.5"),
    (lambda: mlxopt.trace(0.9, True, dampening=0.5), r"trace: dampening must be 0 with nesterov, got 0\.5"),
    (lambda: mlxopt.rmsprop(0.1, nesterov=True), r"rmsprop: nesterov must come with momentum, got momentum=None"),
    (lambda: mlxopt.radam(0.1, b2=0.0), r"scale_by_radam: b2 must be above 0, got 0\.0"),
    (lambda: mlxopt.radam(0.1, threshold=3.5), r"scale_by_radam: threshold must be in \[4, inf\], got 3\.5"),
    (lambda: mlxopt.scale_by_schedule(0.1), r"scale_by_schedule: step_size_fn must be a function, got 0\.1"),  # type: ignore[arg-type]
    (lambda: mlxopt.scale_by_schedule(None), r"scale_by_schedule: step_size_fn must be a function, got None"),  # type: ignore[arg-type]
    (lambda: mlxopt.add_noise(0.1, 0.5, -1), r"add_noise: key must be in \[0, 2\*\*31 - 1\], got -1"),
    (lambda: mlxopt.add_noise(0.1, 0.5, 1.5), r"add_noise: key must be an integer, got 1\.5"),  # type: ignore[arg-type]
    (lambda: mlxopt.add_noise(0.1, 0.5, None), r"add_noise: key must be an integer, got None"),  # type: ignore[arg-type]
    (lambda: mlxopt.add_noise(0.1, 0.5, True), r"add_noise: key must be an integer, got True"),
    (
        lambda: mlxopt.adamw(0.1, mask=lambda params: True),
        r"add_decayed_weights: mask must be a function of path and leaf",
    ),
    (
        lambda: mlxopt.adamw(0.1, mask=3).init(params()),
        r"add_decayed_weights: at 'w': every answer of mask must be True or False, got 3",
    ),
    (lambda: mlxopt.scale_by_factored_rms(axes="first"), r"scale_by_factored_rms: axes must be one of .*got 'first'"),  # type: ignore[arg-type]
    (
        lambda: mlxopt.scale_by_factored_rms(min_dim_size_to_factor=-1),
        r"min_dim_size_to_factor must be in .*got -1",
    ),
    (lambda: mlxopt.orthogonalize("best"), r"orthogonalize: ns_coeffs must be one of 'standard', 'dion', .*got 'best'"),
    (lambda: mlxopt.orthogonalize((1.0, 2.0)), r"orthogonalize: ns_coeffs must be three numbers, .*got \(1\.0, 2\.0\)"),
    (lambda: mlxopt.orthogonalize([(3.0, 1.0, 0.5)] * 6), r"or three for each of at most 5 steps, .*or raise ns_steps"),
    (lambda: mlxopt.orthogonalize((NAN, 1.0, 0.5)), r"orthogonalize: ns_coeffs a must be finite, got nan"),
    (lambda: mlxopt.orthogonalize(ns_steps=0), r"orthogonalize: ns_steps must be in \[1, .*got 0"),
    (lambda: mlxopt.orthogonalize(preconditioning="svd"), r"orthogonalize: preconditioning must be one of .*got 'svd'"),  # type: ignore[arg-type]
    (
        lambda: mlxopt.orthogonalize(dtype=mx.int32),
        r"orthogonalize: dtype must be a floating dtype, got mlx",
    ),
    (lambda: mlxopt.orthogonalize(stacked="*"), r"orthogonalize: stacked must be .*Write by_path\('\*'\)"),
    (
        lambda: mlxopt.orthogonalize(stacked=mlxopt.by_path("experts.*")).init(params()),
        r"orthogonalize: at the top of the tree: by_path\('experts\.\*'\) must choose a leaf, got none",
    ),
    (lambda: mlxopt.muon(0.1, otherwise=mlxopt.adam), r"muon: expected a GradientTransformation, got <function adam"),  # type: ignore[arg-type]
    (lambda: mlxopt.muon(0.1, matrices=lambda leaf: True), r"muon: matrices must be a function of path and leaf"),
    (
        lambda: mlxopt.muon(0.1, matrices=mlxopt.by_path("hidden.*")).init(params()),
        r"by_path\('hidden\.\*'\) must choose a leaf, got none",
    ),
    (
        lambda: mlxopt.muon(0.1, matrices={"w": 1, "b": False}).init(params()),
        r"muon: at 'w': every answer of matrices must be True or False, got 1",
    ),
    (
        lambda: mlxopt.newton_schulz(mx.zeros((3,))),
        r"newton_schulz: x must be real matrices, got .*float32 of",
    ),
    (
        lambda: mlxopt.newton_schulz(mx.zeros((2, 2), mx.complex64)),
        r"x must be real matrices, got .*complex64",
    ),
    (lambda: mlxopt.chain(mlxopt.adam), r"chain: expected a GradientTransformation, got <function adam"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), SPECIAL, ids=[message for _, message in SPECIAL])
def test_arguments_that_make_no_sense_are_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_unknown_argument_is_an_error(factory: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'learning_rat'"):
        build(factory, learning_rat=0.1)


# Trees: a call that fails leaves everything as it was


def params() -> dict[str, Any]:
    return {"w": mx.array([[1.0, -2.0], [0.5, 3.0]]), "b": [mx.array([0.25, 0.5], mx.bfloat16), mx.array(-1.0)]}


def grads() -> dict[str, Any]:
    return tree.map(lambda p: 0.5 * p + 1, params())  # type: ignore[no-any-return]


BAD_GRADS: dict[str, tuple[Any, str]] = {
    "missing leaf": ({"w": mx.zeros((2, 2)), "b": [mx.zeros((2,))]}, r"at 'b': expected"),
    "missing key": ({"w": mx.zeros((2, 2))}, r"\['b'\]"),
    "another key": ({"w": mx.zeros((2, 2)), "c": []}, r"\['c'\]"),
    "no array": ({"w": mx.zeros((2, 2)), "b": [0.5, mx.array(1.0)]}, r"at 'b\.0': every leaf must be an mx\.array"),
    "hole": ({"w": None, "b": [mx.zeros((2,)), mx.array(1.0)]}, r"at 'w': expected None"),
    "another container": (
        {"w": mx.zeros((2, 2)), "b": (mx.zeros((2,)), mx.array(1.0))},
        r"at 'b': expected a list, got a tuple",
    ),
}

WITH_MEMORY = ["adam", "adamw", "nadamw", "amsgrad", "adamax", "lion", "radam", "rmsprop", "adagrad", "adadelta"]


@pytest.mark.parametrize("factory", WITH_MEMORY)
@pytest.mark.parametrize("problem", BAD_GRADS)
def test_an_update_that_fails_changes_nothing(factory: str, problem: str) -> None:
    bad, message = BAD_GRADS[problem]
    tx, given = build(factory), params()
    _, state = tx.update(grads(), tx.init(given), given)
    before = plain((bad, state, given))
    with pytest.raises(TreeError, match=message):
        tx.update(bad, state, given)
    assert plain((bad, state, given)) == before
    again = tx.update(grads(), state, given)
    assert plain(again) == plain(tx.update(grads(), state, given))


@pytest.mark.parametrize("factory", WITH_MEMORY)
def test_an_update_that_fails_at_its_last_leaf_changes_nothing(factory: str) -> None:
    tx, given = build(factory), params()
    state = tx.init(given)
    bad = {**grads(), "b": [mx.array([1.0, 1.0], mx.bfloat16), mx.zeros((2, 3))]}
    before = plain((bad, state, given))
    with pytest.raises(ValueError, match=r"at 'b\.1': "):
        apply_updates(given, tx.update(bad, state, given)[0])
    assert plain((bad, state, given)) == before


@pytest.mark.parametrize("problem", [problem for problem in BAD_GRADS if problem != "hole"])
def test_an_application_that_fails_changes_nothing(problem: str) -> None:
    bad, given = BAD_GRADS[problem][0], params()
    before = plain((bad, given))
    with pytest.raises(TreeError, match=r"^apply_updates: at "):
        apply_updates(given, bad)
    with pytest.raises(TreeError, match=r"^incremental_update: at "):
        incremental_update(given, bad, 0.5)
    assert plain((bad, given)) == before


@pytest.mark.parametrize("factory", sorted(FACTORIES))
def test_a_call_that_succeeds_does_not_change_its_arguments(factory: str) -> None:
    tx, given, updates = build(factory), params(), grads()
    state = tx.init(given)
    before = plain((updates, state, given))
    for _ in range(2):
        changed, _ = tx.update(updates, state, given)
        apply_updates(given, changed)
    assert plain((updates, state, given)) == before


@pytest.mark.parametrize("factory", sorted(FACTORIES.keys() - {"zero_nans"}))
def test_a_nan_gradient_is_not_hidden(factory: str) -> None:
    tx = build(factory)
    given = {"w": mx.ones((2, 2)), "v": mx.ones((2,))}
    updates, _ = tx.update(tree.full_like(given, NAN), tx.init(given), given)
    assert all(mx.all(mx.isnan(leaf)).item() for leaf in tree.leaves(updates))


DTYPES = [
    (factory, name)
    for factory in FACTORIES
    for name in ("mu_dtype", "accumulator_dtype")
    if name in inspect.signature(getattr(mlxopt, factory)).parameters
]


@pytest.mark.parametrize("wrong", ["bfloat16", mx.int32, 32, float])
@pytest.mark.parametrize(("factory", "name"), DTYPES)
def test_a_memory_dtype_that_is_not_floating_is_an_error(factory: str, name: str, wrong: Any) -> None:
    momentum = {"momentum": 0.9} if factory == "sgd" else {}
    with pytest.raises(TypeError, match=rf"^\w+: {name} must be a floating dtype, got .*\. "):
        build(factory, **momentum, **{name: wrong})


@pytest.mark.parametrize("tx", [mlxopt.sgd(0.1), mlxopt.sgd(0.1, momentum=0.9), mlxopt.adam(0.1), mlxopt.scale(0.5)])
def test_integer_gradients_are_not_cut_to_whole_numbers(tx: GradientTransformation) -> None:
    given = {"n": mx.ones((2,))}
    with pytest.raises(TreeError, match=r"at 'n': a mlx\.core\.int32 update would be cut to whole numbers"):
        tx.update({"n": mx.array([1, 2])}, tx.init(given), given)
