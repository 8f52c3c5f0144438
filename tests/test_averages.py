"""Two loops, lookahead and schedule-free steps: against their formulas, at their limits, and when misused."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from test_kernels import kernels_per_leaf
from test_wrappers import INNER, NAN, TARGETS, descend, start

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation, Params
from mlxopt.testing.comparing import is_finite, same, widened
from mlxopt.wrappers.outer import outer_update

GRADIENTS = [1.0, -0.5, 2.0, 0.25, -3.0, 0.5, 1.0, -1.0]


def close(one: Any, other: Any, tolerance: float = 1e-6) -> bool:
    return bool(tree.allclose(one, other, rtol=tolerance, atol=tolerance))


def walk(
    tx: GradientTransformation, w: float, grads: list[float] | None = None, dtype: mx.Dtype = mx.float32
) -> list[tuple[float, float]]:
    """One parameter after each of some gradients, and what is evaluated there."""
    params = {"w": mx.array(w, dtype)}
    state, found = tx.init(params), []
    for grad in GRADIENTS if grads is None else grads:
        updates, state = tx.update({"w": mx.array(grad, dtype)}, state, params)
        params = mo.apply_updates(params, updates)
        found.append((params["w"].item(), mo.eval_params(state, params)["w"].item()))
    return found


def flat(pairs: list[tuple[float, float]]) -> list[float]:
    return list(itertools.chain(*pairs))


# Two loops


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("inner", INNER)
def test_an_outer_step_of_rate_one_is_where_the_inner_one_arrived(inner: str, every: int) -> None:
    alone, _ = descend(INNER[inner](), start(), TARGETS)
    two_loops = mo.outer_optimizer(INNER[inner](), every, mo.sgd(1.0))
    assert close(descend(two_loops, start(), TARGETS)[0], alone)


@pytest.mark.parametrize("inner", INNER)
def test_lookahead_that_goes_all_the_way_at_every_step_is_its_base(inner: str) -> None:
    alone, _ = descend(INNER[inner](), start(), TARGETS)
    params, state = descend(mo.lookahead(INNER[inner](), 1, 1.0), start(), TARGETS)
    assert close(params, alone)
    assert close(mo.eval_params(state, params), params)


def test_without_momentum_outer_nesterov_is_lookahead() -> None:
    nesterov, lookahead = mo.outer_nesterov(mo.adam(0.1), 3, 0.5, 0.0), mo.lookahead(mo.adam(0.1), 3, 0.5)
    assert flat(walk(nesterov, 1.0)) == pytest.approx(flat(walk(lookahead, 1.0)))


def test_outer_nesterov_by_hand() -> None:
    """Every third step; the inner optimizer is gradient descent with rate 0.1."""
    w = anchor = 2.0
    momentum, expected = 0.0, []
    for step, grad in enumerate(GRADIENTS, 1):
        w -= 0.1 * grad
        if step % 3 == 0:
            slope = anchor - w
            momentum = 0.9 * momentum + slope
            w = anchor = anchor - 0.7 * (slope + 0.9 * momentum)
        expected.append((w, anchor))
    found = walk(mo.outer_nesterov(mo.sgd(0.1), 3, 0.7, 0.9), 2.0)
    assert flat(found) == pytest.approx(flat(expected))


def test_any_transformation_steps_outside() -> None:
    """Adam outside too: its first step is by the rate, whatever the inner one walked."""
    found = walk(mo.outer_optimizer(mo.sgd(0.1), 2, mo.adam(0.25)), 1.0, [1.0, 1.0, -3.0])
    assert found[1] == pytest.approx((0.75, 0.75))
    assert found[2] == pytest.approx((1.05, 0.75))


def test_the_outer_rule_takes_the_mean_of_several_machines() -> None:
    outer, anchor = mo.sgd(0.5, momentum=0.9, nesterov=True), start()
    here, there = (descend(mo.sgd(0.1), anchor, targets)[0] for targets in (TARGETS[:2], TARGETS[2:]))
    slope = tree.sub(anchor, tree.scale(0.5, tree.add(here, there)))
    params, state = outer_update(outer, anchor, slope, outer.init(anchor))
    assert close(params, tree.add_scale(anchor, -0.5 * 1.9, slope))
    assert close(tree.get(state, "trace"), slope)


def test_the_outer_learning_rate_is_visible_and_can_be_set() -> None:
    tx = mo.outer_nesterov(mo.sgd(0.1), 2, mo.linear_schedule(1.0, 0.0, 2), 0.0)
    _, state = descend(tx, start(), TARGETS)
    assert tree.get(state, "outer_learning_rate") == 0.5
    assert tree.get(state, "learning_rate") == mx.array(0.1)
    tx = mo.outer_nesterov(mo.sgd(0.1), 1)
    stays = tree.set(tx.init(start()), outer_learning_rate=0.0)
    assert same(descend(tx, start(), TARGETS, stays)[0], start())


def test_between_outer_steps_nothing_but_the_inner_one_moves() -> None:
    tx = mo.outer_nesterov(mo.adamw(0.1), 5)
    params, state = descend(tx, start(), TARGETS)
    alone, alone_state = descend(mo.adamw(0.1), start(), TARGETS)
    assert same((params, state.inner_state), (alone, alone_state))
    assert same((state.anchor, state.outer_state), (start(), tx.init(start()).outer_state))
    assert state.mini_step == 4


@pytest.mark.parametrize("inner", INNER)
def test_a_reset_starts_the_inner_optimizer_anew(inner: str) -> None:
    tx = mo.lookahead(INNER[inner](), 2, 0.5, reset_state=True)
    first = INNER[inner]().init(start())
    params, state = descend(tx, start(), TARGETS)
    assert same(state.inner_state, first)
    again = tx.init(params)
    assert close(descend(tx, params, TARGETS, state)[0], descend(tx, params, TARGETS, again)[0])
    _, state = descend(tx, start(), TARGETS[:3])
    assert not same(state.inner_state, first)


def test_a_reset_leaves_no_nan_behind() -> None:
    """A memory times zero would."""
    tx = mo.lookahead(mo.chain(mo.trace(0.9), mo.zero_nans(), mo.sgd(0.1)), 2, 0.5, reset_state=True)
    params, state = descend(tx, start(), [NAN])
    assert not is_finite(state.inner_state)
    _, state = descend(tx, params, TARGETS[:1], state)
    assert is_finite(state)


def test_slow_parameters_move_by_less_than_low_precision_holds() -> None:
    """From 1 the next bfloat16 is 0.0078 away; the fast parameter comes back to 1 after every step."""
    tx = mo.lookahead(mo.sgd(0.001), 2, 0.25)
    params = {"w": mx.array(1.0, mx.bfloat16)}
    state, slow = tx.init(params), 1.0
    for _ in range(3):
        for _ in range(2):
            updates, state = tx.update({"w": mx.array(-1.0, mx.bfloat16)}, state, params)
            params = mo.apply_updates(params, updates)
        slow += 0.25 * (1.001 - slow)
    assert params["w"].item() == 1.0
    assert state.anchor["w"].dtype == mx.float32
    assert state.anchor["w"].item() == pytest.approx(slow, abs=1e-7)


def test_lookahead_is_one_kernel_for_each_leaf(tmp_path: Path) -> None:
    assert kernels_per_leaf(tmp_path, mo.lookahead(mo.sgd(0.1), 5, 0.5)) == 1


def test_extras_reach_both_loops() -> None:
    guarded = mo.conditionally_mask(mo.sgd(0.1), lambda step, *, value: value < 1.0)
    tx = mo.outer_optimizer(mo.sgd(0.1), 1, guarded)
    moved, _ = tx.update(start(), tx.init(start()), start(), value=mx.array(0.5))
    stays, _ = tx.update(start(), tx.init(start()), start(), value=mx.array(2.0))
    assert not same(moved, tree.zeros_like(start()))
    assert same(stays, tree.zeros_like(start()))


# Schedule-free steps


def schedule_free_by_hand(w: float, rates: list[float], shares: list[float], power: float) -> list[tuple[float, float]]:
    """Gradient descent of a point z, the weighted mean x of where it was, and y between them."""
    x = y = z = w
    found, total, largest = [], 0.0, 0.0
    for grad, rate, share in zip(GRADIENTS, rates, shares, strict=True):
        z -= rate * (grad + 0.5 * y)
        largest = max(largest, rate)
        weight = largest**power
        total += weight
        x += weight / total * (z - x) if total else 0.0
        y = (1 - share) * z + share * x
        found.append((y, x))
    return found


STEPS = len(GRADIENTS)
RISE = mo.linear_schedule(0.0, 0.35, STEPS - 1)
RISES = [0.05 * step for step in range(STEPS)]
FALL = mo.linear_schedule(0.35, 0.0, STEPS - 1)
FALLS = RISES[::-1]


def decayed(learning_rate: Any) -> GradientTransformation:
    return mo.chain(mo.add_decayed_weights(0.5), mo.sgd(learning_rate))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_schedule_free_by_hand(power: float, share: float, dtype: mx.Dtype) -> None:
    for rate, rates in ((0.25, [0.25] * STEPS), (RISE, RISES), (FALL, FALLS)):
        found = walk(mo.schedule_free(decayed(rate), rate, share, power), 2.0, dtype=dtype)
        expected = schedule_free_by_hand(2.0, rates, [share] * STEPS, power)
        # One rounding of what is shown, and of the parameter that decays.
        tolerance = 1e-5 if dtype == mx.float32 else 2.0**-7
        assert flat(found) == pytest.approx(flat(expected), tolerance, tolerance)


def test_the_share_may_follow_a_schedule() -> None:
    """What the parameters hold of x is read with the share that they were made with."""
    shares = [0.5 + 0.05 * step for step in range(STEPS)]
    rising = mo.linear_schedule(0.5, 0.85, STEPS - 1)
    tx = mo.inject_hyperparams(mo.schedule_free_sgd)(0.25, b1=rising, weight_decay=0.5)
    expected = schedule_free_by_hand(2.0, [0.25] * STEPS, shares, 2.0)
    assert flat(walk(tx, 2.0)) == pytest.approx(flat(expected), 1e-5)


@pytest.mark.parametrize("inner", ["sgd", "adamw"])
def test_with_the_whole_share_it_is_averaging_of_the_inner_optimizer(inner: str) -> None:
    """With equal weights the parameters are the plain mean of all z."""
    tx = mo.schedule_free(INNER[inner](), 0.1, b1=1.0, weight_lr_power=0.0)
    params, state = start(), tx.init(start())
    seen = []
    for target in TARGETS:
        params, state = descend(tx, params, [target], state)
        seen.append(state.z)
        mean = tree.scale(1 / len(seen), tree.add(*seen))
        assert close(params, mean)
        assert same(mo.eval_params(state, params), params)


def test_a_constant_rate_makes_the_same_average_with_every_power() -> None:
    runs = [walk(mo.schedule_free(mo.sgd(0.25), 0.25, 0.9, power), 2.0) for power in (0.0, 1.0, 7.5)]
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("build", [mo.schedule_free_sgd, mo.schedule_free_adamw, mo.schedule_free_radam])
def test_bfloat16_is_averaged_as_float32_is(build: Callable[..., GradientTransformation]) -> None:
    """With the same gradients, to the bit: a mean of 300 moves by less than bfloat16 holds."""
    tx = build(0.01)
    update = mo.compile_update(tx)
    params = start(mx.bfloat16)
    exact = widened(params)
    state, exact_state = tx.init(params), tx.init(exact)
    for step in range(300):
        grads = tree.map(lambda p, t=0.5 + step % 3: mx.full(p.shape, t, mx.bfloat16), params)
        params, state = update(grads, state, params)
        exact, exact_state = update(widened(grads), exact_state, exact)
        mx.eval(params, state, exact, exact_state)
    average = mo.eval_params(exact_state, exact)
    assert same(mo.eval_params(state, params), tree.cast(average, mx.bfloat16))
    assert close(tree.get(state, "y"), exact)
    assert same(tree.get(state, "z"), tree.get(exact_state, "z"))
    assert same(params, tree.cast(exact, mx.bfloat16))


def test_what_is_kept_of_bfloat16_is_needed() -> None:
    """On a way of 0.376 an average that rounded parameters give, step after step, is off by 0.023."""
    tx = mo.schedule_free(mo.sgd(0.01), 0.01)

    def average(dtype: mx.Dtype, keep: bool) -> Params:
        params = start(dtype)
        state = tx.init(params)
        for step in range(200):
            if not keep:
                state = state._replace(y=widened(params))
            updates, state = tx.update(tree.full_like(params, 0.25 + step % 3 / 8), state, params)
            params = mo.apply_updates(params, updates)
        return mo.eval_params(state, widened(params))

    exact = average(mx.float32, keep=True)
    assert same(average(mx.bfloat16, keep=True), exact)
    assert not close(average(mx.bfloat16, keep=False), exact, 0.01)


def test_only_low_precision_is_kept_twice() -> None:
    params = {"a": mx.zeros((2,)), "b": mx.zeros((2,), mx.bfloat16), "c": mx.zeros((2,), mx.float16), "n": mx.array(1)}
    state = mo.schedule_free(mo.sgd(0.1), 0.1).init(params)
    assert tree.paths(state.y) == ["b", "c"]
    assert tree.paths(state.z) == ["a", "b", "c"]
    assert {leaf.dtype for leaf in tree.leaves((state.y, state.z))} == {mx.float32}


def test_rates_so_small_that_their_squares_vanish_average_as_others_do() -> None:
    tx = mo.schedule_free(mo.scale(-1.0), 1e-30, 0.9)
    assert walk(tx, 2.0) == walk(mo.schedule_free(mo.scale(-1.0), 0.5, 0.9), 2.0)


def test_a_long_run_keeps_its_count_of_weights() -> None:
    """A float32 sum of a million weights of 0.01 is off by 1 %."""
    tx = mo.schedule_free(mo.sgd(0.1), 0.1)
    state = tx.init(start())._replace(weight_sum=mx.array(2.0**20), max_lr=mx.array(0.1))
    for _ in range(3):
        _, state = tx.update(start(), state, start())
    assert state.weight_sum == 2**20 + 3


@pytest.mark.parametrize("b1", [0.9, 1.0])
def test_steps_of_rate_zero_do_not_count(b1: float) -> None:
    waits = mo.join_schedules([mo.constant_schedule(0.0), mo.constant_schedule(0.5)], [2])
    late = walk(mo.schedule_free(mo.sgd(waits), waits, b1), 2.0)
    assert late[:2] == [(2.0, 2.0)] * 2
    assert late[2:] == walk(mo.schedule_free(mo.sgd(0.5), 0.5, b1), 2.0, GRADIENTS[2:])


def test_the_learning_rate_of_a_recipe_is_set_once_for_steps_and_weights() -> None:
    tx = mo.schedule_free_sgd(0.125)
    _, state = descend(tx, start(), TARGETS)
    _, state = descend(tx, start(), TARGETS[:1], tree.set(state, learning_rate=0.25))
    assert tree.get(state, "max_lr") == 0.25
    assert tree.get(state, "weight_sum") == 1 + 4 * 0.5**2


def test_the_first_step_of_a_warm_up_is_no_loss() -> None:
    rates = []
    for tx in (mo.schedule_free_sgd(0.5, warmup_steps=4), mo.schedule_free_adamw(lambda count: 0.5, warmup_steps=4)):
        state = tx.init(start())
        for _ in range(5):
            _, state = tx.update(start(), state, start())
            rates.append(tree.get(state, "learning_rate").item())
    assert rates == [0.125, 0.25, 0.375, 0.5, 0.5] * 2
    assert walk(mo.schedule_free_sgd(0.5, warmup_steps=1), 2.0) == walk(mo.schedule_free_sgd(0.5), 2.0)


def test_radam_waits_until_it_knows_the_power() -> None:
    tx = mo.schedule_free_radam(0.1)
    found = walk(tx, 2.0)
    assert found[:4] == [(2.0, 2.0)] * 4
    y, x = found[4]
    assert y == x != 2.0
    faster = mo.inject_hyperparams(mo.schedule_free_radam, static_args="b2")(0.1)
    assert flat(walk(faster, 2.0)) == pytest.approx(flat(found))


def test_it_moves_what_has_gradients() -> None:
    params = {"w": mx.array(1.0), "frozen": mx.array(2.0), "steps": mx.array(3)}
    inner = mo.masked(mo.sgd(0.5), mo.by_path("w", "frozen"), otherwise="pass")
    for tx in (mo.schedule_free(inner, 0.5), mo.lookahead(inner, 1, 0.5)):
        updates, state = tx.update({"w": mx.array(1.0), "frozen": None, "steps": None}, tx.init(params), params)
        moved = mo.apply_updates(params, updates)
        assert moved["w"] != 1.0
        assert same({**mo.eval_params(state, moved), "w": params["w"]}, params)
        updates, state = tx.update({**updates, "steps": mx.array(1)}, state, moved)
        moved = mo.apply_updates(moved, updates)
        assert mo.eval_params(state, moved)["steps"] == moved["steps"] == mx.array(4)


# What to evaluate with


TWO_POINTS: dict[str, Callable[[], GradientTransformation]] = {
    "lookahead": lambda: mo.lookahead(mo.adam(0.1), 2, 0.5),
    "schedule_free": lambda: mo.schedule_free_adamw(0.1),
}

AROUND: dict[str, Callable[[GradientTransformation], GradientTransformation]] = {
    "chain": lambda tx: mo.chain(mo.clip(1e9), tx),
    "multi_steps": lambda tx: mo.multi_steps(tx, 1),
    "apply_if_finite": lambda tx: mo.apply_if_finite(tx, 2),
    "masked": lambda tx: mo.masked(tx, True, otherwise="zero"),
    "partition": lambda tx: mo.partition({"weight": tx, "bias": tx}, lambda path, leaf: path.rsplit(".")[-1]),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", TWO_POINTS)
def test_what_to_evaluate_with_is_found_in_everything(name: str, around: str) -> None:
    params, state = descend(TWO_POINTS[name](), start(), TARGETS[:3])
    deep, deep_state = descend(AROUND[around](TWO_POINTS[name]()), start(), TARGETS[:3])
    assert same(mo.eval_params(deep_state, deep), mo.eval_params(state, params))
    assert not close(mo.eval_params(state, params), params)


@pytest.mark.parametrize("name", TWO_POINTS)
def test_a_resumed_run_evaluates_the_same(name: str, tmp_path: Path) -> None:
    for dtype in (mx.float32, mx.bfloat16):
        tx = TWO_POINTS[name]()
        params, state = descend(tx, start(dtype), TARGETS[:3])
        file = str(tmp_path / f"{dtype}.safetensors")
        mo.checkpoint.save(file, {"params": params, "state": state})
        run = mo.checkpoint.load(file, like={"params": start(dtype), "state": tx.init(start(dtype))})
        params, state = descend(tx, params, TARGETS, state)
        resumed, resumed_state = descend(tx, run["params"], TARGETS, run["state"])
        assert same(mo.eval_params(resumed_state, resumed), mo.eval_params(state, params))


@pytest.mark.parametrize("name", TWO_POINTS)
def test_a_state_of_other_parameters_is_refused(name: str) -> None:
    tx = TWO_POINTS[name]()
    with pytest.raises(ValueError, match=r"eval_params: the state does not fit params: .*missing"):
        mo.eval_params(tx.init({"other": mx.array(1.0)}), start())
    with pytest.raises(ValueError, match=r"eval_params: the state does not fit params: at 'w': shape"):
        mo.eval_params(tx.init({"w": mx.zeros((2,))}), {"w": mx.zeros((3,))})


# What cannot be


ZERO: Any = mx.array(0.0)

BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: mo.lookahead(mo.sgd(0.1), 0, 0.5), r"lookahead: sync_period must be in \[1, "),
    (lambda: mo.lookahead(mo.sgd(0.1), 2, 1.5), r"lookahead: slow_step_size must be in \[0, 1\], got 1.5"),
    (lambda: mo.lookahead(mo.sgd(0.1), 2, -0.5), r"lookahead: slow_step_size must be in \[0, 1\], got -0.5"),
    (lambda: mo.outer_optimizer(mo.sgd(0.1), 0, mo.sgd(0.1)), r"outer_optimizer: every must be in \[1, "),
    (lambda: mo.outer_nesterov(mo.sgd(0.1), 0), r"outer_nesterov: every must be in \[1, "),
    (lambda: mo.outer_nesterov(mo.sgd(0.1), 2, -1.0), r"outer_nesterov: outer_learning_rate must be in \[0, inf\]"),
    (lambda: mo.outer_nesterov(mo.sgd(0.1), 2, momentum=1.0), r"outer_nesterov: momentum must be in \[0, 1\)"),
    (lambda: mo.schedule_free(mo.sgd(0.1), -0.1), r"schedule_free: learning_rate must be in \[0, inf\]"),
    (lambda: mo.schedule_free(mo.sgd(0.1), 0.1, 1.5), r"schedule_free: b1 must be in \[0, 1\], got 1.5"),
    (lambda: mo.schedule_free(mo.sgd(0.1), 0.1, 0.0), r"schedule_free: b1 must be above 0, got 0.0: .*Use chain\("),
    (lambda: mo.schedule_free(mo.sgd(0.1), 0.1, ZERO), r"schedule_free: b1 must be above 0, got 0.0. Pass a positive"),
    (lambda: mo.schedule_free(mo.sgd(0.1), 0.1, 0.9, -1.0), r"schedule_free: weight_lr_power must be in \[0, inf\]"),
    (lambda: mo.schedule_free_sgd(-1.0), r"schedule_free_sgd: learning_rate must be in \[0, inf\]"),
    (lambda: mo.schedule_free_sgd(0.1, b1=0.0), r"schedule_free_sgd: b1 must be above 0"),
    (lambda: mo.schedule_free_sgd(0.1, -1), r"schedule_free_sgd: warmup_steps must be in \[0, "),
    (lambda: mo.schedule_free_adamw(0.1, -1), r"schedule_free_adamw: warmup_steps must be in \[0, "),
    (lambda: mo.schedule_free_adamw(0.1, b1=0.0), r"schedule_free_adamw: b1 must be above 0"),
    (lambda: mo.schedule_free_radam(-0.1), r"schedule_free_radam: learning_rate must be in \[0, inf\]"),
    (lambda: mo.schedule_free_radam(0.1, b1=0.0), r"schedule_free_radam: b1 must be above 0"),
    (lambda: mo.schedule_free_radam(0.1, b2=0.0), r"schedule_free_radam: b2 must be above 0"),
    (lambda: mo.schedule_free_radam(0.1, b2=1.0), r"schedule_free_radam: b2 must be in \[0, 1\)"),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_what_cannot_be_is_said(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda inner: mo.lookahead(inner, 2, 0.5),
        lambda inner: mo.outer_nesterov(inner, 2),
        lambda inner: mo.outer_optimizer(inner, 2, mo.sgd(0.1)),
        lambda inner: mo.outer_optimizer(mo.sgd(0.1), 2, inner),
        lambda inner: mo.schedule_free(inner, 0.1),
    ],
)
def test_what_is_no_transformation_is_refused(build: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"expected a GradientTransformation, got <function sgd"):
        build(mo.sgd)


@pytest.mark.parametrize("name", TWO_POINTS)
def test_parameters_are_needed(name: str) -> None:
    tx = TWO_POINTS[name]()
    with pytest.raises(ValueError, match="update needs params, got None"):
        tx.update(start(), tx.init(start()))
