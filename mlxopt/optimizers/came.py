"""CAME: Adafactor that steps further where its steps agree with each other."""

from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.sums import abs_sq, safe_root_mean_squares
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate
from mlxopt.tree.factored import Axes, Factoring, Factors


class ScaleByCameState(NamedTuple):
    """Memory of :func:`scale_by_came`; rows and columns are averaged as in Adafactor."""

    mu: Updates  # running mean of the normalized updates
    nu: Factors  # running mean of the squared updates
    instability: Factors  # of what is factored: running mean of the squared distance from mu


@readable
def scale_by_came(
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    eps: float = 1e-30,
    eps_instability: float = 1e-16,
    clipping_threshold: float = 1.0,
    min_dim_size_to_factor: int = 128,
    *,
    axes: Axes = "largest",
) -> GradientTransformation:
    """Average updates over the root of their power, and divide that by the root of their spread around it.

    Of power and spread only means over rows and columns are kept; what is too small for that is only averaged.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power.
        b3: Decay of the spread.
        eps: Added to squared updates.
        eps_instability: Added to the squared distance from the mean.
        clipping_threshold: Largest root mean square of a leaf that was divided by the root of the power.
        min_dim_size_to_factor: Keep the whole power, and no spread, of leaves where one of the two axes is shorter.
        axes: The two axes that are averaged: the "largest" ones, or the "last" ones as the authors do.

    Example:
        >>> tx = scale_by_came(min_dim_size_to_factor=2)
        >>> state = tx.init({"w": mx.zeros((4, 2))})
        >>> state.nu.row["w"].shape, state.instability.col["w"].shape
        ((2,), (4,))

    Reference:
        Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient Optimization", 2023, arXiv:2307.02047.
    """
    checks.decay_rate("scale_by_came", b1=b1, b2=b2, b3=b3)
    checks.positive("scale_by_came", eps=eps, eps_instability=eps_instability, clipping_threshold=clipping_threshold)
    factoring = Factoring.of("scale_by_came", True, min_dim_size_to_factor, axes)

    def factored(leaves: Any) -> Any:
        return tree.map(lambda leaf: tree.MaskedNode() if factoring.axes_of(leaf) is None else leaf, leaves)

    def init_fn(params: Params) -> ScaleByCameState:
        return ScaleByCameState(tree.memory_like(params), factoring.memory(params), factoring.memory(factored(params)))

    def update_fn(
        updates: Updates, state: ScaleByCameState, params: Params | None = None
    ) -> tuple[Updates, ScaleByCameState]:
        del params
        nu = factoring.moved(state.nu, tree.map(lambda g: abs_sq(g) + eps, updates), b2)
        measured = factoring.over_root(updates, nu)
        factors = tree.map(lambda u: 1 / mx.maximum(1.0, safe_root_mean_squares(u) / clipping_threshold), measured)
        clipped = tree.mul(measured, factors)
        mu = tree.update_moment(clipped, state.mu, b1, 1)
        spread = tree.map(lambda u, m: abs_sq(u - m) + eps_instability, clipped, mu)
        instability = factoring.moved(state.instability, factored(spread), b3)
        confident = factoring.over_root(factored(mu), instability)
        direction = tree.map(lambda m, c: m if c is None else c, mu, confident, holes=True)
        return direction, ScaleByCameState(mu, nu, instability)

    return GradientTransformation(init_fn, update_fn, reach="leaf")


@readable
def came(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    eps: float = 1e-30,
    eps_instability: float = 1e-16,
    clipping_threshold: float = 1.0,
    min_dim_size_to_factor: int = 128,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    *,
    axes: Axes = "largest",
) -> GradientTransformation:
    r"""Step as Adafactor with momentum does, further where its steps agree with their mean.

    .. math:: u = g / \sqrt{\tilde v}, \qquad
        m \leftarrow \beta_1 m + (1 - \beta_1) \, u / \max(1, \operatorname{rms}(u) / d), \\
        s \leftarrow \beta_3 s + (1 - \beta_3) (u - m)^2, \qquad w \leftarrow w - \eta (m / \sqrt{\tilde s} + \lambda w)

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        b3: Decay of the spread.
        eps: Added to squared gradients.
        eps_instability: Added to the squared distance from the mean.
        clipping_threshold: Largest root mean square of a leaf that was divided by the root of the power.
        min_dim_size_to_factor: Keep the whole power, and no spread, of leaves where one of the two axes is shorter.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        axes: The two axes that are averaged: the "largest" ones, or the "last" ones as the authors do.

    Example:
        >>> params = {"w": mx.ones((256, 512))}
        >>> tree.nbytes(came(1e-4).init(params)) / tree.nbytes(params) < 1.02
        True

    Reference:
        Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient Optimization", 2023, arXiv:2307.02047.
    """
    direction = scale_by_came(b1, b2, b3, eps, eps_instability, clipping_threshold, min_dim_size_to_factor, axes=axes)
    return chain(direction, add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))
