"""Steps of one size: only the sign of the gradient counts."""

import mlx.core as mx

from mlxopt import checks
from mlxopt.base import GradientTransformation, ScalarOrSchedule
from mlxopt.combine import chain
from mlxopt.readable import readable
from mlxopt.transforms.momentum import ema
from mlxopt.transforms.scaling import scale_by_learning_rate, scale_by_sign


@readable
def sign_sgd(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    r"""Step by the learning rate against the sign of the gradient.

    .. math:: w \leftarrow w - \eta \operatorname{sign}(g)

    Args:
        learning_rate: Number or schedule.

    Example:
        >>> sign_sgd(1e-3)
        sign_sgd(0.001)

    Reference:
        Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018, arXiv:1802.04434.
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@readable
def signum(
    learning_rate: ScalarOrSchedule, beta: float = 0.9, accumulator_dtype: mx.Dtype | None = None
) -> GradientTransformation:
    r"""Step by the learning rate against the sign of the running mean of the gradient.

    .. math:: m \leftarrow \beta m + (1 - \beta) g, \qquad w \leftarrow w - \eta \operatorname{sign}(m)

    Args:
        learning_rate: Number or schedule.
        beta: Decay of the mean.
        accumulator_dtype: Dtype of the mean; float32 by default.

    Example:
        >>> signum(1e-3)
        signum(0.001, beta=0.9)

    Reference:
        Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", 2018, arXiv:1802.04434.
    """
    checks.decay_rate("signum", beta=beta)
    return chain(ema(beta, False, accumulator_dtype), scale_by_sign(), scale_by_learning_rate(learning_rate))
