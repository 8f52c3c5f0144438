"""AdamP and SGDP: no steps away from the origin for weights whose length does not matter."""

import math
from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Inner, Mask, Params, ScalarOrSchedule, State, Updates
from mlxopt.combine import chain
from mlxopt.optimizers.adam import scale_by_adam
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.momentum import trace
from mlxopt.transforms.scaling import scale_by_learning_rate

EPS = 1e-8
"""Length below which a parameter has no direction."""


class TangentialState(NamedTuple):
    """Memory of :func:`adamp` and :func:`sgdp`."""

    inner_state: State  # of the direction
    decay_state: State  # of the weight decay


def _tangential(
    inner: GradientTransformation, decay: GradientTransformation, delta: float, wd_ratio: float
) -> GradientTransformation:
    """Take from a direction its part along the parameter, where gradients have none; there less decay, too.

    A norm that follows a layer makes its gradient stand at right angles to each output unit, or to the whole layer.
    """

    def init_fn(params: Params) -> TangentialState:
        return TangentialState(inner.init(params), decay.init(params))

    def update_fn(updates: Updates, state: TangentialState, params: Params) -> tuple[Updates, TangentialState]:
        direction, inner_state = inner.update(updates, state.inner_state, params)
        shrinking, decay_state = decay.update(tree.zeros_like(updates), state.decay_state, params)

        def step(d: mx.array, s: mx.array, g: mx.array, p: mx.array) -> mx.array:
            if p.ndim < 2 or p.size == 0:
                return d + s
            units = _Products(*(mx.sum(x * y, axis=list(range(1, p.ndim)), keepdims=True) for x, y in _pairs(g, p, d)))
            layer = _Products(*(mx.sum(product, axis=0, keepdims=True) for product in units))
            to_units = units.largest_cosine() < delta / math.sqrt(p.size // p.shape[0])
            to_layer = layer.largest_cosine() < delta / math.sqrt(p.size)
            share = mx.where(to_units, units.share_along(), mx.where(to_layer, layer.share_along(), 0.0))
            return d - share * p + mx.where(to_units | to_layer, wd_ratio, 1.0) * s

        changed = tree.map(step, direction, shrinking, updates, params)
        return changed, TangentialState(inner_state, decay_state)

    parts = [Inner(inner, ("inner_state",)), Inner(decay, ("decay_state",))]
    return GradientTransformation(init_fn, update_fn, inner=parts, reach="leaf")


class _Products(NamedTuple):
    """Inner products of gradient, parameter and direction: of each output unit, or of the whole layer."""

    gg: mx.array
    pp: mx.array
    gp: mx.array
    dp: mx.array

    def largest_cosine(self) -> mx.array:
        """Of all angles between gradient and parameter."""
        return mx.max(mx.abs(self.gp) / mx.maximum(mx.sqrt(self.gg) * mx.sqrt(self.pp), EPS))

    def share_along(self) -> mx.array:
        """How much of the parameter is in the direction."""
        return self.dp / mx.square(mx.sqrt(self.pp) + EPS)


def _pairs(g: mx.array, p: mx.array, d: mx.array) -> list[tuple[mx.array, mx.array]]:
    return [(g, g), (p, p), (g, p), (d, p)]


@readable
def adamp(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    *,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
    nesterov: bool = False,
) -> GradientTransformation:
    r"""Step as AdamW does, but only around the origin with weights whose length a norm takes out.

    .. math:: u = \hat m / (\sqrt{\hat v} + \epsilon), \qquad
        w \leftarrow w - \eta (u - \frac{w \cdot u}{w \cdot w} w) \quad
        \text{where} \quad |\cos(w, g)| < \delta / \sqrt{\dim w}

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        delta: Largest cosine that counts as a right angle, times the root of the number of elements.
        wd_ratio: Share of the weight decay for such weights.
        nesterov: Let the mean look one step ahead.

    Example:
        >>> adamp(1e-3)
        adamp(0.001, b1=0.9, b2=0.999, eps=1e-08, delta=0.1, wd_ratio=0.1)

    Reference:
        Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights", 2021,
        arXiv:2006.08217.
    """
    checks.non_negative("adamp", delta=delta, wd_ratio=wd_ratio)
    direction = scale_by_adam(b1, b2, eps, nesterov=nesterov)
    return chain(
        _tangential(direction, add_decayed_weights(weight_decay, mask), delta, wd_ratio),
        scale_by_learning_rate(learning_rate),
    )


@readable
def sgdp(
    learning_rate: ScalarOrSchedule,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    *,
    delta: float = 0.1,
    wd_ratio: float = 0.1,
) -> GradientTransformation:
    """Step as SGD with momentum does, but only around the origin with weights whose length a norm takes out.

    Args:
        learning_rate: Number or schedule.
        momentum: Decay of the sum of gradients.
        nesterov: Look one step ahead.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        delta: Largest cosine that counts as a right angle, times the root of the number of elements.
        wd_ratio: Share of the weight decay for such weights.

    Example:
        >>> sgdp(0.1)
        sgdp(0.1, momentum=0.9, delta=0.1, wd_ratio=0.1)

    Reference:
        Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights", 2021,
        arXiv:2006.08217.
    """
    checks.decay_rate("sgdp", momentum=momentum)
    checks.non_negative("sgdp", delta=delta, wd_ratio=wd_ratio)
    return chain(
        _tangential(trace(momentum, nesterov), add_decayed_weights(weight_decay, mask), delta, wd_ratio),
        scale_by_learning_rate(learning_rate),
    )
