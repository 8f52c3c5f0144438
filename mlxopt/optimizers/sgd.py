"""Stochastic gradient descent, with and without momentum."""

import mlx.core as mx

from mlxopt import checks
from mlxopt.base import GradientTransformation, ScalarOrSchedule, identity
from mlxopt.combine import chain
from mlxopt.readable import readable
from mlxopt.transforms.momentum import trace
from mlxopt.transforms.scaling import scale_by_learning_rate


@readable
def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: float | None = None,
    nesterov: bool = False,
    accumulator_dtype: mx.Dtype | None = None,
    *,
    dampening: float = 0.0,
) -> GradientTransformation:
    r"""Step against the gradient, or against a decayed sum of gradients.

    .. math:: t \leftarrow \mu t + (1 - d) g, \qquad w \leftarrow w - \eta t

    Args:
        learning_rate: Number or schedule.
        momentum: Decay of the sum; ``None`` keeps no sum.
        nesterov: Look one step ahead: step along ``g + momentum * t``.
        accumulator_dtype: Dtype of the sum; float32 by default.
        dampening: Share of each gradient that is kept out of the sum.

    Example:
        >>> sgd(0.1, momentum=0.9)
        sgd(0.1, momentum=0.9)

    Reference:
        Robbins & Monro, "A Stochastic Approximation Method", 1951.
    """
    if momentum is None:
        if nesterov or dampening != 0.0:
            raise ValueError(
                f"sgd: nesterov and dampening must come with momentum, got nesterov={nesterov}, dampening={dampening} "
                "and momentum=None. Pass a momentum such as 0.9."
            )
        return chain(identity(), scale_by_learning_rate(learning_rate))
    checks.decay_rate("sgd", momentum=momentum)
    return chain(
        trace(momentum, nesterov, accumulator_dtype, dampening=dampening), scale_by_learning_rate(learning_rate)
    )
