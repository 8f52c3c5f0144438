"""Grams: the size of Adam's step, in the direction of the gradient."""

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import sign
from mlxopt.optimizers.adam import ScaleByAdamState, scale_by_adam
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


@readable
def scale_by_grams(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> GradientTransformation:
    """Give Adam's direction the signs of the update itself.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.

    Example:
        >>> tx = scale_by_grams()
        >>> state = tx.init({"w": mx.array(0.0)})
        >>> for u in (3.0, 3.0, -1.0):
        ...     updates, state = tx.update({"w": mx.array(u)}, state)
        >>> updates["w"].item() < 0
        True

    Reference:
        Cao, Li & Song, "Grams: Gradient Descent with Adaptive Momentum Scaling", 2024, arXiv:2412.17107.
    """
    adam = scale_by_adam(b1, b2, eps)

    def update_fn(
        updates: Updates, state: ScaleByAdamState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdamState]:
        direction, state = adam.update(updates, state, params)
        return tree.map(lambda d, g: mx.abs(d) * sign(g), direction, updates), state

    return GradientTransformation(adam.init, update_fn, inner=[adam], reach="element")


@readable
def grams(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step as far as Adam does, against the sign of the gradient.

    .. math:: w \leftarrow w - \eta (\operatorname{sign}(g) \, |\hat m| / (\sqrt{\hat v} + \epsilon) + \lambda w)

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> grams(1e-3)
        grams(0.001, b1=0.9, b2=0.999, eps=1e-06)

    Reference:
        Cao, Li & Song, "Grams: Gradient Descent with Adaptive Momentum Scaling", 2024, arXiv:2412.17107.
    """
    return chain(
        scale_by_grams(b1, b2, eps), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )
