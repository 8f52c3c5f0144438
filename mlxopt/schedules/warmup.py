"""Schedules that climb to a peak and then do something else: a warm-up in front of another schedule."""

import mlx.core as mx

from mlxopt import checks
from mlxopt.readable import readable
from mlxopt.schedules.combinators import with_warmup
from mlxopt.schedules.curve import Curve, values
from mlxopt.schedules.decay import constant_schedule, cosine_decay, exponential_decay
from mlxopt.schedules.ramp import cosine, geometric, ramp, root, straight

_WAYS_DOWN = {"linear": straight, "1-sqrt": root, "cosine": cosine}


@readable
def warmup_constant_schedule(init_value: float, peak_value: float, warmup_steps: int) -> Curve:
    """Climb in a straight line to a value and stay there.

    Args:
        init_value: Value at count 0.
        peak_value: Value from ``warmup_steps`` on.
        warmup_steps: Length of the warm-up.

    Example:
        >>> warmup_constant_schedule(0.0, 1.0, 2)(mx.arange(4))
        array([0, 0.5, 1, 1], dtype=float32)
    """
    values("warmup_constant_schedule", init_value=init_value, peak_value=peak_value)
    checks.whole("warmup_constant_schedule", warmup_steps=warmup_steps)
    return with_warmup(constant_schedule(peak_value), warmup_steps, init_value)


@readable
def warmup_cosine_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> Curve:
    """Climb in a straight line, then decay along half a cosine wave.

    Args:
        init_value: Value at count 0.
        peak_value: Value at count ``warmup_steps``.
        warmup_steps: Length of the warm-up.
        decay_steps: Count at which the decay ends: the length of the whole, warm-up included.
        end_value: Value from then on.
        exponent: Power to which the cosine is raised.

    Example:
        >>> warmup_cosine_decay_schedule(0.0, 1.0, 2, 4)(mx.arange(6))
        array([0, 0.5, 1, 0.5, 0, 0], dtype=float32)

    Reference:
        Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983.
    """
    where = "warmup_cosine_decay_schedule"
    values(where, init_value=init_value, peak_value=peak_value, end_value=end_value)
    checks.positive(where, exponent=exponent)
    checks.whole(where, warmup_steps=warmup_steps, decay_steps=decay_steps)
    if decay_steps <= warmup_steps:
        raise ValueError(
            f"{where}: decay_steps must be above warmup_steps, got {decay_steps} and {warmup_steps}. "
            "Pass the length of the whole schedule, warm-up included."
        )
    decay = cosine_decay(peak_value, decay_steps - warmup_steps, end_value, exponent=exponent)
    return with_warmup(decay, warmup_steps, init_value)


@readable
def warmup_exponential_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Curve:
    """Climb in a straight line, then decay exponentially.

    Args:
        init_value: Value at count 0.
        peak_value: Value at count ``warmup_steps``.
        warmup_steps: Length of the warm-up.
        transition_steps: Counts after which the whole factor has been applied.
        decay_rate: Factor above 0; below 1 the value decays, above 1 it grows.
        transition_begin: Counts that the peak is held after the warm-up.
        staircase: Apply the factor all at once, every ``transition_steps`` counts.
        end_value: Value at which the decay stops.

    Example:
        >>> warmup_exponential_decay_schedule(0.0, 1.0, 2, 1, 0.5)(mx.arange(5))
        array([0, 0.5, 1, 0.5, 0.25], dtype=float32)
    """
    where = "warmup_exponential_decay_schedule"
    values(where, init_value=init_value, peak_value=peak_value)
    checks.positive(where, decay_rate=decay_rate)
    checks.whole(where, warmup_steps=warmup_steps, transition_begin=transition_begin)
    checks.whole(where, low=1, transition_steps=transition_steps)
    decay = exponential_decay(
        peak_value,
        decay_rate,
        transition_steps=transition_steps,
        transition_begin=transition_begin,
        staircase=staircase,
        end_value=end_value,
    )
    return with_warmup(decay, warmup_steps, init_value)


@readable
def inverse_sqrt_schedule(
    peak_value: float, warmup_steps: int, *, init_value: float = 0.0, timescale: int | None = None
) -> Curve:
    """Climb in a straight line, then decay as one over the root of the count.

    ``peak_value * sqrt(timescale / (t - warmup_steps + timescale))`` after the warm-up.

    Args:
        peak_value: Value at count ``warmup_steps``.
        warmup_steps: Length of the warm-up.
        init_value: Value at count 0.
        timescale: Counts that divide the value by the root of 2; ``warmup_steps`` by default.

    Example:
        >>> inverse_sqrt_schedule(1.0, 1)(mx.arange(5))
        array([0, 1, 0.707107, 0.57735, 0.5], dtype=float32)

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.
    """
    values("inverse_sqrt_schedule", peak_value=peak_value, init_value=init_value)
    checks.whole("inverse_sqrt_schedule", warmup_steps=warmup_steps)
    scale = warmup_steps if timescale is None else timescale
    checks.whole("inverse_sqrt_schedule", low=1, timescale=scale)

    peak, length = float(peak_value), float(scale)

    def decay(count: mx.array) -> mx.array:
        return peak * mx.sqrt(length / (count.astype(mx.float32) + length))

    return with_warmup(decay, warmup_steps, init_value)


@readable
def wsd_schedule(
    peak_value: float,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    *,
    init_value: float = 0.0,
    end_value: float = 0.0,
    shape: str = "linear",
) -> Curve:
    """Warm up, stay stable, decay.

    The decay runs from ``peak_value`` to ``end_value``; after its fraction ``x`` there is left of it ``1 - x``
    ("linear"), ``1 - sqrt(x)`` ("1-sqrt") or ``(1 + cos(pi x)) / 2`` ("cosine"), or the value is
    ``peak_value * (end_value / peak_value)**x`` ("exponential").

    Args:
        peak_value: Value between warm-up and decay.
        warmup_steps: Length of the warm-up.
        stable_steps: Length of the time at the peak.
        decay_steps: Length of the decay.
        init_value: Value at count 0.
        end_value: Value after the decay.
        shape: Way down, ``"linear"``, ``"1-sqrt"``, ``"cosine"`` or ``"exponential"``.

    Example:
        >>> wsd_schedule(1.0, 2, 1, 2)(mx.arange(6))
        array([0, 0.5, 1, 1, 0.5, 0], dtype=float32)

    Reference:
        Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies", 2024,
        arXiv:2404.06395. The shape "1-sqrt": Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed
        Training Durations", 2024, arXiv:2405.18392.
    """
    where = "wsd_schedule"
    values(where, peak_value=peak_value, init_value=init_value, end_value=end_value)
    checks.whole(where, warmup_steps=warmup_steps, stable_steps=stable_steps)
    checks.whole(where, low=1, decay_steps=decay_steps)
    checks.choice(where, "shape", shape, [*_WAYS_DOWN, "exponential"])
    if shape == "exponential" and not 0 < end_value <= peak_value:
        raise ValueError(
            f"{where}: 0 < end_value <= peak_value must hold for the shape 'exponential', got end_value {end_value} "
            f"and peak_value {peak_value}. Pass a small end_value such as 0.01 * peak_value."
        )
    way_down = _WAYS_DOWN[shape] if shape in _WAYS_DOWN else geometric(peak_value, end_value)
    return with_warmup(ramp(peak_value, end_value, decay_steps, way_down, stable_steps), warmup_steps, init_value)


@readable
def relative_step_schedule(largest: float = 1e-2, warmup_rate: float | None = None) -> Curve:
    """Stay at a value, then decay as one over the root of the number of updates: ``min(largest, 1 / sqrt(t + 1))``.

    Args:
        largest: Value at the beginning.
        warmup_rate: Climb by this much with every update first.

    Example:
        >>> relative_step_schedule()(mx.array([0, 39999]))
        array([0.01, 0.005], dtype=float32)
        >>> relative_step_schedule(warmup_rate=1e-6)(mx.array([0, 99]))
        array([1e-06, 0.0001], dtype=float32)

    Reference:
        Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, arXiv:1804.04235.
    """
    values("relative_step_schedule", largest=largest)
    checks.positive("relative_step_schedule", largest=largest)
    if warmup_rate is not None:
        checks.positive("relative_step_schedule", warmup_rate=warmup_rate)
    top, climb = float(largest), float(warmup_rate or 0.0)

    def rule(count: mx.array) -> mx.array:
        updates = count.astype(mx.float32) + 1
        bounded = mx.minimum(top, mx.rsqrt(updates))
        return bounded if warmup_rate is None else mx.minimum(bounded, climb * updates)

    return Curve(rule)
