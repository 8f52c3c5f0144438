"""AdEMAMix: Adam with a second, much longer memory of gradients."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.hyperparameters import inject_hyperparams
from mlxopt.numerics.scalars import bias_correction, is_zero, new_count, safe_increment
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAdemamixState(NamedTuple):
    """Memory of :func:`scale_by_ademamix`."""

    count: mx.array  # int32: updates seen
    m1: Updates  # running mean of the updates
    m2: Updates  # slow running mean of the updates
    nu: Updates  # running mean of their squares


@readable
def scale_by_ademamix(
    b1: float = 0.9,
    b2: float = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
) -> GradientTransformation:
    """Divide a running mean of the updates and a much slower one by the root of their running power.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power.
        b3: Decay of the slow mean: number or schedule.
        alpha: Weight of the slow mean: number or schedule.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of both means; float32 by default.

    Example:
        >>> tx = scale_by_ademamix(b3=0.5, alpha=2.0)
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([2, -2], dtype=float32)}

    Reference:
        Pagliardini, Ablin & Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024, arXiv:2409.03137.
    """
    checks.decay_rate("scale_by_ademamix", b1=b1, b2=b2, **({} if callable(b3) else {"b3": b3}))
    checks.scalar_or_schedule("scale_by_ademamix", alpha=alpha)
    checks.floating("scale_by_ademamix", mu_dtype=mu_dtype)
    checks.non_negative("scale_by_ademamix", eps=eps, eps_root=eps_root)
    fixed = ("b1", "b2", "eps", "eps_root")
    return inject_hyperparams(_with_two_means, fixed)(b1, b2, b3, alpha, eps, eps_root, mu_dtype)


def _with_two_means(
    b1: float, b2: float, b3: float, alpha: float, eps: float, eps_root: float, mu_dtype: mx.Dtype | None
) -> GradientTransformation:
    def init_fn(params: Params) -> ScaleByAdemamixState:
        m1, m2 = (tree.memory_like(params, dtype=mu_dtype) for _ in range(2))
        return ScaleByAdemamixState(new_count(), m1, m2, tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByAdemamixState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdemamixState]:
        del params
        count = safe_increment(state.count)
        m1 = tree.update_moment(updates, state.m1, b1, 1)
        m2 = tree.update_moment(updates, state.m2, b3, 1)
        nu = tree.update_moment(updates, state.nu, b2, 2)
        # m1 / c1 + alpha * m2 over sqrt(nu / c2 + eps_root) + eps, all times sqrt(c2), as in Adam.
        c2 = bias_correction(b2, count)
        root = mx.sqrt(c2)
        of_fast, of_slow = root / bias_correction(b1, count), alpha * root
        inside, outside = c2 * eps_root, root * eps
        power = nu if is_zero(eps_root) else tree.map(lambda v: v + inside, nu)
        direction = tree.map(
            lambda fast, slow, v: (of_fast * fast + of_slow * slow) / (mx.sqrt(v) + outside), m1, m2, power
        )
        return direction, ScaleByAdemamixState(count, m1, m2, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: mx.Dtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step along the mean gradient and along a much slower mean, in units of the root mean square.

    .. math:: w \leftarrow w - \eta \left( (\hat m_1 + \alpha m_2) / (\sqrt{\hat v} + \epsilon) + \lambda w \right)

    The slow mean is not corrected for its start at zero. In long runs the authors let ``alpha`` grow from 0 to its
    value, and the half-life of the slow mean from that of the fast one, so that early steps do not follow old
    gradients: pass schedules, as in the example.

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        b3: Decay of the slow mean: number or schedule.
        alpha: Weight of the slow mean: number or schedule.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        mu_dtype: Dtype of both means; float32 by default.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> from mlxopt import half_life_schedule, linear_schedule
        >>> ademamix(1e-3, b3=half_life_schedule(0.9, 0.9999, 1000), alpha=linear_schedule(0.0, 5.0, 1000))
        ademamix(0.001, b1=0.9, b2=0.999, b3=half_life_schedule(0.9, 0.9999, 1000),
            alpha=linear_schedule(0.0, 5.0, 1000), eps=1e-08)

    Reference:
        Pagliardini, Ablin & Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024, arXiv:2409.03137.
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


class ScaleBySimplifiedAdemamixState(NamedTuple):
    """Memory of :func:`scale_by_simplified_ademamix`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # decayed sum of the updates
    nu: Updates  # running mean of their squares


@readable
def scale_by_simplified_ademamix(
    b1: float = 0.99, b2: float = 0.95, alpha: float = 0.0, eps: float = 1e-8, eps_root: float = 0.0
) -> GradientTransformation:
    """Divide a long decayed sum of the updates, and the newest one, by the root of their running power.

    Args:
        b1: Decay of the sum.
        b2: Decay of the power.
        alpha: Weight of the newest update.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.

    Example:
        >>> tx = scale_by_simplified_ademamix(alpha=2.0)
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([3, -3], dtype=float32)}

    Reference:
        Morwani et al., "Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants", 2025,
        arXiv:2502.02431.
    """
    checks.decay_rate("scale_by_simplified_ademamix", b1=b1, b2=b2)
    checks.non_negative("scale_by_simplified_ademamix", alpha=alpha, eps=eps, eps_root=eps_root)

    def init_fn(params: Params) -> ScaleBySimplifiedAdemamixState:
        return ScaleBySimplifiedAdemamixState(new_count(), tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleBySimplifiedAdemamixState, params: Params | None = None
    ) -> tuple[Updates, ScaleBySimplifiedAdemamixState]:
        del params
        count = safe_increment(state.count)
        mu = tree.map(lambda g, m: b1 * m + g, updates, state.mu)
        nu = tree.update_moment(updates, state.nu, b2, 2)
        # mu + alpha * g over sqrt(nu / c2 + eps_root) + eps, all times sqrt(c2), as in Adam.
        c2 = bias_correction(b2, count)
        root = mx.sqrt(c2)
        of_newest, inside, outside = alpha * root, c2 * eps_root, root * eps
        power = nu if is_zero(eps_root) else tree.map(lambda v: v + inside, nu)
        direction = tree.map(lambda g, m, v: (root * m + of_newest * g) / (mx.sqrt(v) + outside), updates, mu, power)
        return direction, ScaleBySimplifiedAdemamixState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def simplified_ademamix(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.99,
    b2: float = 0.95,
    alpha: float = 0.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step along a long sum of gradients and the newest one, in units of the root mean square.

    .. math:: m \leftarrow \beta_1 m + g, \qquad
        w \leftarrow w - \eta \left( (m + \alpha g) / (\sqrt{\hat v} + \epsilon) + \lambda w \right)

    The sum is up to ``1 / (1 - b1)`` times as long as a mean, so the learning rate is as much smaller.

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the sum.
        b2: Decay of the power.
        alpha: Weight of the newest gradient.
        eps: Added to the root.
        eps_root: Added to the power, inside the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> simplified_ademamix(1e-5, alpha=100.0)
        simplified_ademamix(1e-05, b1=0.99, b2=0.95, alpha=100.0, eps=1e-08)

    Reference:
        Morwani et al., "Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants", 2025,
        arXiv:2502.02431.
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
