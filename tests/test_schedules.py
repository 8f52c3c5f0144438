"""Schedules against other libraries, against MLX's documentation, and what they say about wrong arguments."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxopt import schedules
from mlxopt.schedules import (
    Curve,
    clipped,
    constant_schedule,
    cosine_decay,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    exponential_decay,
    half_life_schedule,
    inverse_sqrt_schedule,
    join_schedules,
    linear_onecycle_schedule,
    linear_schedule,
    linear_to_zero,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    polynomial_schedule,
    repeated,
    rex_schedule,
    scaled,
    sgdr_schedule,
    shifted,
    step_decay,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    with_warmup,
    wsd_schedule,
)

REFERENCE = Path(__file__).parent / "reference"
LARGEST_COUNT = 2**31 - 1


# Golden values of other implementations


def largest(values: mx.array) -> float:
    """Largest magnitude."""
    magnitude: Any = mx.max(mx.abs(values)).item()
    return float(magnitude)


def harmonic(count: mx.array) -> mx.array:
    """A user's schedule."""
    return 1.0 / (1.0 + count)


def up_and_down(top: float, steps: int) -> Curve:
    """Cosine from ``top`` to zero and back, for ever."""
    wave = join_schedules([cosine_decay(top, steps), cosine_decay(0.0, steps, top)], [steps])
    return repeated(wave, 2 * steps)


GOLDEN: dict[str, Curve] = {
    "mlx.cosine_decay": cosine_decay(0.1, 10),
    "mlx.exponential_decay": exponential_decay(0.1, 0.9),
    "mlx.join_schedules": join_schedules([linear_schedule(0.0, 0.1, 5), cosine_decay(0.1, 10)], [5]),
    "mlx.linear_schedule": linear_schedule(0.0, 0.1, 8),
    "mlx.step_decay": step_decay(0.1, 0.5, 4),
    "optax.constant": constant_schedule(0.3),
    "optax.cosine": cosine_decay_schedule(0.5, 10),
    "optax.cosine.alpha": cosine_decay_schedule(0.5, 10, alpha=0.1, exponent=2.0),
    "optax.cosine_onecycle": cosine_onecycle_schedule(20, 0.1),
    "optax.exponential": exponential_decay(1.0, 0.5, transition_steps=4),
    "optax.exponential.staircase": exponential_decay(
        1.0, 0.5, transition_steps=4, transition_begin=2, staircase=True, end_value=0.1
    ),
    "optax.join": join_schedules([linear_schedule(0.0, 1.0, 5), cosine_decay_schedule(1.0, 10)], [5]),
    "optax.linear": linear_schedule(1.0, 0.1, 10),
    "optax.linear.begin": linear_schedule(1.0, 0.1, 10, transition_begin=5),
    "optax.linear_onecycle": linear_onecycle_schedule(20, 0.1),
    "optax.piecewise_constant": piecewise_constant_schedule(1.0, {3: 0.5, 7: 0.1}),
    "optax.piecewise_interpolate.cosine": piecewise_interpolate_schedule("cosine", 1.0, {4: 2.0, 10: 0.1}),
    "optax.piecewise_interpolate.linear": piecewise_interpolate_schedule("linear", 1.0, {4: 2.0, 10: 0.1}),
    "optax.polynomial": polynomial_schedule(1.0, 0.0, 2, 8, 3),
    "optax.sgdr": sgdr_schedule(
        [
            {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 2, "decay_steps": 8, "end_value": 0.01},
            {"init_value": 0.01, "peak_value": 0.05, "warmup_steps": 3, "decay_steps": 12, "end_value": 0.0},
        ]
    ),
    "optax.warmup_constant": warmup_constant_schedule(0.0, 0.1, 5),
    "optax.warmup_cosine": warmup_cosine_decay_schedule(0.0, 0.1, 5, 20),
    "optax.warmup_exponential": warmup_exponential_decay_schedule(0.0, 0.1, 5, 5, 0.5),
    "paper.noam_rsqrt": shifted(inverse_sqrt_schedule(0.1, 5), 1),
    "paper.rex": rex_schedule(0.1, 20),
    "paper.wsd_cosine": wsd_schedule(0.1, 4, 8, 6, shape="cosine"),
    "paper.wsd_linear": wsd_schedule(0.1, 4, 8, 6, shape="linear"),
    "paper.wsd_sqrt": wsd_schedule(0.1, 4, 8, 6, shape="1-sqrt"),
    "torch.ConstantLR": piecewise_constant_schedule(0.1 * 0.3, {5: 1 / 0.3}),
    "torch.CosineAnnealingLR": up_and_down(0.1, 10),
    "torch.CosineAnnealingWarmRestarts": repeated(cosine_decay(0.1, 5), 5),
    "torch.CyclicLR": repeated(piecewise_interpolate_schedule("linear", 0.01, {4: 10.0, 8: 0.1}), 8),
    "torch.ExponentialLR": exponential_decay(0.1, 0.9),
    "torch.LinearLR": linear_schedule(0.1 * 0.2, 0.1, 6),
    "torch.MultiStepLR": piecewise_constant_schedule(0.1, {3: 0.2, 8: 0.2}),
    "torch.PolynomialLR": polynomial_schedule(0.1, 0.0, 2.0, 8),
    "torch.StepLR": step_decay(0.1, 0.5, 4),
    "transformers.get_cosine_schedule_with_warmup": with_warmup(up_and_down(1.0, 16), 4),
    "transformers.get_cosine_with_hard_restarts_schedule_with_warmup": with_warmup(
        join_schedules([repeated(cosine_decay(1.0, 10), 10), constant_schedule(0.0)], [20]), 3
    ),
    "transformers.get_inverse_sqrt_schedule": inverse_sqrt_schedule(1.0, 5),
    "transformers.get_linear_schedule_with_warmup": with_warmup(linear_to_zero(1.0, 16), 4),
    "transformers.get_wsd_schedule": wsd_schedule(1.0, 4, 6, 8, shape="cosine"),
}

NOT_GOLDEN = {
    "optax.polynomial.zero_steps": "a transition of no steps is an error here, not silently the first value",
    "pytorch_optimizer.REXScheduler": "reports 0 at count 0, before its first step; from count 1 on it is rex_schedule",
    "torch.OneCycleLR": "its phases end at a fraction of a step: 0.3 * 26 - 1 = 6.8",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_other_implementations_give_the_same_values(name: str) -> None:
    stored = mx.load(str(REFERENCE / "schedules.safetensors"))
    assert isinstance(stored, dict)
    values = stored[f"{name}.values"]
    assert largest(GOLDEN[name](stored[f"{name}.counts"]) - values) <= 2e-6 * largest(values)


def test_every_golden_case_is_used_or_has_its_reason() -> None:
    stored = {
        case["name"].removeprefix("schedule.") for case in json.loads((REFERENCE / "schedule_cases.json").read_text())
    }
    assert stored == GOLDEN.keys() | NOT_GOLDEN.keys()
    assert not GOLDEN.keys() & NOT_GOLDEN.keys()


def test_rex_differs_from_pytorch_optimizer_at_its_first_count_only() -> None:
    stored = mx.load(str(REFERENCE / "schedules.safetensors"))
    assert isinstance(stored, dict)
    counts, values = (stored[f"pytorch_optimizer.REXScheduler.{part}"] for part in ("counts", "values"))
    error = mx.abs(rex_schedule(1.0, 20)(counts) - values)
    assert error[0].item() == 1.0
    assert largest(error[1:]) <= 2e-6


# MLX


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cosine_decay", (0.1, 100)),
        ("cosine_decay", (0.1, 50, 0.01)),
        ("exponential_decay", (0.1, 0.99)),
        ("exponential_decay", (0.1, 1.01)),
        ("linear_schedule", (0.0, 0.1, 100)),
        ("linear_schedule", (0.1, 0.01, 33)),
        ("step_decay", (0.1, 0.9, 10)),
    ],
)
def test_values_are_those_of_mlx(name: str, arguments: tuple[Any, ...]) -> None:
    ours, theirs = getattr(schedules, name)(*arguments), getattr(mlx.optimizers, name)(*arguments)
    for dtype in (mx.int32, mx.uint64):
        counts = mx.arange(201).astype(dtype)
        expected = theirs(counts)
        assert largest(ours(counts) - expected) <= 2e-6 * largest(expected)


def test_joined_values_are_those_of_mlx() -> None:
    def joined(library: Any) -> Any:
        pieces = [
            library.linear_schedule(0.0, 0.1, 20),
            library.cosine_decay(0.1, 100),
            library.step_decay(0.1, 0.5, 9),
        ]
        return library.join_schedules(pieces, [20, 90])

    counts = mx.arange(201)
    assert largest(joined(schedules)(counts) - joined(mlx.optimizers)(counts)) <= 2e-7


def test_the_numbers_in_mlx_documentation() -> None:
    assert exponential_decay(1e-1, 0.9)(4).item() == pytest.approx(0.06561, rel=1e-6)
    assert step_decay(1e-1, 0.9, 10)(20).item() == pytest.approx(0.081, rel=1e-6)
    assert cosine_decay(1e-1, 1000)(4).item() == pytest.approx(0.0999961, rel=1e-6)
    assert linear_schedule(0, 1e-1, 100)(100).item() == pytest.approx(0.1, rel=1e-6)
    warm = join_schedules([linear_schedule(0, 1e-1, steps=10), cosine_decay(1e-1, 200)], [10])
    assert warm(11).item() == pytest.approx(0.0999938, rel=1e-6)


# What the options do


def test_small_values_keep_their_digits() -> None:
    steps = 10**6
    assert linear_to_zero(1.0, steps)(steps - 1).item() == pytest.approx(1e-6, rel=1e-6)
    assert linear_schedule(0.0, 1.0, steps)(1).item() == pytest.approx(1e-6, rel=1e-6)
    assert cosine_decay(1.0, steps)(steps - 1).item() == pytest.approx((1.5707963e-6) ** 2, rel=1e-6)
    assert wsd_schedule(1.0, 0, 0, 10, end_value=1e-10, shape="exponential")(9).item() == pytest.approx(1e-9, rel=1e-5)


def parted(count: int, steps: int) -> tuple[float, float]:
    return count / steps, (steps - count) / steps


def powered(share: float, rest: float, exponent: float) -> tuple[float, float]:
    """A power of a share and its complement."""
    log = exponent * (math.log1p(-rest) if rest < 0.5 else math.log(share))
    return math.exp(log), -math.expm1(log)


def squared_sines(done: float, left: float) -> tuple[float, float]:
    return math.sin(math.pi / 2 * left) ** 2, math.sin(math.pi / 2 * done) ** 2


Build = Callable[[float, float, int, float], Curve]
SHARES: dict[str, tuple[Build, Callable[[float, float, float], tuple[float, float]]]] = {
    "linear": (lambda a, b, n, p: linear_schedule(a, b, n), lambda x, y, p: (y, x)),
    "polynomial": (lambda a, b, n, p: polynomial_schedule(a, b, p, n), lambda x, y, p: powered(y, x, p)),
    "cosine": (
        lambda a, b, n, p: cosine_decay(a, n, b, exponent=p),
        lambda x, y, p: powered(*squared_sines(x, y), p),
    ),
    "rex": (lambda a, b, n, p: rex_schedule(a, n, b), lambda x, y, p: (y / (1 - x / 2), x / (1 + y))),
    "wsd 1-sqrt": (
        lambda a, b, n, p: wsd_schedule(a, 0, 0, n, end_value=b, shape="1-sqrt"),
        lambda x, y, p: (y / (1 + math.sqrt(x)), math.sqrt(x)),
    ),
    "wsd cosine": (
        lambda a, b, n, p: wsd_schedule(a, 0, 0, n, end_value=b, shape="cosine"),
        lambda x, y, p: squared_sines(x, y),
    ),
}
LEVELS = st.one_of(st.just(0.0), st.floats(1e-12, 1e6))
STEPS = st.one_of(st.integers(2, 100), st.integers(2, LARGEST_COUNT))


def assert_has_its_digits(value: float, true: float, init: float) -> None:
    """Within 1e-6, or as much more as there are factors of e between the value and the first one."""
    if true > 1e-30:
        assert abs(value - true) <= 1e-6 * max(1.0, abs(math.log(true / init)) if init else 1.0) * true


def some_counts(data: st.DataObject, steps: int) -> list[int]:
    anywhere = data.draw(st.lists(st.integers(1, steps - 1), min_size=10, max_size=10))
    return [1, steps - 1, max(steps // 1000, 1), max(steps - steps // 1000 - 1, 1), *anywhere]


@pytest.mark.parametrize("name", SHARES)
@given(init=LEVELS, end=LEVELS, steps=STEPS, exponent=st.floats(0.1, 20.0), data=st.data())
def test_both_ways_have_the_digits_of_double_precision(
    name: str, init: float, end: float, steps: int, exponent: float, data: st.DataObject
) -> None:
    build, shares = SHARES[name]
    counts = some_counts(data, steps)
    found: Any = build(init, end, steps, exponent)(mx.array(counts)).tolist()
    for count, value in zip(counts, found, strict=True):
        of_init, of_end = shares(*parted(count, steps), exponent)
        assert_has_its_digits(value, init * of_init + end * of_end, init)


@given(
    init=st.floats(1e-30, 1e30),
    fall=st.floats(0.0, 60.0) | st.floats(0.0, 1e-3),
    steps=STEPS,
    data=st.data(),
)
def test_equal_factors_have_the_digits_of_double_precision(
    init: float, fall: float, steps: int, data: st.DataObject
) -> None:
    end = init * math.exp(-fall)
    counts = some_counts(data, steps)
    for schedule in (
        wsd_schedule(init, 0, 0, steps, end_value=end, shape="exponential"),
        exponential_decay(init, end / init, transition_steps=steps),
    ):
        found: Any = schedule(mx.array(counts)).tolist()
        for count, value in zip(counts, found, strict=True):
            assert_has_its_digits(value, init * (end / init) ** (count / steps), init)


def on_the_way_of_half_lives(init: float, end: float, share: float) -> float:
    """The equation of AdEMAMix's paper."""
    first, last = math.log(init), math.log(end)
    return math.exp(first * last / ((1 - share) * last + share * first))


DECAYS = st.floats(1e-6, 0.99) | st.floats(1e-6, 0.1).map(lambda missing: 1 - missing)


@given(init=DECAYS, end=DECAYS, steps=STEPS, data=st.data())
def test_half_lives_have_the_digits_of_double_precision(
    init: float, end: float, steps: int, data: st.DataObject
) -> None:
    """Two float32 numbers below 1 are 2**-24 apart: no value of a decay is known better than half of that."""
    counts = some_counts(data, steps)
    found: Any = half_life_schedule(init, end, steps)(mx.array(counts)).tolist()
    for count, value in zip(counts, found, strict=True):
        assert abs(value - on_the_way_of_half_lives(init, end, count / steps)) <= 2**-23


def test_half_lives_move_in_a_straight_line() -> None:
    counts = mx.arange(0, 1001, 100)
    half_lives = math.log(0.5) / mx.log(half_life_schedule(0.9, 0.9999, 1000)(counts))
    assert mx.allclose(half_lives, linear_schedule(6.5788, 6931.1, 1000)(counts), rtol=1e-3)
    assert half_life_schedule(0.0, 0.9, 10)(mx.array([0, 5])).tolist() == pytest.approx([0.0, 0.81])
    assert half_life_schedule(0.0, 0.0, 3)(mx.arange(4)).tolist() == [0.0] * 4


def test_equal_factors_reach_from_the_largest_value_to_the_smallest() -> None:
    steep = wsd_schedule(1e38, 0, 0, 4, end_value=2e-38, shape="exponential")
    assert steep(mx.array([1, 2, 3, 4])).tolist() == pytest.approx(
        [1e38 * 2e-76**0.25, 1e38 * 2e-76**0.5, 1e38 * 2e-76**0.75, 2e-38], rel=1e-4, abs=0.0
    )
    to_nothing = wsd_schedule(1.0, 0, 0, 4, end_value=1e-300, shape="exponential")
    assert to_nothing(mx.array([3, 4])).tolist() == [0.0, 0.0]


def test_a_first_step_up_and_a_last_step_down_keep_their_digits() -> None:
    steps = 10**4
    assert wsd_schedule(1.0, 0, 0, steps, shape="1-sqrt")(steps - 1).item() == pytest.approx(5.00012501e-5, rel=1e-6)
    assert polynomial_schedule(0.0, 1.0, 3.0, 10**6)(1).item() == pytest.approx(2.999997e-6, rel=1e-6)
    assert cosine_decay(0.0, steps, 1.0, exponent=2.0)(1).item() == pytest.approx(4.93480208e-8, rel=1e-6)


def test_counts_stay_integers() -> None:
    assert linear_to_zero(1.0, LARGEST_COUNT)(LARGEST_COUNT - 1).item() == pytest.approx(2**-31, rel=1e-6)
    assert repeated(harmonic, 3)(2**24 + 1).item() == harmonic(mx.array((2**24 + 1) % 3)).item()


def test_no_schedule_sees_a_count_below_zero() -> None:
    schedule = join_schedules([constant_schedule(1.0), shifted(harmonic, -2)], [3])
    assert schedule(mx.array([-5, 3, 4, 5, 6])).tolist() == [1.0, 1.0, 1.0, 1.0, 0.5]
    assert Curve(harmonic)(-1).item() == 1.0
    assert Curve(harmonic)(mx.array([-1, 0])).tolist() == [1.0, 1.0]
    assert Curve(harmonic)(mx.array([-1, -(2**31) - 1, -(2**63), 2**40], mx.int64)).tolist() == [1, 1, 1, 2**-31]


def test_the_exponential_way_down_falls_by_equal_factors() -> None:
    values = wsd_schedule(1.0, 0, 0, 4, end_value=1 / 16, shape="exponential")(mx.arange(6))
    assert mx.allclose(values, mx.array([1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16]), rtol=1e-6)
    assert wsd_schedule(0.5, 0, 0, 4, end_value=0.5, shape="exponential")(2).item() == 0.5


def test_transition_begin_holds_the_first_value() -> None:
    counts = mx.arange(30)
    for plain, late in [
        (cosine_decay(0.1, 10), cosine_decay(0.1, 10, transition_begin=7)),
        (exponential_decay(0.1, 0.9), exponential_decay(0.1, 0.9, transition_begin=7)),
        (step_decay(0.1, 0.9, 3), step_decay(0.1, 0.9, 3, transition_begin=7)),
        (linear_schedule(0.1, 0.0, 10), linear_schedule(0.1, 0.0, 10, transition_begin=7)),
        (half_life_schedule(0.9, 0.99, 10), half_life_schedule(0.9, 0.99, 10, transition_begin=7)),
        (polynomial_schedule(0.1, 0.0, 3.0, 10), polynomial_schedule(0.1, 0.0, 3.0, 10, 7)),
    ]:
        assert mx.array_equal(late(counts), shifted(plain, -7)(counts))


def test_an_exponential_stops_at_its_end_value() -> None:
    assert exponential_decay(1.0, 0.5, end_value=0.3)(mx.array([2, 3, 50])).tolist() == mx.full((3,), 0.3).tolist()
    assert exponential_decay(-1.0, 2.0, end_value=-5.0)(50).item() == -5.0
    assert exponential_decay(1.0, 2.0, end_value=5.0)(mx.array([2, 3, 50])).tolist() == [4.0, 5.0, 5.0]
    assert exponential_decay(0.0, 2.0)(mx.array([0, 100, LARGEST_COUNT])).tolist() == [0.0, 0.0, 0.0]


def test_no_warmup_starts_at_the_peak() -> None:
    for schedule in (
        with_warmup(constant_schedule(0.5), 0),
        warmup_constant_schedule(0.0, 0.5, 0),
        warmup_cosine_decay_schedule(0.0, 0.5, 0, 10),
        warmup_exponential_decay_schedule(0.0, 0.5, 0, 10, 0.9),
        wsd_schedule(0.5, 0, 0, 10),
        inverse_sqrt_schedule(0.5, 0, timescale=10),
    ):
        assert schedule(0).item() == 0.5


def test_the_timescale_of_an_inverse_root_is_where_it_has_fallen_by_the_root_of_2() -> None:
    assert inverse_sqrt_schedule(1.0, 10, timescale=30)(40).item() == pytest.approx(0.5**0.5, rel=1e-6)


def test_combinators_take_any_function_of_a_count() -> None:
    assert scaled(harmonic, lambda count: 2.0)(1).item() == 1.0
    assert scaled(harmonic, mx.array(4.0))(mx.array([1, 3])).tolist() == [2.0, 1.0]
    assert join_schedules([lambda count: 0.25, harmonic], [2])(mx.arange(4)).tolist() == [0.25, 0.25, 1.0, 0.5]
    assert clipped(harmonic, high=0.5)(0).item() == 0.5


def test_the_product_of_two_huge_schedules_is_finite() -> None:
    growing = exponential_decay(1.0, 10.0)
    assert scaled(growing, growing)(100).item() == mx.finfo(mx.float32).max


@pytest.mark.parametrize("count", [1.5, "1", None, mx.array(1.0), mx.array(True)])
def test_a_count_is_an_integer(count: Any) -> None:
    with pytest.raises(TypeError, match="schedule: count must be an integer, got"):
        constant_schedule(0.1)(count)


class ndarray:
    """What an array of another library looks like."""

    shape = (3,)

    def __array__(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(("counts", "kind"), [(ndarray(), "ndarray"), ([0, 1], "list"), (range(3), "range")])
def test_many_counts_are_an_mlx_array(counts: Any, kind: str) -> None:
    message = rf"schedule: counts must be an mx\.array of integers, got a {kind}\. Write mx\.array\(counts\)"
    with pytest.raises(TypeError, match=message):
        constant_schedule(0.1)(counts)


# How schedules read

READABLE = [
    "constant_schedule(0.5)",
    "cosine_decay(0.1, 100, exponent=2.0, transition_begin=3)",
    "exponential_decay(0.1, 0.9, transition_steps=2, staircase=True, end_value=0.01)",
    "piecewise_interpolate_schedule('cosine', 1.0, boundaries_and_scales={4: 2.0, 10: 0.1})",
    "with_warmup(step_decay(0.1, 0.5, 4), 10)",
    "join_schedules([linear_schedule(0.0, 0.1, 5), rex_schedule(0.1, 20)], [5])",
    "half_life_schedule(0.9, 0.9999, 1000, transition_begin=10)",
    "scaled(inverse_sqrt_schedule(1.0, 5), shifted(linear_to_zero(1.0, 50), -2))",
    "repeated(clipped(wsd_schedule(1.0, 2, 3, 4, shape='1-sqrt'), low=0.1), 12)",
    "scaled(linear_to_zero(1.0, 50), mx.array(0.5))",
]


@pytest.mark.parametrize("expression", READABLE)
def test_a_schedule_reads_as_the_expression_that_builds_it(expression: str) -> None:
    assert repr(eval(expression, {"mx": mx, **vars(schedules)})) == expression


@pytest.mark.parametrize("name", GOLDEN)
def test_what_a_schedule_reads_as_builds_it_again(name: str) -> None:
    rebuilt = eval(repr(GOLDEN[name]), dict(vars(schedules)))
    counts = mx.arange(60)
    assert repr(rebuilt) == repr(GOLDEN[name])
    assert mx.array_equal(rebuilt(counts), GOLDEN[name](counts))


# Wrong arguments

NAN, INF = float("nan"), float("inf")
ONE = constant_schedule(1.0)
CYCLE = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 3}


def build(name: str, *arguments: Any, **named: Any) -> Callable[[], Any]:
    return lambda: getattr(schedules, name)(*arguments, **named)


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (build("constant_schedule", None), TypeError, "constant_schedule: value must be a number, got None. Pass a float."),
    (build("constant_schedule", NAN), ValueError, "constant_schedule: value must be finite, got nan."),
    (build("linear_schedule", 0.0, INF, 5), ValueError, "linear_schedule: end must be finite, got inf."),
    (build("linear_schedule", 0.0, 1e39, 5), ValueError, "linear_schedule: end must be in [-1e+38, 1e+38], got 1e+39."),
    (build("linear_schedule", 0.0, 1.0, 0), ValueError, "linear_schedule: steps must be in [1, 2**31 - 1], got 0."),
    (build("linear_schedule", 0.0, 1.0, 2.5), TypeError, "linear_schedule: steps must be an integer, got 2.5."),
    (
        build("linear_schedule", 0.0, 1.0, 5, transition_begin=-1),
        ValueError,
        "linear_schedule: transition_begin must be in [0, 2**31 - 1], got -1.",
    ),
    (build("half_life_schedule", 0.9, 1.0, 5), ValueError, "half_life_schedule: end must be in [0, 1), got 1.0."),
    (build("half_life_schedule", -0.1, 0.9, 5), ValueError, "half_life_schedule: init must be in [0, 1), got -0.1."),
    (build("half_life_schedule", 0.9, 0.99, 0), ValueError, "half_life_schedule: steps must be in [1, 2**31 - 1]"),
    (
        build("half_life_schedule", 0.9, 0.99, 5, transition_begin=2.5),
        TypeError,
        "half_life_schedule: transition_begin must be an integer, got 2.5.",
    ),
    (build("linear_to_zero", NAN, 5), ValueError, "linear_to_zero: init_value must be finite, got nan."),
    (build("linear_to_zero", 1.0, -5), ValueError, "linear_to_zero: decay_steps must be in [1, 2**31 - 1], got -5."),
    (
        build("polynomial_schedule", 1.0, 0.0, 2, 0),
        ValueError,
        "polynomial_schedule: transition_steps must be in [1, 2**31 - 1], got 0.",
    ),
    (build("polynomial_schedule", 1.0, 0.0, 0, 8), ValueError, "polynomial_schedule: power must be above 0, got 0."),
    (build("cosine_decay", 0.1, 0), ValueError, "cosine_decay: decay_steps must be in [1, 2**31 - 1], got 0."),
    (build("cosine_decay", 0.1, NAN), TypeError, "cosine_decay: decay_steps must be an integer, got nan."),
    (build("cosine_decay", 0.1, 9, exponent=-1), ValueError, "cosine_decay: exponent must be above 0, got -1."),
    (
        build("cosine_decay_schedule", 0.1, 0),
        ValueError,
        "cosine_decay_schedule: decay_steps must be in [1, 2**31 - 1]",
    ),
    (build("cosine_decay_schedule", 0.1, 5, NAN), ValueError, "cosine_decay_schedule: alpha must be finite, got nan."),
    (build("rex_schedule", 0.1, 0), ValueError, "rex_schedule: decay_steps must be in [1, 2**31 - 1], got 0."),
    (build("exponential_decay", 0.1, 0.0), ValueError, "exponential_decay: decay_rate must be above 0, got 0.0."),
    (
        build("exponential_decay", 0.1, 0.9, transition_steps=0),
        ValueError,
        "exponential_decay: transition_steps must be in [1, 2**31 - 1], got 0.",
    ),
    (
        build("exponential_decay", 0.1, 0.9, end_value=0.2),
        ValueError,
        "exponential_decay: end_value must lie where the value goes, got 0.2 for init 0.1 and decay_rate 0.9. "
        "Pass an end_value on the other side of init.",
    ),
    (build("step_decay", 0.1, -0.5, 4), ValueError, "step_decay: decay_rate must be above 0, got -0.5."),
    (build("step_decay", 0.1, 0.5, 0), ValueError, "step_decay: step_size must be in [1, 2**31 - 1], got 0."),
    (
        build("join_schedules", [], []),
        ValueError,
        "join_schedules: schedules must be a list of at least one, got []. Pass a list of schedules.",
    ),
    (
        build("join_schedules", [ONE, 0.1], [5]),
        TypeError,
        "join_schedules: a schedule must be callable, got 0.1. Wrap a number in constant_schedule(...).",
    ),
    (
        build("join_schedules", [ONE, ONE], [5, 9]),
        ValueError,
        "join_schedules: boundaries must be one fewer than schedules, got 2 for 2 schedules. "
        "Pass the count at which each schedule but the first begins.",
    ),
    (
        build("join_schedules", [ONE, ONE], []),
        ValueError,
        "join_schedules: boundaries must be one fewer than schedules, got 0 for 2 schedules. ",
    ),
    (
        build("join_schedules", iter([ONE]), []),
        ValueError,
        "join_schedules: schedules must be a list of at least one, got <list_iterator",
    ),
    (
        build("join_schedules", [ONE, ONE, ONE], [9, 5]),
        ValueError,
        "join_schedules: boundaries must increase, got 5 after 9. Sort them and leave out repetitions.",
    ),
    (
        build("join_schedules", [ONE] * 3, [5, 5]),
        ValueError,
        "join_schedules: boundaries must increase, got 5 after 5.",
    ),
    (
        build("join_schedules", [ONE] * 2, [-5]),
        ValueError,
        "join_schedules: boundaries must be in [1, 2**31 - 1], got -5.",
    ),
    (build("join_schedules", [ONE] * 2, [1.5]), TypeError, "join_schedules: boundaries must be an integer, got 1.5."),
    (
        build("piecewise_constant_schedule", 1.0, {3: 0.5, -1: 0.5}),
        ValueError,
        "piecewise_constant_schedule: a boundary must be in [1, 2**31 - 1], got -1.",
    ),
    (
        build("piecewise_constant_schedule", 1.0, {"a": 2, 3: 1}),
        TypeError,
        "piecewise_constant_schedule: a boundary must be an integer, got 'a'.",
    ),
    (
        build("piecewise_interpolate_schedule", "linear", 1.0, [(3, 0.5)]),
        TypeError,
        "piecewise_interpolate_schedule: boundaries_and_scales must be a dict of scales by count, got [(3, 0.5)]. "
        "Pass {count: scale}.",
    ),
    (
        build("piecewise_constant_schedule", 1.0, {3: -0.5}),
        ValueError,
        "piecewise_constant_schedule: the scale at 3 must be in [0, inf], got -0.5.",
    ),
    (
        build("piecewise_constant_schedule", -1e38, {3: 10.0}),
        ValueError,
        "piecewise_constant_schedule: the largest level must be in [-1e+38, 1e+38], got -1e+39",
    ),
    (
        build("piecewise_constant_schedule", 1.0, {3: 1e30, 4: 1e30}),
        ValueError,
        "piecewise_constant_schedule: the largest level must be in [-1e+38, 1e+38]",
    ),
    (
        build("piecewise_interpolate_schedule", "cubic", 1.0, {3: 0.5}),
        ValueError,
        "piecewise_interpolate_schedule: interpolate_type must be one of 'linear', 'cosine', got 'cubic'.",
    ),
    (
        build("warmup_constant_schedule", 0.0, 0.1, -1),
        ValueError,
        "warmup_constant_schedule: warmup_steps must be in [0, 2**31 - 1], got -1.",
    ),
    (
        build("warmup_cosine_decay_schedule", 0.0, 0.1, 10, 10),
        ValueError,
        "warmup_cosine_decay_schedule: decay_steps must be above warmup_steps, got 10 and 10. "
        "Pass the length of the whole schedule, warm-up included.",
    ),
    (
        build("warmup_exponential_decay_schedule", 0.0, 0.1, 5, 0, 0.9),
        ValueError,
        "warmup_exponential_decay_schedule: transition_steps must be in [1, 2**31 - 1], got 0.",
    ),
    (
        build("linear_onecycle_schedule", 3, 0.1),
        ValueError,
        "linear_onecycle_schedule: every phase must last at least one step, got phases that end at [0, 2, 3]. "
        "Pass more transition_steps or change pct_start and pct_final.",
    ),
    (
        build("cosine_onecycle_schedule", 20, 0.1, 1.5),
        ValueError,
        "cosine_onecycle_schedule: pct_start must be in [0, 1], got 1.5.",
    ),
    (
        build("cosine_onecycle_schedule", 20, 0.1, div_factor=0.0),
        ValueError,
        "cosine_onecycle_schedule: div_factor must be above 0, got 0.0.",
    ),
    (
        build("sgdr_schedule", []),
        ValueError,
        "sgdr_schedule: at least one cycle must be given, got none. Pass a list of dicts.",
    ),
    (
        build("sgdr_schedule", [CYCLE, {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1}]),
        TypeError,
        "sgdr_schedule: cycle 1 must hold the arguments of warmup_cosine_decay_schedule, got "
        "['init_value', 'peak_value', 'warmup_steps']: missing a required argument: 'decay_steps'. Mend its keys.",
    ),
    (
        build("sgdr_schedule", [{**CYCLE, "end": 0.0}]),
        TypeError,
        "sgdr_schedule: cycle 0 must hold the arguments of warmup_cosine_decay_schedule, got "
        "['init_value', 'peak_value', 'warmup_steps', 'decay_steps', 'end']: got an unexpected keyword argument 'end'.",
    ),
    (
        build("sgdr_schedule", [CYCLE, CYCLE, {**CYCLE, "decay_steps": 1}]),
        ValueError,
        "sgdr_schedule: cycle 2: warmup_cosine_decay_schedule: decay_steps must be above warmup_steps, got 1 and 1.",
    ),
    (
        build("sgdr_schedule", [CYCLE, 10]),
        TypeError,
        "sgdr_schedule: cycle 1 must be a dict, got 10. Pass arguments of warmup_cosine_decay_schedule by name.",
    ),
    (
        build("inverse_sqrt_schedule", 0.1, 0),
        ValueError,
        "inverse_sqrt_schedule: timescale must be in [1, 2**31 - 1], got 0.",
    ),
    (
        build("wsd_schedule", 0.1, 1, 2, 3, shape="sqrt"),
        ValueError,
        "wsd_schedule: shape must be one of 'linear', '1-sqrt', 'cosine', 'exponential', got 'sqrt'. Pick one of them.",
    ),
    (
        build("wsd_schedule", 0.1, 1, 2, 3, shape="exponential"),
        ValueError,
        "wsd_schedule: 0 < end_value <= peak_value must hold for the shape 'exponential', got end_value 0.0 and "
        "peak_value 0.1. Pass a small end_value such as 0.01 * peak_value.",
    ),
    (build("wsd_schedule", 0.1, 1, 2, 0), ValueError, "wsd_schedule: decay_steps must be in [1, 2**31 - 1], got 0."),
    (build("with_warmup", 0.1, 5), TypeError, "with_warmup: a schedule must be callable, got 0.1."),
    (build("with_warmup", ONE, -5), ValueError, "with_warmup: warmup_steps must be in [0, 2**31 - 1], got -5."),
    (build("with_warmup", lambda count: NAN, 5), ValueError, "with_warmup: schedule(0) must be finite, got nan."),
    (build("scaled", ONE, None), TypeError, "scaled: factor must be a number or a schedule, got None."),
    (build("scaled", 1.0, ONE), TypeError, "scaled: a schedule must be callable, got 1.0."),
    (build("shifted", ONE, 0.5), TypeError, "shifted: offset must be an integer, got 0.5."),
    (build("repeated", ONE, 0), ValueError, "repeated: period must be in [1, 2**31 - 1], got 0."),
    (
        build("clipped", ONE),
        ValueError,
        "clipped: low or high must be given, got neither. Pass at least one of them.",
    ),
    (build("clipped", ONE, 1.0, 0.5), ValueError, "clipped: low must not be above high, got 1.0 and 0.5. Swap them."),
    (build("clipped", ONE, NAN), ValueError, "clipped: the lower bound must be finite, got nan."),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_wrong_arguments_are_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        call()
