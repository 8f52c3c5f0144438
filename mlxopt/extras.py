"""Extra arguments for a transformation that sees parameters in another form, or only some of them."""

from collections.abc import Callable, Mapping
from typing import Any

from mlxopt.base import GradientTransformation
from mlxopt.reach import OF_PARAMETERS


def told(
    extra: Mapping[str, Any], tx: GradientTransformation, shown: Callable[[Any], Any], back: Callable[[Any], Any]
) -> dict[str, Any]:
    """Make extra arguments fit what a transformation sees: gradients, and functions of parameters.

    Args:
        extra: Extra arguments by name; those that it has no use for stay as they are.
        tx: The transformation.
        shown: Function from a tree of all parameters to what it sees.
        back: Function from what it sees to a tree of all parameters.
    """
    fitting = dict(extra)
    used = [name for name in extra if name in tx.extras and extra[name] is not None]
    if "grad" in used:
        fitting["grad"] = shown(extra["grad"])
    for name in OF_PARAMETERS:
        if name in used:
            fitting[name] = _of_form(extra[name], back, shown if name == "grad_fn" else lambda value: value)
    return fitting


def _of_form(f: Callable[..., Any], back: Callable[[Any], Any], result: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda node, *args, **kwargs: result(f(back(node), *args, **kwargs))
