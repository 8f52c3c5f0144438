"""Steps along a mean of the gradients: Adam and its kin."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.interop.optimizers.base import Transformed
from mlxopt.interop.optimizers.gradient import decayed_weights, step_from_state
from mlxopt.optimizers.adam import scale_by_adam
from mlxopt.optimizers.lion import scale_by_lion


def require_betas(where: str, betas: Sequence[float]) -> None:
    """Raise unless ``betas`` are two decays."""
    if not isinstance(betas, (list, tuple)) or len(betas) != 2:
        raise ValueError(f"{where}: betas must be two numbers, got {betas!r}. Write betas=[0.9, 0.999].")
    checks.decay_rate(where, **{"betas[0]": betas[0], "betas[1]": betas[1]})


class Adam(Transformed):
    """Steps along the mean gradient, in units of its root mean square.

    Args:
        learning_rate: Number or schedule.
        betas: Decays of the mean and of the mean square.
        eps: Added to the root.
        bias_correction: Make up for the start of both means at zero; else the first steps are three times as long.

    Example:
        >>> Adam(0.5, bias_correction=True).apply_gradients({"w": mx.array(8.0)}, {"w": mx.array(2.0)})
        {'w': array(1.5, dtype=float32)}
    """

    memory: ClassVar = {"m": "mu", "v": "nu"}

    def __init__(
        self,
        learning_rate: ScalarOrSchedule,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        bias_correction: bool = False,
    ) -> None:
        require_betas(self._name, betas)
        checks.non_negative(self._name, eps=eps)
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.betas = betas
        self.eps = eps
        self.bias_correction = bias_correction

    def transformation(self) -> GradientTransformation:
        """Normalized mean, step."""
        return chain(self._normalized_mean(), step_from_state())

    def _normalized_mean(self) -> GradientTransformation:
        b1, b2 = self.betas
        return scale_by_adam(b1, b2, self.eps, bias_correction=self.bias_correction)


class AdamW(Adam):
    """Adam that also shrinks the parameters by a share of their own.

    Args:
        learning_rate: Number or schedule.
        betas: Decays of the mean and of the mean square.
        eps: Added to the root.
        weight_decay: The share, multiplied by the learning rate.
        bias_correction: Make up for the start of both means at zero; else the first steps are three times as long.

    Example:
        >>> optimizer = AdamW(0.5, weight_decay=0.25, bias_correction=True)
        >>> optimizer.apply_gradients({"w": mx.array(8.0)}, {"w": mx.array(2.0)})
        {'w': array(1.25, dtype=float32)}
    """

    def __init__(
        self,
        learning_rate: ScalarOrSchedule,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        bias_correction: bool = False,
    ) -> None:
        checks.non_negative(self._name, weight_decay=weight_decay)
        super().__init__(learning_rate, betas, eps, bias_correction)
        self.weight_decay = weight_decay

    def transformation(self) -> GradientTransformation:
        """Normalized mean, weight decay, step."""
        return chain(self._normalized_mean(), decayed_weights(self.weight_decay), step_from_state())


class Adamax(Adam):
    """Steps along the mean gradient, in units of its largest magnitude, which decays.

    Args:
        learning_rate: Number or schedule.
        betas: Decays of the mean and of the largest magnitude.
        eps: Added to the largest magnitude.

    Example:
        >>> Adamax(0.5, betas=[0.75, 0.999]).apply_gradients({"w": mx.array(8.0)}, {"w": mx.array(2.0)})
        {'w': array(1.875, dtype=float32)}
    """

    def __init__(
        self, learning_rate: ScalarOrSchedule, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(learning_rate, betas, eps)

    def _normalized_mean(self) -> GradientTransformation:
        b1, b2 = self.betas
        return scale_by_largest(b1, b2, self.eps)


class ScaleByLargestState(NamedTuple):
    """Memory of :func:`scale_by_largest`."""

    mu: Updates  # running mean of the updates
    nu: Updates  # largest magnitude of the updates, decayed


def scale_by_largest(b1: float, b2: float, eps: float) -> GradientTransformation:
    """Divide the running mean of the updates by their largest magnitude plus ``eps``.

    ``scale_by_adamax`` adds ``eps`` before it looks for the largest, as the paper does.
    """

    def init_fn(params: Params) -> ScaleByLargestState:
        return ScaleByLargestState(tree.memory_like(params), tree.memory_like(params))

    def update_fn(
        updates: Updates, state: ScaleByLargestState, params: Params | None = None
    ) -> tuple[Updates, ScaleByLargestState]:
        del params
        mu = tree.update_moment(updates, state.mu, b1, 1)
        nu = tree.map(lambda g, v: mx.maximum(mx.abs(g), b2 * v), updates, state.nu)
        return tree.map(lambda m, v: m / (v + eps), mu, nu), ScaleByLargestState(mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="element")


class Lion(Transformed):
    """Steps by the learning rate along the sign of a mean that leans towards the newest gradient.

    Args:
        learning_rate: Number or schedule.
        betas: Share of the memory in that mean, and decay of the memory.
        weight_decay: Share by which the parameters shrink, multiplied by the learning rate.

    Example:
        >>> Lion(0.25).apply_gradients({"w": mx.array(8.0)}, {"w": mx.array(2.0)})
        {'w': array(1.75, dtype=float32)}
    """

    memory: ClassVar = {"m": "mu"}

    def __init__(
        self, learning_rate: ScalarOrSchedule, betas: Sequence[float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        require_betas("Lion", betas)
        checks.non_negative("Lion", weight_decay=weight_decay)
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.betas = betas
        self.weight_decay = weight_decay

    def transformation(self) -> GradientTransformation:
        """Sign of the mean, weight decay, step."""
        b1, b2 = self.betas
        return chain(scale_by_lion(b1, b2), decayed_weights(self.weight_decay), step_from_state())
