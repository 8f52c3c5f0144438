"""Schedules that rise and fall: one cycle, or several with restarts."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mlxopt import checks
from mlxopt.readable import readable
from mlxopt.schedules.curve import Curve, values
from mlxopt.schedules.joining import join_schedules, through
from mlxopt.schedules.ramp import cosine, straight
from mlxopt.schedules.warmup import warmup_cosine_decay_schedule


@readable
def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Curve:
    """Rise to a peak, fall back as far, then fall to almost nothing, each in a straight line.

    From ``peak / div_factor`` to ``peak``, back, and to ``peak / div_factor / final_div_factor``.

    Args:
        transition_steps: Length of the cycle.
        peak_value: Highest value.
        pct_start: Fraction of the cycle at which the peak is reached.
        pct_final: Fraction of the cycle at which the last fall begins.
        div_factor: Peak over first value.
        final_div_factor: First value over last value.

    Example:
        >>> import mlx.core as mx
        >>> linear_onecycle_schedule(5, 1.0, 0.4, 0.8, div_factor=2.0, final_div_factor=2.0)(mx.arange(6))
        array([0.5, 0.75, 1, 0.75, 0.5, 0.25], dtype=float32)

    Reference:
        Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2017,
        arXiv:1708.07120.
    """
    where = "linear_onecycle_schedule"
    ends = _phase_ends(where, transition_steps, pct_start=pct_start, pct_final=pct_final)
    first, last = _outer_levels(where, peak_value, div_factor, final_div_factor)
    return through([first, peak_value, first, last], ends, straight)


@readable
def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Curve:
    """Rise to a peak and fall to almost nothing, each along half a cosine wave.

    From ``peak / div_factor`` to ``peak`` and to ``peak / div_factor / final_div_factor``.

    Args:
        transition_steps: Length of the cycle.
        peak_value: Highest value.
        pct_start: Fraction of the cycle at which the peak is reached.
        div_factor: Peak over first value.
        final_div_factor: First value over last value.

    Example:
        >>> import mlx.core as mx
        >>> cosine_onecycle_schedule(4, 1.0, 0.5, div_factor=2.0, final_div_factor=2.0)(mx.arange(6))
        array([0.5, 0.75, 1, 0.625, 0.25, 0.25], dtype=float32)

    Reference:
        Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2017,
        arXiv:1708.07120.
    """
    where = "cosine_onecycle_schedule"
    ends = _phase_ends(where, transition_steps, pct_start=pct_start)
    first, last = _outer_levels(where, peak_value, div_factor, final_div_factor)
    return through([first, peak_value, last], ends, cosine)


def _phase_ends(where: str, transition_steps: int, **fractions: Any) -> list[int]:
    checks.whole(where, low=1, transition_steps=transition_steps)
    checks.number(where, low=0.0, high=1.0, **fractions)
    ends = [*(int(fraction * transition_steps) for fraction in fractions.values()), transition_steps]
    if any(until <= since for since, until in zip([0, *ends], ends, strict=False)):
        raise ValueError(
            f"{where}: every phase must last at least one step, got phases that end at {ends}. "
            f"Pass more transition_steps or change {' and '.join(fractions)}."
        )
    return ends


def _outer_levels(where: str, peak_value: float, div_factor: float, final_div_factor: float) -> tuple[float, float]:
    values(where, peak_value=peak_value)
    checks.positive(where, div_factor=div_factor, final_div_factor=final_div_factor)
    first = peak_value / div_factor
    return first, first / final_div_factor


@readable
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> Curve:
    """Run cosine decays with warm-up one after the other.

    Args:
        cosine_kwargs: Arguments of ``warmup_cosine_decay_schedule`` for each cycle; its ``decay_steps`` is the length
            of the cycle.

    Example:
        >>> import mlx.core as mx
        >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 3}
        >>> sgdr_schedule([cycle, cycle])(mx.arange(6))
        array([0, 1, 0.5, 0, 1, 0.5], dtype=float32)

    Reference:
        Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983.
    """
    if not cosine_kwargs:
        raise ValueError("sgdr_schedule: at least one cycle must be given, got none. Pass a list of dicts.")
    cycles = [_cycle(index, kwargs) for index, kwargs in enumerate(cosine_kwargs)]
    lengths = [kwargs["decay_steps"] for kwargs in cosine_kwargs]
    return join_schedules(cycles, [sum(lengths[: index + 1]) for index in range(len(lengths) - 1)])


def _cycle(index: int, kwargs: Mapping[str, Any]) -> Curve:
    where = f"sgdr_schedule: cycle {index}"
    if not isinstance(kwargs, Mapping):
        raise TypeError(
            f"{where} must be a dict, got {kwargs!r}. Pass arguments of warmup_cosine_decay_schedule by name."
        )
    try:
        inspect.signature(warmup_cosine_decay_schedule).bind(**kwargs)
    except TypeError as error:
        raise TypeError(
            f"{where} must hold the arguments of warmup_cosine_decay_schedule, got {list(kwargs)}: {error}. "
            "Mend its keys."
        ) from None
    try:
        return warmup_cosine_decay_schedule(**kwargs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None
