"""ADOPT: gradients measured by the power of those before them, then averaged."""

import math
from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Schedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import new_count, safe_increment, value_at
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAdoptState(NamedTuple):
    """Memory of :func:`scale_by_adopt`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the measured updates
    nu: Updates  # running mean of the squared updates


@readable
def scale_by_adopt(
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    mu_dtype: mx.Dtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Schedule | None = None,
) -> GradientTransformation:
    """Divide updates by the root of the power that those before had, and return the running mean.

    The first update is zero: it starts the power.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Lower bound of the root.
        mu_dtype: Dtype of the mean; float32 by default.
        nesterov: Let the mean look one step ahead.
        use_clipping: Clip what was divided.
        clip_value_fn: Largest magnitude by the count of updates before; ``count**0.25`` by default.

    Example:
        >>> tx = scale_by_adopt(b1=0.5)
        >>> state = tx.init({"w": mx.array(0.0)})
        >>> _, state = tx.update({"w": mx.array(2.0)}, state)
        >>> tx.update({"w": mx.array(1.0)}, state)[0]
        {'w': array(0.25, dtype=float32)}

    Reference:
        Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta_2 with the Optimal Rate", 2024,
        arXiv:2411.02853.
    """
    checks.decay_rate("scale_by_adopt", b1=b1, b2=b2)
    checks.floating("scale_by_adopt", mu_dtype=mu_dtype)
    checks.positive("scale_by_adopt", eps=eps)

    def clip_value(count: mx.array) -> mx.array:
        return mx.sqrt(mx.sqrt(count.astype(mx.float32))) if clip_value_fn is None else value_at(clip_value_fn, count)

    def init_fn(params: Params) -> ScaleByAdoptState:
        return ScaleByAdoptState(new_count(), tree.memory_like(params, dtype=mu_dtype), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByAdoptState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdoptState]:
        del params
        first = state.count == 0
        bound = mx.where(first, 0.0, clip_value(state.count) if use_clipping else math.inf)
        below = -bound

        def measured(g: mx.array, v: mx.array) -> mx.array:
            return mx.clip(g / mx.maximum(mx.sqrt(v), eps), below, bound)

        steps = tree.map(measured, updates, state.nu)
        mu = tree.update_moment(steps, state.mu, b1, 1)
        keep, share = mx.where(first, 0.0, b2), mx.where(first, 1.0, 1 - b2)
        nu = tree.map(lambda g, v: keep * v + share * abs_sq(g), updates, state.nu)
        mean = tree.look_ahead(steps, mu, b1, state.count, corrected=False) if nesterov else mu
        return mean, ScaleByAdoptState(safe_increment(state.count), mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def adopt(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    mu_dtype: mx.Dtype | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Schedule | None = None,
) -> GradientTransformation:
    r"""Step along the mean of gradients, each measured by the root mean square of those before it.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) \operatorname{clip}(g_t / \max(\sqrt{v_{t-1}}, \epsilon), t^{1/4}),
        \qquad w \leftarrow w - \eta m

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Lower bound of the root.
        mu_dtype: Dtype of the mean; float32 by default.
        nesterov: Let the mean look one step ahead.
        use_clipping: Clip what was divided.
        clip_value_fn: Largest magnitude by the count of updates before; ``count**0.25`` by default.

    Example:
        >>> adopt(1e-3)
        adopt(0.001, b1=0.9, b2=0.9999, eps=1e-06, use_clipping=True)

    Reference:
        Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta_2 with the Optimal Rate", 2024,
        arXiv:2411.02853.
    """
    return chain(
        scale_by_adopt(
            b1, b2, eps, mu_dtype, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
        ),
        scale_by_learning_rate(learning_rate),
    )
