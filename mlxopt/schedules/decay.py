"""Schedules that go once from one value to another."""

import math

import mlx.core as mx

from mlxopt import checks
from mlxopt.readable import readable
from mlxopt.schedules.curve import Curve, saturated, values
from mlxopt.schedules.ramp import bent, cosine, half_lives, ramp, reflected, straight, way


@readable
def constant_schedule(value: float) -> Curve:
    """Keep one value.

    Args:
        value: Value at every count.

    Example:
        >>> constant_schedule(0.5)(mx.arange(3))
        array([0.5, 0.5, 0.5], dtype=float32)
    """
    values("constant_schedule", value=value)
    level = float(value)
    return Curve(lambda count: level)


@readable
def linear_schedule(init: float, end: float, steps: int, *, transition_begin: int = 0) -> Curve:
    """Go from one value to another in a straight line.

    ``init + (end - init) * min(t, steps) / steps``, with ``t`` counted from ``transition_begin``.

    Args:
        init: Value at the beginning.
        end: Value from then on.
        steps: Length of the way.
        transition_begin: Count at which it begins.

    Example:
        >>> linear_schedule(0.0, 1.0, 4)(mx.arange(6))
        array([0, 0.25, 0.5, 0.75, 1, 1], dtype=float32)
    """
    values("linear_schedule", init=init, end=end)
    checks.whole("linear_schedule", low=1, steps=steps)
    checks.whole("linear_schedule", transition_begin=transition_begin)
    return ramp(init, end, steps, straight, transition_begin)


@readable
def linear_to_zero(init_value: float, decay_steps: int) -> Curve:
    """Decay in a straight line to exactly zero.

    ``init_value * (1 - min(t, decay_steps) / decay_steps)``.

    Args:
        init_value: Value at count 0.
        decay_steps: Count from which the value is 0.

    Example:
        >>> linear_to_zero(1.0, 4)(mx.arange(6))
        array([1, 0.75, 0.5, 0.25, 0, 0], dtype=float32)

    Reference:
        Bergsma et al., "Straight to Zero: Why Linearly Decaying the Learning Rate to Zero Works Best for LLMs", 2025,
        arXiv:2502.15938.
    """
    values("linear_to_zero", init_value=init_value)
    checks.whole("linear_to_zero", low=1, decay_steps=decay_steps)
    return linear_schedule(init_value, 0.0, decay_steps)


@readable
def polynomial_schedule(
    init_value: float, end_value: float, power: float, transition_steps: int, transition_begin: int = 0
) -> Curve:
    """Go from one value to another along a power of the way left.

    ``end_value + (init_value - end_value) * (1 - min(t, T) / T)**power``, with ``T = transition_steps``.

    Args:
        init_value: Value at the beginning.
        end_value: Value from the end of the transition on.
        power: Exponent; 1 is a straight line, more falls early and lands gently.
        transition_steps: Length of the transition.
        transition_begin: Count at which it begins.

    Example:
        >>> polynomial_schedule(1.0, 0.0, 2.0, 4)(mx.arange(6))
        array([1, 0.5625, 0.25, 0.0625, 0, 0], dtype=float32)
    """
    values("polynomial_schedule", init_value=init_value, end_value=end_value)
    checks.positive("polynomial_schedule", power=power)
    checks.whole("polynomial_schedule", low=1, transition_steps=transition_steps)
    checks.whole("polynomial_schedule", transition_begin=transition_begin)
    return ramp(init_value, end_value, transition_steps, bent(straight, power), transition_begin)


@readable
def cosine_decay(
    init: float, decay_steps: int, end: float = 0.0, *, exponent: float = 1.0, transition_begin: int = 0
) -> Curve:
    """Go from one value to another along half a cosine wave.

    ``end + (init - end) * ((1 + cos(pi * min(t, T) / T)) / 2)**exponent``, with ``T = decay_steps``.

    Args:
        init: Value at the beginning.
        decay_steps: Length of the decay.
        end: Value from then on.
        exponent: Power to which the cosine is raised.
        transition_begin: Count at which the decay begins.

    Example:
        >>> cosine_decay(1.0, 4)(mx.arange(6))
        array([1, 0.853553, 0.5, 0.146447, 0, 0], dtype=float32)

    Reference:
        Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983.
    """
    values("cosine_decay", init=init, end=end)
    checks.positive("cosine_decay", exponent=exponent)
    checks.whole("cosine_decay", low=1, decay_steps=decay_steps)
    checks.whole("cosine_decay", transition_begin=transition_begin)
    return ramp(init, end, decay_steps, bent(cosine, exponent), transition_begin)


@readable
def cosine_decay_schedule(init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0) -> Curve:
    """Decay to a fraction of the first value along half a cosine wave.

    ``cosine_decay`` to ``alpha * init_value``.

    Args:
        init_value: Value at count 0.
        decay_steps: Length of the decay.
        alpha: Share of ``init_value`` that stays.
        exponent: Power to which the cosine is raised.

    Example:
        >>> cosine_decay_schedule(2.0, 2, alpha=0.5)(mx.arange(4))
        array([2, 1.5, 1, 1], dtype=float32)
    """
    values("cosine_decay_schedule", init_value=init_value, alpha=alpha)
    checks.positive("cosine_decay_schedule", exponent=exponent)
    checks.whole("cosine_decay_schedule", low=1, decay_steps=decay_steps)
    return cosine_decay(init_value, decay_steps, alpha * init_value, exponent=exponent)


@readable
def rex_schedule(init_value: float, decay_steps: int, end_value: float = 0.0) -> Curve:
    """Decay slowly first and ever faster towards the end.

    ``end_value + (init_value - end_value) * (1 - x) / (1 - x / 2)``, with ``x = min(t, decay_steps) / decay_steps``.

    Args:
        init_value: Value at count 0.
        decay_steps: Length of the decay.
        end_value: Value from then on.

    Example:
        >>> rex_schedule(1.0, 4)(mx.arange(6))
        array([1, 0.857143, 0.666667, 0.4, 0, 0], dtype=float32)

    Reference:
        Chen et al., "REX: Revisiting Budgeted Training with an Improved Schedule", 2021, arXiv:2107.04197.
    """
    values("rex_schedule", init_value=init_value, end_value=end_value)
    checks.whole("rex_schedule", low=1, decay_steps=decay_steps)
    return ramp(init_value, end_value, decay_steps, reflected)


@readable
def half_life_schedule(init: float, end: float, steps: int, *, transition_begin: int = 0) -> Curve:
    """Go from one decay of a running mean to another so that its half-life moves in a straight line.

    ``0.5**(1 / h)``, where ``h`` goes from ``log(0.5) / log(init)`` to ``log(0.5) / log(end)``. For decays near 1: if
    0.9 went to 0.9999 in a straight line itself, the half-life would have a hundredth of its last length after nine
    tenths of the way.

    Args:
        init: Decay at the beginning, below 1.
        end: Decay from then on, below 1.
        steps: Length of the way.
        transition_begin: Count at which it begins.

    Example:
        >>> half_life_schedule(0.9, 0.9999, 1000)(mx.array([0, 100, 500, 1000]))
        array([0.9, 0.999009, 0.9998, 0.9999], dtype=float32)

    Reference:
        Pagliardini, Ablin & Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024, arXiv:2409.03137.
    """
    checks.decay_rate("half_life_schedule", init=init, end=end)
    checks.whole("half_life_schedule", low=1, steps=steps)
    checks.whole("half_life_schedule", transition_begin=transition_begin)
    return way(init, end, steps, half_lives(init, end), transition_begin)


@readable
def exponential_decay(
    init: float,
    decay_rate: float,
    *,
    transition_steps: int = 1,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Curve:
    """Multiply the value by one factor again and again.

    ``init * decay_rate**(t / transition_steps)``, cut at ``end_value`` and at the largest float32.

    Args:
        init: Value at the beginning.
        decay_rate: Factor above 0; below 1 the value decays, above 1 it grows.
        transition_steps: Counts after which the whole factor has been applied.
        transition_begin: Count at which the decay begins.
        staircase: Apply the factor all at once, every ``transition_steps`` counts.
        end_value: Value at which the decay or the growth stops.

    Example:
        >>> exponential_decay(1.0, 0.5)(mx.arange(4))
        array([1, 0.5, 0.25, 0.125], dtype=float32)
    """
    where = "exponential_decay"
    values(where, init=init)
    checks.positive(where, decay_rate=decay_rate)
    checks.whole(where, low=1, transition_steps=transition_steps)
    checks.whole(where, transition_begin=transition_begin)
    log_rate = math.log(decay_rate)
    start, begin, length = float(init), int(transition_begin), int(transition_steps)
    _check_end(where, start, log_rate, end_value)
    half_slope = log_rate / 2 if staircase else log_rate / transition_steps / 2
    low, high = sorted((start, start if end_value is None else float(end_value)))

    def rule(count: mx.array) -> mx.array:
        since = mx.maximum(count - begin, 0)
        times = since // length if staircase else since
        # Two halves, because the whole factor may overflow or underflow where the value does not.
        half = mx.exp(mx.minimum(half_slope * times.astype(mx.float32), 88.0))
        value = saturated(start * half * half)
        return value if end_value is None else mx.clip(value, low, high)

    return Curve(rule)


def _check_end(where: str, init: float, log_rate: float, end_value: float | None) -> None:
    if end_value is None:
        return
    values(where, end_value=end_value)
    if (end_value - init) * init * log_rate < 0:
        raise ValueError(
            f"{where}: end_value must lie where the value goes, got {end_value} for init {init} and decay_rate "
            f"{math.exp(log_rate):g}. Pass an end_value on the other side of init."
        )


@readable
def step_decay(init: float, decay_rate: float, step_size: int, *, transition_begin: int = 0) -> Curve:
    """Multiply the value by one factor every ``step_size`` counts.

    ``init * decay_rate**floor(t / step_size)``.

    Args:
        init: Value at the beginning.
        decay_rate: Factor above 0.
        step_size: Counts between two decays.
        transition_begin: Count from which they are counted.

    Example:
        >>> step_decay(1.0, 0.5, 2)(mx.arange(5))
        array([1, 1, 0.5, 0.5, 0.25], dtype=float32)
    """
    values("step_decay", init=init)
    checks.positive("step_decay", decay_rate=decay_rate)
    checks.whole("step_decay", low=1, step_size=step_size)
    checks.whole("step_decay", transition_begin=transition_begin)
    return exponential_decay(
        init, decay_rate, transition_steps=step_size, transition_begin=transition_begin, staircase=True
    )
