"""Averaged SGD: the mean of all parameters of a run is nearer to the minimum than its last ones."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.hyperparameters import inject_hyperparams
from mlxopt.numerics.scalars import new_count, safe_increment
from mlxopt.readable import readable


class AsgdState(NamedTuple):
    """Memory of :func:`asgd`."""

    count: mx.array  # int32: updates seen
    average: Params  # float32: mean of the parameters


@readable
def asgd(
    learning_rate: ScalarOrSchedule, lambd: float = 1e-4, alpha: float = 0.75, t0: int = 1_000_000
) -> GradientTransformation:
    r"""Step against the gradient by a rate that falls, and keep the mean of the parameters in the state.

    .. math:: \eta_t = \eta / (1 + \lambda \eta t)^\alpha, \qquad w \leftarrow w - \eta_t (g + \lambda w), \qquad
        \bar w \leftarrow \bar w + (w - \bar w) / \max(1, t - t_0)

    It is the last link of a chain; ``tree.get(state, "average")`` are the parameters to evaluate. This is PyTorch's
    form.

    Args:
        learning_rate: Number or schedule; it falls from there.
        lambd: Weight decay, and the speed at which the rate falls.
        alpha: Power with which it falls.
        t0: Updates before the mean begins; until then it is the parameters themselves.

    Example:
        >>> tx = asgd(0.5, lambd=0.0, t0=0)
        >>> params = {"w": mx.array(1.0)}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     updates, state = tx.update({"w": mx.array(1.0)}, state, params)
        ...     params = {"w": params["w"] + updates["w"]}
        >>> tree.get(state, "average"), params
        ({'w': array(0, dtype=float32)}, {'w': array(0, dtype=float32)})

    Reference:
        Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
    """
    checks.scalar_or_schedule("asgd", low=0.0, learning_rate=learning_rate)
    checks.non_negative("asgd", lambd=lambd, alpha=alpha)
    checks.whole("asgd", t0=t0)
    return inject_hyperparams(_averaging, ("lambd", "alpha", "t0"))(learning_rate, lambd, alpha, t0)


def _averaging(learning_rate: float, lambd: float, alpha: float, t0: int) -> GradientTransformation:
    def init_fn(params: Params) -> AsgdState:
        return AsgdState(new_count(), tree.memory_of(params))

    def update_fn(updates: Updates, state: AsgdState, params: Params) -> tuple[Updates, AsgdState]:
        age = state.count.astype(mx.float32)
        rate = learning_rate * mx.power(1 + lambd * learning_rate * age, -alpha)
        back, inward = -rate, rate * lambd
        steps = tree.map(lambda g, p: back * g - inward * p, updates, params)
        share = 1 / mx.maximum(1, state.count - t0)
        average = tree.map(lambda u, p, mean: mean + share * (p + u - mean), steps, params, state.average)
        return steps, AsgdState(safe_increment(state.count), average)

    return GradientTransformation(init_fn, update_fn, reach="element")
