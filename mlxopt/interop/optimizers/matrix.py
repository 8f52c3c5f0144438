"""Steps that see a matrix as a whole: Adafactor and Muon."""

import math
from typing import ClassVar

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import (
    GradientTransformation,
    Params,
    ScalarOrSchedule,
    State,
    Updates,
    identity,
    stateless_with_tree_map,
)
from mlxopt.combine import chain
from mlxopt.interop.optimizers.base import Transformed, fields_of
from mlxopt.interop.optimizers.gradient import decayed_weights, step_from_state
from mlxopt.interop.optimizers.layout import Memory
from mlxopt.optimizers.adafactor import scale_by_factored_rms
from mlxopt.optimizers.muon import scale_by_muon
from mlxopt.schedules import relative_step_schedule
from mlxopt.transforms.clipping import clip_by_block_rms
from mlxopt.transforms.momentum import ema
from mlxopt.transforms.scaling import scale, scale_by_learning_rate, scale_by_param_block_rms


class Adafactor(Transformed):
    """Steps in units of the root mean squared gradient, of which only rows and columns of a matrix are remembered.

    Args:
        learning_rate: Number or schedule; not used with ``relative_step``.
        eps: Added to the squared gradient; smallest size of a parameter that its step is a share of.
        clip_threshold: Largest root mean square of the normalized gradient of a parameter.
        decay_rate: Below 0: after ``t`` updates the decay of the mean squares is ``1 - t**decay_rate``.
        beta_1: Decay of a running mean of the steps; ``None`` for no mean.
        weight_decay: Share by which the parameters shrink, multiplied by the learning rate (and by their size).
        scale_parameter: Step by a share of the size of each parameter.
        relative_step: Take ``min(0.01, 1 / sqrt(t))`` for the learning rate.
        warmup_init: With ``relative_step``, let it climb by 1e-6 with every update first.

    Example:
        >>> optimizer = Adafactor()
        >>> optimizer.apply_gradients({"w": mx.array([9.0])}, {"w": mx.array([2.0])})
        {'w': array([1.98], dtype=float32)}
        >>> optimizer.init({"w": mx.zeros((1,)), "matrix": mx.zeros((2, 3))})
        >>> list(optimizer.state["matrix"])
        ['exp_avg_sq_row', 'exp_avg_sq_col']
    """

    memory: ClassVar = {
        "exp_avg_sq_row": "v_row",
        "exp_avg_sq_col": "v_col",
        "exp_avg_sq": "v",
        "exp_avg": "ema",
    }

    def __init__(
        self,
        learning_rate: ScalarOrSchedule | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta_1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
    ) -> None:
        checks.positive("Adafactor", **{"eps[0]": eps[0], "clip_threshold": clip_threshold})
        checks.non_negative("Adafactor", **{"eps[1]": eps[1], "weight_decay": weight_decay})
        checks.number("Adafactor", high=0.0, open_high=True, decay_rate=decay_rate)
        if beta_1 is not None:
            checks.decay_rate("Adafactor", beta_1=beta_1)
        super().__init__()
        if learning_rate is not None:
            self._maybe_schedule("learning_rate", learning_rate)
        self.eps = eps
        self.clip_threshold = clip_threshold
        self.decay_rate = decay_rate
        self.beta_1 = beta_1
        self.weight_decay = weight_decay
        self.scale_parameter = scale_parameter
        self.relative_step = relative_step
        self.warmup_init = warmup_init

    def init_single(self, parameter: mx.array, state: Memory) -> None:
        """Put what is remembered of one parameter into a dict of its own: rows and columns from two axes on.

        Args:
            parameter: The parameter.
            state: Empty dict.
        """
        fields = fields_of(self.transformation().init({"": parameter}))
        kept = {name: fields[field][""] for name, field in self.memory.items() if field in fields}
        state.update({name: value for name, value in kept.items() if not tree.is_hole(value)})

    def transformation(self) -> GradientTransformation:
        """Normalization, bound, size, step, mean of steps, weight decay."""
        relative_step = relative_step_schedule(warmup_rate=1e-6 if self.warmup_init else None)
        rate = relative_step if self.relative_step else 1.0
        by_size = scale_by_param_block_rms(self.eps[1]) if self.scale_parameter else identity()
        step = chain(by_size, scale_by_learning_rate(rate, flip_sign=False))
        # As large as if it were part of the step, and yet not in the mean of the steps.
        decay = _add_parameters_through(chain(scale(self.weight_decay), step)) if self.weight_decay else identity()
        return chain(
            scale_by_factored_rms(True, -self.decay_rate, 0, 1, self.eps[0], axes="last"),
            clip_by_block_rms(self.clip_threshold),
            step,
            identity() if self.beta_1 is None else ema(self.beta_1, debias=False),
            decay,
            scale(-1.0),
        )

    def _approximate_exp_moving_avg(self, exp_avg_sq_row: mx.array, exp_avg_sq_col: mx.array) -> mx.array:
        """One over the root of the mean square that rows and columns stand for; MLX's own tests call this."""
        rows = exp_avg_sq_row / mx.mean(exp_avg_sq_row, axis=-1, keepdims=True)
        return mx.rsqrt(mx.expand_dims(rows, -1) * mx.expand_dims(exp_avg_sq_col, -2))

    def _rate(self) -> mx.array:
        return mx.zeros(()) if self.relative_step else super()._rate()


def _add_parameters_through(tx: GradientTransformation) -> GradientTransformation:
    """Add what a transformation makes of the parameters to the updates, which it does not see."""

    def update_fn(updates: Updates, state: State, params: Params) -> tuple[Updates, State]:
        extra, state = tx.update(params, state, params)
        return tree.add(updates, extra), state

    return GradientTransformation(tx.init, update_fn, inner=[tx], reach="element")


class Muon(Transformed):
    """Steps by the orthogonal matrix nearest to the mean gradient; vectors and scalars step along the mean itself.

    Kernels with more than two axes are matrices of their first axis by all others.

    Args:
        learning_rate: Number or schedule.
        momentum: Decay of the mean.
        weight_decay: L2 penalty, added to the gradient; it passes through the mean and is made orthogonal with it.
        nesterov: Let the mean look one step ahead.
        ns_steps: Steps of the iteration that makes a matrix orthogonal.

    Example:
        >>> parameters = {"w": mx.zeros((2, 2))}
        >>> moved = Muon(0.5).apply_gradients({"w": mx.array([[9.0, 0.0], [0.0, -1.0]])}, parameters)
        >>> mx.all(mx.abs(mx.abs(mx.diag(moved["w"])) - 0.5) < 0.2).item()
        True
    """

    memory: ClassVar = {"v": "ema"}

    def __init__(
        self,
        learning_rate: ScalarOrSchedule,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        nesterov: bool = True,
        ns_steps: int = 5,
    ) -> None:
        checks.decay_rate("Muon", momentum=momentum)
        checks.non_negative("Muon", weight_decay=weight_decay)
        checks.whole("Muon", low=1, ns_steps=ns_steps)
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.ns_steps = ns_steps

    def transformation(self) -> GradientTransformation:
        """Weight decay, mean, orthogonalization, shape, step."""
        return chain(
            decayed_weights(self.weight_decay),
            scale_by_muon(
                "standard", self.ns_steps, self.momentum, 1e-7, nesterov=self.nesterov, bias_correction=False
            ),
            stateless_with_tree_map(lambda update, parameter: _shape_factor(update) * update),
            step_from_state(),
        )


def _shape_factor(update: mx.array) -> float:
    """MLX's factor: of the last two axes, which in a kernel are not rows and columns of its matrix."""
    if update.ndim < 2 or update.size == 0:
        return 1.0
    return math.sqrt(max(1.0, update.shape[-2] / update.shape[-1]))
