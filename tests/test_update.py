from typing import Any

import mlx.core as mx
import mlx.nn
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxopt import MaskedNode, TreeError, apply_updates, incremental_update, periodic_update
from mlxopt.testing.comparing import plain

nn: Any = mlx.nn
LOW_PRECISION = [mx.float16, mx.bfloat16]
VALUES = st.floats(-100, 100, width=16)


# apply_updates


def test_an_update_too_small_for_bfloat16_leaves_the_nearest_number() -> None:
    one = mx.array(1.0, mx.bfloat16)
    assert apply_updates(one, mx.array(1e-3)).item() == 1.0
    assert apply_updates(one, mx.array(5e-3)).item() == 1.0078125


@pytest.mark.parametrize("dtype", LOW_PRECISION)
@given(params=st.lists(VALUES, min_size=4, max_size=4), updates=st.lists(VALUES, min_size=4, max_size=4))
def test_the_sum_is_rounded_once(dtype: mx.Dtype, params: list[float], updates: list[float]) -> None:
    p, u = mx.array(params, dtype), mx.array(updates, mx.float32) * 1e-2
    assert plain(apply_updates({"w": p}, {"w": u})) == plain({"w": (p.astype(mx.float32) + u).astype(dtype)})


def test_updates_of_low_precision_are_added_in_float32() -> None:
    params, updates = mx.array([1.0, 256.0], mx.bfloat16), mx.array([0.00390625, 1.5], mx.float16)
    expected = mx.array([1.00390625, 257.5]).astype(mx.bfloat16)
    assert plain(apply_updates(params, updates)) == plain(expected)


def test_holes_leave_their_parameter_alone() -> None:
    params = {"a": mx.array([1.0]), "b": (mx.array(2), mx.array(3.0)), "c": None}
    moved = apply_updates(params, {"a": MaskedNode(), "b": (None, mx.array(1.0)), "c": None})
    assert plain(moved) == plain({"a": mx.array([1.0]), "b": (mx.array(2), mx.array(4.0)), "c": None})


def test_a_parameter_left_alone_is_an_array_of_its_own() -> None:
    params = {"a": mx.array([1.0]), "b": mx.array([2.0])}
    moved = apply_updates(params, {"a": None, "b": mx.array([1.0])})
    moved["a"] += 5
    moved["b"] += 5
    assert plain(params) == plain({"a": mx.array([1.0]), "b": mx.array([2.0])})


@pytest.mark.parametrize("dtype", [mx.int8, mx.uint8, mx.int32, mx.int64])
def test_integers_take_integer_updates_exactly(dtype: mx.Dtype) -> None:
    assert plain(apply_updates({"n": mx.array([100], dtype)}, {"n": mx.array([7], dtype)})) == plain(
        {"n": mx.array([107], dtype)}
    )


def test_large_integers_are_not_rounded() -> None:
    assert apply_updates(mx.array(2**24 + 1), mx.array(2)).item() == 2**24 + 3


INTEGERS = [mx.int8, mx.int16, mx.int32, mx.int64, mx.uint8, mx.uint16, mx.uint32, mx.uint64]


def some_integers(dtype: mx.Dtype) -> list[int]:
    """As near to the ends as MLX takes from Python."""
    low, high = mx.iinfo(dtype).min, min(mx.iinfo(dtype).max, 2**63 - 1)
    return [max(low, min(value, high)) for value in (low, low + 1, -200, -1, 0, 1, 100, 300, high - 1, high)]


def assert_saturates(add: Any, dtype: mx.Dtype, other: mx.Dtype) -> None:
    limits = mx.iinfo(dtype)
    pairs = [(param, update) for param in some_integers(dtype) for update in some_integers(other)]
    moved = add(mx.array([p for p, _ in pairs], dtype), mx.array([u for _, u in pairs], other))
    assert moved.dtype == dtype
    assert moved.tolist() == [max(limits.min, min(p + u, limits.max)) for p, u in pairs]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_stay_at_the_ends_of_their_dtype(dtype: mx.Dtype) -> None:
    for other in INTEGERS:
        if mx.issubdtype(mx.result_type(mx.zeros((), dtype), mx.zeros((), other)), mx.integer):
            assert_saturates(apply_updates, dtype, other)


@pytest.mark.parametrize("dtype", [mx.int8, mx.int64, mx.uint64])
def test_integers_stay_at_the_ends_of_their_dtype_in_a_compiled_program(dtype: mx.Dtype) -> None:
    assert_saturates(mx.compile(apply_updates), dtype, dtype)


def test_unsigned_integers_of_64_bits_stay_at_the_largest() -> None:
    largest = ~mx.zeros((2,), mx.uint64)
    moved = apply_updates(largest - mx.array([1, 7], mx.uint64), mx.array([3, 3], mx.uint64))
    assert moved.tolist() == [2**64 - 1, 2**64 - 5]


def test_an_update_that_no_integer_holds_together_with_its_parameter_is_an_error_with_the_path() -> None:
    message = r"apply_updates: at 'n': a mlx\.core\.int32 parameter cannot take a mlx\.core\.uint64 update\. Cast"
    with pytest.raises(TreeError, match=message):
        apply_updates({"n": mx.array([1])}, {"n": mx.array([1], mx.uint64)})


def test_a_floating_update_of_an_integer_is_an_error_with_the_path() -> None:
    message = r"apply_updates: at 'x\.0': a mlx\.core\.int32 parameter cannot take a mlx\.core\.float32 update"
    with pytest.raises(TreeError, match=message):
        apply_updates({"x": [mx.array([1])]}, {"x": [mx.array([0.5])]})


@pytest.mark.parametrize("shape", [(1,), (), (3, 1), (4,)])
def test_an_update_of_another_shape_is_an_error_with_the_path(shape: tuple[int, ...]) -> None:
    message = r"apply_updates: at 'x\.w': shape \(.*\) does not fit shape \(3,\)"
    with pytest.raises(TreeError, match=message):
        apply_updates({"x": {"w": mx.zeros((3,))}}, {"x": {"w": mx.zeros(shape)}})


def test_updates_of_another_structure_are_an_error_with_the_path() -> None:
    with pytest.raises(TreeError, match=r"apply_updates: at 'x': .*missing \['w'\], unexpected \['v'\]"):
        apply_updates({"x": {"w": mx.zeros((3,))}}, {"x": {"v": mx.zeros((3,))}})
    with pytest.raises(TreeError, match=r"apply_updates: at 'x': expected None.*got an array of shape \(3,\)"):
        apply_updates({"x": None}, {"x": mx.zeros((3,))})


def test_an_update_that_is_no_array_is_an_error_with_the_path() -> None:
    with pytest.raises(TreeError, match=r"apply_updates: at 'x': every leaf must be an mx\.array, got 0\.5"):
        apply_updates({"x": mx.array(1.0)}, {"x": 0.5})
    with pytest.raises(TreeError, match=r"apply_updates: at 'x': every leaf must be an mx\.array, got 0\.5"):
        apply_updates({"x": 0.5}, {"x": mx.zeros(())})


def test_a_module_is_an_error_with_advice() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(TreeError, match=r"apply_updates: .* Linear .* Pass model\.trainable_parameters\(\)"):
        apply_updates(model, model.trainable_parameters())


def test_key_order_and_the_old_parameters_stay() -> None:
    params, updates = {"b": mx.array(1.0), "a": mx.array(2.0)}, {"a": mx.array(1.0), "b": mx.array(1.0)}
    before = plain(params)
    moved = apply_updates(params, updates)
    assert list(moved) == ["b", "a"]
    assert plain(params) == before


# incremental_update


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_an_average_of_low_precision_arrives(dtype: mx.Dtype) -> None:
    params, average = {"w": mx.array([1.0, -3.0], dtype)}, {"w": mx.zeros((2,), dtype)}
    for _ in range(3000):
        average = incremental_update(params, average, 1e-3)
        assert average["w"].dtype == mx.float32
    reached = 1 - (1 - 1e-3) ** 3000
    assert average["w"].tolist() == pytest.approx([reached, -3 * reached], rel=1e-4)


def test_incremental_update_takes_the_dtype_of_the_average() -> None:
    assert incremental_update(mx.array(1.0, mx.bfloat16), mx.array(0.0), 0.5).dtype == mx.float32
    assert incremental_update(mx.array(1.0), mx.array(1j), mx.array(0.5)).dtype == mx.complex64


@given(VALUES, VALUES)
def test_incremental_update_ends_at_old_and_new(new: float, old: float) -> None:
    assert incremental_update(mx.array(new), mx.array(old), 0.0).item() == old
    assert incremental_update(mx.array(new), mx.array(old), 1.0).item() == new


@pytest.mark.parametrize("step_size", [-0.1, 1.5, float("nan")])
def test_incremental_update_wants_a_share(step_size: float) -> None:
    with pytest.raises(ValueError, match=f"incremental_update: step_size must be .*got {step_size}"):
        incremental_update({}, {}, step_size)


def test_incremental_update_wants_one_structure() -> None:
    with pytest.raises(TreeError, match=r"at 'a': expected a list.*got a tuple"):
        incremental_update({"a": [mx.array(1.0)]}, {"a": (mx.array(1.0),)}, 0.5)


# periodic_update


@pytest.mark.parametrize("steps", [0, 1, 4, 5, 6, 10])
def test_periodic_update_takes_the_new_ones_at_multiples_of_the_period(steps: int) -> None:
    new, old = {"w": mx.array([1.0])}, {"w": mx.array([0.0])}
    expected = new if steps % 5 == 0 else old
    assert plain(periodic_update(new, old, steps, 5)) == plain(expected)
    assert plain(periodic_update(new, old, mx.array(steps), mx.array(5))) == plain(expected)


def test_periodic_update_keeps_a_nan_out_of_the_steps_between() -> None:
    assert periodic_update(mx.array(float("nan")), mx.array(1.0), 3, 2).item() == 1.0


@pytest.mark.parametrize(("period", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (None, TypeError)])
def test_periodic_update_wants_a_whole_period(period: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"periodic_update: update_period must be .*got {period}"):
        periodic_update({}, {}, 1, period)


def test_periodic_update_keeps_the_dtype() -> None:
    assert periodic_update(mx.ones((1,)), mx.zeros((1,), mx.bfloat16), 1, 1).dtype == mx.bfloat16


@pytest.mark.parametrize(
    "replace", [lambda new, old: incremental_update(new, old, 0.5), lambda new, old: periodic_update(new, old, 1, 1)]
)
def test_averages_refuse_to_broadcast(replace: Any) -> None:
    with pytest.raises(
        TreeError, match=r"^(incremental|periodic)_update: at 'w': shape \(3,\) does not fit shape \(1,\)"
    ):
        replace({"w": mx.ones((3,))}, {"w": mx.zeros((1,))})
