"""Showing updates to a transformation in another form: as vectors, or complex ones as pairs of real ones."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Inner, Params, State, Updates, require_transformation
from mlxopt.extras import told
from mlxopt.readable import readable
from mlxopt.tree.flat import Unravel
from mlxopt.tree.forms import widened
from mlxopt.update import eval_params


class Form(NamedTuple):
    """Another form of trees of one structure."""

    there: Callable[[Any], Any]
    back: Callable[[Any], Any]


def _vectors(like: Any) -> Form:
    unravel = Unravel(widened(like))
    return Form(unravel.vectors_of, unravel.tree_of)


class FlattenState(NamedTuple):
    """Memory of :func:`flatten`."""

    inner_state: State  # of vectors

    def eval_params(self, params: Params) -> Params:
        return _evaluated(self.inner_state, params, _vectors(params))


@readable
def flatten(inner: GradientTransformation) -> GradientTransformation:
    """Lay all updates end to end for a transformation, and cut what it returns into leaves again.

    Memory is vectors, so one kernel takes the place of one for each leaf: a gain where there are many small leaves,
    whose kernels cost more to start than to run, and a loss for large ones, which are copied. Parameters are copied too
    if the inner transformation sees them: put it around ``scale_by_adam()`` alone, not around ``adamw(...)``. It gains
    more to keep the parameters themselves as vectors for the whole run: :func:`tree.ravel`.

    The inner transformation must work element by element, or on all elements alike as a global norm does: leaves and
    their shapes and paths are not known to it. Low precision lies in one vector with float32, and what comes back has
    its dtypes again. ``tree.ravel(tree.cast(params, mx.float32))`` gives a way from these vectors back to trees, so
    that a checkpoint may go from one form to the other.

    Args:
        inner: Transformation of vectors: a dict of one, or two if there are complex parameters too.

    Example:
        >>> from mlxopt import clip_by_global_norm
        >>> tx = flatten(clip_by_global_norm(1.0))
        >>> grads = {"w": mx.array([[3.0]]), "b": mx.array(4.0)}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': array([[0.6]], dtype=float32), 'b': array(0.8, dtype=float32)}
    """
    require_transformation("flatten", inner)

    def init_fn(params: Params) -> FlattenState:
        return FlattenState(inner.init(_vectors(params).there(params)))

    def update_fn(
        updates: Updates, state: FlattenState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, FlattenState]:
        form = _vectors(updates if params is None else params)
        changed, inner_state = _updated(form, inner, updates, state.inner_state, params, extra)
        return changed, FlattenState(inner_state)

    part = Inner(inner, ("inner_state",), lambda params: _vectors(params).there(params))
    return GradientTransformation(init_fn, update_fn, inner=[part], as_stored=True)


class RealAndImaginary(NamedTuple):
    """A complex leaf as two real ones."""

    real: mx.array
    imaginary: mx.array


def _pairs(like: Any) -> Form:
    def pair(one: mx.array, leaf: mx.array) -> mx.array | RealAndImaginary:
        return RealAndImaginary(mx.real(leaf), mx.imag(leaf)) if one.dtype == mx.complex64 else leaf

    def there(node: Any) -> Any:
        return tree.map(pair, like, node)

    def back(pairs: Any) -> Any:
        aligned = tree.map(lambda _, part: part, there(like), pairs)  # whatever the order of keys
        parts = iter(tree.leaves(aligned))

        def joined(one: mx.array) -> mx.array:
            if one.dtype != mx.complex64:
                return cast(mx.array, next(parts))
            # Not real + 1j * imaginary, which is NaN where a part is infinite.
            return mx.stack([next(parts), next(parts)], axis=-1).view(mx.complex64).squeeze(-1)

        return tree.map(joined, like)

    return Form(there, back)


class SplitRealAndImaginaryState(NamedTuple):
    """Memory of :func:`split_real_and_imaginary`."""

    inner_state: State  # of a pair for each complex leaf

    def eval_params(self, params: Params) -> Params:
        return _evaluated(self.inner_state, params, _pairs(params))


@readable
def split_real_and_imaginary(inner: GradientTransformation) -> GradientTransformation:
    """Give a transformation the real and the imaginary part of complex updates as leaves of their own.

    Args:
        inner: Transformation of real leaves; one complex leaf is a NamedTuple with fields ``real`` and ``imaginary``.

    Example:
        >>> from mlxopt import scale_by_sign
        >>> tx = split_real_and_imaginary(scale_by_sign())
        >>> grads = {"w": mx.array([3 - 4j]), "b": mx.array([-2.0])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': array([1-1j], dtype=complex64), 'b': array([-1], dtype=float32)}
    """
    require_transformation("split_real_and_imaginary", inner)

    def init_fn(params: Params) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(inner.init(_pairs(params).there(params)))

    def update_fn(
        updates: Updates, state: SplitRealAndImaginaryState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SplitRealAndImaginaryState]:
        form = _pairs(updates if params is None else params)
        changed, inner_state = _updated(form, inner, updates, state.inner_state, params, extra)
        return changed, SplitRealAndImaginaryState(inner_state)

    part = Inner(inner, ("inner_state",), lambda params: _pairs(params).there(params))
    return GradientTransformation(init_fn, update_fn, inner=[part], as_stored=True, reach="leaf")


# What both have in common


def _updated(
    form: Form,
    inner: GradientTransformation,
    updates: Updates,
    state: State,
    params: Params | None,
    extra: Mapping[str, Any],
) -> tuple[Updates, State]:
    """An update of the inner transformation in the other form, which extras made of parameters take too."""

    def of_params(node: Any) -> Params:
        return form.back(node) if params is None else tree.cast_like(form.back(node), params)

    shown = None if params is None else form.there(params)
    own = told(extra, inner, form.there, of_params)
    changed, inner_state = inner.update(form.there(updates), state, shown, **own)
    return form.back(changed), inner_state


def _evaluated(state: State, params: Params, form: Form) -> Params:
    shown = form.there(params)
    found = eval_params(state, shown)
    return params if found is shown else tree.cast_like(form.back(found), params)
