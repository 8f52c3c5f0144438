"""NAdam: Adam with a mean that looks one step ahead."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, is_zero, new_count, safe_increment
from mlxopt.optimizers.adam import scale_by_adam
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByNadamState(NamedTuple):
    """Memory of :func:`scale_by_nadam`."""

    count: mx.array  # int32: updates seen
    mu_product: mx.array  # float32: product of all momenta so far
    mu: Updates  # running mean of the updates
    nu: Updates  # running mean of their squares


@readable
def scale_by_nadam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    *,
    momentum_decay: float = 0.004,
) -> GradientTransformation:
    """Divide a mean that looks ahead, by a momentum that grows from step to step, by the root of the running power.

    ``scale_by_adam(nesterov=True)`` is the form with one momentum for all steps.

    Args:
        b1: Decay of the mean, and the momentum in the end; it is half of that at first.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of the mean; float32 by default.
        momentum_decay: Speed at which the momentum grows: it is ``b1 * (1 - 0.5 * 0.96**(t * momentum_decay))``.

    Example:
        >>> tx = scale_by_nadam()
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1.05645, -1.05645], dtype=float32)}

    Reference:
        Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    checks.decay_rate("scale_by_nadam", b1=b1, b2=b2)
    checks.floating("scale_by_nadam", mu_dtype=mu_dtype)
    checks.non_negative("scale_by_nadam", eps=eps, eps_root=eps_root, momentum_decay=momentum_decay)

    def momentum(count: mx.array) -> mx.array:
        return b1 * (1 - 0.5 * mx.power(0.96, count * momentum_decay))

    def init_fn(params: Params) -> ScaleByNadamState:
        mean = tree.memory_like(params, dtype=mu_dtype)
        return ScaleByNadamState(new_count(), mx.ones(()), mean, tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByNadamState, params: Params | None = None
    ) -> tuple[Updates, ScaleByNadamState]:
        del params
        count = safe_increment(state.count)
        now, ahead = momentum(count), momentum(safe_increment(count))
        product = state.mu_product * now
        mu = tree.update_moment(updates, state.mu, b1, 1)
        nu = tree.update_moment(updates, state.nu, b2, 2)
        # Both over sqrt(nu / c2 + eps_root) + eps, all times sqrt(c2), as in Adam.
        c2 = bias_correction(b2, count)
        root = mx.sqrt(c2)
        of_newest, of_mean = root * (1 - now) / (1 - product), root * ahead / (1 - product * ahead)
        inside, outside = c2 * eps_root, root * eps
        power = nu if is_zero(eps_root) else tree.map(lambda v: v + inside, nu)
        direction = tree.map(lambda g, m, v: (of_newest * g + of_mean * m) / (mx.sqrt(v) + outside), updates, mu, power)
        return direction, ScaleByNadamState(count, product, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def nadam(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    *,
    momentum_decay: float | None = None,
) -> GradientTransformation:
    r"""Step as Adam does, with a mean that looks one step ahead.

    .. math:: \hat m = \beta_1 \frac{m}{1 - \beta_1^{t+1}} + (1 - \beta_1) \frac{g}{1 - \beta_1^t}

    This is optax's form. The paper's, and PyTorch's, lets the momentum grow: ``momentum_decay=0.004``.

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of the mean; float32 by default.
        momentum_decay: Speed at which the momentum grows from ``b1 / 2`` to ``b1``; ``None`` for ``b1`` at once.

    Example:
        >>> nadam(1e-3)
        nadam(0.001, b1=0.9, b2=0.999, eps=1e-08)

    Reference:
        Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    return chain(_looking_ahead(b1, b2, eps, eps_root, mu_dtype, momentum_decay), scale_by_learning_rate(learning_rate))


@readable
def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: Mask | None = None,
    *,
    momentum_decay: float | None = None,
) -> GradientTransformation:
    """Step as AdamW does, with a mean that looks one step ahead.

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of the mean; float32 by default.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        momentum_decay: Speed at which the momentum grows from ``b1 / 2`` to ``b1``; ``None`` for ``b1`` at once.

    Example:
        >>> nadamw(1e-3)
        nadamw(0.001, b1=0.9, b2=0.999, eps=1e-08, weight_decay=0.01)

    Reference:
        Dozat, "Incorporating Nesterov Momentum into Adam", 2016; Loshchilov & Hutter, arXiv:1711.05101.
    """
    return chain(
        _looking_ahead(b1, b2, eps, eps_root, mu_dtype, momentum_decay),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _looking_ahead(
    b1: float, b2: float, eps: float, eps_root: float, mu_dtype: mx.Dtype | None, momentum_decay: float | None
) -> GradientTransformation:
    if momentum_decay is None:
        return scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=True)
    return scale_by_nadam(b1, b2, eps, eps_root, mu_dtype, momentum_decay=momentum_decay)
