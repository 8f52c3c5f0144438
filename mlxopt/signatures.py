"""What an update function asks for, read from its signature, and calls that give it something else."""

import difflib
import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple


class Needs(NamedTuple):
    """What an ``update`` function asks for, read from its signature."""

    params: bool
    state: type | None
    extras: frozenset[str]
    required: frozenset[str]
    any_extras: bool


_known: dict[tuple[int, int], tuple[Needs, Any]] = {}


def needs_of(update: Callable[..., Any]) -> Needs:
    """What a function needs, read once for all functions of the same code: a wrapper may build one at every step."""
    code = getattr(update, "__code__", None)
    if code is None or any(isinstance(hint, str) for hint in update.__annotations__.values()):
        return _read_needs(update)
    own = tuple(update.__annotations__.values())  # which a factory may have made anew
    key = (id(code), hash(tuple(map(id, own))))
    if key not in _known:
        _known[key] = _read_needs(update), (code, own)  # which stay alive, so that nothing else gets their ids
    return _known[key][0]


def _read_needs(update: Callable[..., Any]) -> Needs:
    try:
        signature = inspect.signature(update, eval_str=True)
    except NameError:  # an annotation that is text and names something local to the factory
        signature = inspect.signature(update)
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) != 3:
        raise TypeError(
            f"GradientTransformation: update must take (updates, state, params), got {len(positional)} positional "
            "parameters. Write update(updates, state, params=None), with extras as keyword-only parameters."
        )
    _, state, params = positional
    extras, required = keywords_of(update)
    return Needs(
        params=params.default is params.empty,
        state=state.annotation if isinstance(state.annotation, type) and hasattr(state.annotation, "_fields") else None,
        extras=extras,
        required=required,
        any_extras=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def keywords_of(function: Callable[..., Any]) -> tuple[frozenset[str], frozenset[str]]:
    """The keyword-only parameters of a function, and those among them that have no default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin that does not tell
        return frozenset(), frozenset()
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return frozenset(p.name for p in keywords), frozenset(p.name for p in keywords if p.default is p.empty)


def require_known(where: str, extra: Collection[str], known: Collection[str]) -> None:
    """Raise for an extra argument that nothing has a use for, such as a misspelt one."""
    for name in sorted(set(extra) - set(known)):
        nearest = difflib.get_close_matches(name, known, n=1)
        advice = f"Did you mean '{nearest[0]}'?" if nearest else "Leave it out."
        raise TypeError(f"{where}: update has no use for the extra argument '{name}'. {advice}")


def require_given(where: str, extra: Collection[str], required: Collection[str]) -> None:
    """Raise for an extra argument that is needed and missing."""
    for name in sorted(set(required) - set(extra)):
        raise TypeError(f"{where}: update needs the extra argument '{name}', got none. Call update(..., {name}=...).")
