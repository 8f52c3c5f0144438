"""Test a schedule of your own on hundreds of settings: state what must hold, and let hypothesis look for an exception.

Runs as a script, and under pytest: ``pytest examples/property_testing.py``.
"""

from collections.abc import Callable

import mlx.core as mx
from hypothesis import given, settings
from hypothesis import strategies as st

import mlxopt as mo
from mlxopt.schedules import Curve
from mlxopt.testing import check_schedule

Factory = Callable[[float, int, int], Curve]
Property = Callable[[Curve, float, int, int, int], None]


@mo.readable
def slow_start(peak: float, warmup_steps: int, decay_steps: int) -> Curve:
    """Climb along a parabola, then fall in a straight line to zero."""

    def value(count: mx.array) -> mx.array:
        climbed = mx.minimum(count / warmup_steps, 1.0)
        fallen = mx.clip((count - warmup_steps) / decay_steps, 0.0, 1.0)
        return peak * mx.square(climbed) * (1.0 - fallen)

    return Curve(value)


@mo.readable
def broken_slow_start(peak: float, warmup_steps: int, decay_steps: int) -> Curve:
    """The same as it was written first. Can you see what is wrong?"""

    def value(count: mx.array) -> mx.array:
        climbed = peak * (count * count) / warmup_steps**2
        fallen = mx.clip((count - warmup_steps) / decay_steps, 0.0, 1.0)
        return mx.where(count < warmup_steps, climbed, peak * (1.0 - fallen))

    return Curve(value)


# What must hold, for any peak, any lengths and any count


def obeys_the_laws(schedule: Curve, peak: float, warmup: int, decay: int, count: int) -> None:
    """What every schedule should: the same eager, compiled and in an array, finite, and exact where pieces meet."""
    check_schedule(schedule, horizon=20, boundaries={0: 0.0, warmup: peak, warmup + decay: 0.0})


def stays_between_zero_and_peak(schedule: Curve, peak: float, warmup: int, decay: int, count: int) -> None:
    curve = schedule(mx.arange(count + 1))
    assert mx.all((curve >= 0.0) & (curve <= peak * (1 + 1e-6)))


def falls_after_the_warmup(schedule: Curve, peak: float, warmup: int, decay: int, count: int) -> None:
    assert float(schedule(warmup + count + 1)) <= float(schedule(warmup + count))


EXAMPLES = {
    obeys_the_laws: 6,  # every one is a program to compile
    stays_between_zero_and_peak: 200,
    falls_after_the_warmup: 200,
}
"""How many settings each property is tried on."""


def counterexample(holds: Property, factory: Factory, examples: int) -> str | None:
    """The simplest schedule and count for which a property does not hold, if hypothesis finds any."""
    found: list[str] = []
    lengths = st.integers(1, 10**6)

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(peak=st.floats(2**-20, 8.0, width=32), warmup=lengths, decay=lengths, count=st.integers(0, 10**6))
    def search(peak: float, warmup: int, decay: int, count: int) -> None:
        schedule = factory(peak, warmup, decay)
        try:
            holds(schedule, peak, warmup, decay, count)
        except AssertionError:
            found.append(f"{schedule!r} is {float(schedule(count)):.3g} at count {count}")
            raise

    try:
        search()
    except AssertionError:
        return found[-1]  # hypothesis ends with the simplest one
    return None


def test_slow_start() -> None:
    for holds, examples in EXAMPLES.items():
        assert counterexample(holds, slow_start, examples) is None, holds.__name__


def main(share: float = 1.0) -> dict[str, dict[str, str | None]]:
    """Test both schedules on a share of the examples, show what was found, and return it."""
    results: dict[str, dict[str, str | None]] = {}
    for factory in (slow_start, broken_slow_start):
        name = factory.__name__
        results[name] = {}
        print(f"{name}: {factory.__doc__}\n")
        for holds, examples in EXAMPLES.items():
            found = counterexample(holds, factory, max(1, round(share * examples)))
            results[name][holds.__name__] = found
            print(f"  {'FAILS' if found else 'holds'}  {holds.__name__.replace('_', ' ')}", flush=True)
            if found:
                print(f"         {found}")
        print()
    print("46341 is the first count whose square does not fit an int32: it wraps round to a negative number.")
    return results


if __name__ == "__main__":
    main()
