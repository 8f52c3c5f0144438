"""NovoGrad: gradients measured by the running norm of each layer, then summed up."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import new_count, safe_increment
from mlxopt.numerics.sums import abs_sq, total
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.momentum import trace
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByNovogradState(NamedTuple):
    """Memory of :func:`scale_by_novograd`, which is followed by that of weight decay and momentum."""

    count: mx.array  # int32: updates seen
    nu: Updates  # float32 of each leaf: running mean of its squared norm


@readable
def scale_by_novograd(
    b1: float = 0.9,
    b2: float = 0.25,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mu_dtype: mx.Dtype | None = None,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Divide each leaf by its running norm, add the decay of its parameter, and sum this up with momentum.

    Args:
        b1: Decay of the sum.
        b2: Decay of the squared norm, which starts at that of the first update.
        eps: Added to the norm.
        eps_root: Added to the squared norm.
        weight_decay: Number or schedule.
        mu_dtype: Dtype of the sum; float32 by default.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> tx = scale_by_novograd()
        >>> params = {"w": mx.zeros((2,))}
        >>> tx.update({"w": mx.array([3.0, 4.0])}, tx.init(params), params)[0]
        {'w': array([0.6, 0.8], dtype=float32)}

    Reference:
        Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks",
        2019, arXiv:1905.11286.
    """
    checks.decay_rate("scale_by_novograd", b1=b1, b2=b2)
    checks.floating("scale_by_novograd", mu_dtype=mu_dtype)
    checks.non_negative("scale_by_novograd", eps=eps, eps_root=eps_root)

    def init_fn(params: Params) -> ScaleByNovogradState:
        return ScaleByNovogradState(new_count(), tree.map(lambda _: mx.zeros((), mx.float32), params))

    def update_fn(
        updates: Updates, state: ScaleByNovogradState, params: Params | None = None
    ) -> tuple[Updates, ScaleByNovogradState]:
        del params
        first = state.count == 0
        keep, share = mx.where(first, 0.0, b2), mx.where(first, 1.0, 1 - b2)
        nu = tree.map(lambda g, v: keep * v + share * total(abs_sq(g)), updates, state.nu)
        sizes = tree.map(lambda v: 1 / (mx.sqrt(v + eps_root) + eps), nu)
        return tree.mul(sizes, updates), ScaleByNovogradState(safe_increment(state.count), nu)

    measured = GradientTransformation(init_fn, update_fn, reach="leaf")
    return chain(measured, add_decayed_weights(weight_decay, mask), trace(b1, accumulator_dtype=mu_dtype))


@readable
def novograd(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.25,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step along a sum of gradients, each measured in units of the running norm of its layer.

    .. math:: v \leftarrow \beta_2 v + (1 - \beta_2) \|g\|^2, \qquad
        m \leftarrow \beta_1 m + \frac{g}{\sqrt{v} + \epsilon} + \lambda w, \qquad w \leftarrow w - \eta m

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the sum.
        b2: Decay of the squared norm, which starts at that of the first gradient.
        eps: Added to the norm.
        eps_root: Added to the squared norm.
        weight_decay: Number or schedule; multiplied by the learning rate, and summed up as gradients are.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> novograd(1e-2)
        novograd(0.01, b1=0.9, b2=0.25, eps=1e-06)

    Reference:
        Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks",
        2019, arXiv:1905.11286.
    """
    return chain(
        scale_by_novograd(b1, b2, eps, eps_root, weight_decay, mask=mask), scale_by_learning_rate(learning_rate)
    )
