"""AdaPNM: AMSGrad with a momentum that is positive for every other gradient and negative for the rest."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, new_count, safe_increment
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAdapnmState(NamedTuple):
    """Memory of :func:`scale_by_adapnm`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of every other update, the newest included
    mu_other: Updates  # running mean of the rest
    nu: Updates  # running mean of all squares
    nu_max: Updates  # the largest value it had


@readable
def scale_by_adapnm(b1: float = 0.9, b2: float = 0.999, b3: float = 1.0, eps: float = 1e-8) -> GradientTransformation:
    """Divide the difference of two running means, of which each sees every other update, by the root of a power.

    Args:
        b1: Decay of the means, over one update; each is decayed for two at once.
        b2: Decay of the power, whose largest value is used.
        b3: Weight of the difference: the result is ``(1 + b3) * mu - b3 * mu_other``, over its length.
        eps: Added to the root.

    Example:
        >>> tx = scale_by_adapnm(b3=0.0)
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1.9, -1.9], dtype=float32)}

    Reference:
        Xie et al., "Positive-Negative Momentum: Manipulating Stochastic Gradient Noise to Improve Generalization",
        2021, arXiv:2103.17182.
    """
    checks.decay_rate("scale_by_adapnm", b1=b1, b2=b2)
    checks.non_negative("scale_by_adapnm", b3=b3, eps=eps)

    def init_fn(params: Params) -> ScaleByAdapnmState:
        return ScaleByAdapnmState(new_count(), *(tree.memory_like(params) for _ in range(4)))

    def update_fn(
        updates: Updates, state: ScaleByAdapnmState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdapnmState]:
        del params
        count = safe_increment(state.count)
        kept, share = b1 * b1, (1 - b1) * (1 + b1)  # a difference of the squares has lost digits
        mu = tree.map(lambda g, m: kept * m + share * g, updates, state.mu_other)
        nu = tree.update_moment(updates, state.nu, b2, 2)
        nu_max = tree.map(mx.maximum, nu, state.nu_max)
        # Both means over sqrt(nu_max / c2) + eps, all times sqrt(c2), as in Adam.
        root = mx.sqrt(bias_correction(b2, count))
        scale = root / (bias_correction(b1, count) * ((1 + b3) ** 2 + b3**2) ** 0.5)
        of_mean, of_other, outside = (1 + b3) * scale, b3 * scale, root * eps
        direction = tree.map(
            lambda m, other, v: (of_mean * m - of_other * other) / (mx.sqrt(v) + outside), mu, state.mu, nu_max
        )
        return direction, ScaleByAdapnmState(count, mu, state.mu, nu, nu_max)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def adapnm(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 1.0,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step as AMSGrad does, along a difference of two means that makes the noise of gradients larger.

    .. math:: m_t = \beta_1^2 m_{t-2} + (1 - \beta_1^2) g_t, \qquad
        u = \frac{(1 + \beta_3) m_t - \beta_3 m_{t-1}}{(1 - \beta_1^t) \sqrt{(1 + \beta_3)^2 + \beta_3^2}}, \\
        w \leftarrow w - \eta \left( u / (\sqrt{\max_{s \le t} v_s / (1 - \beta_2^t)} + \epsilon) + \lambda w \right)

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the means.
        b2: Decay of the power.
        b3: Weight of the difference.
        eps: Added to the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> adapnm(1e-3)
        adapnm(0.001, b1=0.9, b2=0.999, b3=1.0, eps=1e-08)

    Reference:
        Xie et al., "Positive-Negative Momentum: Manipulating Stochastic Gradient Noise to Improve Generalization",
        2021, arXiv:2103.17182.
    """
    return chain(
        scale_by_adapnm(b1, b2, b3, eps), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )
