"""Sophia: the mean gradient over the curvature, element by element, and clipped."""

from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import (
    GradientTransformation,
    Inner,
    Mask,
    Params,
    ScalarOrSchedule,
    State,
    Updates,
    require_transformation,
)
from mlxopt.combine import chain
from mlxopt.numerics import scalars
from mlxopt.numerics.scalars import new_count, safe_increment, surely
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class SophiaState(NamedTuple):
    """Memory of :func:`scale_by_sophia`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # running mean of the estimates of the curvature
    hessian_state: State


@readable
def scale_by_sophia(
    b1: float = 0.965,
    b2: float = 0.99,
    eps: float = 1e-8,
    gamma: float = 0.01,
    clip_threshold: float = 1.0,
    update_interval: int | None = 10,
    mu_dtype: mx.Dtype | None = None,
    *,
    hessian_diagonal: GradientTransformation,
    bias_correction: bool = True,
) -> GradientTransformation:
    """Divide the running mean of the updates by the running curvature, and clip the quotients.

    An estimate serves from the next update on. MLX has no conditional: a compiled step computes an estimate every time,
    and only now and then takes it. To pay for those that are taken only, compile two steps that share their state: one
    with ``update_interval=1`` for every tenth batch, say, and one with ``None`` for the others.

    Args:
        b1: Decay of the mean.
        b2: Decay of the curvature.
        eps: Lower bound of what is divided by.
        gamma: Share of the curvature that is divided by; the larger, the fewer quotients are clipped.
        clip_threshold: Largest magnitude of a quotient.
        update_interval: Updates from one estimate of the curvature to the next; ``None`` for no more estimates.
        mu_dtype: Dtype of the mean; float32 by default.
        hessian_diagonal: Transformation of the updates into an estimate of the curvature, such as
            :func:`hutchinson_estimator_diag_hessian`.
        bias_correction: Make up for the start of the mean at zero; the authors' code does not.

    Example:
        >>> from mlxopt import hutchinson_estimator_diag_hessian
        >>> scale_by_sophia(hessian_diagonal=hutchinson_estimator_diag_hessian(key=0))
        scale_by_sophia(b1=0.965, b2=0.99, eps=1e-08, gamma=0.01, clip_threshold=1.0, update_interval=10,
            hessian_diagonal=hutchinson_estimator_diag_hessian(0), bias_correction=True)

    Reference:
        Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training", 2024,
        arXiv:2305.14342.
    """
    checks.decay_rate("scale_by_sophia", b1=b1, b2=b2)
    checks.positive("scale_by_sophia", eps=eps, gamma=gamma, clip_threshold=clip_threshold)
    checks.floating("scale_by_sophia", mu_dtype=mu_dtype)
    require_transformation("scale_by_sophia", hessian_diagonal)
    if update_interval is not None:
        checks.whole("scale_by_sophia", low=1, update_interval=update_interval)

    def init_fn(params: Params) -> SophiaState:
        mu, nu = tree.memory_like(params, dtype=mu_dtype), tree.memory_like(params)
        return SophiaState(new_count(), mu, nu, hessian_diagonal.init(params))

    def update_fn(updates: Updates, state: SophiaState, params: Params, **extra: Any) -> tuple[Updates, SophiaState]:
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        of_mean = 1 / scalars.bias_correction(b1, count) if bias_correction else 1.0
        direction = tree.map(
            lambda m, h: mx.clip(of_mean * m / mx.maximum(gamma * h, eps), -clip_threshold, clip_threshold),
            mu,
            state.nu,
        )
        curvature = state.nu, state.hessian_state
        if update_interval is not None and not surely(state.count % update_interval != 0):
            estimate, hessian_state = hessian_diagonal.update(updates, state.hessian_state, params, **extra)
            newer = tree.update_moment(estimate, state.nu, b2, 1), hessian_state
            curvature = tree.where(state.count % update_interval == 0, newer, curvature)
        return direction, SophiaState(count, mu, *curvature)

    return GradientTransformation(
        init_fn, update_fn, inner=[Inner(hessian_diagonal, ("hessian_state",))], reach="element"
    )


@readable
def sophia(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.965,
    b2: float = 0.99,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    gamma: float = 0.01,
    clip_threshold: float = 1.0,
    update_interval: int | None = 10,
    mu_dtype: mx.Dtype | None = None,
    *,
    hessian_diagonal: GradientTransformation,
    bias_correction: bool = True,
) -> GradientTransformation:
    r"""Step along the mean gradient over the curvature, and nowhere further than by the learning rate.

    .. math:: h \leftarrow \beta_2 h + (1 - \beta_2) \hat h \text{ now and then}, \qquad
        w \leftarrow w - \eta \left( \operatorname{clip}\left( \frac{\hat m}{\max(\gamma h, \epsilon)}, 1 \right)
        + \lambda w \right)

    :func:`scale_by_sophia` says how to compute the curvature only where it is used.

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the curvature.
        eps: Lower bound of what is divided by.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        gamma: Share of the curvature that is divided by; the larger, the fewer quotients are clipped.
        clip_threshold: Largest magnitude of a quotient.
        update_interval: Updates from one estimate of the curvature to the next; ``None`` for no more estimates.
        mu_dtype: Dtype of the mean; float32 by default.
        hessian_diagonal: Transformation of the gradients into an estimate of the curvature:
            :func:`hutchinson_estimator_diag_hessian`, :func:`gauss_newton_estimator_diag_hessian` or your own.
        bias_correction: Make up for the start of the mean at zero; the authors' code does not.

    Example:
        >>> from mlxopt import hutchinson_estimator_diag_hessian
        >>> tx = sophia(1e-3, hessian_diagonal=hutchinson_estimator_diag_hessian(key=0))

    Reference:
        Liu et al., "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training", 2024,
        arXiv:2305.14342.
    """
    return chain(
        scale_by_sophia(
            b1,
            b2,
            eps,
            gamma,
            clip_threshold,
            update_interval,
            mu_dtype,
            hessian_diagonal=hessian_diagonal,
            bias_correction=bias_correction,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
