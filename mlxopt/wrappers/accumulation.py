"""Steps made of the gradients of several micro-steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Inner, Params, State, Updates, identity, require_transformation
from mlxopt.numerics.scalars import count_if, new_count, safe_increment
from mlxopt.readable import literal, readable

ShouldSkip = Callable[[Updates, mx.array, Params | None], tuple[mx.array, State]]
"""Function of updates, the count of steps and the parameters to a truth value and to what the state shows of it."""


class MultiStepsState(NamedTuple):
    """Memory of :func:`multi_steps`."""

    mini_step: mx.array  # int32: micro-steps gathered since the last step; 0 right after one
    gradient_step: mx.array  # int32: steps of the inner transformation
    inner_state: State
    acc_grads: Updates  # mean or sum of the gathered updates, float32 for low precision
    skip_state: State  # what should_skip said of the last updates


@readable
def multi_steps(
    inner: GradientTransformation,
    every_k_schedule: int | Callable[[Any], Any],
    *,
    use_grad_mean: bool = True,
    should_skip: ShouldSkip | None = None,
) -> GradientTransformation:
    """Gather the updates of ``k`` micro-steps, and make one step of their mean; between steps nothing moves.

    The inner transformation computes in every micro-step, since MLX has no conditional, and its result is chosen in the
    last one only; extra arguments are those of that one. To spend nothing on it between steps, gather outside of the
    optimizer: :func:`compile_accumulation`.

    Args:
        inner: Transformation of the gathered updates.
        every_k_schedule: Micro-steps for a step: a number, or a function of the count of steps; what is below 1 there
            counts as 1.
        use_grad_mean: Gather the mean; otherwise the sum.
        should_skip: Function ``(updates, gradient_step, params) -> (skip, shown)``, such as :func:`skip_not_finite`. A
            micro-step for which ``skip`` is true is as if it had not been; ``shown`` is kept in the state.

    Example:
        >>> from mlxopt import sgd
        >>> tx = multi_steps(sgd(0.5), 2)
        >>> params = {"w": mx.array(1.0)}
        >>> first, state = tx.update({"w": mx.array(1.0)}, tx.init(params), params)
        >>> second, state = tx.update({"w": mx.array(3.0)}, state, params)
        >>> first, second
        ({'w': array(0, dtype=float32)}, {'w': array(-1, dtype=float32)})
    """
    require_transformation("multi_steps", inner)
    if not callable(every_k_schedule):
        checks.whole("multi_steps", low=1, every_k_schedule=every_k_schedule)
    skip = never_skip if should_skip is None else should_skip

    def init_fn(params: Params) -> MultiStepsState:
        _require_at_least_one(every_k_schedule)
        gathered = tree.memory_like(params)
        _, shown = _asked(skip, gathered, new_count(), params)
        return MultiStepsState(new_count(), new_count(), inner.init(params), gathered, tree.zeros_like(shown))

    def update_fn(
        updates: Updates, state: MultiStepsState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, MultiStepsState]:
        skipped, shown = _asked(skip, updates, state.gradient_step, params)
        arrived = safe_increment(state.mini_step)
        share = 1 / arrived.astype(mx.float32)
        gathered = tree.map(lambda g, m: m + (g - m) * share if use_grad_mean else m + g, updates, state.acc_grads)
        gathered = tree.where(skipped, state.acc_grads, gathered)
        arrived = mx.where(skipped, state.mini_step, arrived)
        due = mx.logical_and(mx.logical_not(skipped), arrived >= _micro_steps(every_k_schedule, state.gradient_step))
        stepped = inner.update(gathered, state.inner_state, params, **extra)
        changed, inner_state = tree.where(due, stepped, (tree.zeros_like(updates), state.inner_state))
        return changed, MultiStepsState(
            mx.where(due, 0, arrived),
            count_if(due, state.gradient_step),
            inner_state,
            tree.where(due, tree.zeros_like(gathered), gathered),
            shown,
        )

    return GradientTransformation(
        init_fn,
        update_fn,
        inner=[Inner(inner, ("inner_state",))],
        as_stored=True,
        reach="element" if should_skip is None else "tree",
    )


def _micro_steps(every_k: int | Callable[[Any], Any], step: mx.array) -> Any:
    return every_k(step) if callable(every_k) else every_k


def _require_at_least_one(every_k: int | Callable[[Any], Any]) -> None:
    first = mx.array(_micro_steps(every_k, new_count()))
    if first.shape != () or not bool(first >= 1):
        raise ValueError(
            f"multi_steps: every_k_schedule must be at least 1, got {literal(first)} at step 0. "
            "Return the number of micro-steps that make a step."
        )


def _asked(should_skip: ShouldSkip, updates: Updates, step: mx.array, params: Params | None) -> tuple[mx.array, State]:
    answer = should_skip(updates, step, params)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise TypeError(f"multi_steps: should_skip must return (skip, shown), got {answer!r}. Return both.")
    skip, shown = answer
    if not isinstance(skip, mx.array) or skip.shape != () or skip.dtype != mx.bool_:
        raise TypeError(
            f"multi_steps: should_skip must return one truth value first, got {skip!r}. Return a comparison."
        )
    return skip, shown


def never_skip(updates: Updates, gradient_step: mx.array, params: Params | None) -> tuple[mx.array, State]:
    """Take every micro-step."""
    del updates, gradient_step, params
    return mx.array(False), ()


def skip_not_finite(updates: Updates, gradient_step: mx.array, params: Params | None) -> tuple[mx.array, State]:
    """Skip a micro-step whose updates hold a NaN or an infinity: a condition for :func:`multi_steps`.

    Args:
        updates: Updates of the micro-step.
        gradient_step: Steps so far.
        params: Parameters.

    Example:
        >>> skip_not_finite({"w": mx.array([1.0, float("inf")])}, mx.array(0), None)
        (array(True, dtype=bool), {'num_not_finite': array(1, dtype=int32)})
    """
    del gradient_step, params
    broken = tree.sum(tree.map(lambda u: mx.logical_not(mx.isfinite(u)), updates))
    return broken > 0, {"num_not_finite": broken.astype(mx.int32)}


def skip_large_updates(
    updates: Updates, gradient_step: mx.array, params: Params | None, max_squared_norm: float | mx.array
) -> tuple[mx.array, State]:
    """Skip a micro-step unless the squared norm of its updates is below a bound: a condition for :func:`multi_steps`.

    Args:
        updates: Updates of the micro-step.
        gradient_step: Steps so far.
        params: Parameters.
        max_squared_norm: The bound. Set it by ``functools.partial(skip_large_updates, max_squared_norm=100.0)``.

    Example:
        >>> skip_large_updates({"w": mx.array([3.0, 4.0])}, mx.array(0), None, max_squared_norm=16.0)
        (array(True, dtype=bool), {'norm_squared': array(25, dtype=float32)})
    """
    del gradient_step, params
    norm_squared = tree.norm(updates, squared=True)
    return mx.logical_not(norm_squared < max_squared_norm), {"norm_squared": norm_squared}


@readable
def apply_every(k: int = 1) -> GradientTransformation:
    """Gather the updates of ``k`` micro-steps and pass on their sum with the last one; between there are zeros.

    What comes before it in a chain steps every time. To make one step of an optimizer for several gradients, put
    :func:`multi_steps` around it.

    Args:
        k: Micro-steps that are summed.

    Example:
        >>> tx = apply_every(2)
        >>> grads = {"w": mx.array(1.0)}
        >>> first, state = tx.update(grads, tx.init(grads))
        >>> first, tx.update(grads, state)[0]
        ({'w': array(0, dtype=float32)}, {'w': array(2, dtype=float32)})
    """
    checks.whole("apply_every", low=1, k=k)
    return multi_steps(identity(), k, use_grad_mean=False)
