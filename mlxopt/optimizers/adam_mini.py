"""Adam-mini: Adam with one power for every output unit."""

from collections.abc import Callable
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

Blocks = Callable[[str, mx.array], int]
"""How many blocks of rows of a leaf have a power of their own, by its path and the leaf."""


class ScaleByAdamMiniState(NamedTuple):
    """Memory of :func:`scale_by_adam_mini`."""

    count: mx.array  # int32: updates seen
    mu: Updates  # running mean of the updates
    nu: Updates  # of each block of rows: running mean of the mean square


def _a_block_for_each_unit(path: str, leaf: mx.array) -> int:
    del path
    return leaf.shape[0] if leaf.ndim > 1 else 1


@readable
def scale_by_adam_mini(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    mu_dtype: mx.Dtype | None = None,
    *,
    blocks: Blocks | None = None,
) -> GradientTransformation:
    """Divide the running mean of the updates by the root of the running power of their block of rows.

    Args:
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        mu_dtype: Dtype of the mean; float32 by default.
        blocks: Number of blocks by path and leaf, into which the first axis is divided; a block for each output unit of
            matrices and kernels, and one for a vector, by default. For queries and keys it is the number of heads.

    Example:
        >>> tx = scale_by_adam_mini()
        >>> updates, state = tx.update({"w": mx.array([[1.0, 7.0], [2.0, 2.0]])}, tx.init({"w": mx.zeros((2, 2))}))
        >>> updates, state.nu["w"].shape
        ({'w': array([[0.2, 1.4],
               [1, 1]], dtype=float32)}, (2,))

    Reference:
        Zhang et al., "Adam-mini: Use Fewer Learning Rates To Gain More", 2024, arXiv:2406.16793.
    """
    checks.decay_rate("scale_by_adam_mini", b1=b1, b2=b2)
    checks.floating("scale_by_adam_mini", mu_dtype=mu_dtype)
    checks.non_negative("scale_by_adam_mini", eps=eps)

    def power(path: str, leaf: mx.array) -> mx.array:
        count, rows = (blocks or _a_block_for_each_unit)(path, leaf), leaf.shape[0] if leaf.ndim else 1
        if not isinstance(count, int) or (leaf.size and (count < 1 or rows % count)):
            raise tree.TreeError(f"blocks must divide the {rows} rows, got {count!r}. Return one of its divisors")
        return mx.zeros((count,), mx.float32)

    def init_fn(params: Params) -> ScaleByAdamMiniState:
        mean = tree.memory_like(params, dtype=mu_dtype)
        return ScaleByAdamMiniState(new_count(), mean, tree.map_with_path(power, params))

    def update_fn(
        updates: Updates, state: ScaleByAdamMiniState, params: Params | None = None
    ) -> tuple[Updates, ScaleByAdamMiniState]:
        del params
        count = safe_increment(state.count)
        mu = tree.update_moment(updates, state.mu, b1, 1)
        nu = tree.update_moment(tree.map(_of_blocks, updates, state.nu), state.nu, b2, 1)
        # mu / c1 over sqrt(nu / c2) + eps, both times sqrt(c2), as in Adam.
        root = mx.sqrt(bias_correction(b2, count))
        of_mean, outside = root / bias_correction(b1, count), root * eps
        rates = tree.map(lambda v: of_mean / (mx.sqrt(v) + outside), nu)
        return tree.map(_times_blocks, mu, rates), ScaleByAdamMiniState(count, mu, nu)

    return GradientTransformation(init_fn, update_fn, reach="leaf")


def _of_blocks(g: mx.array, like: mx.array) -> mx.array:
    """The mean square of each block of rows."""
    if not g.size:
        return mx.zeros_like(like)
    rows = mx.mean(abs_sq(g), axis=list(range(1, g.ndim))) if g.ndim > 1 else abs_sq(g)
    return mx.mean(rows.reshape(like.size, -1), axis=1)


def _times_blocks(m: mx.array, rates: mx.array) -> mx.array:
    """Multiply each block of rows by its rate."""
    if rates.size <= 1 or not m.size:
        return m * rates.reshape(()) if rates.size == 1 else m
    of_rows = mx.repeat(rates, m.shape[0] // rates.size)
    return m * of_rows.reshape(-1, *(1 for _ in m.shape[1:]))


@readable
def adam_mini(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    mu_dtype: mx.Dtype | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
    *,
    blocks: Blocks | None = None,
) -> GradientTransformation:
    r"""Step along the mean gradient, in units of the root mean square of all gradients of an output unit.

    .. math:: v_i \leftarrow \beta_2 v_i + (1 - \beta_2) \operatorname{mean}_j g_{ij}^2, \qquad
        w \leftarrow w - \eta (\hat m / (\sqrt{\hat v} + \epsilon) + \lambda w)

    It needs half the memory of Adam.

    Args:
        learning_rate: Number or schedule.
        b1: Decay of the mean.
        b2: Decay of the power.
        eps: Added to the root.
        mu_dtype: Dtype of the mean; float32 by default.
        weight_decay: Number or schedule; multiplied by the learning rate.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.
        blocks: Number of blocks by path and leaf, into which the first axis is divided; a block for each output unit of
            matrices and kernels, and one for a vector, by default. For queries and keys it is the number of heads.

    Example:
        >>> params = {"w": mx.zeros((64, 64))}
        >>> tree.nbytes(adam_mini(1e-3).init(params)) / tree.nbytes(params) < 1.03
        True

    Reference:
        Zhang et al., "Adam-mini: Use Fewer Learning Rates To Gain More", 2024, arXiv:2406.16793.
    """
    return chain(
        scale_by_adam_mini(b1, b2, eps, mu_dtype, blocks=blocks),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
