"""Adam, with and without weight decay."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics import scalars
from mlxopt.numerics.scalars import is_zero, new_count, safe_increment
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAdamState(NamedTuple):
    """Memory of :func:`scale_by_adam`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # running mean of their squares


@readable
def scale_by_adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
) -> GradientTransformation:
    """Divide the running mean of the updates by the root of their running power.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of the mean; float32 by default.
        nesterov: Let the mean look one step ahead.
        bias_correction: Make up for the start of both at zero.

    Example:
        >>> tx = scale_by_adam()
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1, -1], dtype=float32)}

    Reference:
        Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2015, arXiv:1412.6980.
    """
    checks.decay_rate("scale_by_adam", b1=b1, b2=b2)
    checks.floating("scale_by_adam", mu_dtype=mu_dtype)
    checks.non_negative("scale_by_adam", eps=eps, eps_root=eps_root)

    def init_fn(params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(new_count(), tree.memory_like(params, dtype=mu_dtype), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByAdamState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdamState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        nu = tree.update_moment(updates, state.nu, b2, 2)
        mean = tree.look_ahead(updates, mu, b1, count, corrected=bias_correction) if nesterov else mu
        c1, c2 = 1.0, 1.0
        if bias_correction:
            c1, c2 = scalars.bias_correction(b1, count), scalars.bias_correction(b2, count)
        # mean / c1 over sqrt(nu / c2 + eps_root) + eps, both times sqrt(c2): Kingma & Ba, end of section 2.
        root = c2**0.5
        of_mean, inside, outside = root / c1, c2 * eps_root, root * eps
        power = nu if is_zero(eps_root) else tree.map(lambda v: v + inside, nu)
        direction = tree.map(lambda m, v: of_mean * m / (mx.sqrt(v) + outside), mean, power)
        return direction, ScaleByAdamState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def adam(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
) -> GradientTransformation:
    r"""Step along the mean gradient, measured in units of its root mean square.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
        w \leftarrow w - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t) + \bar\epsilon} + \epsilon}

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of the mean; float32 by default.
        nesterov: Let the mean look one step ahead.
        bias_correction: Make up for the start of both at zero.

    Example:
        >>> adam(1e-3)
        adam(0.001, b1=0.9, b2=0.999, eps=1e-08, bias_correction=True)

    Reference:
        Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2015, arXiv:1412.6980.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, bias_correction=bias_correction),
        scale_by_learning_rate(learning_rate),
    )


@readable
def adamw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
) -> GradientTransformation:
    r"""Step as Adam does, and shrink the parameters by a share of their own.

    .. math:: w \leftarrow w - \eta (\hat m / (\sqrt{\hat v} + \epsilon) + \lambda w)

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of the mean; float32 by default.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        nesterov: Let the mean look one step ahead.
        bias_correction: Make up for the start of both moments at zero; ``mlx.optimizers.AdamW`` does not by default.

    Example:
        >>> adamw(1e-3, mask=tree.by_path("*.weight"))
        adamw(0.001, b1=0.9, b2=0.999, eps=1e-08, weight_decay=0.01, mask=by_path('*.weight'), bias_correction=True)

    Reference:
        Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv:1711.05101.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, bias_correction=bias_correction),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
