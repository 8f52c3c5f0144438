"""Steps along the gradient itself, and along the gradient in units of its size."""

from typing import ClassVar

import mlx.core as mx

from mlxopt import checks
from mlxopt.base import GradientTransformation, ScalarOrSchedule, identity
from mlxopt.combine import chain
from mlxopt.interop.optimizers.base import Transformed
from mlxopt.optimizers.adadelta import scale_by_adadelta
from mlxopt.optimizers.adagrad import scale_by_rss
from mlxopt.optimizers.rmsprop import scale_by_rms
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.momentum import trace
from mlxopt.transforms.scaling import scale_by_learning_rate


def step_from_state() -> GradientTransformation:
    """The step whose learning rate stands in the state, whatever it is: MLX takes negative ones."""
    return scale_by_learning_rate(1.0)


def decayed_weights(weight_decay: float | mx.array) -> GradientTransformation:
    """Weight decay; no operation where there is none."""
    if not isinstance(weight_decay, mx.array) and weight_decay == 0:
        return identity()
    return add_decayed_weights(weight_decay)


def require_eps(where: str, eps: float) -> None:
    """Raise for an eps with which a zero gradient would be divided by zero."""
    checks.number(where, eps=eps)
    if eps <= 0:
        raise ValueError(f"{where}: eps must be >0, got {eps}. A gradient of zero would be divided by zero.")


class SGD(Transformed):
    """Stochastic gradient descent, with or without momentum.

    Args:
        learning_rate: Number or schedule.
        momentum: Share of the sum of gradients that stays; 0 keeps no sum.
        weight_decay: L2 penalty, added to the gradient.
        dampening: Share of each gradient that is kept out of the sum.
        nesterov: Let the sum look one step ahead.

    Example:
        >>> optimizer = SGD(0.5, momentum=0.9)
        >>> optimizer.apply_gradients({"w": mx.array(1.0)}, {"w": mx.array(2.0)})
        {'w': array(1.5, dtype=float32)}
        >>> optimizer.state["w"]
        {'v': array(1, dtype=float32)}
    """

    memory: ClassVar = {"v": "trace"}

    def __init__(
        self,
        learning_rate: ScalarOrSchedule,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        checks.decay_rate("SGD", momentum=momentum)
        checks.number("SGD", low=0.0, high=1.0, dampening=dampening)
        checks.non_negative("SGD", weight_decay=weight_decay)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                "SGD: nesterov must come with a momentum and without dampening, got "
                f"momentum={momentum}, dampening={dampening}. Pass a momentum such as 0.9."
            )
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.dampening = dampening
        self.nesterov = nesterov

    def transformation(self) -> GradientTransformation:
        """Weight decay, momentum, step."""
        momentum = trace(self.momentum, self.nesterov, dampening=self.dampening) if self.momentum else identity()
        return chain(decayed_weights(self.weight_decay), momentum, step_from_state())


class RMSprop(Transformed):
    """Steps in units of the root of the mean squared gradient.

    Args:
        learning_rate: Number or schedule.
        alpha: Decay of the mean square.
        eps: Added to its root.

    Example:
        >>> RMSprop(0.5, alpha=0.75).apply_gradients({"w": mx.array(8.0)}, {"w": mx.array(2.0)})
        {'w': array(1, dtype=float32)}
    """

    memory: ClassVar = {"v": "nu"}

    def __init__(self, learning_rate: ScalarOrSchedule, alpha: float = 0.99, eps: float = 1e-8) -> None:
        checks.decay_rate("RMSprop", alpha=alpha)
        require_eps("RMSprop", eps)
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.alpha = alpha
        self.eps = eps

    def transformation(self) -> GradientTransformation:
        """Normalization, step."""
        return chain(scale_by_rms(self.alpha, self.eps, eps_in_sqrt=False), step_from_state())


class Adagrad(Transformed):
    """Steps in units of the root of the sum of all squared gradients.

    Args:
        learning_rate: Number or schedule.
        eps: Added to the root.

    Example:
        >>> Adagrad(0.5).apply_gradients({"w": mx.array(8.0)}, {"w": mx.array(2.0)})
        {'w': array(1.5, dtype=float32)}
    """

    memory: ClassVar = {"v": "sum_of_squares"}

    def __init__(self, learning_rate: ScalarOrSchedule, eps: float = 1e-8) -> None:
        require_eps("Adagrad", eps)
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.eps = eps

    def transformation(self) -> GradientTransformation:
        """Normalization, step."""
        return chain(scale_by_rss(0.0, self.eps, eps_in_sqrt=False), step_from_state())


class AdaDelta(Transformed):
    """Steps in units that the method finds from its earlier steps.

    Args:
        learning_rate: Number or schedule.
        rho: Decay of the mean squares of gradients and of steps.
        eps: Added inside the roots of both.

    Example:
        >>> AdaDelta(1.0).apply_gradients({"w": mx.array(8.0)}, {"w": mx.array(2.0)})
        {'w': array(1.99684, dtype=float32)}
    """

    memory: ClassVar = {"v": "e_g", "u": "e_x"}

    def __init__(self, learning_rate: ScalarOrSchedule, rho: float = 0.9, eps: float = 1e-6) -> None:
        checks.decay_rate("AdaDelta", rho=rho)
        require_eps("AdaDelta", eps)
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.rho = rho
        self.eps = eps

    def transformation(self) -> GradientTransformation:
        """Normalization, step."""
        return chain(scale_by_adadelta(self.rho, self.eps), step_from_state())
