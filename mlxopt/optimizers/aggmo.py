"""Aggregated momentum: the mean of several sums, each with a memory of its own length."""

from typing import NamedTuple

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.readable import readable
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByAggmoState(NamedTuple):
    """Memory of :func:`scale_by_aggmo`."""

    traces: list[Updates]  # of each decay: the decayed sum of the updates


@readable
def scale_by_aggmo(betas: tuple[float, ...] = (0.0, 0.9, 0.99)) -> GradientTransformation:
    """Return the mean of decayed sums of the updates.

    Args:
        betas: Decay of each sum.

    Example:
        >>> import mlx.core as mx
        >>> tx = scale_by_aggmo((0.0, 0.5))
        >>> state = tx.init({"w": mx.array(0.0)})
        >>> for _ in range(2):
        ...     updates, state = tx.update({"w": mx.array(1.0)}, state)
        >>> updates
        {'w': array(1.25, dtype=float32)}

    Reference:
        Lucas et al., "Aggregated Momentum: Stability Through Passive Damping", 2019, arXiv:1804.00325.
    """
    if not isinstance(betas, (tuple, list)) or not betas:
        raise TypeError(
            f"scale_by_aggmo: betas must be a tuple of decays, got {betas!r}. Pass (0.0, 0.9), for example."
        )
    for beta in betas:
        checks.decay_rate("scale_by_aggmo", betas=beta)

    def init_fn(params: Params) -> ScaleByAggmoState:
        return ScaleByAggmoState([tree.memory_like(params) for _ in betas])

    def update_fn(
        updates: Updates, state: ScaleByAggmoState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAggmoState]:
        del params
        traces = [tree.add_scale(updates, beta, t) for beta, t in zip(betas, state.traces, strict=True)]
        return tree.scale(1 / len(betas), tree.add(*traces)), ScaleByAggmoState(traces)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def aggmo(learning_rate: ScalarOrSchedule, betas: tuple[float, ...] = (0.0, 0.9, 0.99)) -> GradientTransformation:
    r"""Step along the mean of several momenta: the long ones are fast, the short ones damp their oscillations.

    .. math:: t_i \leftarrow \beta_i t_i + g, \qquad w \leftarrow w - \eta \operatorname{mean}_i(t_i)

    Args:
        learning_rate: Number or schedule.
        betas: Decay of each momentum.

    Example:
        >>> aggmo(0.1)
        aggmo(0.1, betas=(0.0, 0.9, 0.99))

    Reference:
        Lucas et al., "Aggregated Momentum: Stability Through Passive Damping", 2019, arXiv:1804.00325.
    """
    return chain(scale_by_aggmo(betas), scale_by_learning_rate(learning_rate))
