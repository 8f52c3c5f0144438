"""Yogi: Adam whose power moves by steps of its own size, and so cannot collapse."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, is_zero, new_count, safe_increment
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByYogiState(NamedTuple):
    """Memory of :func:`scale_by_yogi`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # their power


@readable
def scale_by_yogi(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    eps_root: float = 0.0,
    initial_accumulator_value: float = 1e-6,
) -> GradientTransformation:
    """Divide the running mean of the updates by the root of a power that moves by a share of their squares.

    Args:
        b1: Decay of the mean.
        b2: One minus the share of a square by which the power moves towards it.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        initial_accumulator_value: Power before the first update.

    Example:
        >>> tx = scale_by_yogi()
        >>> tx.update({"w": mx.array([4.0, -1.0])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([0.999719, -0.998502], dtype=float32)}

    Reference:
        Zaheer et al., "Adaptive Methods for Nonconvex Optimization", 2018.
    """
    checks.decay_rate("scale_by_yogi", b1=b1, b2=b2)
    checks.non_negative(
        "scale_by_yogi", eps=eps, eps_root=eps_root, initial_accumulator_value=initial_accumulator_value
    )

    def init_fn(params: Params) -> ScaleByYogiState:
        power = tree.map(mx.abs, tree.memory_like(params, initial_accumulator_value))
        return ScaleByYogiState(new_count(), tree.memory_like(params), power)

    def update_fn(
        updates: Updates, state: ScaleByYogiState, params: Params | None = None
    ) -> tuple[Updates, ScaleByYogiState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)

        def moved(g: mx.array, v: mx.array) -> mx.array:
            square = abs_sq(g)
            return v + (1 - b2) * mx.sign(square - v) * square

        nu = tree.map(moved, updates, state.nu)
        # mu / c1 over sqrt(nu / c2 + eps_root) + eps, both times sqrt(c2), as in Adam.
        c2 = bias_correction(b2, count)
        root = mx.sqrt(c2)
        of_mean, inside, outside = root / bias_correction(b1, count), c2 * eps_root, root * eps
        power = nu if is_zero(eps_root) else tree.map(lambda v: v + inside, nu)
        direction = tree.map(lambda m, v: of_mean * m / (mx.sqrt(v) + outside), mu, power)
        return direction, ScaleByYogiState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def yogi(
    learning_rate: ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3
) -> GradientTransformation:
    r"""Step as Adam does, in units of a power that falls slowly where gradients become small.

    .. math:: v \leftarrow v + (1 - \beta_2) \operatorname{sign}(g^2 - v) \, g^2, \qquad
        w \leftarrow w - \eta \hat m / (\sqrt{\hat v} + \epsilon)

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: One minus the share of a squared gradient by which the power moves towards it.
        eps: Added to the root.

    Example:
        >>> yogi(1e-2)
        yogi(0.01, b1=0.9, b2=0.999, eps=0.001)

    Reference:
        Zaheer et al., "Adaptive Methods for Nonconvex Optimization", 2018.
    """
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))
