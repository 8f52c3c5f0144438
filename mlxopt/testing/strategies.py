"""Strategies of hypothesis: nested containers, holes, odd shapes, three float dtypes, gradients unlike parameters."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from hypothesis import strategies as st

from mlxopt import tree
from mlxopt.numerics.scalars import LARGEST_COUNT
from mlxopt.schedules.combinators import with_warmup
from mlxopt.schedules.curve import Curve
from mlxopt.schedules.decay import constant_schedule, cosine_decay, linear_schedule
from mlxopt.testing.problems import Layer, Problem, filled

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


@st.composite
def trees(draw: st.DrawFn, dtype: mx.Dtype | None = None) -> Any:
    """Draw a tree: dicts, lists, tuples and records, holes, 0-d and empty leaves, in float32, bfloat16 and float16.

    Args:
        draw: Given by hypothesis.
        dtype: Dtype of all leaves instead.
    """
    return draw(problems(steps=0, dtype=dtype)).params


@st.composite
def gradients(draw: st.DrawFn, params: Any, dtype: mx.Dtype | None = None) -> Any:
    """Draw gradients for a tree of parameters, of any scale between 1e-3 and 10.

    Args:
        draw: Given by hypothesis.
        params: Tree of parameters.
        dtype: Dtype of all gradients; by default each has that of its parameter.
    """
    scale, seed = draw(st.sampled_from([1e-3, 1.0, 10.0])), draw(st.integers(0, 2**16))
    normal = tree.random_like(mx.random.key(seed), params, dtype=mx.float32)
    return tree.map(lambda leaf, drawn: (scale * drawn).astype(dtype or leaf.dtype), params, normal)


def counts(horizon: int = 1000) -> st.SearchStrategy[int]:
    """Draw counts of updates: small ones mostly, and some up to the last, 2**31 - 1.

    Args:
        horizon: Largest of the small ones.
    """
    return st.integers(0, horizon) | st.integers(0, LARGEST_COUNT)


@st.composite
def schedules(draw: st.DrawFn, low: float = 2.0**-20, high: float = 1.0) -> Curve:
    """Draw a schedule of this library between two values.

    Args:
        draw: Given by hypothesis.
        low: Smallest value.
        high: Largest value.
    """
    values, steps = st.floats(low, high, width=32), st.integers(1, 1000)
    start, end, length = draw(values), draw(values), draw(steps)
    kinds: list[Callable[[], Curve]] = [
        lambda: constant_schedule(start),
        lambda: linear_schedule(start, end, length),
        lambda: cosine_decay(start, length, end),
        lambda: with_warmup(linear_schedule(start, end, length), draw(steps), end),
    ]
    return draw(st.sampled_from(kinds))()


def hyperparameters(low: float = 2.0**-20, high: float = 1.0) -> st.SearchStrategy[Any]:
    """Draw what may stand for a number: a float, a 0-d array, or a schedule.

    Args:
        low: Smallest value.
        high: Largest value.
    """
    numbers = st.floats(low, high, width=32)
    return numbers | numbers.map(mx.array) | schedules(low, high)


@st.composite
def problems(draw: st.DrawFn, steps: int = 3, dtype: mx.Dtype | None = None) -> Problem:
    """Draw a tree of parameters and ``steps`` trees of gradients, of any scale between 1e-3 and 10.

    Gradients may have another dtype than their parameter, and their keys another order.

    Args:
        draw: Given by hypothesis.
        steps: Number of trees of gradients.
        dtype: Dtype of all leaves instead.
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
