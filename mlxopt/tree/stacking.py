"""Working on all leaves of one shape at once."""

from collections.abc import Callable

import mlx.core as mx

from mlxopt import tracing
from mlxopt.tree.dtypes import require_array
from mlxopt.tree.structure import Tree, map_with_path, with_leaves

LARGEST_STACK = {mx.DeviceType.cpu: 2**16, mx.DeviceType.gpu: 2**24}
"""Elements of a stack: enough to keep the device busy, and a bound on the memory of all that is computed from it."""


def map_stacked(f: Callable[[mx.array], mx.array], tree: Tree) -> Tree:
    """Apply a function to stacks of the leaves that have one shape, which is cheaper than to each of them.

    Args:
        f: Function of an array with one more axis in front, over which it works independently; keeps that axis.
        tree: Tree of arrays.

    Example:
        >>> two, one = mx.array([3.0, 4.0]), mx.array([5.0])
        >>> map_stacked(lambda x: x / mx.linalg.norm(x, axis=-1, keepdims=True), {"a": two, "b": [two, one]})
        {'a': array([0.6, 0.8], dtype=float32), 'b': [array([0.6, 0.8], dtype=float32), array([1], dtype=float32)]}
    """
    program = tracing.current()
    every: list[mx.array] = []
    places: list[str] = []
    groups: dict[tuple[object, ...], list[list[int]]] = {}

    def gather(path: str, leaf: mx.array) -> None:
        stream = mx.default_stream(mx.default_device()) if program is None else program.stream(path)
        stacks = groups.setdefault((leaf.shape, leaf.dtype, str(stream)), [[]])
        if stacks[-1] and (len(stacks[-1]) + 1) * leaf.size > LARGEST_STACK[stream.device.type]:
            stacks.append([])
        stacks[-1].append(len(every))
        every.append(require_array(leaf))
        places.append(path)

    def on_stack(*parts: mx.array) -> list[mx.array]:
        together = f(mx.stack(list(parts)))
        apart = mx.split(together, len(parts)) if len(parts) > 1 else [together]
        return [part.squeeze(0) for part in apart]

    def at_place(path: str, *parts: mx.array) -> list[mx.array]:
        if program is None:
            return on_stack(*parts)
        placed: list[mx.array] = program.on_leaves(on_stack, with_path=False)(path, *parts)
        return placed

    map_with_path(gather, tree)
    results: dict[int, mx.array] = {}
    for stacks in groups.values():
        for stack in stacks:
            parts = at_place(places[stack[0]], *[every[index] for index in stack])
            results.update(zip(stack, parts, strict=True))
    return with_leaves(tree, [results[index] for index in range(len(every))])
