"""Numbers that become inputs while a step is traced."""

import mlx.core as mx
import pytest

import mlxopt as mo
from mlxopt.tracing import as_input, compiling


def test_numbers_are_inputs_only_inside_a_step() -> None:
    assert as_input(0.5) == 0.5
    with compiling():
        inside = as_input(0.5)
        assert isinstance(inside, mx.array)
        assert (inside.dtype, inside.item()) == (mx.float32, 0.5)
    assert as_input(0.5) == 0.5


def test_counts_stay_whole() -> None:
    with compiling():
        count = as_input(2**31 - 1)
    assert isinstance(count, mx.array)
    assert (count.dtype, count.item()) == (mx.int32, 2**31 - 1)


def test_numbers_that_are_no_counts_do_not_wrap_and_keep_their_sign() -> None:
    with compiling():
        large, zero, negative = (as_input(number) for number in (2**40, 0.0, -0.0))
    assert isinstance(large, mx.array)
    assert (large.dtype, large.item()) == (mx.float32, 2.0**40)
    assert [str(mx.array(value).item()) for value in (zero, negative)] == ["0.0", "-0.0"]


def test_arrays_pass() -> None:
    array = mx.array(0.5, mx.float16)
    with compiling():
        assert as_input(array) is array


def test_a_step_that_fails_leaves_no_trace() -> None:
    def fail(updates: object, params: object) -> object:
        raise RuntimeError("stop")

    step = mo.compile_update(mo.stateless(fail))
    params = {"w": mx.ones((2,))}
    with pytest.raises(RuntimeError, match="stop"):
        step(params, mo.EmptyState(), params)
    assert as_input(0.5) == 0.5
