"""Where MLX keeps the memory of a parameter: at its place in the state, beside the scalars of the whole optimizer."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mlx.core as mx

from mlxopt import tree
from mlxopt.tree.structure import children, is_container, is_record, kind, rebuild

Memory = dict[str, Any]
"""What an optimizer remembers of one parameter, by name."""


class Place(NamedTuple):
    """A gradient, with the parameter and the memory that belong to it."""

    path: str
    gradient: mx.array
    parameter: mx.array
    memory: Memory


def places(gradients: Any, parameters: Any, state: Any, path: str = "") -> Iterator[Place]:
    """Walk the leaves of the gradients; parameters and state may hold more than these."""
    if tree.is_hole(gradients):
        return
    if is_container(gradients):
        for key, part in children(gradients):
            yield from places(part, at(parameters, key), at(state, key), f"{path}.{key}" if path else str(key))
        return
    if tree.is_hole(parameters):
        raise tree.TreeError("there is a gradient, but no parameter", (path,))
    if not (isinstance(gradients, mx.array) and isinstance(parameters, mx.array)):
        raise tree.TreeError(f"expected two arrays, got {kind(gradients)} for {kind(parameters)}", (path,))
    if not isinstance(state, dict):
        raise tree.TreeError(
            "the state has no memory of this parameter. Call init(model.trainable_parameters()) again after thawing "
            "layers; it keeps what is there",
            (path,),
        )
    yield Place(path, gradients, parameters, state)


def parameters_of(gradients: Any, parameters: Any) -> Any:
    """The parameters that have a gradient, in the structure of the gradients."""
    memories = tree.map(lambda _: {}, gradients)
    return tree.with_leaves(gradients, [place.parameter for place in places(gradients, parameters, memories)])


def trainable(parameters: Any) -> Any:
    """The tree of parameters; of a module, those that are trainable."""
    return parameters.trainable_parameters() if hasattr(parameters, "trainable_parameters") else parameters


def at(node: Any, key: Any) -> Any:
    """The part of a container under a key, or None; ``tree_unflatten`` may have made a list of it, or a dict."""
    if isinstance(node, dict):
        return node[key] if key in node else node.get(str(key))
    if is_record(node) and key in node._fields:
        return getattr(node, key)
    if isinstance(node, (list, tuple)) and str(key).isdigit() and int(key) < len(node):
        return node[int(key)]
    return None


def mirrored(parameters: Any, state: Any, prepare: Callable[[mx.array, Memory], None]) -> Any:
    """Give every parameter its memory in the state: the dict that is there, or a new one.

    Containers stay the objects they are where they can, since a compiled program may have captured them. Lists of the
    parameters are lists in the state, everything with names is a dict.
    """
    if tree.is_hole(parameters):
        return {} if state is None else state
    if not is_container(parameters):
        memory = {} if state is None else state
        _require_no_scalar(memory)
        prepare(tree.require_array(parameters), memory)
        return memory
    _require_no_scalar(state)
    parts = {}
    for key, part in children(parameters):
        try:
            parts[key] = mirrored(part, at(state, key), prepare)
        except tree.TreeError as error:
            raise error.under(key) from error.__cause__
    if isinstance(parameters, (list, tuple)) and not is_record(parameters):
        beyond = list(state)[len(parts) :] if isinstance(state, (list, tuple)) else []
        return type(parameters)([*parts.values(), *beyond])
    if not isinstance(state, dict):
        return ordered_like(parts, state)
    state.update(parts)
    return state


def ordered_like(node: Any, old: Any) -> Any:
    """A copy of the containers of a state with their keys in the order of an older state.

    A compiled program finds the arrays that it has captured by their order, and a file forgets it.
    """
    if not is_container(node) or tree.is_hole(node):
        return node
    if not isinstance(node, dict):
        return rebuild(node, [ordered_like(part, at(old, index)) for index, part in enumerate(node)])
    if isinstance(old, dict):
        first = [key for key in old if key in node]
    else:
        first = sorted(node, key=int) if isinstance(old, (list, tuple)) else []
    return {key: ordered_like(node[key], at(old, key)) for key in dict.fromkeys([*first, *node])}


def _require_no_scalar(state: Any) -> None:
    if state is not None and not is_container(state):
        raise tree.TreeError(
            f"the state keeps {kind(state)} of the optimizer itself under this name. Rename the parameter, or put all "
            "parameters one level down: {'model': parameters}"
        )


def require_no_clash(parameters: Any, state: Any) -> None:
    """Raise if a parameter at the top has the name of one of the optimizer's own scalars."""
    for key in parameters if isinstance(parameters, dict) else ():
        try:
            _require_no_scalar(at(state, key))
        except tree.TreeError as error:
            raise error.under(key) from None
