"""Quasi-hyperbolic methods: between the newest gradient and the mean."""

from typing import NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import bias_correction, new_count, safe_increment
from mlxopt.numerics.sums import abs_sq
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate


class ScaleByQhmState(NamedTuple):
    """Memory of :func:`scale_by_qhm`."""

    mu: Updates  # running mean of the updates


@readable
def scale_by_qhm(momentum: float = 0.999, nu: float = 0.7) -> GradientTransformation:
    """Return a weighted mean of the newest update and the running mean.

    Args:
        momentum: Decay of the running mean.
        nu: Share of the running mean.

    Example:
        >>> tx = scale_by_qhm(momentum=0.5, nu=0.5)
        >>> tx.update({"w": mx.array(4.0)}, tx.init({"w": mx.array(0.0)}))[0]
        {'w': array(3, dtype=float32)}

    Reference:
        Ma & Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", 2019, arXiv:1810.06801.
    """
    checks.decay_rate("scale_by_qhm", momentum=momentum)
    checks.number("scale_by_qhm", low=0.0, high=1.0, nu=nu)

    def init_fn(params: Params) -> ScaleByQhmState:
        return ScaleByQhmState(tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByQhmState, params: Params | None = None
    ) -> tuple[Updates, ScaleByQhmState]:
        del params
        mu = tree.update_moment(updates, state.mu, momentum, 1)
        return tree.update_moment(updates, mu, nu, 1), ScaleByQhmState(mu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def qhm(learning_rate: ScalarOrSchedule, momentum: float = 0.999, nu: float = 0.7) -> GradientTransformation:
    r"""Step along a weighted mean of the gradient and its running mean.

    .. math:: m \leftarrow \beta m + (1 - \beta) g, \qquad w \leftarrow w - \eta \left( (1 - \nu) g + \nu m \right)

    Args:
        learning_rate: Number or schedule; as large as for SGD without momentum.
        momentum: Decay of the running mean.
        nu: Share of the running mean: 0 for SGD, ``momentum`` for Nesterov's method.

    Example:
        >>> qhm(1.0)
        qhm(1.0, momentum=0.999, nu=0.7)

    Reference:
        Ma & Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", 2019, arXiv:1810.06801.
    """
    return chain(scale_by_qhm(momentum, nu), scale_by_learning_rate(learning_rate))


class ScaleByQhadamState(NamedTuple):
    """Memory of :func:`scale_by_qhadam`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # running mean of their squares


@readable
def scale_by_qhadam(
    b1: float = 0.995, b2: float = 0.999, nu1: float = 0.7, nu2: float = 1.0, eps: float = 1e-8
) -> GradientTransformation:
    """Divide a weighted mean of update and running mean by the root of one of square and running power.

    Args:
        b1: Decay of the running mean.
        b2: Decay of the power.
        nu1: Share of the running mean in the first.
        nu2: Share of the power in the second.
        eps: Added to the root.

    Example:
        >>> tx = scale_by_qhadam()
        >>> tx.update({"w": mx.array([4.0, -0.1])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1, -1], dtype=float32)}

    Reference:
        Ma & Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", 2019, arXiv:1810.06801.
    """
    checks.decay_rate("scale_by_qhadam", b1=b1, b2=b2)
    checks.number("scale_by_qhadam", low=0.0, high=1.0, nu1=nu1, nu2=nu2)
    checks.non_negative("scale_by_qhadam", eps=eps)

    def init_fn(params: Params) -> ScaleByQhadamState:
        return ScaleByQhadamState(new_count(), tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByQhadamState, params: Params | None = None
    ) -> tuple[Updates, ScaleByQhadamState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        nu = tree.update_moment(updates, state.nu, b2, 2)
        of_mean, of_power = nu1 / bias_correction(b1, count), nu2 / bias_correction(b2, count)

        def direction(g: mx.array, m: mx.array, v: mx.array) -> mx.array:
            return ((1 - nu1) * g + of_mean * m) / (mx.sqrt((1 - nu2) * abs_sq(g) + of_power * v) + eps)

        return tree.map(direction, updates, mu, nu), ScaleByQhadamState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


@readable
def qhadam(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.995,
    b2: float = 0.999,
    nu1: float = 0.7,
    nu2: float = 1.0,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step as Adam does, with the newest gradient beside its mean and its square beside the power.

    .. math:: w \leftarrow w - \eta \frac{(1 - \nu_1) g + \nu_1 \hat m}
        {\sqrt{(1 - \nu_2) g^2 + \nu_2 \hat v} + \epsilon}

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the running mean.
        b2: Decay of the power.
        nu1: Share of the running mean beside the gradient.
        nu2: Share of the power beside the squared gradient.
        eps: Added to the root.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> qhadam(1e-3)
        qhadam(0.001, b1=0.995, b2=0.999, nu1=0.7, nu2=1.0, eps=1e-08)

    Reference:
        Ma & Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", 2019, arXiv:1810.06801.
    """
    return chain(
        scale_by_qhadam(b1, b2, nu1, nu2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
