"""Bounding updates."""

from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import (
    EmptyState,
    GradientTransformation,
    Inner,
    Params,
    State,
    Updates,
    identity,
    require_transformation,
    stateless,
    stateless_with_tree_map,
)
from mlxopt.numerics.dtypes import LARGEST_FLOAT
from mlxopt.numerics.history import History, new_history, seen, usual
from mlxopt.numerics.scalars import bias_correction, count_if, new_count, safe_increment
from mlxopt.numerics.sums import safe_norm, safe_root_mean_squares
from mlxopt.readable import readable
from mlxopt.tree.reductions import power


@readable
def clip(max_delta: float | mx.array) -> GradientTransformation:
    """Clip every element into ``[-max_delta, max_delta]``; of a complex one the modulus, which keeps its phase.

    Args:
        max_delta: Largest magnitude.

    Example:
        >>> tx = clip(1.0)
        >>> tx.update({"w": mx.array([-3.0, 0.5])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([-1, 0.5], dtype=float32)}
    """
    checks.non_negative("clip", max_delta=max_delta)

    def clipped(u: mx.array, p: mx.array | None) -> mx.array:
        del p
        return _shortened(u, max_delta) if u.dtype == mx.complex64 else mx.clip(u, -max_delta, max_delta)

    return stateless_with_tree_map(clipped, reach="element")


def _shortened(z: mx.array, longest: float | mx.array) -> mx.array:
    """Clip the modulus of complex numbers, without squares that overflow or vanish."""
    # An infinite part gives the direction: it is as long as a float can be.
    real, imag = (mx.clip(part, -LARGEST_FLOAT, LARGEST_FLOAT) for part in (mx.real(z), mx.imag(z)))
    size = mx.maximum(mx.abs(real), mx.abs(imag))
    real, imag = real / mx.where(size == 0, 1.0, size), imag / mx.where(size == 0, 1.0, size)
    bound = longest / mx.maximum(1.0, mx.sqrt(mx.square(real) + mx.square(imag)))
    return mx.where(size > bound, bound * (real + 1j * imag), z)


class ClipByGlobalNormState(NamedTuple):
    """Memory of :func:`clip_by_global_norm`."""

    global_norm: mx.array  # float32: norm of the last updates, before clipping


@readable
def clip_by_global_norm(max_norm: float | mx.array) -> GradientTransformation:
    """Shrink all updates by one factor, so that together they are no longer than ``max_norm``.

    The norm is computed in float32 for every dtype, and the state shows it: infinity where it is more than a float32
    holds. Updates are clipped also there.

    Args:
        max_norm: Largest norm.

    Example:
        >>> tx = clip_by_global_norm(1.0)
        >>> tx.update({"w": mx.array([3.0, 4.0])}, tx.init({"w": mx.zeros((2,))}))
        ({'w': array([0.6, 0.8], dtype=float32)}, ClipByGlobalNormState(global_norm=array(5, dtype=float32)))

    Reference:
        Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2012, arXiv:1211.5063.
    """
    checks.positive("clip_by_global_norm", max_norm=max_norm)

    def init_fn(params: Params) -> ClipByGlobalNormState:
        del params
        return ClipByGlobalNormState(mx.zeros((), mx.float32))

    def update_fn(
        updates: Updates, state: ClipByGlobalNormState, params: Params | None = None
    ) -> tuple[Updates, ClipByGlobalNormState]:
        del state, params
        scaled, scale = power(updates)
        norm = mx.sqrt(scaled) / scale
        is_short = norm <= max_norm
        # In two steps: one factor for huge updates may be too small for a float.
        first = mx.where(is_short, 1.0, mx.minimum(scale, 1.0))
        second = mx.where(is_short, 1.0, max_norm / (mx.sqrt(scaled) / (scale / first)))
        clipped = tree.scale(second, tree.scale(first, updates))
        return clipped, ClipByGlobalNormState(norm.astype(mx.float32))

    return GradientTransformation(init_fn, update_fn)


@readable
def clip_by_block_rms(threshold: float | mx.array) -> GradientTransformation:
    """Shrink each leaf so that the root of its mean square is at most ``threshold``.

    Args:
        threshold: Largest root mean square.

    Example:
        >>> tx = clip_by_block_rms(1.0)
        >>> tx.update({"w": mx.array([3.0, 3.0])}, tx.init({"w": mx.zeros((2,))}))[0]
        {'w': array([1, 1], dtype=float32)}

    Reference:
        Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, arXiv:1804.04235.
    """
    checks.positive("clip_by_block_rms", threshold=threshold)

    def clipped(updates: Updates, params: Params | None) -> Updates:
        del params
        return tree.div(updates, tree.map(lambda u: mx.maximum(1.0, safe_root_mean_squares(u) / threshold), updates))

    return stateless(clipped, reach="leaf")


@readable
def adaptive_grad_clip(
    clipping: float, eps: float = 1e-3, axis: int | tuple[int, ...] | None = None
) -> GradientTransformation:
    """Shrink what is too long for its parameter, output unit by output unit.

    A unit, a row of a matrix or a kernel of a convolution, is no longer than ``clipping`` times its parameter; so is a
    whole vector.

    Args:
        clipping: Largest ratio of the two norms.
        eps: Lower bound of the norm of the parameter.
        axis: Axes that make up a unit; all but the first by default, and all of a vector.

    Example:
        >>> tx = adaptive_grad_clip(0.1)
        >>> params = {"w": mx.array([[3.0, 4.0], [30.0, 40.0]])}
        >>> tx.update({"w": mx.array([[6.0, 8.0], [3.0, 4.0]])}, tx.init(params), params)[0]
        {'w': array([[0.3, 0.4],
               [3, 4]], dtype=float32)}

    Reference:
        Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021, arXiv:2102.06171.
    """
    checks.positive("adaptive_grad_clip", clipping=clipping)
    checks.non_negative("adaptive_grad_clip", eps=eps)

    def unit_norm(x: mx.array, lowest: float) -> mx.array:
        over = list(range(1 if x.ndim > 1 else 0, x.ndim)) if axis is None else axis
        return safe_norm(x, lowest, list(over) if isinstance(over, tuple) else over, keepdims=True)

    def clipped(u: mx.array, p: mx.array) -> mx.array:
        length, longest = unit_norm(u, 0.0), clipping * unit_norm(p, eps)
        return mx.where(length > longest, longest / length, 1.0) * u

    def update_fn(updates: Updates, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        return tree.map(clipped, updates, params), state

    return GradientTransformation(identity().init, update_fn, reach="leaf")


class ClipByUpdateRmsState(NamedTuple):
    """Memory of :func:`clip_by_update_rms`."""

    count: mx.array  # int32: updates seen
    inner_state: State


@readable
def clip_by_update_rms(
    inner: GradientTransformation, b2: float = 0.999, eps: float = 1e-8, threshold: float = 1.0
) -> GradientTransformation:
    """Shrink what an inner transformation returns for a leaf whose update is larger than its memory expects.

    It is divided by the root mean square of ``u / sqrt(nu)``, where that is above the threshold: ``nu`` is the running
    power of the updates ``u`` that the inner transformation remembers.

    Args:
        inner: Transformation that remembers one running power as ``nu``, such as ``scale_by_adam()``.
        b2: Decay of that power, which is corrected for its start at zero.
        eps: Lower bound of the root of the power.
        threshold: Largest root mean square that changes nothing.

    Example:
        >>> from mlxopt import scale_by_rms
        >>> tx = clip_by_update_rms(scale_by_rms(0.75, bias_correction=True), 0.75)
        >>> state = tx.init({"w": mx.zeros((2,))})
        >>> for u in (0.0, 1.0):
        ...     updates, state = tx.update({"w": mx.array([u, -u])}, state)
        >>> updates
        {'w': array([1, -1], dtype=float32)}

    Reference:
        Wortsman et al., "Stable and low-precision training for large-scale vision-language models", 2023,
        arXiv:2304.13013.
    """
    require_transformation("clip_by_update_rms", inner)
    checks.decay_rate("clip_by_update_rms", b2=b2)
    checks.positive("clip_by_update_rms", eps=eps, threshold=threshold)

    def init_fn(params: Params) -> ClipByUpdateRmsState:
        state = inner.init(params)
        _running_power(state)
        return ClipByUpdateRmsState(new_count(), state)

    def update_fn(
        updates: Updates, state: ClipByUpdateRmsState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ClipByUpdateRmsState]:
        count = safe_increment(state.count)
        changed, inner_state = inner.update(updates, state.inner_state, params, **extra)
        root = mx.sqrt(bias_correction(b2, count))
        lowest = eps * root

        def factor(u: mx.array, v: mx.array) -> mx.array:
            size = safe_root_mean_squares(u / mx.maximum(mx.sqrt(v), lowest))
            return 1 / mx.maximum(1.0, root * size / threshold)

        factors = tree.map(factor, updates, _running_power(inner_state))
        return tree.mul(changed, factors), ClipByUpdateRmsState(count, inner_state)

    return GradientTransformation(
        init_fn, update_fn, inner=[Inner(inner, ("inner_state",))], as_stored=True, reach="leaf"
    )


def _running_power(state: State) -> Updates:
    found = sorted(tree.get_all(state, "nu").items(), key=lambda place: place[0].count("."))
    depths = [path.count(".") for path, _ in found]
    if not found or depths.count(depths[0]) > 1:
        raise ValueError(
            f"clip_by_update_rms: inner must remember one running power as nu, got {[path for path, _ in found]}. "
            "Pass scale_by_adam() or a chain with it."
        )
    return found[0][1]


class ClipOutliersState(NamedTuple):
    """Memory of :func:`clip_outliers`."""

    history: History  # norms of the last updates, before clipping
    total_clipped: mx.array  # int32: updates that were shrunk


@readable
def clip_outliers(window: int = 128, threshold: float | mx.array = 6.0) -> GradientTransformation:
    """Shrink updates that are much longer than the last ones were, to the longest that is usual.

    Usual are norms up to ``threshold`` standard deviations above the mean of the last ``window`` ones. Nothing is
    shrunk until half of them are known. A norm that is not finite is none of them, and its updates pass as they are.

    Args:
        window: Norms that are remembered.
        threshold: Standard deviations above the mean that are usual.

    Example:
        >>> tx = clip_outliers(window=4, threshold=2.0)
        >>> state = tx.init({"w": mx.zeros((2,))})
        >>> for norm in (1.0, 3.0, 100.0):
        ...     updates, state = tx.update({"w": mx.array([norm, 0.0])}, state)
        >>> updates, tree.get(state, "total_clipped")
        ({'w': array([4.82843, 0], dtype=float32)}, array(1, dtype=int32))

    Reference:
        Kumar et al., "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", 2025, arXiv:2504.02507.
    """
    checks.whole("clip_outliers", low=2, window=window)
    checks.positive("clip_outliers", threshold=threshold)

    def init_fn(params: Params) -> ClipOutliersState:
        del params
        return ClipOutliersState(new_history(window), new_count())

    def update_fn(
        updates: Updates, state: ClipOutliersState, params: Params | None = None
    ) -> tuple[Updates, ClipOutliersState]:
        del params
        norm, longest = tree.norm(updates), usual(state.history, threshold)
        is_outlier = (norm > longest) & mx.isfinite(norm)
        clipped = count_if(is_outlier, state.total_clipped)
        shrunk = tree.scale(mx.where(is_outlier, longest / norm, 1.0), updates)
        return shrunk, ClipOutliersState(seen(state.history, norm), clipped)

    return GradientTransformation(init_fn, update_fn)
