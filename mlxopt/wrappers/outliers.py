"""Leaving out steps whose gradient or loss is far from what was usual."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import mlx.core as mx

from mlxopt import checks, tree
from mlxopt.base import GradientTransformation, Inner, Params, State, Updates, require_transformation
from mlxopt.numerics.history import History, new_history, seen, usual
from mlxopt.numerics.scalars import as_scalar, count_if, new_count
from mlxopt.readable import readable


class SkipOutliersState(NamedTuple):
    """Memory of :func:`skip_outliers`."""

    history: History  # the last norms or values
    last_skipped: mx.array  # bool: were the last updates left out?
    total_skipped: mx.array  # int32: updates that were left out
    inner_state: State


@readable
def skip_outliers(
    inner: GradientTransformation,
    window: int = 128,
    threshold: float | mx.array = 6.0,
    *,
    by: Literal["norm", "value"] = "norm",
) -> GradientTransformation:
    """Leave out steps whose gradient is much longer, or whose loss much higher, than the last ones were.

    Usual is what lies up to ``threshold`` standard deviations above the mean of the last ``window`` ones. An outlier
    leaves parameters and inner state as they are, but is remembered, so that after a few a new level is usual. Nothing
    finite is left out until half of the window is known; a NaN or an infinity always is, and is never remembered.

    Args:
        inner: Optimizer of the usual steps.
        window: Norms or values that are remembered.
        threshold: Standard deviations above the mean that are usual.
        by: "norm" looks at the norm of all updates, "value" at the loss, which comes as ``value``. Put one around the
            other for both.

    Example:
        >>> from mlxopt import sgd
        >>> tx = skip_outliers(sgd(0.5), window=4, threshold=2.0)
        >>> params = {"w": mx.array(1.0)}
        >>> state = tx.init(params)
        >>> for norm in (1.0, 3.0, 100.0):
        ...     updates, state = tx.update({"w": mx.array(norm)}, state, params)
        >>> updates, tree.get(state, "total_skipped")
        ({'w': array(0, dtype=float32)}, array(1, dtype=int32))

    Reference:
        Allen Institute for AI, "OLMo-core", 2024, whose ``SkipStepOptimizer`` does this by both.
    """
    require_transformation("skip_outliers", inner)
    checks.whole("skip_outliers", low=2, window=window)
    checks.positive("skip_outliers", threshold=threshold)
    checks.choice("skip_outliers", "by", by, ("norm", "value"))

    def init_fn(params: Params) -> SkipOutliersState:
        return SkipOutliersState(new_history(window), mx.array(False), new_count(), inner.init(params))

    def update_fn(
        updates: Updates, state: SkipOutliersState, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, SkipOutliersState]:
        measured = tree.norm(updates) if by == "norm" else _value(extra)
        # Written so that a NaN is skipped.
        skipped = mx.logical_not(measured <= usual(state.history, threshold))
        stepped = inner.update(updates, state.inner_state, params, **extra)
        changed, inner_state = tree.where(skipped, (tree.zeros_like(updates), state.inner_state), stepped)
        total = count_if(skipped, state.total_skipped)
        return changed, SkipOutliersState(seen(state.history, measured), skipped, total, inner_state)

    return GradientTransformation(
        init_fn,
        update_fn,
        inner=[Inner(inner, ("inner_state",))],
        extras=["value"] if by == "value" else [],
        as_stored=True,
        reach="element" if by == "value" else "tree",
    )


def _value(extra: Mapping[str, Any]) -> mx.array:
    if "value" not in extra:
        raise TypeError(
            "skip_outliers: update needs the extra argument 'value', got none. Call update(..., value=...)."
        )
    return as_scalar(extra["value"])
