"""Watching updates on their way."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, Updates
from mlxopt.readable import readable
from mlxopt.tree.forms import widened


class MonitorState(NamedTuple):
    """Memory of :func:`monitor`."""

    measurements: dict[str, Any]  # what each measure said of the last updates; zeros before the first


@readable
def monitor(measures: Mapping[str, Callable[..., Any]]) -> GradientTransformation:
    """Pass updates on unchanged, and keep in the state what some functions say of them.

    Where it stands in a chain decides what is seen: first the gradients, last the steps. Measures get float32 in place
    of float16 and bfloat16. Read them with ``tree.get(state, name)``.

    Args:
        measures: Functions by name. One with a single parameter that has no default is called with the updates, one
            with two with updates and parameters. It returns an array, or a tree of arrays, whose shapes and dtypes
            do not depend on the numbers.

    Example:
        >>> tx = monitor({"norm": tree.norm, "share": update_ratio})
        >>> params = {"w": mx.array([30.0, 40.0])}
        >>> updates, state = tx.update({"w": mx.array([3.0, 4.0])}, tx.init(params), params)
        >>> updates, tree.get(state, "norm"), tree.get(state, "share")
        ({'w': array([3, 4], dtype=float32)}, array(5, dtype=float32), array(0.1, dtype=float32))
    """
    if not isinstance(measures, Mapping) or not measures:
        raise TypeError(
            f"monitor: measures must be a dict of functions by name, got {measures!r}. "
            "Write monitor({'update_norm': tree.norm})."
        )
    measures = dict(measures)
    asks_params = {name: _asks_params(name, measure) for name, measure in measures.items()}

    def measured(updates: Updates, params: Params | None) -> MonitorState:
        return MonitorState(
            {
                name: _required_arrays(name, measure(updates, params) if asks_params[name] else measure(updates))
                for name, measure in measures.items()
            }
        )

    def init_fn(params: Params) -> MonitorState:
        nothing = tree.zeros_like(widened(params))
        return MonitorState(tree.zeros_like(measured(nothing, nothing).measurements))

    def update_fn(updates: Updates, state: MonitorState, params: Params | None = None) -> tuple[Updates, MonitorState]:
        del state
        if params is None and any(asks_params.values()):
            names = [name for name, asks in asks_params.items() if asks]
            raise ValueError(
                f"monitor: update needs params for {', '.join(names)}, got None. Call update(updates, state, params)."
            )
        return updates, measured(updates, params)

    return GradientTransformation(init_fn, update_fn)


def _asks_params(name: Any, measure: Any) -> bool:
    """Say whether a measure is a function of updates and parameters, and not of updates alone."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"monitor: the name of a measure must be a string, got {name!r}. It is read by this name.")
    if not callable(measure):
        raise TypeError(f"monitor: the measure '{name}' must be a function, got {measure!r}. Pass tree.norm, say.")
    try:
        parameters = list(inspect.signature(measure).parameters.values())
    except ValueError:  # a builtin that does not tell
        return False
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) > 2 or not parameters or any(p.kind is p.KEYWORD_ONLY for p in required):
        raise TypeError(
            f"monitor: the measure '{name}' must be a function of updates, or of updates and params, "
            f"got one of ({', '.join(p.name for p in required)}). Wrap it: lambda updates, params: ..."
        )
    return len(required) == 2


def _required_arrays(name: str, measurement: Any) -> Any:
    if tree.is_hole(measurement):
        raise TypeError(
            f"monitor: the measure '{name}' must return an array or a tree of arrays, got None. Return one."
        )
    with tree.naming(f"monitor: what the measure '{name}' returns"):
        return tree.map(tree.require_array, measurement)


def update_ratio(updates: Updates, params: Params) -> mx.array:
    """Compute the norm of the updates over that of the parameters, in float32; 0 while the parameters are all zero.

    As a measure of :func:`monitor` at the end of a chain it says how far a step moves the parameters: about 1e-3 is
    usual. For each leaf: ``lambda updates, params: tree.map(update_ratio, updates, params)``.

    Args:
        updates: Tree of updates, or one array.
        params: Parameters of the same structure.

    Example:
        >>> update_ratio({"w": mx.array([3.0, 4.0])}, {"w": mx.array([30.0, 40.0])})
        array(0.1, dtype=float32)
    """
    length = tree.norm(params)
    return mx.where(length == 0, 0.0, tree.norm(updates) / mx.where(length == 0, 1.0, length))
