"""RMSprop, plain and centred."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates, identity
from mlxopt.combine import chain
from mlxopt.numerics import scalars
from mlxopt.numerics.scalars import new_count, nonnegative, safe_increment
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.transforms.momentum import trace
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByRmsState(NamedTuple):
    """Memory of :func:`scale_by_rms`."""

    count: mx.array  # int32: updates seen
    nu: Updates  # running mean of the squared updates


@readable
def scale_by_rms(
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Divide updates by the root of their running power.

    Args:
        decay: Decay of the power.
        eps: Added to the power, or to its root.
        initial_scale: Power before the first update.
        eps_in_sqrt: Add ``eps`` inside the root, as TensorFlow does; outside, as PyTorch and MLX do, if false.
        bias_correction: Make up for the start at zero.

    Example:
        >>> tx = scale_by_rms(decay=0.75)
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([2, -2], dtype=float32)}

    Reference:
        Tieleman & Hinton, "Lecture 6.5: rmsprop", 2012.
    """
    checks.decay_rate("scale_by_rms", decay=decay)
    checks.non_negative("scale_by_rms", eps=eps, initial_scale=initial_scale)

    def init_fn(params: Params) -> ScaleByRmsState:
        return ScaleByRmsState(new_count(), tree.memory_like(params, initial_scale))

    def update_fn(
        updates: Updates, state: ScaleByRmsState, params: Params | None = None
    ) -> tuple[Updates, ScaleByRmsState]:
        del params
        count = safe_increment(state.count)
        nu = tree.update_moment(updates, state.nu, decay, 2)
        c = scalars.bias_correction(decay, count) if bias_correction else 1.0
        # g over sqrt(nu / c + eps), or over sqrt(nu / c) + eps, both times sqrt(c).
        root, inside = c**0.5, c * eps
        outside = root * eps

        def normalized(g: mx.array, v: mx.array) -> mx.array:
            return root * g / (mx.sqrt(v + inside) if eps_in_sqrt else mx.sqrt(v) + outside)

        return tree.map(normalized, updates, nu), ScaleByRmsState(count, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


class ScaleByRStdDevState(NamedTuple):
    """Memory of :func:`scale_by_stddev`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # running mean of their squares


@readable
def scale_by_stddev(
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Divide updates by the root of their running variance.

    Args:
        decay: Decay of the mean and of the power.
        eps: Added to the variance, or to its root.
        initial_scale: Power before the first update.
        eps_in_sqrt: Add ``eps`` inside the root, as TensorFlow does; outside, as PyTorch does, if false.
        bias_correction: Make up for the start at zero.

    Example:
        >>> tx = scale_by_stddev(decay=0.5)
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([2, -2], dtype=float32)}

    Reference:
        Graves, "Generating Sequences With Recurrent Neural Networks", 2013, arXiv:1308.0850.
    """
    checks.decay_rate("scale_by_stddev", decay=decay)
    checks.non_negative("scale_by_stddev", eps=eps, initial_scale=initial_scale)

    def init_fn(params: Params) -> ScaleByRStdDevState:
        return ScaleByRStdDevState(new_count(), tree.memory_like(params), tree.memory_like(params, initial_scale))

    def update_fn(
        updates: Updates, state: ScaleByRStdDevState, params: Params | None = None
    ) -> tuple[Updates, ScaleByRStdDevState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, decay, 1)
        nu = tree.update_moment(updates, state.nu, decay, 2)
        known = 1 / scalars.bias_correction(decay, count) if bias_correction else 1.0

        def standardized(g: mx.array, m: mx.array, v: mx.array) -> mx.array:
            variance = nonnegative(known * v - abs_sq(known * m))
            return g / (mx.sqrt(variance + eps) if eps_in_sqrt else mx.sqrt(variance) + eps)

        return tree.map(standardized, updates, mu, nu), ScaleByRStdDevState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> GradientTransformation:
    r"""Step against the gradient, measured in units of its root mean square.

    .. math:: v \leftarrow \beta v + (1 - \beta) g^2, \qquad w \leftarrow w - \eta g / \sqrt{v + \epsilon}

    Args:
        learning_rate: Number or schedule.
        decay: Decay of the power.
        eps: Added to the power, or to its root.
        initial_scale: Power before the first update.
        eps_in_sqrt: Add ``eps`` inside the root, as TensorFlow does; outside, as PyTorch and MLX do, if false.
        centered: Divide by the standard deviation instead of the root mean square.
        momentum: Decay of a sum of the normalized gradients; ``None`` keeps no sum.
        nesterov: Let that sum look one step ahead.
        bias_correction: Make up for the start at zero.

    Example:
        >>> rmsprop(1e-3, momentum=0.9)
        rmsprop(0.001, decay=0.9, eps=1e-08, eps_in_sqrt=True, momentum=0.9)

    Reference:
        Tieleman & Hinton, "Lecture 6.5: rmsprop", 2012.
    """
    if nesterov and momentum is None:
        raise ValueError("rmsprop: nesterov must come with momentum, got momentum=None. Pass a momentum such as 0.9.")
    if momentum is not None:
        checks.decay_rate("rmsprop", momentum=momentum)
    normalize = scale_by_stddev if centered else scale_by_rms
    return chain(
        normalize(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        identity() if momentum is None else trace(momentum, nesterov),
        scale_by_learning_rate(learning_rate),
    )
