"""FTRL-Proximal: parameters that are exactly zero until gradients have a reason for them."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.hyperparameters import inject_hyperparams
from mlxopt.readable import readable


class FtrlState(NamedTuple):
    """Memory of :func:`ftrl`."""

    z: Updates  # sum of the gradients, less what the parameters of their times contribute
    n: Updates  # sum of the squared gradients


@readable
def ftrl(
    learning_rate: ScalarOrSchedule, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0
) -> GradientTransformation:
    r"""Step to the parameters that would have been best so far, where each one that is not zero has a price.

    .. math:: \sigma = (\sqrt{n + g^2} - \sqrt{n}) / \eta, \qquad z \leftarrow z + g - \sigma w, \qquad
        n \leftarrow n + g^2, \\
        w \leftarrow -\frac{\operatorname{sign}(z) \max(|z| - \lambda_1, 0)}{(\beta + \sqrt{n}) / \eta + \lambda_2}

    It is the last link of a chain: what the parameters become does not depend on what they are, but on all gradients.

    Args:
        learning_rate: Number above 0, or schedule.
        beta: Added to the root, against long first steps.
        l1: Price of the magnitude of a parameter.
        l2: Price of its square.

    Example:
        >>> tx = ftrl(0.5, l1=1.0)
        >>> params = {"w": mx.zeros((2,))}
        >>> tx.update({"w": mx.array([3.0, 0.9])}, tx.init(params), params)[0]
        {'w': array([-0.25, 0], dtype=float32)}

    Reference:
        McMahan et al., "Ad Click Prediction: a View from the Trenches", 2013.
    """
    checks.scalar_or_schedule("ftrl", low=0.0, learning_rate=learning_rate)
    checks.non_negative("ftrl", beta=beta, l1=l1, l2=l2)
    return inject_hyperparams(_proximal, ("beta", "l1", "l2"))(learning_rate, beta, l1, l2)


def _proximal(learning_rate: float, beta: float, l1: float, l2: float) -> GradientTransformation:
    def init_fn(params: Params) -> FtrlState:
        return FtrlState(tree.memory_like(params), tree.memory_like(params))

    def update_fn(updates: Updates, state: FtrlState, params: Params) -> tuple[Updates, FtrlState]:
        below = -l1
        pull = 1 / learning_rate
        least = pull * beta + l2
        n = tree.map(lambda g, n: n + mx.square(g), updates, state.n)
        z = tree.map(
            lambda g, p, old, new, z: z + g - pull * (mx.sqrt(new) - mx.sqrt(old)) * p,
            updates, params, state.n, n, state.z,
        )  # fmt: skip

        def step(p: mx.array, z: mx.array, n: mx.array) -> mx.array:
            return (mx.clip(z, below, l1) - z) / (pull * mx.sqrt(n) + least) - p

        return tree.map(step, params, z, n), FtrlState(z, n)

    return GradientTransformation(init_fn, update_fn, reach="element")
