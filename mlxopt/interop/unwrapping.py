"""An optimizer of MLX as a pure transformation."""

import copy
from typing import Any

import mlx.core as mx

from mlxopt import tree
from mlxopt.base import GradientTransformation, Params, State, Updates
from mlxopt.interop.optimizers.layout import parameters_of, require_no_clash
from mlxopt.numerics.dtypes import widen
from mlxopt.tree.structure import children, is_container, is_record


def from_optimizer(optimizer: Any) -> GradientTransformation:
    """Make a pure transformation of an optimizer of MLX, which it leaves alone.

    The state begins as that of the optimizer at this moment, in MLX's layout. All arithmetic is float32, since float16
    and bfloat16 are widened before the optimizer sees them. The update is what the optimizer made of a parameter, minus
    the parameter: it has no digits below the last one of the parameter.

    Args:
        optimizer: Optimizer of ``mlx.optimizers`` or ``mlxopt.interop.optimizers``, or of a subclass that keeps all its
            arrays in ``state``.

    Example:
        >>> from mlxopt.interop.optimizers import SGD
        >>> tx = from_optimizer(SGD(0.25))
        >>> params = {"w": mx.array(1.0)}
        >>> tx.update({"w": mx.array(2.0)}, tx.init(params), params)[0]
        {'w': array(-0.5, dtype=float32)}
    """
    missing = [name for name in ("init", "apply_gradients", "state") if not hasattr(optimizer, name)]
    if missing or isinstance(optimizer, type):
        raise TypeError(
            f"from_optimizer: optimizer must be an optimizer of MLX, got {optimizer!r}. Pass one that is built, "
            "such as mlx.optimizers.AdamW(1e-3)."
        )
    start = _copied(optimizer.state)
    name = type(optimizer).__name__
    original = _twin(optimizer, start)

    def init_fn(params: Params) -> State:
        plain = _plain(tree.map(widen, params))
        with tree.naming(f"from_optimizer({name})"):
            require_no_clash(plain, start)
        twin = _twin(original, start)
        twin.init(plain)
        return _copied(twin.state)

    def update_fn(updates: Updates, state: State, params: Params) -> tuple[Updates, State]:
        before = parameters_of(updates, params)
        # Before 0.32.4 some optimizers of MLX write into the arrays that they are given.
        gradients, parameters = (_plain(tree.map(mx.array, given)) for given in (updates, before))
        twin = _twin(original, state)
        after = parameters_of(_rooted(updates), twin.apply_gradients(gradients, parameters))
        changed = tree.map(mx.subtract, after, _rooted(before))
        return changed if _is_named(updates) else changed[ROOT], _copied(twin.state)

    tx = GradientTransformation(init_fn, update_fn)
    return tx.spelled("from_optimizer", lambda: f"from_optimizer({name}(...))")


ROOT = "parameters"
"""Name for a tree without names at its top, such as a list, which MLX does not take."""


def _is_named(node: Any) -> bool:
    return isinstance(node, dict) or is_record(node)


def _rooted(node: Any) -> Any:
    return node if _is_named(node) else {ROOT: node}


def _twin(optimizer: Any, state: State) -> Any:
    """An optimizer with the same settings, and a state of its own."""
    twin = copy.copy(optimizer)
    twin._state = {}
    if hasattr(optimizer, "optimizers"):
        twin.optimizers = [_twin(part, own) for part, own in zip(optimizer.optimizers, state["states"], strict=True)]
    else:
        twin.state = _copied(state)
    return twin


def _copied(state: State) -> State:
    """The same arrays in containers of their own."""
    return tree.map(lambda leaf: leaf, state)


def _plain(node: Any) -> Any:
    """The tree as dicts and lists without holes, which is what MLX knows."""

    def plain(part: Any) -> Any:
        if not is_container(part):
            return part
        if _is_named(part):
            return {key: plain(below) for key, below in children(part) if not tree.is_hole(below)}
        return [{} if tree.is_hole(below) else plain(below) for below in part]

    return plain(_rooted(node))
