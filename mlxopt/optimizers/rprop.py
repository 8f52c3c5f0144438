"""Rprop: every number has a step size of its own, which grows until the gradient changes sign."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import sign
from mlxopt.readable import readable
from mlxopt.transforms.scaling import scale


class ScaleByRpropState(NamedTuple):
    """Memory of :func:`scale_by_rprop`."""

    step_sizes: Updates  # length of the last step
    previous: Updates  # the last updates; zero where they had changed sign


@readable
def scale_by_rprop(
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> GradientTransformation:
    """Return steps in the direction of the sign of updates, longer while it stays and shorter where it has changed.

    Where it has changed, this step is left out.

    Args:
        learning_rate: Length of the first step.
        eta_minus: Number that a length is multiplied by where the sign has changed.
        eta_plus: Number that it is multiplied by where the sign has stayed.
        min_step_size: Smallest length.
        max_step_size: Largest length.

    Example:
        >>> tx = scale_by_rprop(0.1)
        >>> state = tx.init({"w": mx.zeros((2,))})
        >>> _, state = tx.update({"w": mx.array([3.0, -0.5])}, state)
        >>> tx.update({"w": mx.array([2.0, 1.0])}, state)[0]
        {'w': array([0.12, 0], dtype=float32)}

    Reference:
        Riedmiller & Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm", 1993;
        Igel & Huesken, "Improving the Rprop Learning Algorithm", 2000 (iRprop-).
    """
    checks.positive("scale_by_rprop", learning_rate=learning_rate, max_step_size=max_step_size)
    checks.non_negative("scale_by_rprop", min_step_size=min_step_size)
    checks.number("scale_by_rprop", low=0.0, high=1.0, eta_minus=eta_minus)
    checks.number("scale_by_rprop", low=1.0, eta_plus=eta_plus)

    def init_fn(params: Params) -> ScaleByRpropState:
        return ScaleByRpropState(tree.memory_like(params, learning_rate), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByRpropState, params: Params | None = None
    ) -> tuple[Updates, ScaleByRpropState]:
        del params

        def length(u: mx.array, last: mx.array, size: mx.array) -> mx.array:
            agreement = mx.sign(u) * mx.sign(last)
            factor = mx.where(agreement > 0, eta_plus, mx.where(agreement < 0, eta_minus, 1.0))
            return mx.clip(factor * size, min_step_size, max_step_size)

        sizes = tree.map(length, updates, state.previous, state.step_sizes)
        kept = tree.map(lambda u, last: mx.where(mx.sign(u) * mx.sign(last) < 0, 0.0, u), updates, state.previous)
        return tree.map(lambda u, size: sign(u) * size, kept, sizes), ScaleByRpropState(sizes, kept)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def rprop(
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> GradientTransformation:
    r"""Step against the sign of the gradient, further while it stays and less far where it has changed.

    For gradients of the whole data set: the sign of a noisy one changes too often.

    .. math:: d \leftarrow d \cdot \begin{cases} \eta^+ & g_t g_{t-1} > 0 \\ \eta^- & g_t g_{t-1} < 0 \end{cases},
        \qquad w \leftarrow w - d \operatorname{sign}(g_t)

    Args:
        learning_rate: Length of the first step; a number, for every later length follows from the gradients.
        eta_minus: Number that a length is multiplied by where the sign has changed; there this step is left out.
        eta_plus: Number that it is multiplied by where the sign has stayed.
        min_step_size: Smallest length.
        max_step_size: Largest length.

    Example:
        >>> rprop(0.01)
        rprop(0.01, eta_minus=0.5, eta_plus=1.2, min_step_size=1e-06, max_step_size=50.0)

    Reference:
        Riedmiller & Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm", 1993;
        Igel & Huesken, "Improving the Rprop Learning Algorithm", 2000 (iRprop-).
    """
    return chain(scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size), scale(-1.0))
