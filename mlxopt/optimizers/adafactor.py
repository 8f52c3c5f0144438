"""Adafactor: Adam's power in the memory of a few rows and columns."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates, identity
from mlxopt.combine import chain
from mlxopt.numerics.scalars import new_count, safe_increment
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.schedules.warmup import relative_step_schedule
from mlxopt.transforms.clipping import clip_by_block_rms
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.momentum import ema
from mlxopt.transforms.scaling import scale_by_learning_rate, scale_by_param_block_rms
from mlxopt.tree.factored import Axes, Factoring, Factors


class FactoredState(NamedTuple):
    """Memory of :func:`scale_by_factored_rms`; a leaf is a hole either in rows and columns, or in the power itself."""

    count: mx.array  # int32: updates seen
    v_row: Updates  # running mean of the squared updates, averaged over the longer of two axes
    v_col: Updates  # the same, averaged over the shorter one
    v: Updates  # running mean of the squared updates


@readable
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: float = 0.8,
    step_offset: int = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: float = 1e-30,
    *,
    axes: Axes = "largest",
) -> GradientTransformation:
    """Divide updates by the root of their running power, of which only means over rows and over columns are kept.

    The power of element ``(i, j)`` is taken to be ``row[i] * col[j] / mean(row)``. After ``t`` updates the decay of the
    means is ``1 - t**-decay_rate``: none at first, and longer and longer memory.

    Args:
        factored: Keep rows and columns only; the whole power otherwise.
        decay_rate: How fast the memory grows.
        step_offset: Count from which ``t`` counts, to start with a short memory again in a fine-tuning run.
        min_dim_size_to_factor: Keep the whole power of leaves where one of the two axes is shorter.
        epsilon: Added to the squared updates.
        axes: The two axes that are averaged: the "largest" ones, or the "last" ones as MLX and PyTorch do.

    Example:
        >>> tx = scale_by_factored_rms(min_dim_size_to_factor=2)
        >>> updates, state = tx.update({"w": mx.full((4, 2), -3.0)}, tx.init({"w": mx.zeros((4, 2))}))
        >>> updates["w"][0], state.v_row["w"].shape, state.v_col["w"].shape
        (array([-1, -1], dtype=float32), (2,), (4,))

    Reference:
        Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, arXiv:1804.04235.
    """
    checks.positive("scale_by_factored_rms", decay_rate=decay_rate, epsilon=epsilon)
    checks.whole("scale_by_factored_rms", step_offset=step_offset)
    factoring = Factoring.of("scale_by_factored_rms", factored, min_dim_size_to_factor, axes)

    def init_fn(params: Params) -> FactoredState:
        return FactoredState(new_count(), *factoring.memory(params))

    def update_fn(
        updates: Updates, state: FactoredState, params: Params | None = None
    ) -> tuple[Updates, FactoredState]:
        del params
        count = safe_increment(state.count)
        age = mx.maximum(count - step_offset, 1).astype(mx.float32)
        decay = 1 - mx.power(age, -decay_rate)
        power = tree.map(lambda g: abs_sq(g) + epsilon, updates)
        memory = factoring.moved(Factors(state.v_row, state.v_col, state.v), power, decay)
        return factoring.over_root(updates, memory), FactoredState(count, *memory)

    return GradientTransformation(init_fn, update_fn, reach="leaf" if factored else "element")


@readable
def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    momentum: float | None = None,
    dtype_momentum: mx.Dtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: float = 1e-30,
    factored: bool = True,
    mask: Mask | None = None,
    *,
    axes: Axes = "largest",
) -> GradientTransformation:
    r"""Step against the gradient, in units of its root mean square, by a share of the size of each parameter.

    .. math:: v \leftarrow \beta_t v + (1 - \beta_t) (g^2 + \epsilon), \qquad u = g / \sqrt{v}, \qquad
        w \leftarrow w - \eta_t \left( \max(10^{-3}, \operatorname{rms}(w)) \, u / \max(1, \operatorname{rms}(u) / d) +
        \lambda w \right)

    with :math:`\beta_t = 1 - t^{-0.8}`, and of :math:`v` only the means over rows and over columns for large matrices.

    Args:
        learning_rate: Number or schedule; ``relative_step_schedule()``, the rule of the authors, by default.
        min_dim_size_to_factor: Keep the whole power of leaves where one of the two axes is shorter.
        decay_rate: How fast the memory grows.
        decay_offset: Count from which the growth counts, for a fine-tuning run.
        multiply_by_parameter_scale: Step by a share of the size of each parameter, instead of by the learning rate.
        clipping_threshold: Largest root mean square of the normalized gradient of a leaf; ``None`` for no bound.
        momentum: Decay of a running mean of the steps; ``None`` for no mean.
        dtype_momentum: Dtype of that mean; float32 by default.
        weight_decay: Number or schedule; multiplied by the learning rate.
        eps: Added to the squared gradients.
        factored: Keep rows and columns only; the whole power otherwise.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        axes: The two axes that are averaged: the "largest" ones, or the "last" ones as MLX and PyTorch do.

    Example:
        >>> params = {"w": mx.ones((256, 512))}
        >>> tree.nbytes(adafactor().init(params)) / tree.nbytes(params) < 0.01
        True

    Reference:
        Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, arXiv:1804.04235.
    """
    if clipping_threshold is not None:
        checks.positive("adafactor", clipping_threshold=clipping_threshold)
    if momentum is not None:
        checks.decay_rate("adafactor", momentum=momentum)
    checks.positive("adafactor", eps=eps)
    return chain(
        scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps, axes=axes),
        identity() if clipping_threshold is None else clip_by_block_rms(clipping_threshold),
        scale_by_param_block_rms() if multiply_by_parameter_scale else identity(),
        identity() if momentum is None else ema(momentum, debias=False, accumulator_dtype=dtype_momentum),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(relative_step_schedule() if learning_rate is None else learning_rate),
    )
