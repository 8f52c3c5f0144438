"""diffGrad: Adam that slows down where the gradient no longer changes."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Inner, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.optimizers.adam import ScaleByAdamState, scale_by_adam
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByDiffgradState(NamedTuple):
    """Memory of :func:`scale_by_diffgrad`."""

    previous: Updates  # the last updates
    adam: ScaleByAdamState


@readable
def scale_by_diffgrad(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> GradientTransformation:
    """Multiply Adam's direction by the sigmoid of how much the update has changed: by 1/2 where it has not.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.

    Example:
        >>> tx = scale_by_diffgrad()
        >>> state = tx.init({"w": mx.array(0.0)})
        >>> for _ in range(2):
        ...     updates, state = tx.update({"w": mx.array(3.0)}, state)
        >>> updates
        {'w': array(0.5, dtype=float32)}

    Reference:
        Dubey et al., "diffGrad: An Optimization Method for Convolutional Neural Networks", 2019, arXiv:1909.11015.
    """
    adam = scale_by_adam(b1, b2, eps)

    def init_fn(params: Params) -> ScaleByDiffgradState:
        return ScaleByDiffgradState(tree.memory_like(params), adam.init(params))

    def update_fn(
        updates: Updates, state: ScaleByDiffgradState, params: Params | None = None
    ) -> tuple[Updates, ScaleByDiffgradState]:
        direction, inner = adam.update(updates, state.adam, params)
        slowed = tree.map(lambda d, g, last: d * mx.sigmoid(mx.abs(g - last)), direction, updates, state.previous)
        return slowed, ScaleByDiffgradState(updates, inner)

    return GradientTransformation(init_fn, update_fn, inner=[Inner(adam, ("adam",))], reach="element")


@readable
def diffgrad(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step as Adam does, and half as far where the gradient has stopped to change.

    .. math:: w \leftarrow w - \eta \, \sigma(|g_t - g_{t-1}|) \, \hat m / (\sqrt{\hat v} + \epsilon)

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> diffgrad(1e-3)
        diffgrad(0.001, b1=0.9, b2=0.999, eps=1e-08)

    Reference:
        Dubey et al., "diffGrad: An Optimization Method for Convolutional Neural Networks", 2019, arXiv:1909.11015.
    """
    return chain(
        scale_by_diffgrad(b1, b2, eps), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )
