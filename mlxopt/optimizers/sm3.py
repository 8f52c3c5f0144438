"""SM3: Adagrad in the memory of one vector for each axis."""

from functools import reduce
from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.transforms.momentum import ema
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleBySm3State(NamedTuple):
    """Memory of :func:`scale_by_sm3`, which is followed by that of the momentum."""

    accumulators: list[Updates]  # for every axis: the largest power along all others; holes where leaves have fewer


@readable
def scale_by_sm3(b1: float = 0.9, b2: float = 1.0, eps: float = 1e-8) -> GradientTransformation:
    """Divide updates by the root of their summed squares, of which one vector for each axis is kept; then average.

    The power of an element is the smallest of those kept for its row, its column, ...; what is kept of a row is the
    largest power in it.

    Args:
        b1: Decay of the running mean of what comes out.
        b2: Decay of the power: 1 for the sum of all squares, less for a running mean.
        eps: Added to the power, inside the root.

    Example:
        >>> tx = scale_by_sm3(b1=0.0)
        >>> params = {"w": mx.zeros((2, 2))}
        >>> tx.update({"w": mx.array([[3.0, 4.0], [0.0, 2.0]])}, tx.init(params))[0]
        {'w': array([[1, 1],
               [0, 1]], dtype=float32)}

    Reference:
        Anil et al., "Memory-Efficient Adaptive Optimization", 2019, arXiv:1901.11150.
    """
    checks.decay_rate("scale_by_sm3", b1=b1)
    checks.number("scale_by_sm3", low=0.0, high=1.0, b2=b2)
    checks.positive("scale_by_sm3", eps=eps)
    share = 1.0 if b2 == 1.0 else 1 - b2

    def along(power: mx.array, axis: int) -> mx.array | tree.MaskedNode:
        """The largest power in each slice; a scalar is its own."""
        if axis >= max(power.ndim, 1):
            return tree.MaskedNode()
        others = tuple(other for other in range(power.ndim) if other != axis)
        return mx.max(power, axis=others, keepdims=True) if others and power.size else power

    def init_fn(params: Params) -> ScaleBySm3State:
        power = tree.map(mx.abs, tree.memory_like(params))
        axes = max((max(leaf.ndim, 1) for leaf in tree.leaves(power)), default=1)
        return ScaleBySm3State([tree.map(lambda v, axis=axis: along(v, axis), power) for axis in range(axes)])

    def update_fn(
        updates: Updates, state: ScaleBySm3State, params: Params | None = None
    ) -> tuple[Updates, ScaleBySm3State]:
        del params

        def grown(g: mx.array, *kept: mx.array | None) -> mx.array:
            smallest = reduce(mx.minimum, [v for v in kept if v is not None])
            return b2 * smallest + share * abs_sq(g)

        power = tree.map(grown, updates, *state.accumulators, holes=True)
        direction = tree.map(lambda g, v: g * mx.rsqrt(v + eps), updates, power)
        axes = range(len(state.accumulators))
        return direction, ScaleBySm3State([tree.map(lambda v, axis=axis: along(v, axis), power) for axis in axes])

    return chain(GradientTransformation(init_fn, update_fn, reach="leaf"), ema(b1, debias=False))


@readable
def sm3(learning_rate: ScalarOrSchedule, momentum: float = 0.9) -> GradientTransformation:
    r"""Step against the gradient as Adagrad does, with a memory of rows and columns instead of elements.

    .. math:: v_{ij} = \min(r_i, c_j) + g_{ij}^2, \qquad r_i \leftarrow \max_j v_{ij}, \qquad
        c_j \leftarrow \max_i v_{ij}, \qquad w \leftarrow w - \eta \operatorname{mean}(g / \sqrt{v})

    Args:
        learning_rate: Number or schedule.
        momentum: Decay of the running mean of steps.

    Example:
        >>> sm3(0.1)
        sm3(0.1, momentum=0.9)

    Reference:
        Anil et al., "Memory-Efficient Adaptive Optimization", 2019, arXiv:1901.11150.
    """
    checks.decay_rate("sm3", momentum=momentum)
    return chain(scale_by_sm3(momentum), scale_by_learning_rate(learning_rate))
