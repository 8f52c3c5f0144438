"""New schedules from old ones; the old ones may be any function from a count to a value."""

from typing import Any

import mlx.core as mx

from mlxopt import checks
from mlxopt.base import ScalarOrSchedule, Schedule
from mlxopt.numerics.scalars import LARGEST_COUNT
from mlxopt.readable import readable
from mlxopt.schedules.curve import Curve, as_curve, saturated, values
from mlxopt.schedules.joining import join_schedules
from mlxopt.schedules.ramp import ramp


@readable
def with_warmup(schedule: Schedule, warmup_steps: int, init_value: float = 0.0) -> Curve:
    """Climb in a straight line to the first value of a schedule before following it.

    ``init_value + (schedule(0) - init_value) * t / warmup_steps``, then ``schedule(t - warmup_steps)``.

    Args:
        schedule: What comes after the warm-up.
        warmup_steps: Length of the warm-up; 0 leaves it out.
        init_value: Value at count 0.

    Example:
        >>> with_warmup(lambda count: 1.0 / (1.0 + count), 2)(mx.arange(5))
        array([0, 0.5, 1, 0.5, 0.333333], dtype=float32)

    Reference:
        Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, arXiv:1706.02677.
    """
    main = as_curve("with_warmup", schedule)
    checks.whole("with_warmup", warmup_steps=warmup_steps)
    values("with_warmup", init_value=init_value)
    if warmup_steps == 0:
        return main
    top: Any = main(0).item()
    values("with_warmup", **{"schedule(0)": top})
    return join_schedules([ramp(init_value, top, warmup_steps), main], [warmup_steps])


@readable
def scaled(schedule: Schedule, factor: ScalarOrSchedule) -> Curve:
    """Multiply a schedule by a number or by another schedule.

    Args:
        schedule: What is multiplied.
        factor: Number or schedule.

    Example:
        >>> scaled(lambda count: 1.0 + count, 0.5)(mx.arange(3))
        array([0.5, 1, 1.5], dtype=float32)
    """
    base = as_curve("scaled", schedule)
    checks.scalar_or_schedule("scaled", factor=factor)
    if callable(factor):
        other = as_curve("scaled", factor)
        return Curve(lambda count: saturated(base(count) * other(count)))
    values("scaled", factor=factor)
    times = float(factor)
    return Curve(lambda count: saturated(times * base(count)))


@readable
def shifted(schedule: Schedule, offset: int) -> Curve:
    """Run a schedule ahead of the count, or behind it.

    ``schedule(t + offset)``, where ``t + offset`` stays within ``[0, 2**31 - 1]``.

    Args:
        schedule: What is shifted.
        offset: Counts to skip; below 0, counts to wait.

    Example:
        >>> later = shifted(lambda count: 1.0 / (1.0 + count), -1)
        >>> later(mx.arange(4))
        array([1, 1, 0.5, 0.333333], dtype=float32)
    """
    base = as_curve("shifted", schedule)
    checks.whole("shifted", low=-LARGEST_COUNT, offset=offset)
    ahead = int(offset)
    last = LARGEST_COUNT - max(ahead, 0)
    return Curve(lambda count: base(mx.minimum(count, last) + ahead))


@readable
def repeated(schedule: Schedule, period: int) -> Curve:
    """Start a schedule again and again.

    ``schedule(t % period)``.

    Args:
        schedule: What is repeated.
        period: Counts after which it starts again.

    Example:
        >>> repeated(lambda count: 1.0 / (1.0 + count), 2)(mx.arange(5))
        array([1, 0.5, 1, 0.5, 1], dtype=float32)
    """
    base = as_curve("repeated", schedule)
    checks.whole("repeated", low=1, period=period)
    length = int(period)
    return Curve(lambda count: base(count % length))


@readable
def clipped(schedule: Schedule, low: float | None = None, high: float | None = None) -> Curve:
    """Keep a schedule between two values.

    ``min(max(schedule(t), low), high)``.

    Args:
        schedule: What is clipped.
        low: Smallest value; ``None`` sets no bound.
        high: Largest value; ``None`` sets no bound.

    Example:
        >>> clipped(lambda count: 1.0 / (1.0 + count), low=0.4)(mx.arange(4))
        array([1, 0.5, 0.4, 0.4], dtype=float32)
    """
    base = as_curve("clipped", schedule)
    bounds = {"the lower bound": low, "the upper bound": high}
    values("clipped", **{name: bound for name, bound in bounds.items() if bound is not None})
    if low is None and high is None:
        raise ValueError("clipped: low or high must be given, got neither. Pass at least one of them.")
    if low is not None and high is not None and low > high:
        raise ValueError(f"clipped: low must not be above high, got {low} and {high}. Swap them.")
    lowest, highest = (bound if bound is None else float(bound) for bound in (low, high))
    return Curve(lambda count: mx.clip(base(count), lowest, highest))
