"""Modules of ``mlx.nn`` as pure functions."""

from collections.abc import Callable, Iterator
from typing import Any

from mlxopt import tree
from mlxopt.base import Params
from mlxopt.interop.optimizers.layout import at
from mlxopt.tree.structure import children, is_container, kind


def functional(model: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make a pure function of parameters from a function that works with a model.

    During the call the model holds the parameters it is given. Afterwards it is as it was before, also after an error:
    its own parameters, whatever layers have written into themselves (running statistics, caches), its mode. What is
    wanted of these must be returned. Arrays that are not given keep their values; a compiled program takes them, and
    the mode (``train``, ``eval``), as they are when it is traced.

    Args:
        model: The module.
        fn: Function of the model and of further arguments.

    Returns:
        Function ``(params, *args) -> fn(model, *args)``, where ``params`` is a tree of some or all of the model's
        arrays, such as ``model.trainable_parameters()``.

    Example:
        >>> import mlx.core as mx, mlx.nn as nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> loss = functional(model, lambda model, x: mx.sum(model(x)))
        >>> loss({"weight": mx.array([[2.0, 3.0]])}, mx.array([1.0, 1.0]))
        array(5, dtype=float32)
    """
    if not hasattr(model, "trainable_parameters"):
        raise TypeError(f"functional: model must be a module of mlx.nn, got {kind(model)}. Pass functional(model, fn).")
    if not callable(fn):
        raise TypeError(f"functional: fn must be a function of the model, got {fn!r}. Pass functional(model, fn).")

    def pure(params: Params, *args: Any, **kwargs: Any) -> Any:
        restore = [_restorer(part) for part in _mutable_parts(model)]
        try:
            with tree.naming("functional"):
                _place(model, params)
            returned = fn(model, *args, **kwargs)
            with tree.naming("functional: what fn returns"):
                return tree.map(lambda leaf: leaf, returned)
        finally:
            for undo in restore:
                undo()

    return pure


def _mutable_parts(node: Any) -> Iterator[Any]:
    """The modules, dicts and lists of a model, from the outside in."""
    if isinstance(node, (dict, list)):
        yield node
    if is_container(node):
        for part in list(node.values()) if isinstance(node, dict) else list(node):
            yield from _mutable_parts(part)


def _restorer(node: Any) -> Callable[[], None]:
    """A function that gives a container the contents that it has now."""
    if isinstance(node, list):
        entries = list(node)
        return lambda: node.__setitem__(slice(None), entries)
    items, attributes = dict(node), dict(getattr(node, "__dict__", {}))

    def restore() -> None:
        dict.clear(node)
        dict.update(node, items)
        if attributes:
            vars(node).clear()
            vars(node).update(attributes)

    return restore


def _place(node: Any, params: Params) -> None:
    """Put parameters where they belong in a model."""
    if not is_container(params):
        raise tree.TreeError(f"expected a tree of parameters, got {kind(params)}. Pass model.trainable_parameters()")
    for key, part in children(params):
        if tree.is_hole(part):
            continue
        current = at(node, key)
        try:
            if current is None:
                raise tree.TreeError("the model has no such parameter")
            if is_container(part) and is_container(current):
                _place(current, part)
            else:
                tree.require_same_shape(part, current)
                node[key if isinstance(node, list) or key in node else str(key)] = part
        except tree.TreeError as error:
            raise error.under(key) from None
