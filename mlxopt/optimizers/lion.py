"""Lion: the sign of a mean that leans towards the newest gradient."""

from typing import Literal, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import sign
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByLionState(NamedTuple):
    """Memory of :func:`scale_by_lion`."""

    mu: Updates  # running mean of the updates


@readable
def scale_by_lion(
    b1: float = 0.9,
    b2: float = 0.99,
    mu_dtype: mx.Dtype | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: float = 1.0,
) -> GradientTransformation:
    """Return the sign of the mean of memory and update.

    Args:
        b1: Share of the memory in that mean.
        b2: Decay of the memory.
        mu_dtype: Dtype of the memory; float32 by default.
        mode: "hard" for the sign, "smooth" for ``tanh(smooth_beta * mean)``, "refined" for the mean clipped to [-1, 1].
        smooth_beta: Steepness in "smooth" mode.

    Example:
        >>> tx = scale_by_lion()
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1, -1], dtype=float32)}

    Reference:
        Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, arXiv:2302.06675.
    """
    checks.decay_rate("scale_by_lion", b1=b1, b2=b2)
    checks.floating("scale_by_lion", mu_dtype=mu_dtype)
    checks.choice("scale_by_lion", "mode", mode, ("hard", "smooth", "refined"))
    checks.positive("scale_by_lion", smooth_beta=smooth_beta)

    # The same mean from the new memory, so that the old one is free for it: b1 m + (1 - b1) g, with m taken from mu.
    from_new, share = (True, b1 / b2) if b1 < b2 else (False, b1)

    def bounded(mean: mx.array) -> mx.array:
        if mode == "smooth":
            return mx.tanh(smooth_beta * mean)
        return sign(mean) if mode == "hard" else mx.clip(mean, -1.0, 1.0)

    def init_fn(params: Params) -> ScaleByLionState:
        return ScaleByLionState(tree.memory_like(params, dtype=mu_dtype))

    def update_fn(
        updates: Updates, state: ScaleByLionState, params: Params | None = None
    ) -> tuple[Updates, ScaleByLionState]:
        del params
        mu = tree.update_moment(updates, state.mu, b2, 1)
        mean = tree.update_moment(updates, mu if from_new else state.mu, share, 1)
        return tree.map(bounded, mean), ScaleByLionState(mu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def lion(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.99,
    mu_dtype: mx.Dtype | None = None,
    weight_decay: ScalarOrSchedule = 0.001,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step by the learning rate against the sign of a mean that leans towards the newest gradient.

    .. math:: w \leftarrow w - \eta (\operatorname{sign}(\beta_1 m + (1 - \beta_1) g) + \lambda w), \qquad
        m \leftarrow \beta_2 m + (1 - \beta_2) g

    Learning rates are three to ten times smaller than Adam's, weight decay larger by as much.

    Args:
        learning_rate: Number or schedule.
        b1: Share of the memory in the direction.
        b2: Decay of the memory.
        mu_dtype: Dtype of the memory; float32 by default.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> lion(1e-4)
        lion(0.0001, b1=0.9, b2=0.99, weight_decay=0.001)

    Reference:
        Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, arXiv:2302.06675.
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
