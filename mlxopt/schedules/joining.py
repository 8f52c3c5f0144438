"""Schedules made of pieces that follow one another."""

import itertools
import operator
from collections.abc import Mapping, Sequence

import mlx.core as mx

from mlxopt import checks
from mlxopt.base import Schedule
from mlxopt.readable import readable
from mlxopt.schedules.curve import Curve, as_curve, values
from mlxopt.schedules.decay import constant_schedule
from mlxopt.schedules.ramp import Shape, cosine, ramp, straight


@readable
def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Curve:
    """Follow one schedule after the other.

    From ``boundaries[i]`` on, ``schedules[i + 1]`` is called with the count since that boundary.

    Args:
        schedules: Schedules in order.
        boundaries: Counts at which the next one takes over, one fewer than there are schedules.

    Example:
        >>> join_schedules([constant_schedule(1.0), constant_schedule(0.5)], [2])(mx.arange(4))
        array([1, 1, 0.5, 0.5], dtype=float32)
    """
    first, *rest = _pieces(schedules)
    if len(boundaries) != len(rest):
        raise ValueError(
            f"join_schedules: boundaries must be one fewer than schedules, got {len(boundaries)} for {len(schedules)} "
            "schedules. Pass the count at which each schedule but the first begins."
        )
    checks.increasing("join_schedules", "boundaries", boundaries)
    starts = tuple(int(boundary) for boundary in boundaries)

    def rule(count: mx.array) -> mx.array:
        value = first(count)
        for start, schedule in zip(starts, rest, strict=True):
            value = mx.where(count >= start, schedule(count - start), value)
        return value

    return Curve(rule)


def _pieces(schedules: Sequence[Schedule]) -> list[Curve]:
    if not isinstance(schedules, Sequence) or not schedules:
        raise ValueError(
            f"join_schedules: schedules must be a list of at least one, got {schedules!r}. Pass a list of schedules."
        )
    return [as_curve("join_schedules", schedule) for schedule in schedules]


def through(levels: Sequence[float], boundaries: Sequence[int], shape: Shape) -> Curve:
    """Pass through one level after the other, the next one reached at each boundary, and stay at the last."""
    ways = zip(itertools.pairwise(levels), itertools.pairwise((0, *boundaries)), strict=True)
    ramps = [ramp(start, end, until - since, shape) for (start, end), (since, until) in ways]
    return join_schedules([*ramps, constant_schedule(levels[-1])], boundaries)


@readable
def piecewise_constant_schedule(init_value: float, boundaries_and_scales: Mapping[int, float] | None = None) -> Curve:
    """Multiply the value by a factor at each of some counts.

    ``init_value`` times the product of the scales whose boundary has been reached.

    Args:
        init_value: Value at count 0.
        boundaries_and_scales: Factor by the count from which it holds.

    Example:
        >>> piecewise_constant_schedule(1.0, {1: 0.5, 3: 0.5})(mx.arange(4))
        array([1, 0.5, 0.5, 0.25], dtype=float32)
    """
    levels, boundaries = _levels("piecewise_constant_schedule", init_value, boundaries_and_scales)
    return join_schedules([constant_schedule(level) for level in levels], boundaries)


@readable
def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: float, boundaries_and_scales: Mapping[int, float] | None = None
) -> Curve:
    """Move from one level to the next, each a multiple of the one before.

    The level at a boundary is ``init_value`` times the product of the scales up to it.

    Args:
        interpolate_type: Way between two levels, ``"linear"`` or ``"cosine"``.
        init_value: Value at count 0.
        boundaries_and_scales: Factor by the count at which it has been applied in full.

    Example:
        >>> piecewise_interpolate_schedule("linear", 1.0, {2: 2.0, 4: 0.5})(mx.arange(6))
        array([1, 1.5, 2, 1.5, 1, 1], dtype=float32)
    """
    shapes = {"linear": straight, "cosine": cosine}
    checks.choice("piecewise_interpolate_schedule", "interpolate_type", interpolate_type, list(shapes))
    levels, boundaries = _levels("piecewise_interpolate_schedule", init_value, boundaries_and_scales)
    return through(levels, boundaries, shapes[interpolate_type])


def _levels(
    where: str, init_value: float, boundaries_and_scales: Mapping[int, float] | None
) -> tuple[list[float], list[int]]:
    values(where, init_value=init_value)
    scales = {} if boundaries_and_scales is None else boundaries_and_scales
    if not isinstance(scales, Mapping):
        raise TypeError(
            f"{where}: boundaries_and_scales must be a dict of scales by count, got {scales!r}. Pass {{count: scale}}."
        )
    for boundary in scales:
        checks.whole(where, low=1, **{"a boundary": boundary})
    boundaries = sorted(scales)
    checks.increasing(where, "boundaries", boundaries)
    for boundary in boundaries:
        checks.non_negative(where, **{f"the scale at {boundary}": scales[boundary]})
    levels = list(itertools.accumulate((scales[boundary] for boundary in boundaries), operator.mul, initial=init_value))
    values(where, **{"the largest level": max(levels, key=abs)})
    return levels, boundaries
