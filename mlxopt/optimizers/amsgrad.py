"""AMSGrad: Adam whose step size never grows."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, is_zero, new_count, safe_increment
from mlxopt.readable import readable
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAmsgradState(NamedTuple):
    """Memory of :func:`scale_by_amsgrad`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # running mean of their squares
    nu_max: Updates  # largest estimate of their power so far


@readable
def scale_by_amsgrad(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> GradientTransformation:
    """Divide the running mean of the updates by the root of the largest power they had.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of the mean; float32 by default.
        bias_correction_mu: Make up for the start of the mean at zero.
        bias_correction_nu: Make up for the start of the power at zero, before the largest is taken; the paper does not.

    Example:
        >>> tx = scale_by_amsgrad()
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1, -1], dtype=float32)}

    Reference:
        Reddi, Kale & Kumar, "On the Convergence of Adam and Beyond", 2018, arXiv:1904.09237.
    """
    checks.decay_rate("scale_by_amsgrad", b1=b1, b2=b2)
    checks.floating("scale_by_amsgrad", mu_dtype=mu_dtype)
    checks.non_negative("scale_by_amsgrad", eps=eps, eps_root=eps_root)

    def init_fn(params: Params) -> ScaleByAmsgradState:
        mean = tree.memory_like(params, dtype=mu_dtype)
        return ScaleByAmsgradState(new_count(), mean, tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByAmsgradState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAmsgradState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        nu = tree.update_moment(updates, state.nu, b2, 2)
        of_m = 1 / bias_correction(b1, count) if bias_correction_mu else 1.0
        of_v = 1 / bias_correction(b2, count) if bias_correction_nu else 1.0
        nu_max = tree.map(lambda v, largest: mx.maximum(of_v * v, largest), nu, state.nu_max)
        power = nu_max if is_zero(eps_root) else tree.map(lambda v: v + eps_root, nu_max)
        direction = tree.map(lambda m, v: of_m * m / (mx.sqrt(v) + eps), mu, power)
        return direction, ScaleByAmsgradState(count, mu, nu, nu_max)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> GradientTransformation:
    r"""Step as Adam does, in units of the largest root mean square so far.

    .. math:: w \leftarrow w - \eta \hat m / (\sqrt{\max_{s \le t} \hat v_s} + \epsilon)

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of the mean; float32 by default.
        bias_correction_mu: Make up for the start of the mean at zero.
        bias_correction_nu: Make up for the start of the power at zero, before the largest is taken; the paper does not.

    Example:
        >>> amsgrad(1e-3)
        amsgrad(0.001, b1=0.9, b2=0.999, eps=1e-08, bias_correction_mu=True, bias_correction_nu=True)

    Reference:
        Reddi, Kale & Kumar, "On the Convergence of Adam and Beyond", 2018, arXiv:1904.09237.
    """
    return chain(
        scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu),
        scale_by_learning_rate(learning_rate),
    )
