"""LARS, LAMB and Fromage: each parameter steps by a share of its own size."""

from typing import Literal

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import EmptyState, GradientTransformation, Mask, Params, ScalarOrSchedule, State, Updates, identity
from mlxopt.combine import chain, masked
from mlxopt.hyperparameters import inject_hyperparams
from mlxopt.numerics.sums import safe_norm
from mlxopt.optimizers.adam import scale_by_adam
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.momentum import trace
from mlxopt.transforms.scaling import scale_by_learning_rate, scale_by_trust_ratio
from mlxopt.tree.choice import Choice


@readable
def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    trust_ratio_mask: Mask | None = None,
    momentum: float = 0.9,
    nesterov: bool = False,
    *,
    norms: Literal["joint", "separate"] = "joint",
) -> GradientTransformation:
    r"""Step as SGD with momentum does, where each gradient has a length that is a share of its parameter.

    .. math:: u = g + \lambda w, \qquad t \leftarrow \mu t + \eta \, c \, u \, \|w\| / (\|u\| + \epsilon), \qquad
        w \leftarrow w - t

    This is optax's form; the paper divides by :math:`\|g\| + \lambda \|w\|`: ``norms="separate"``.

    Args:
        learning_rate: Number or schedule.
        weight_decay: Number or schedule; part of the direction that is scaled.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        trust_coefficient: Share of the parameter's norm.
        eps: Added to the norm of the direction.
        trust_ratio_mask: Leaves that are scaled; all by default. The others step as SGD does.
        momentum: Decay of the sum of steps.
        nesterov: Look one step ahead.
        norms: Divide by the norm of gradient and decay together, "joint", or by the sum of theirs, "separate".

    Example:
        >>> lars(1.0, weight_decay=1e-4)
        lars(1.0, weight_decay=0.0001, trust_coefficient=0.001, momentum=0.9, norms='joint')

    Reference:
        You, Gitman & Ginsburg, "Large Batch Training of Convolutional Networks", 2017, arXiv:1708.03888.
    """
    checks.decay_rate("lars", momentum=momentum)
    checks.choice("lars", "norms", norms, ("joint", "separate"))
    decay, ratio = add_decayed_weights(weight_decay, mask), scale_by_trust_ratio(0.0, trust_coefficient, eps)
    scaled = Choice("lars", "trust_ratio_mask", True if trust_ratio_mask is None else trust_ratio_mask)
    if norms == "separate":
        direction = _over_separate_norms(decay, scaled, trust_coefficient, eps)
    else:
        direction = chain(decay, ratio if trust_ratio_mask is None else masked(ratio, scaled, otherwise="pass"))
    return chain(direction, scale_by_learning_rate(learning_rate), trace(momentum, nesterov))


def _over_separate_norms(
    decay: GradientTransformation, scaled: Choice, trust_coefficient: float, eps: float
) -> GradientTransformation:
    """Multiply gradient and decay by the norm of the parameter over the sum of their norms."""

    def ratio(g: mx.array, s: mx.array, p: mx.array, is_scaled: bool) -> mx.array:
        size, length = safe_norm(p), safe_norm(g)
        chosen = (size > 0) & (length > 0) & is_scaled
        return mx.where(chosen, trust_coefficient * size / (length + safe_norm(s) + eps), 1.0)

    def update_fn(updates: Updates, state: State, params: Params) -> tuple[Updates, State]:
        shrinking, state = decay.update(tree.zeros_like(updates), state, params)
        ratios = tree.map(ratio, updates, shrinking, params, scaled.again(updates, params).values)
        return tree.mul(ratios, tree.add(updates, shrinking)), state

    return GradientTransformation(decay.init, update_fn, inner=[decay], reach="leaf")


@readable
def lamb(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step along AdamW's direction, by a share of the size of each parameter.

    .. math:: u = \hat m / (\sqrt{\hat v} + \epsilon) + \lambda w, \qquad
        w \leftarrow w - \eta \, u \, \|w\| / \|u\|

    Args:
        learning_rate: Number or schedule: the share.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        weight_decay: Number or schedule; part of the direction that is scaled.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> lamb(1e-2)
        lamb(0.01, b1=0.9, b2=0.999, eps=1e-06)

    Reference:
        You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020, arXiv:1904.00962.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


@readable
def fromage(learning_rate: ScalarOrSchedule, min_norm: float = 1e-6) -> GradientTransformation:
    r"""Step by a share of the size of each parameter, and shrink it so that steps at right angles do not make it grow.

    .. math:: w \leftarrow (w - \eta \, g \, \|w\| / \|g\|) / \sqrt{1 + \eta^2}

    Args:
        learning_rate: Number or schedule: the share.
        min_norm: Lower bound of both norms.

    Example:
        >>> fromage(0.01)
        fromage(0.01, min_norm=1e-06)

    Reference:
        Bernstein et al., "On the distance between two neural networks and the stability of learning", 2020,
        arXiv:2002.03432.
    """
    checks.scalar_or_schedule("fromage", low=0.0, learning_rate=learning_rate)
    return chain(scale_by_trust_ratio(min_norm), inject_hyperparams(_turn)(learning_rate))


def _turn(learning_rate: float) -> GradientTransformation:
    """Step, and divide the new parameters by the length that a step of this share gives them."""
    along = (1 + learning_rate**2) ** -0.5
    step = -learning_rate * along
    # along - 1 without the difference: at a rate of 1e-4 it is half a unit of the last place of 1.
    inward = step**2 / (1 + along)

    def update_fn(updates: Updates, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        return tree.map(lambda u, p: step * u - inward * p, updates, params), state

    return GradientTransformation(identity().init, update_fn, reach="element")
