"""Generated trees: nested containers of every kind, odd shapes, three float dtypes."""

from typing import Any, NamedTuple

import mlx.core as mx
from hypothesis import strategies as st

from mlxopt import tree


class Layer(NamedTuple):
    """A record among the containers of a tree."""

    weight: Any
    bias: Any


class Problem(NamedTuple):
    """Parameters, and the gradients of a few steps."""

    params: Any
    grads: list[Any]


SHAPES = [(), (1,), (3,), (2, 3), (0,), (2, 0), (2, 1, 2)]
FLOATS = [mx.float32, mx.bfloat16, mx.float16]

leaves = st.tuples(st.sampled_from(SHAPES), st.sampled_from(FLOATS))


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["w", "b", "weight", "a b", "0", "z"])
    return st.one_of(
        st.dictionaries(keys, children, max_size=3),
        st.lists(children, max_size=3),
        st.lists(children, max_size=2).map(tuple),
        st.builds(Layer, children, children),
    )


structures = containers(st.recursive(leaves.map(lambda leaf: [leaf]), containers, max_leaves=5))


def is_spec(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) == 2 and isinstance(node[1], mx.Dtype)


def filled(structure: Any, draw: Any) -> Any:
    """The tree of a structure, with an array drawn for every leaf."""
    if is_spec(structure):
        return draw(*structure)
    if isinstance(structure, dict):
        return {key: filled(part, draw) for key, part in structure.items()}
    if isinstance(structure, Layer):
        return Layer(*(filled(part, draw) for part in structure))
    return type(structure)(filled(part, draw) for part in structure)


@st.composite
def problems(draw: st.DrawFn, steps: int = 3, dtype: mx.Dtype | None = None) -> Problem:
    """Draw a tree of parameters and ``steps`` trees of gradients, of any scale between 1e-3 and 10."""
    structure = draw(structures)
    generator = iter(mx.random.split(mx.random.key(draw(st.integers(0, 2**16))), 1000))
    scale = draw(st.sampled_from([1e-3, 1.0, 10.0]))

    def array(shape: tuple[int, ...], leaf_dtype: mx.Dtype) -> mx.array:
        return (scale * mx.random.normal(shape, key=next(generator))).astype(dtype or leaf_dtype)

    params = filled(structure, array)
    return Problem(params, [filled(structure, array) for _ in range(steps)])


def plain_problem(dtype: mx.Dtype = mx.float32, steps: int = 4) -> Problem:
    """A small fixed problem, for laws that compile: every new tree of dtypes costs a compilation."""
    keys = iter(mx.random.split(mx.random.key(1), 3 * (steps + 1)))
    shapes = {"w": (3, 2), "b": (2,), "s": ()}

    def draw() -> Any:
        return {name: mx.random.normal(shape, key=next(keys)).astype(dtype) for name, shape in shapes.items()}

    return Problem(draw(), [draw() for _ in range(steps)])


def number(x: mx.array) -> float:
    """The value of a 0-d array."""
    value = x.item()
    assert isinstance(value, (int, float))
    return value


def same(one: Any, other: Any) -> bool:
    """Whether two trees agree in structure, key order, shapes, dtypes and every bit (NaN equals NaN)."""
    items, others = tree.items(one), tree.items(other)
    return repr(tree.map(lambda _: 0, one)) == repr(tree.map(lambda _: 0, other)) and all(
        path == other_path
        and x.dtype == y.dtype
        and x.shape == y.shape
        and mx.array_equal(x, y, equal_nan=mx.issubdtype(x.dtype, mx.floating)).item()
        for (path, x), (other_path, y) in zip(items, others, strict=True)
    )
