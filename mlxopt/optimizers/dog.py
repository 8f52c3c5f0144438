"""DoG and DoWG: step sizes from the distance to the first parameters, over the gradients seen."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Mask, Params, ScalarOrSchedule, Updates
from mlxopt.combine import chain
from mlxopt.numerics.scalars import unless_zero
from mlxopt.numerics.sums import safe_norm
from mlxopt.reach import Reach
from mlxopt.readable import readable
from mlxopt.transforms.decay import add_decayed_weights
from mlxopt.transforms.scaling import scale_by_learning_rate

FirstStep = Literal["heuristic", "distance", "learning_rate"]

Sizes = Any
"""One size for all leaves, or a tree with that of each."""


class DoGState(NamedTuple):
    """Memory of :func:`scale_by_dog` and :func:`scale_by_distance_over_gradients`."""

    first_params: Params  # float32: parameters before the first update
    max_dist: Sizes  # float32: largest distance from them so far; 0 as long as it is not known
    sum_sq_norm_grads: Sizes  # float32: sum of the squared norms of the updates


@readable
def scale_by_dog(init_step: tuple[FirstStep, float] = ("heuristic", 1e-6), eps: float = 1e-8) -> GradientTransformation:
    """Multiply updates by the largest distance from the first parameters so far, over the root of their summed power.

    The state shows the distance as ``max_dist``.

    Args:
        init_step: How far to go at first: ("distance", r) is a distance, ("heuristic", s) the distance ``s * (1 + norm
            of the parameters)``, ("learning_rate", l) a first step of ``l`` times the first update.
        eps: Added to the sum of squared norms.

    Example:
        >>> tx = scale_by_dog(("distance", 0.5))
        >>> params = {"w": mx.array([1.0, 0.0])}
        >>> tx.update({"w": mx.array([0.0, 4.0])}, tx.init(params), params)[0]
        {'w': array([0, 0.5], dtype=float32)}

    Reference:
        Ivgi, Hinder & Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule", 2023,
        arXiv:2302.12022.
    """
    checks.non_negative("scale_by_dog", eps=eps)
    return _distance_over_gradients(tree.norm, "tree", *_first_step("scale_by_dog", init_step), eps)


@readable
def scale_by_distance_over_gradients(reps_rel: float = 1e-6, eps: float = 1e-8) -> GradientTransformation:
    """Multiply each leaf by its largest distance from its first value so far, over the root of its summed power.

    This is layer-wise DoG; before ``scale_by_learning_rate(1.0)`` it is the whole optimizer.

    Args:
        reps_rel: First distance, as a share of one plus the norm of the parameter.
        eps: Added to the sum of squared norms.

    Example:
        >>> tx = scale_by_distance_over_gradients(0.25)
        >>> params = {"w": mx.array([1.0, 0.0]), "b": mx.array(0.0)}
        >>> grads = {"w": mx.array([0.0, 4.0]), "b": mx.array(-0.1)}
        >>> tx.update(grads, tx.init(params), params)[0]
        {'w': array([0, 0.5], dtype=float32), 'b': array(-0.25, dtype=float32)}

    Reference:
        Ivgi, Hinder & Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule", 2023,
        arXiv:2302.12022.
    """
    checks.positive("scale_by_distance_over_gradients", reps_rel=reps_rel)
    checks.non_negative("scale_by_distance_over_gradients", eps=eps)
    return _distance_over_gradients(lambda leaves: tree.map(safe_norm, leaves), "leaf", "heuristic", reps_rel, eps)


def _first_step(where: str, init_step: Any) -> tuple[FirstStep, float]:
    if not (isinstance(init_step, tuple) and len(init_step) == 2):
        raise TypeError(f"{where}: init_step must be a kind and a number, got {init_step!r}. Pass ('heuristic', 1e-6).")
    kind, size = init_step
    checks.choice(where, "the kind of init_step", kind, get_args(FirstStep))
    checks.positive(where, **{"the number of init_step": size})
    return kind, size


def _distance_over_gradients(
    sizes: Callable[[Updates], Sizes], reach: Reach, kind: FirstStep, size: float, eps: float
) -> GradientTransformation:
    """DoG for all leaves together or for each by itself: as ``sizes`` measures them."""

    def init_fn(params: Params) -> DoGState:
        first = tree.memory_of(params)
        known = {"heuristic": lambda norm: size * (1 + norm), "distance": lambda norm: mx.array(size) + 0 * norm}
        distance = tree.map(known.get(kind, mx.zeros_like), sizes(first))
        return DoGState(first, distance, tree.zeros_like(distance))

    def update_fn(updates: Updates, state: DoGState, params: Params) -> tuple[Updates, DoGState]:
        norms = sizes(updates)
        known = tree.map(lambda d, norm: mx.where(d == 0, size * norm, d), state.max_dist, norms)
        farthest = tree.map(mx.maximum, known, sizes(tree.sub(params, state.first_params)))
        summed = tree.map(lambda s, norm: s + mx.square(norm), state.sum_sq_norm_grads, norms)
        rates = tree.map(lambda d, s: unless_zero(s, d * mx.rsqrt(s + eps)), farthest, summed)
        return tree.mul(tree.spread(rates, updates), updates), DoGState(state.first_params, farthest, summed)

    return GradientTransformation(init_fn, update_fn, reach=reach)


@readable
def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: tuple[FirstStep, float] = ("heuristic", 1e-6),
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step against the gradient, by the distance covered so far over the root of the sum of squared gradients.

    .. math:: \bar r = \max_{i \le t} \|w_i - w_0\|, \qquad
        w \leftarrow w - \eta \, \bar r \, g / \sqrt{\textstyle\sum_i \|g_i\|^2 + \epsilon}

    There is nothing to tune: leave the learning rate at 1. The last parameters of a run swing about; evaluate with
    :func:`average_params` behind it, as the authors do. Train in float32: in bfloat16 the first distance is rounded
    away, and nothing ever moves.

    Args:
        learning_rate: Number or schedule, by which all steps are multiplied.
        init_step: How far to go at first: ("distance", r) is a distance, ("heuristic", s) the distance ``s * (1 + norm
            of the parameters)``, ("learning_rate", l) a first step of ``l`` times the first gradient.
        eps: Added to the sum of squared norms.
        weight_decay: Number or schedule, times the parameters; part of the gradient.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> dog()
        dog(learning_rate=1.0, init_step=('heuristic', 1e-06), eps=1e-08)

    Reference:
        Ivgi, Hinder & Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule", 2023,
        arXiv:2302.12022.
    """
    return chain(
        add_decayed_weights(weight_decay, mask), scale_by_dog(init_step, eps), scale_by_learning_rate(learning_rate)
    )


class DoWGState(NamedTuple):
    """Memory of :func:`scale_by_dowg`."""

    first_params: Params  # float32: parameters before the first update
    estim_sq_dist: mx.array  # float32: largest squared distance from them so far
    weighted_sq_norm_grads: mx.array  # float32: sum of squared norms of the updates, times those distances


@readable
def scale_by_dowg(init_estim_sq_dist: float | None = None, eps: float = 1e-4) -> GradientTransformation:
    """Multiply updates by the squared distance from the first parameters, over the root of the power it weighs.

    The state shows the squared distance as ``estim_sq_dist``.

    Args:
        init_estim_sq_dist: First squared distance; ``eps`` by default.
        eps: Added to the root.

    Example:
        >>> tx = scale_by_dowg(0.25, eps=0.0)
        >>> params = {"w": mx.array([1.0, 0.0])}
        >>> tx.update({"w": mx.array([0.0, 4.0])}, tx.init(params), params)[0]
        {'w': array([0, 0.5], dtype=float32)}

    Reference:
        Khaled, Mishchenko & Jin, "DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent Method", 2023,
        arXiv:2305.16284.
    """
    checks.non_negative("scale_by_dowg", eps=eps)
    first_distance = eps if init_estim_sq_dist is None else init_estim_sq_dist
    checks.positive("scale_by_dowg", init_estim_sq_dist=first_distance)

    def init_fn(params: Params) -> DoWGState:
        return DoWGState(tree.memory_of(params), mx.array(first_distance), mx.zeros(()))

    def update_fn(updates: Updates, state: DoWGState, params: Params) -> tuple[Updates, DoWGState]:
        distance = tree.norm(tree.sub(params, state.first_params), squared=True)
        farthest = mx.maximum(state.estim_sq_dist, distance)
        summed = state.weighted_sq_norm_grads + farthest * tree.norm(updates, squared=True)
        rate = unless_zero(summed, farthest / (mx.sqrt(summed) + eps))
        return tree.scale(rate, updates), DoWGState(state.first_params, farthest, summed)

    return GradientTransformation(init_fn, update_fn)


@readable
def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: float | None = None,
    eps: float = 1e-4,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    r"""Step against the gradient, by the squared distance covered so far over the root of the power that it weighs.

    .. math:: \bar r = \max_{i \le t} \|w_i - w_0\|, \qquad v \leftarrow v + \bar r^2 \|g\|^2, \qquad
        w \leftarrow w - \eta \, \bar r^2 g / (\sqrt v + \epsilon)

    There is nothing to tune: leave the learning rate at 1. Later gradients weigh more than in DoG, so it adapts
    to steeper and flatter places.

    Args:
        learning_rate: Number or schedule, by which all steps are multiplied.
        init_estim_sq_dist: First squared distance; ``eps`` by default.
        eps: Added to the root.
        weight_decay: Number or schedule, times the parameters; part of the gradient.
        mask: Leaves that decay: a function of path and leaf, or a tree of bools; all by default.

    Example:
        >>> dowg()
        dowg(learning_rate=1.0, eps=0.0001)

    Reference:
        Khaled, Mishchenko & Jin, "DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent Method", 2023,
        arXiv:2305.16284.
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_dowg(init_estim_sq_dist, eps),
        scale_by_learning_rate(learning_rate),
    )
