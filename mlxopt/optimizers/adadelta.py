"""Adadelta: steps in the unit of the parameters, from a memory of earlier steps."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAdaDeltaState(NamedTuple):
    """Memory of :func:`scale_by_adadelta`."""

    e_g: Updates  # running mean of the squared updates that came in
    e_x: Updates  # running mean of the squared updates that went out


@readable
def scale_by_adadelta(rho: float = 0.9, eps: float = 1e-6) -> GradientTransformation:
    """Scale updates by the root mean square of earlier results over that of the updates.

    Args:
        rho: Decay of both means.
        eps: Added inside both roots.

    Example:
        >>> tx = scale_by_adadelta()
        >>> tx.update({"w": mx.array([4.0])}, tx.init({"w": mx.zeros((1,))}))[0]
        {'w': array([0.00316228], dtype=float32)}

    Reference:
        Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, arXiv:1212.5701.
    """
    checks.decay_rate("scale_by_adadelta", rho=rho)
    checks.positive("scale_by_adadelta", eps=eps)

    def init_fn(params: Params) -> ScaleByAdaDeltaState:
        return ScaleByAdaDeltaState(tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByAdaDeltaState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdaDeltaState]:
        del params
        e_g = tree.update_moment(updates, state.e_g, rho, 2)
        step = tree.map(lambda g, v, x: mx.sqrt((x + eps) / (v + eps)) * g, updates, e_g, state.e_x)
        e_x = tree.update_moment(step, state.e_x, rho, 2)
        return step, ScaleByAdaDeltaState(e_g, e_x)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def adadelta(
    learning_rate: ScalarOrSchedule = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step against the gradient, in units that the method finds from its earlier steps.

    .. math:: w \leftarrow w - \eta \sqrt{\frac{E[x^2] + \epsilon}{E[g^2] + \epsilon}} g

    Args:
        learning_rate: Number or schedule.
        rho: Decay of both means.
        eps: Added inside both roots.
        weight_decay: L2 penalty, added to the gradient: number or schedule.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> adadelta()
        adadelta(learning_rate=1.0, rho=0.9, eps=1e-06)

    Reference:
        Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, arXiv:1212.5701.
    """
    return chain(
        add_decayed_weights(weight_decay, mask), scale_by_adadelta(rho, eps), scale_by_learning_rate(learning_rate)
    )
