"""Laws that every schedule of this library obeys, held over one registry of examples.

Those that hold for schedules of users too are in ``check_schedule``. A law is a plain function of an example that
asserts; for each law there is a broken schedule that must fail it.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mlx.core as mx
import pytest

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
    relative_step_schedule,
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
from mlxopt.testing import check_schedule
from mlxopt.testing.schedules import EDGES

LAST = 2**31 - 1
HUGE = mx.finfo(mx.float32).max
Schedule = Callable[[Any], Any]


class Example(NamedTuple):
    """A schedule and what is promised of it."""

    schedule: Schedule
    low: float  # smallest value
    high: float  # largest value
    exact: dict[int, float]  # value by count, met to the last bit
    last: float  # value at the largest count
    monotone: str | None = None  # "up", "down", or None where nothing is promised
    pieces: tuple[tuple[int, Schedule], ...] = ()  # first count of each part and what runs there, counted from it


def down(schedule: Schedule, start: float, end: float, until: int, begin: int = 0, **more: Any) -> Example:
    """Example that goes down from ``start`` to ``end`` between two counts."""
    exact = {0: start, begin: start, until: end, min(until + 1, LAST): end}
    return Example(schedule, end, start, exact, end, "down", **more)


def up(schedule: Schedule, start: float, end: float, until: int, **more: Any) -> Example:
    """Example that goes up from ``start`` at count 0 to ``end``."""
    return Example(schedule, start, end, {0: start, until: end, min(until + 1, LAST): end}, end, "up", **more)


def peak(schedule: Schedule, start: float, top: float, end: float, at: int, until: int, **more: Any) -> Example:
    """Example that goes up from ``start`` to ``top`` and then down to ``end``."""
    return Example(schedule, min(start, end), top, {0: start, at: top, until: end, until + 1: end}, end, **more)


def harmonic(count: mx.array) -> mx.array:
    """A user's schedule."""
    return 1.0 / (1.0 + count)


CYCLE: dict[str, Any] = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 3, "decay_steps": 10, "end_value": 0.01}

REGISTRY: dict[str, list[Example]] = {
    "constant_schedule": [
        Example(constant_schedule(0.1), 0.1, 0.1, {0: 0.1, 7: 0.1}, 0.1, "down"),
        Example(constant_schedule(-3), -3.0, -3.0, {0: -3.0}, -3.0, "up"),
    ],
    "linear_schedule": [
        down(linear_schedule(0.3, 0.1, 7), 0.3, 0.1, 7),
        down(linear_schedule(0.3, 0.1, 7, transition_begin=4), 0.3, 0.1, 11, begin=4),
        up(linear_schedule(-0.1, 0.7, LAST), -0.1, 0.7, LAST),
        up(linear_schedule(-1e38, 1e38, 3), -1e38, 1e38, 3),
        Example(linear_schedule(0.1, 0.1, 7), 0.1, 0.1, {3: 0.1}, 0.1, "down"),
    ],
    "linear_to_zero": [
        down(linear_to_zero(0.3, 1), 0.3, 0.0, 1),
        down(linear_to_zero(0.3, 2**24 + 1), 0.3, 0.0, 2**24 + 1),
    ],
    "polynomial_schedule": [
        down(polynomial_schedule(0.3, 0.1, 2.0, 20), 0.3, 0.1, 20),
        down(polynomial_schedule(0.3, 0.1, 0.3, 20, 5), 0.3, 0.1, 25, begin=5),
        up(polynomial_schedule(0.1, 0.3, 3, LAST), 0.1, 0.3, LAST),
    ],
    "cosine_decay": [
        down(cosine_decay(0.1, 100), 0.1, 0.0, 100),
        down(cosine_decay(0.1, 50, 0.01, exponent=1.5, transition_begin=9), 0.1, 0.01, 59, begin=9),
        up(cosine_decay(0.01, LAST, 0.1), 0.01, 0.1, LAST),
    ],
    "cosine_decay_schedule": [
        down(cosine_decay_schedule(0.5, 10), 0.5, 0.0, 10),
        down(cosine_decay_schedule(0.5, 1000, 0.1, 2.0), 0.5, 0.05, 1000),
    ],
    "rex_schedule": [down(rex_schedule(0.1, 20), 0.1, 0.0, 20), down(rex_schedule(0.1, LAST, 0.01), 0.1, 0.01, LAST)],
    "exponential_decay": [
        Example(exponential_decay(0.1, 0.9), 0.0, 0.1, {0: 0.1}, 0.0, "down"),
        Example(exponential_decay(0.1, 0.99, end_value=0.03), 0.03, 0.1, {0: 0.1, 10**6: 0.03}, 0.03, "down"),
        Example(exponential_decay(1e-3, 1.1), 1e-3, HUGE, {0: 1e-3}, HUGE, "up"),
        Example(exponential_decay(-1e-30, 1e30), -HUGE, -1e-30, {0: -1e-30}, -HUGE, "down"),
        Example(
            exponential_decay(0.1, 0.5, transition_steps=3, transition_begin=5, staircase=True),
            low=0.0,
            high=0.1,
            exact={0: 0.1, 7: 0.1},
            last=0.0,
            monotone="down",
        ),
    ],
    "half_life_schedule": [
        down(half_life_schedule(0.9999, 0.9, 20, transition_begin=5), 0.9999, 0.9, 25, begin=5),
        up(half_life_schedule(0.0, 0.9, 7), 0.0, 0.9, 7),
        up(half_life_schedule(0.9, 0.9999, LAST), 0.9, 0.9999, LAST),
    ],
    "step_decay": [
        Example(step_decay(0.1, 0.9, 10), 0.0, 0.1, {0: 0.1, 9: 0.1}, 0.0, "down"),
        Example(step_decay(0.1, 0.5, LAST), 0.0499, 0.1, {LAST - 1: 0.1}, 0.05, "down"),
    ],
    "piecewise_constant_schedule": [
        down(piecewise_constant_schedule(1.0, {3: 0.5, LAST: 0.5}), 1.0, 0.25, LAST, begin=2),
        Example(piecewise_constant_schedule(0.3), 0.3, 0.3, {0: 0.3}, 0.3, "up"),
    ],
    "piecewise_interpolate_schedule": [
        peak(piecewise_interpolate_schedule("linear", 1.0, {4: 2.0, 10: 0.25}), 1.0, 2.0, 0.5, 4, 10),
        peak(piecewise_interpolate_schedule("cosine", 1.0, {10: 0.25, 4: 2.0}), 1.0, 2.0, 0.5, 4, 10),
        Example(piecewise_interpolate_schedule("cosine", 0.3), 0.3, 0.3, {0: 0.3}, 0.3, "up"),
    ],
    "join_schedules": [
        Example(
            join_schedules([linear_schedule(0.0, 0.1, 5), harmonic, exponential_decay(0.1, 0.9)], [5, 300]),
            low=0.0,
            high=1.0,
            exact={0: 0.0, 5: 1.0, 300: 0.1},
            last=0.0,
            pieces=((0, linear_schedule(0.0, 0.1, 5)), (5, harmonic), (300, exponential_decay(0.1, 0.9))),
        ),
        down(join_schedules([linear_to_zero(1.0, 9)], []), 1.0, 0.0, 9, pieces=((0, linear_to_zero(1.0, 9)),)),
    ],
    "warmup_constant_schedule": [
        up(warmup_constant_schedule(0.01, 0.1, 5), 0.01, 0.1, 5),
        up(warmup_constant_schedule(0.0, 0.1, 2**24 + 3), 0.0, 0.1, 2**24 + 3),
        Example(warmup_constant_schedule(0.0, 0.1, 0), 0.1, 0.1, {0: 0.1}, 0.1, "down"),
    ],
    "warmup_cosine_decay_schedule": [
        peak(
            warmup_cosine_decay_schedule(0.0, 0.1, 5, 20),
            start=0.0,
            top=0.1,
            end=0.0,
            at=5,
            until=20,
            pieces=((0, linear_schedule(0.0, 0.1, 5)), (5, cosine_decay(0.1, 15))),
        ),
        peak(warmup_cosine_decay_schedule(0.02, 0.1, 1000, 10**6, 0.01, 2.0), 0.02, 0.1, 0.01, 1000, 10**6),
        down(warmup_cosine_decay_schedule(0.0, 0.1, 0, LAST, 0.01), 0.1, 0.01, LAST),
    ],
    "warmup_exponential_decay_schedule": [
        Example(
            warmup_exponential_decay_schedule(0.0, 0.1, 5, 5, 0.5, 7, True, 0.01),
            low=0.0,
            high=0.1,
            exact={0: 0.0, 5: 0.1, 16: 0.1, 10**4: 0.01},
            last=0.01,
            pieces=(
                (0, linear_schedule(0.0, 0.1, 5)),
                (5, step_decay(0.1, 0.5, 5, transition_begin=7)),
                (32, constant_schedule(0.01)),
            ),
        ),
    ],
    "inverse_sqrt_schedule": [
        Example(inverse_sqrt_schedule(0.1, 100), 0.0, 0.1, {0: 0.0, 100: 0.1}, 0.1 * math.sqrt(100 / LAST)),
        Example(inverse_sqrt_schedule(1.0, 0, timescale=LAST), 0.7, 1.0, {0: 1.0}, 0.5**0.5, "down"),
    ],
    "relative_step_schedule": [
        Example(relative_step_schedule(), 0.0, 0.01, {0: 0.01, 9999: 0.01, 39999: 0.005}, LAST**-0.5, "down"),
        Example(relative_step_schedule(warmup_rate=1e-6), 0.0, 0.01, {0: 1e-6}, LAST**-0.5),
    ],
    "wsd_schedule": [
        peak(
            wsd_schedule(0.1, 4, 8, 6),
            start=0.0,
            top=0.1,
            end=0.0,
            at=4,
            until=18,
            pieces=((0, linear_schedule(0.0, 0.1, 4)), (4, constant_schedule(0.1)), (12, linear_to_zero(0.1, 6))),
        ),
        peak(wsd_schedule(0.1, 4, 8, 6, init_value=0.02, shape="1-sqrt"), 0.02, 0.1, 0.0, 12, 18),
        down(wsd_schedule(0.1, 0, 0, LAST, end_value=0.01, shape="cosine"), 0.1, 0.01, LAST),
        down(wsd_schedule(0.1, 0, 5, 30, end_value=1e-7, shape="exponential"), 0.1, 1e-7, 35, begin=5),
        Example(wsd_schedule(0.1, 4, LAST, LAST), 0.0, 0.1, {0: 0.0, 4: 0.1, LAST: 0.1}, 0.1, "up"),
    ],
    "linear_onecycle_schedule": [peak(linear_onecycle_schedule(20, 0.1), 0.004, 0.1, 4e-7, 6, 20)],
    "cosine_onecycle_schedule": [peak(cosine_onecycle_schedule(1000, 0.1), 0.004, 0.1, 4e-7, 300, 1000)],
    "sgdr_schedule": [
        Example(
            sgdr_schedule([CYCLE, {**CYCLE, "peak_value": 0.05}]),
            low=0.0,
            high=0.1,
            exact={0: 0.0, 3: 0.1, 10: 0.0, 13: 0.05, 20: 0.01},
            last=0.01,
            pieces=(
                (0, warmup_cosine_decay_schedule(**CYCLE)),
                (10, warmup_cosine_decay_schedule(0.0, 0.05, 3, 10, 0.01)),
            ),
        )
    ],
    "with_warmup": [
        Example(
            with_warmup(harmonic, 8, 0.5),
            low=0.0,
            high=1.0,
            exact={0: 0.5, 8: 1.0, 9: 0.5},
            last=1 / (LAST - 7),
            pieces=((0, linear_schedule(0.5, 1.0, 8)), (8, harmonic)),
        ),
        down(with_warmup(linear_to_zero(1.0, 9), 0), 1.0, 0.0, 9, pieces=((0, linear_to_zero(1.0, 9)),)),
    ],
    "scaled": [
        down(scaled(linear_to_zero(0.5, 9), 2.0), 1.0, 0.0, 9),
        Example(scaled(harmonic, cosine_decay(1.0, 100, 0.5)), 0.0, 1.0, {0: 1.0}, 0.5 / 2**31, "down"),
        Example(scaled(exponential_decay(1.0, 3.0), 10.0), 10.0, HUGE, {0: 10.0}, HUGE, "up"),
    ],
    "shifted": [
        down(shifted(linear_to_zero(1.0, 20), -5), 1.0, 0.0, 25, begin=5),
        Example(shifted(linear_to_zero(1.0, 8), 4), 0.0, 0.5, {0: 0.5, 4: 0.0}, 0.0, "down"),
        Example(shifted(linear_schedule(0.0, 1.0, LAST), LAST), 1.0, 1.0, {0: 1.0, 1: 1.0}, 1.0, "up"),
        Example(shifted(linear_schedule(0.0, 1.0, 5), -LAST), 0.0, 0.0, {0: 0.0}, 0.0, "up"),
    ],
    "repeated": [
        Example(
            repeated(cosine_decay(0.1, 5), 5),
            low=0.0,
            high=0.1,
            exact={0: 0.1, 5: 0.1, LAST - LAST % 5: 0.1},
            last=0.1 * math.cos(0.2 * math.pi) ** 2,
            pieces=((0, cosine_decay(0.1, 5)), (5, cosine_decay(0.1, 5)), (10, repeated(cosine_decay(0.1, 5), 5))),
        ),
    ],
    "clipped": [
        Example(clipped(harmonic, 0.1, 0.5), 0.1, 0.5, {0: 0.5, 1: 0.5, 9: 0.1, 10: 0.1}, 0.1, "down"),
        Example(clipped(exponential_decay(1.0, 2.0), high=100.0), 1.0, 100.0, {0: 1.0, 7: 100.0}, 100.0, "up"),
    ],
}


# Helpers


def tidy(values: Any) -> list[float]:
    """Values as a flat list of Python floats."""
    flat: list[float] = mx.array(values).reshape(-1).tolist()  # type: ignore[assignment]
    return flat


def in_float32(value: float) -> float:
    return tidy(mx.array(value, mx.float32))[0]


def assert_close(actual: Any, expected: Any) -> None:
    """Equal within 2 units in the last place of the largest value."""
    ours, theirs = tidy(actual), tidy(expected)
    assert len(ours) == len(theirs)
    assert all(abs(a - b) <= 2 * 2.0**-23 * max(map(abs, theirs)) for a, b in zip(ours, theirs, strict=True))


# Laws


def law_of_all_schedules(example: Example) -> None:
    """What is asked of any schedule, and what this one promises."""
    check_schedule(
        example.schedule,
        horizon=300,
        boundaries=example.exact,
        increasing=example.monotone == "up",
        decreasing=example.monotone == "down",
        between=(example.low, example.high),
    )


def law_any_array_of_counts(example: Example) -> None:
    """The value is float32, has the shape of the count, and is the same for counts of any integer dtype."""
    counts = mx.array([EDGES, EDGES], mx.int32)
    curve = example.schedule(counts)
    for same in (counts.astype(mx.uint32), counts.astype(mx.int64), counts.astype(mx.uint64)):
        assert_close(example.schedule(same), curve)
    for count in (3, mx.array(3), mx.array(3, mx.uint64), mx.arange(3), counts, mx.arange(0)):
        value = example.schedule(count)
        assert value.dtype == mx.float32
        assert value.shape == (count.shape if isinstance(count, mx.array) else ())


def law_pieces_equal_their_parts(example: Example) -> None:
    """Each piece has the values of its part, counted from where the piece begins."""
    ends = [start for start, _ in example.pieces[1:]] + [LAST + 1]
    for (start, part), end in zip(example.pieces, ends, strict=True):
        inside = [*range(start, min(start + 20, end)), *(count for count in EDGES if start <= count < end), end - 1]
        here = mx.array(inside, mx.int32)
        assert_close(example.schedule(here), Curve(part)(here - start))


def law_the_last_count_saturates(example: Example) -> None:
    """At the largest count the value is the last one, and a larger count changes nothing."""
    for count in (LAST, 2**31, 2**40, mx.array(LAST), mx.array(2**31, mx.uint32), mx.array(2**62, mx.uint64)):
        assert tidy(example.schedule(count)) == [pytest.approx(in_float32(example.last), rel=2e-6, abs=0)]


LAWS: dict[Callable[[Example], None], Callable[[Example], bool]] = {
    law_of_all_schedules: lambda example: True,
    law_any_array_of_counts: lambda example: True,
    law_pieces_equal_their_parts: lambda example: bool(example.pieces),
    law_the_last_count_saturates: lambda example: True,
}
"""The laws and the examples each is about."""


# The laws hold


EXAMPLES = {f"{name}.{index}": example for name, examples in REGISTRY.items() for index, example in enumerate(examples)}

# Compiling costs about a second each: one example of every rule there is, the others are made of the same rules.
COMPILED = [
    *("cosine_decay", "polynomial_schedule", "rex_schedule", "exponential_decay", "half_life_schedule"),
    *("inverse_sqrt_schedule", "wsd_schedule", "join_schedules", "scaled", "shifted", "repeated", "clipped"),
]


@pytest.fixture
def uncompiled() -> Iterator[None]:
    mx.disable_compile()
    yield
    mx.enable_compile()


def test_every_public_schedule_is_in_the_registry() -> None:
    public = {name for name, value in vars(schedules).items() if callable(value) and not name.startswith("_")}
    follow_the_loss = {"StatefulSchedule", "plateau_schedule"}
    assert public - {"Curve"} - follow_the_loss == REGISTRY.keys()


@pytest.mark.parametrize(
    ("law", "name"), [(law, name) for law, about in LAWS.items() for name in EXAMPLES if about(EXAMPLES[name])]
)
@pytest.mark.usefixtures("uncompiled")
def test_laws(law: Callable[[Example], None], name: str) -> None:
    law(EXAMPLES[name])


@pytest.mark.parametrize("name", COMPILED)
def test_laws_compiled(name: str) -> None:
    law_of_all_schedules(REGISTRY[name][-1])


# The laws can fail


def broken(schedule: Schedule, **promises: Any) -> Example:
    """Example of a schedule from 0.1 at count 0 to 0 at count 10, with other promises where given."""
    promised = Example(schedule, low=0.0, high=0.1, exact={0: 0.1, 10: 0.0}, last=0.0, monotone="down")
    return promised._replace(**promises)


TICKS = itertools.count()

# What is wrong, in the words of the error where ``check_schedule`` raises it.
BROKEN: list[tuple[Callable[[Example], None], str, Example]] = [
    (
        law_of_all_schedules,
        "it gives an int what it gives an array",
        broken(lambda count: mx.array(0.1) if isinstance(count, int) else linear_to_zero(0.1, 10)(count)),
    ),
    (
        law_of_all_schedules,
        "it is the same compiled",
        broken(Curve(lambda count: mx.full(count.shape, 0.01 + 0.01 * next(TICKS)))),
    ),
    (
        law_any_array_of_counts,
        "a count of 64 bits takes another branch",
        broken(lambda count: linear_to_zero(0.1, 10)(count if mx.array(count).dtype != mx.int64 else count + 1)),
    ),
    (
        law_any_array_of_counts,
        "the value has no shape",
        broken(lambda count: mx.array(0.1)),
    ),
    (
        law_any_array_of_counts,
        "the value has too few digits",
        broken(lambda count: linear_to_zero(0.1, 10)(count).astype(mx.float16)),
    ),
    (
        law_of_all_schedules,
        "it stays between 0 and 0",
        broken(Curve(lambda count: 0.1 - 0.01 * count)),
    ),
    (
        law_of_all_schedules,
        "it is finite at every count",
        broken(Curve(lambda count: mx.power(2.0, count)), low=1.0, high=HUGE),
    ),
    (
        law_of_all_schedules,
        "it has the value stated at a boundary",
        broken(Curve(lambda count: linear_to_zero(0.1, 10)(count + 1))),
    ),
    (
        law_of_all_schedules,
        "it never rises",
        broken(Curve(lambda count: 0.05 * (1 + mx.cos(math.pi / 10 * count)))),
    ),
    (
        law_of_all_schedules,
        "it never falls",
        broken(linear_to_zero(0.1, 10), monotone="up"),
    ),
    (
        law_of_all_schedules,
        "it never rises. At count 3",
        broken(Curve(lambda count: mx.where((count > 100000) & (count < 300000), 0.0, 0.1)), exact={0: 0.1}),
    ),
    (
        law_pieces_equal_their_parts,
        "the second piece counts from the start",
        broken(
            Curve(lambda count: mx.where(count < 5, 0.1, linear_to_zero(0.1, 10)(count))),
            pieces=((0, constant_schedule(0.1)), (5, linear_to_zero(0.1, 10))),
        ),
    ),
    (
        law_the_last_count_saturates,
        "the count wraps",
        broken(Curve(lambda count: linear_to_zero(0.1, 10)(count + 5))),
    ),
    (
        law_of_all_schedules,
        "it stays between 0.1 and 0.1",
        broken(Curve(lambda count: mx.full(count.shape, 0.1, mx.float16)), low=0.1),
    ),
]


@pytest.mark.parametrize(("law", "example", "why"), [pytest.param(law, bad, why, id=why) for law, why, bad in BROKEN])
def test_a_broken_schedule_fails_its_law(law: Callable[[Example], None], example: Example, why: str) -> None:
    with pytest.raises(AssertionError, match=why if law is law_of_all_schedules else None):
        law(example)


def test_every_law_has_a_broken_schedule() -> None:
    assert {law for law, _, _ in BROKEN} == LAWS.keys()
