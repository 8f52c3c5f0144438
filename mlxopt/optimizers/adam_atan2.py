"""Adam-atan2: Adam without an epsilon, by an arc tangent in the place of the quotient."""

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, new_count, safe_increment
from mlxopt.optimizers.adam import ScaleByAdamState
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


@readable
def scale_by_adam_atan2(b1: float = 0.9, b2: float = 0.999, a: float = 1.27, b: float = 1.0) -> GradientTransformation:
    """Return the angle between the running mean of the updates and the root of their running power.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power.
        a: Number that the angle is multiplied by; with 1.27 updates of one size give a direction of 1.
        b: Number that the root is multiplied by.

    Example:
        >>> tx = scale_by_adam_atan2(a=1.0)
        >>> tx.update({"w": mx.array([4.0, -1e-30])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([0.785398, -1.5708], dtype=float32)}

    Reference:
        Everett et al., "Scaling Exponents Across Parameterizations and Optimizers", 2024, arXiv:2407.05872.
    """
    checks.decay_rate("scale_by_adam_atan2", b1=b1, b2=b2)
    checks.positive("scale_by_adam_atan2", a=a, b=b)

    def init_fn(params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(new_count(), tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByAdamState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdamState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        nu = tree.update_moment(updates, state.nu, b2, 2)
        of_root = b * bias_correction(b1, count) / mx.sqrt(bias_correction(b2, count))
        direction = tree.map(lambda m, v: a * mx.arctan2(m, of_root * mx.sqrt(v)), mu, nu)
        return direction, ScaleByAdamState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def adam_atan2(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    a: float = 1.27,
    b: float = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step as Adam does, by an angle instead of a quotient: it is bounded, and needs no epsilon.

    .. math:: w \leftarrow w - \eta \left( a \operatorname{atan2}(\hat m, b \sqrt{\hat v}) + \lambda w \right)

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        a: Number that the angle is multiplied by.
        b: Number that the root is multiplied by.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> adam_atan2(1e-3)
        adam_atan2(0.001, b1=0.9, b2=0.999, a=1.27, b=1.0)

    Reference:
        Everett et al., "Scaling Exponents Across Parameterizations and Optimizers", 2024, arXiv:2407.05872.
    """
    return chain(
        scale_by_adam_atan2(b1, b2, a, b),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
