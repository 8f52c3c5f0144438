"""Generated trees: nested containers, holes, odd shapes, three float dtypes, gradients unlike their parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
from hypothesis import strategies as st

from mlxopt import tree

Extras = Callable[[Any], dict[str, Any]]
"""The extra arguments of an update, from its gradients."""


def no_extras(grads: Any) -> dict[str, Any]:
    del grads
    return {}


class Layer(NamedTuple):
    """A record among the containers of a tree."""

    weight: Any
    bias: Any


class Problem(NamedTuple):
    """Parameters, the gradients of a few steps, and the extra arguments that go with them."""

    params: Any
    grads: list[Any]
    extras: Extras = no_extras


SHAPES = [(), (1,), (3,), (2, 3), (0,), (2, 0), (2, 1, 2)]
FLOATS = [mx.float32, mx.bfloat16, mx.float16]

arrays = st.tuples(st.sampled_from(SHAPES), st.sampled_from(FLOATS))
leaves = st.one_of(arrays, arrays, arrays, st.none())


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["w", "b", "weight", "a b", "0", "z"])
    return st.one_of(
        st.dictionaries(keys, children, max_size=3),
        st.lists(children, max_size=3),
        st.lists(children, max_size=2).map(tuple),
        st.builds(Layer, children, children),
    )


structures = containers(st.recursive(leaves, containers, max_leaves=5))


def is_spec(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) == 2 and isinstance(node[1], mx.Dtype)


def filled(structure: Any, draw: Callable[..., Any], backwards: bool = False) -> Any:
    """The tree of a structure, with an array drawn for every leaf, and the keys of its dicts in order or backwards."""
    if structure is None:
        return None
    if is_spec(structure):
        return draw(*structure)
    if isinstance(structure, dict):
        keys = reversed(structure) if backwards else structure
        return {key: filled(structure[key], draw, backwards) for key in keys}
    parts = [filled(part, draw, backwards) for part in structure]
    return Layer(*parts) if isinstance(structure, Layer) else type(structure)(parts)


@st.composite
def problems(draw: st.DrawFn, steps: int = 3, dtype: mx.Dtype | None = None) -> Problem:
    """Draw a tree of parameters and ``steps`` trees of gradients, of any scale between 1e-3 and 10.

    Gradients may have another dtype than their parameter, and their keys another order.
    """
    structure = draw(structures)
    generator = iter(mx.random.split(mx.random.key(draw(st.integers(0, 2**16))), 1000))
    scale = draw(st.sampled_from([1e-3, 1.0, 10.0]))
    backwards = draw(st.booleans())
    grads_dtype = dtype or draw(st.sampled_from([None, mx.float32, mx.bfloat16]))

    def array(shape: tuple[int, ...], leaf_dtype: mx.Dtype) -> mx.array:
        return (scale * mx.random.normal(shape, key=next(generator))).astype(leaf_dtype)

    def param(shape: tuple[int, ...], leaf_dtype: mx.Dtype) -> mx.array:
        return array(shape, dtype or leaf_dtype)

    def grad(shape: tuple[int, ...], leaf_dtype: mx.Dtype) -> mx.array:
        return array(shape, grads_dtype or leaf_dtype)

    return Problem(filled(structure, param), [filled(structure, grad, backwards) for _ in range(steps)])


# Small fixed problems, for laws that compile: every new graph costs half a second of g++


def fixed_problem(structure: Any, dtype: mx.Dtype, steps: int, backwards: bool = False) -> Problem:
    keys = iter(mx.random.split(mx.random.key(1), 1000))

    def array(shape: tuple[int, ...], leaf_dtype: mx.Dtype) -> mx.array:
        return mx.random.normal(shape, key=next(keys)).astype(leaf_dtype)

    def spec(shape: tuple[int, ...] | None) -> Any:
        return None if shape is None else (shape, dtype)

    return Problem(filled(structure(spec), array), [filled(structure(spec), array, backwards) for _ in range(steps)])


def plain_problem(dtype: mx.Dtype = mx.float32, steps: int = 4) -> Problem:
    """A matrix, a vector and a scalar."""
    return fixed_problem(lambda leaf: {"w": leaf((3, 2)), "b": leaf((2,)), "s": leaf(())}, dtype, steps)


def problem_without_scalar(dtype: mx.Dtype = mx.float32, steps: int = 4) -> Problem:
    """A matrix and a vector; a scalar would be another graph to compile."""
    return fixed_problem(lambda leaf: {"w": leaf((3, 2)), "b": leaf((2,))}, dtype, steps)


def nested_problem(dtype: mx.Dtype = mx.float32, steps: int = 4, last: tuple[int, ...] = ()) -> Problem:
    """Leaves as in the plain problem in containers of every kind, a hole, and gradients in another key order."""

    def structure(leaf: Any) -> Any:
        return {
            "layers": [Layer(leaf((3, 2)), leaf((2,))), Layer(leaf((3, 2)), leaf(None))],
            "head": ({"w": leaf((3, 2)), "b": leaf((2,))}, leaf(last)),
        }

    return fixed_problem(structure, dtype, steps, backwards=True)


def number(x: mx.array) -> float:
    """The value of a 0-d array."""
    value = x.item()
    assert isinstance(value, (int, float))
    return value


def plain(node: Any) -> Any:
    """The tree with arrays as comparable values."""
    if isinstance(node, mx.array):
        return (str(node.dtype), node.shape, node.tolist())
    if isinstance(node, dict):
        return {key: plain(part) for key, part in node.items()}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return (type(node).__name__, *(plain(part) for part in node))
    return type(node)(plain(part) for part in node) if isinstance(node, (list, tuple)) else node


def same(one: Any, other: Any) -> bool:
    """Whether two trees agree in structure, key order, shapes, dtypes and every bit (NaN equals NaN)."""
    items, others = tree.items(one), tree.items(other)
    return repr(tree.map(lambda _: 0, one)) == repr(tree.map(lambda _: 0, other)) and all(
        path == other_path and _same_leaf(x, y) for (path, x), (other_path, y) in zip(items, others, strict=True)
    )


def _same_leaf(x: Any, y: Any) -> bool:
    return x is y or (
        x.dtype == y.dtype
        and x.shape == y.shape
        and bool(mx.array_equal(x, y, equal_nan=mx.issubdtype(x.dtype, mx.floating)).item())
    )
