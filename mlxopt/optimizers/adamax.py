"""Adamax: Adam with the largest magnitude in place of the root mean square."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics import scalars
from mlxopt.numerics.scalars import new_count, safe_increment
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAdamaxState(NamedTuple):
    """Memory of :func:`scale_by_adamax`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # largest magnitude of the updates, decayed


@readable
def scale_by_adamax(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, *, bias_correction: bool = True
) -> GradientTransformation:
    """Divide the running mean of the updates by their largest magnitude, which decays.

    Args:
        b1: Decay of the mean.
        b2: Decay of the largest magnitude.
        eps: Added to every magnitude.
        bias_correction: Make up for the start of the mean at zero.

    Example:
        >>> tx = scale_by_adamax()
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1, -1], dtype=float32)}

    Reference:
        Kingma & Ba, "Adam: A Method for Stochastic Optimization", section 7.1, 2015, arXiv:1412.6980.
    """
    checks.decay_rate("scale_by_adamax", b1=b1, b2=b2)
    checks.positive("scale_by_adamax", eps=eps)

    def init_fn(params: Params) -> ScaleByAdamaxState:
        return ScaleByAdamaxState(new_count(), tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByAdamaxState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdamaxState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        nu = tree.update_infinity_moment(updates, state.nu, b2, eps)
        of_m = 1 / scalars.bias_correction(b1, count) if bias_correction else 1.0
        return tree.map(lambda m, v: of_m * m / v, mu, nu), ScaleByAdamaxState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def adamax(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    bias_correction: bool = True,
) -> GradientTransformation:
    r"""Step along the mean gradient, measured in units of its largest magnitude.

    .. math:: u \leftarrow \max(\beta_2 u, |g| + \epsilon), \qquad w \leftarrow w - \eta \hat m / u

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the largest magnitude.
        eps: Added to every magnitude.
        bias_correction: Make up for the start of the mean at zero; ``mlx.optimizers.Adamax`` does not.

    Example:
        >>> adamax(1e-3)
        adamax(0.001, b1=0.9, b2=0.999, eps=1e-08, bias_correction=True)

    Reference:
        Kingma & Ba, "Adam: A Method for Stochastic Optimization", section 7.1, 2015, arXiv:1412.6980.
    """
    return chain(scale_by_adamax(b1, b2, eps, bias_correction=bias_correction), scale_by_learning_rate(learning_rate))


@readable
def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Step as Adamax does, and shrink the parameters by a share of their own.

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the largest magnitude.
        eps: Added to every magnitude.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> adamaxw(1e-3)
        adamaxw(0.001, b1=0.9, b2=0.999, eps=1e-08, weight_decay=0.01)

    Reference:
        Kingma & Ba, arXiv:1412.6980; Loshchilov & Hutter, arXiv:1711.05101.
    """
    return chain(
        scale_by_adamax(b1, b2, eps), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )
