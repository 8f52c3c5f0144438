"""Rectified Adam: Adam that waits until its power is known well enough."""

import math
from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, is_zero, new_count, safe_increment
from mlxopt.readable import readable
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByRadamState(NamedTuple):
    """Memory of :func:`scale_by_radam`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # running mean of their squares


def degrees_of_freedom(b2: float) -> Callable[[mx.array], mx.array]:
    """Make the function from a count to the length of the simple moving average that the running power stands for.

    The paper's ``rho_inf - 2 t b2**t / (1 - b2**t)`` is a small difference of large numbers at first. With
    ``x = -log(b2)`` and ``y = t x`` it equals ``(coth(x/2) - 2/x) + 2/x * (1 - y / (exp(y) - 1))``, whose last
    parenthesis has a series without cancellation for small ``y``.

    Args:
        b2: Decay of the power, above 0.

    Example:
        >>> degrees_of_freedom(0.999)(mx.array([1, 2, 1000]))
        array([1, 1.9995, 835.967], dtype=float32)
    """
    x = -math.log(b2)
    least, length = 1 / math.tanh(x / 2) - 2 / x, 2 / x

    def degrees(count: mx.array) -> mx.array:
        y = x * count.astype(mx.float32)
        series = y * (0.5 - y * (1 / 12 - y * y * (1 / 720 - y * y / 30240)))
        return least + length * mx.where(y < 0.5, series, 1 - y / mx.expm1(y))

    return degrees


def rectification(b2: float, threshold: float = 5.0) -> Callable[[mx.array], mx.array]:
    """Make the function from a count to the factor of a step that divides by the root of the running power.

    It is 0 as long as the power has fewer degrees of freedom than the threshold.

    Args:
        b2: Decay of the power, above 0.
        threshold: Degrees of freedom from which the power is used, at least 4.

    Example:
        >>> rectification(0.999)(mx.array([1, 5, 6, 1000]))
        array([0, 0, 0.0258211, 0.645326], dtype=float32)
    """
    degrees, limit = degrees_of_freedom(b2), 2 / (1 - b2) - 1

    def factor(count: mx.array) -> mx.array:
        rho = degrees(count)
        ratio = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        return mx.where(rho >= threshold, mx.sqrt(mx.maximum(ratio, 0.0)), 0.0)

    return factor


@readable
def scale_by_radam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Return the running mean until the running power is reliable, then divide by its root with a correction.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power, above 0.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        threshold: Degrees of freedom from which the power is used, at least 4.
        nesterov: Let the mean look one step ahead.

    Example:
        >>> tx = scale_by_radam()
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([4, -0.1], dtype=float32)}

    Reference:
        Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, arXiv:1908.03265.
    """
    checks.decay_rate("scale_by_radam", b1=b1, b2=b2)
    checks.positive("scale_by_radam", b2=b2)
    checks.non_negative("scale_by_radam", eps=eps, eps_root=eps_root)
    checks.number("scale_by_radam", low=4.0, threshold=threshold)
    rectified = rectification(b2, threshold)

    def init_fn(params: Params) -> ScaleByRadamState:
        return ScaleByRadamState(new_count(), tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByRadamState, params: Params | None = None
    ) -> tuple[Updates, ScaleByRadamState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        nu = tree.update_moment(updates, state.nu, b2, 2)
        mean = tree.look_ahead(updates, mu, b1, count) if nesterov else mu
        c1, c2 = bias_correction(b1, count), bias_correction(b2, count)
        factor = rectified(count)
        root = mx.sqrt(c2)
        of_mean, inside, outside = factor * root / c1, c2 * eps_root, root * eps
        power = nu if is_zero(eps_root) else tree.map(lambda v: v + inside, nu)
        plain, reliable = 1 / c1, factor > 0

        def direction(m: mx.array, v: mx.array) -> mx.array:
            return mx.where(reliable, of_mean * m / (mx.sqrt(v) + outside), plain * m)

        return tree.map(direction, mean, power), ScaleByRadamState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def radam(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""Step as momentum SGD at first, and as Adam once the power of the gradient is known well enough.

    .. math:: w \leftarrow w - \eta \hat m \cdot \begin{cases}
        r_t / (\sqrt{\hat v} + \epsilon) & \rho_t \ge \text{threshold} \\ 1 & \text{else} \end{cases}

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power, above 0.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        threshold: Degrees of freedom from which the power is used, at least 4.
        nesterov: Let the mean look one step ahead.

    Example:
        >>> radam(1e-3)
        radam(0.001, b1=0.9, b2=0.999, eps=1e-08, threshold=5.0)

    Reference:
        Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, arXiv:1908.03265.
    """
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov), scale_by_learning_rate(learning_rate)
    )
