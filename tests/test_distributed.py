"""Steps of several ranks together: what they compute, that replicas stay the same to the bit, and what is refused."""

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis
import hypothesis.strategies as st
import mlx.core as mx
import pytest
from ranks import Ended, RanksError, World
from registry import ENTRIES

import mlxopt as mo
from mlxopt import distributed, tree
from mlxopt.base import GradientTransformation, Params, State
from mlxopt.distributed.messages import planned
from mlxopt.testing import strategies
from mlxopt.testing.comparing import same

Group = mx.distributed.Group


@contextmanager
def eager() -> Iterator[None]:
    """Without compilers, which would take most of the time; the order of messages is the same."""
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()


def start(dtype: mx.Dtype = mx.float32) -> Params:
    """Parameters of uneven sizes: a matrix, vectors, a scalar, an empty leaf."""
    keys = mx.random.split(mx.random.key(0), 3)
    return {
        "scale": mx.array(0.5, dtype),
        "layers": [
            {"weight": mx.random.normal((4, 6), key=keys[0]).astype(dtype), "bias": mx.zeros((6,), dtype)},
            {"weight": mx.random.normal((6, 2), key=keys[1]).astype(dtype), "empty": mx.zeros((0, 3), dtype)},
        ],
    }


def batch(step: int, part: int, length: int = 8) -> tuple[mx.array, mx.array]:
    """What a part of all ranks sees in a step."""
    keys = mx.random.split(mx.random.key(1000 * step + part + 1))
    return mx.random.normal((length, 4), key=keys[0]), mx.random.normal((length, 2), key=keys[1])


def loss_fn(params: Params, x: mx.array, y: mx.array) -> mx.array:
    first, last = params["layers"]
    hidden = mx.tanh(x @ first["weight"] + first["bias"])
    return mx.mean(mx.square(params["scale"] * hidden @ last["weight"] - y)).astype(mx.float32)


def together(
    group: Group, tx: GradientTransformation, steps: int = 3, dtype: mx.Dtype = mx.float32
) -> tuple[Params, State, mx.array]:
    """Steps of all ranks, and the last loss."""
    params, loss = start(dtype), mx.array(0.0)
    state = tx.init(params)
    step = mo.compile_step(loss_fn, tx, group=group)
    for index in range(steps):
        params, state, loss = step(params, state, *batch(index, group.rank()))
        mx.eval(params, state)
    return params, state, loss


def alone(size: int, tx: GradientTransformation, steps: int = 3) -> tuple[Params, State, mx.array]:
    """The same steps in one process, whose loss is the mean of those of all parts."""

    def mean_loss(params: Params, *parts: tuple[mx.array, mx.array]) -> mx.array:
        total, *rest = (loss_fn(params, *part) for part in parts)
        for value in rest:
            total = total + value
        return total / size

    params, loss = start(), mx.array(0.0)
    state = tx.init(params)
    step = mo.compile_step(mean_loss, tx)
    for index in range(steps):
        params, state, loss = step(params, state, *(batch(index, part) for part in range(size)))
    return params, state, loss


def apart(one: Any, other: Any) -> float:
    """The largest difference between two trees."""
    gaps = tree.map(
        lambda x, y: mx.max(mx.abs(x.astype(mx.float32) - y.astype(mx.float32))) if x.size else 0.0, one, other
    )
    return max(float(gap) for gap in tree.leaves(gaps))


# What they compute


def compiled_steps(group: Group) -> tuple[Any, Any]:
    tx = mo.chain(mo.clip_by_global_norm(0.5), mo.adamw(0.05))
    return together(group, tx), alone(group.size(), tx)


def test_two_ranks_are_one_process_with_the_mean_of_their_gradients(two: World) -> None:
    for found, wanted in two.run(compiled_steps):
        assert same(found, wanted)


def test_four_ranks_are_one_process_but_for_rounding(four: World) -> None:
    outcomes = four.run(compiled_steps)
    for found, wanted in outcomes:
        assert same(found, outcomes[0][0])
        assert apart(found[:2], wanted[:2]) < 2e-6


def every_optimizer(group: Group, names: list[str]) -> dict[str, Any]:
    """How far each ends from where one process does, and what came out."""
    entries = {entry.name: entry for entry in ENTRIES}
    with eager(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = {}
        for name in names:
            tx = entries[name].build()
            found = together(group, tx)
            results[name] = apart(found[0], alone(group.size(), tx)[0]), found[:2]
        return results


OPTIMIZERS = [entry.name for entry in ENTRIES if entry.rate is not None]


def test_every_optimizer_keeps_replicas_the_same(two: World) -> None:
    here, there = two.run(every_optimizer, OPTIMIZERS, deadline=120.0)
    for name in OPTIMIZERS:
        assert same(here[name][1], there[name][1]), name
        assert here[name][0] == 0, name


def big_batch(group: Group) -> tuple[Any, Any]:
    """Steps of all ranks, and of one process that sees all that they see at once."""
    tx = mo.sgd(0.1)
    params, state = start(), tx.init(start())
    step = mo.compile_step(loss_fn, tx)
    for index in range(3):
        parts = [batch(index, part) for part in range(group.size())]
        params, state, _ = step(params, state, *(mx.concatenate([*rows]) for rows in zip(*parts, strict=True)))
    with eager():
        return together(group, tx)[0], params


def test_ranks_see_parts_of_one_batch(two: World) -> None:
    for found, wanted in two.run(big_batch):
        assert apart(found, wanted) < 1e-6


def of_tokens(group: Group, tokens: list[int]) -> tuple[Any, Any]:
    """A weighted mean of parts of unequal length, by the step and by the whole; a rank with nothing has a NaN."""
    tx, params = mo.sgd(0.1), start()
    parts = [batch(0, part, length) for part, length in enumerate(tokens)]

    def weighted(params: Params, x: mx.array, y: mx.array) -> tuple[mx.array, mx.array, Any]:
        return (
            loss_fn(params, x, y),
            mx.array(len(x)),
            {"size": distributed.Averaged(mx.array(float(len(x)))), "mine": x},
        )

    with eager():
        step = mo.compile_step(weighted, tx, has_aux=True, weighted=True, group=group)
        found, _, loss, aux = step(params, tx.init(params), *parts[group.rank()])
        assert aux["mine"].shape == (tokens[group.rank()], 4)
        whole = [mx.concatenate([*rows]) for rows in zip(*parts, strict=True)]
        wanted, _, loss_of_all = mo.compile_step(loss_fn, tx)(params, tx.init(params), *whole)
    size = sum(n * n for n in tokens) / sum(tokens)
    return (found, loss, aux["size"]), (wanted, loss_of_all, mx.array(size))


@pytest.mark.parametrize("tokens", [[3, 8], [8, 0]])
def test_ranks_count_by_their_weight(two: World, tokens: list[int]) -> None:
    for found, wanted in two.run(of_tokens, tokens):
        assert apart(found, wanted) < 1e-6


def accumulated(group: Group, sizes: list[list[int]]) -> tuple[Any, Any, int]:
    """A step of micro-batches of unequal number and length, by ranks and by one process; and how often they spoke."""
    tx, params = mo.adam(0.1), start()
    micro = [[batch(index, rank, size) for index, size in enumerate(of_rank)] for rank, of_rank in enumerate(sizes)]
    with eager():
        step = mo.compile_accumulation(loss_fn, tx, group=group)
        found = step(params, tx.init(params), micro[group.rank()])
        one = mo.compile_accumulation(loss_fn, tx)
        return found, one(params, tx.init(params), [part for of_rank in micro for part in of_rank]), 0


def test_micro_batches_of_all_ranks_make_one_step(two: World) -> None:
    for found, wanted, _ in two.run(accumulated, [[4, 4, 2], [7]]):
        assert apart(found[::2], wanted[::2]) < 1e-6


def equal_micro_batches(group: Group) -> tuple[Any, Any]:
    tx = mo.adam(0.1)
    with eager():
        step = mo.compile_accumulation(loss_fn, tx, group=group)
        params, state = start(), tx.init(start())
        for index in range(3):
            params, state, loss = step(params, state, [batch(index, group.rank())] * 4)
        return (params, state, loss), together(group, tx)


def test_equal_micro_batches_are_one_to_the_bit(two: World) -> None:
    for found, wanted in two.run(equal_micro_batches):
        assert same(found, wanted)


def of_functions(group: Group) -> tuple[Any, Any]:
    """What takes values and gradients elsewhere sees those of all ranks."""
    with eager():
        txs = [mo.sam(mo.sgd(0.1)), mo.chain(mo.sgd(1.0), mo.scale_by_backtracking_linesearch(5))]
        return [together(group, tx)[0] for tx in txs], [alone(group.size(), tx)[0] for tx in txs]


def test_functions_of_parameters_are_means_too(two: World) -> None:
    outcomes = two.run(of_functions)
    for found, wanted in outcomes:
        assert same(found, outcomes[0][0])
        assert apart(found, wanted) < 1e-6


# Messages


def on_the_wire(group: Group, dtype: mx.Dtype, wire: mx.Dtype | None, bucket_bytes: int) -> tuple[Any, Any]:
    """The gradients of all ranks by average_gradients, and their mean."""
    tx = distributed.average_gradients(group, wire=wire, bucket_bytes=bucket_bytes)
    parts = [gradients(rank, dtype) for rank in range(group.size())]
    found, _ = tx.update(tree.cast(parts[group.rank()], mx.float32), tx.init(parts[0]))
    wide = [tree.cast(part, mx.float32) for part in parts]
    return found, tree.map(lambda *of_ranks: sum(of_ranks[1:], of_ranks[0]) / group.size(), *wide)


def gradients(rank: int, dtype: mx.Dtype = mx.float32) -> Any:
    key = mx.random.key(rank)
    return tree.cast(
        tree.random_like(key, {**start(), "hole": None, "row": (mx.zeros((3, 1, 2)), mx.zeros((1,)))}), dtype
    )


def means_of(group: Group, of_ranks: list[Any]) -> Any:
    tx = distributed.average_gradients(group, bucket_bytes=16)
    return tx.update(of_ranks[group.rank()], tx.init(of_ranks[0]))[0]


@hypothesis.given(data=st.data())
def test_means_of_any_tree(two: World, data: st.DataObject) -> None:
    params = data.draw(strategies.trees(dtype=mx.float32))
    of_ranks = [data.draw(strategies.gradients(params)) for _ in range(2)]
    wanted = tree.map(lambda here, there: (here + there) / 2, *of_ranks)
    for found in two.run(means_of, of_ranks):
        assert same(found, wanted)


def low_precision(group: Group) -> Any:
    with eager():
        return together(group, mo.adamw(0.05), dtype=mx.bfloat16)


def test_replicas_of_low_precision_stay_the_same(two: World) -> None:
    here, there = two.run(low_precision)
    assert same(here, there)
    assert here[0]["layers"][0]["weight"].dtype == mx.bfloat16


def of_nothing(group: Group) -> Any:
    with eager():
        step = mo.compile_step(lambda params, x: x, mo.adam(0.1), group=group)
        return step({}, mo.adam(0.1).init({}), mx.array(float(group.rank())))


def test_an_empty_tree_has_a_mean_loss_all_the_same(two: World) -> None:
    for params, _, loss in two.run(of_nothing):
        assert params == {}
        assert loss == mx.array(0.5)


def test_mpi_computes_the_same(two_of_mpi: World) -> None:
    here, there = two_of_mpi.run(looks_at_other_things)
    assert same(here, there)
    for found, wanted in two_of_mpi.run(on_the_wire, mx.float32, None, 64):
        assert same(found, wanted)
    for found, _ in two_of_mpi.run(replicated):
        assert same(found, bits(odd_values(0)))
    for outcome in two_of_mpi.outcomes(unlike, "dtype"):
        assert "is bfloat16 (6,) where rank 0 has float32 (6,)" in str(outcome)


@pytest.mark.parametrize("bucket_bytes", [4, 64, 2**25])
def test_the_size_of_messages_changes_nothing(two: World, bucket_bytes: int) -> None:
    for found, wanted in two.run(on_the_wire, mx.float32, None, bucket_bytes):
        assert same(found, wanted)


def test_what_fits_the_wire_is_added_exactly(two: World) -> None:
    for found, wanted in two.run(on_the_wire, mx.bfloat16, mx.bfloat16, 64):
        assert same(found, wanted)


def test_what_does_not_is_rounded_once(four: World) -> None:
    """Each by half a unit of bfloat16, 2^-9 of itself at most; its mean by no more than the largest of them."""
    largest = max(
        float(mx.max(mx.abs(leaf))) for rank in range(4) for leaf in tree.leaves(gradients(rank)) if leaf.size
    )
    for found, wanted in four.run(on_the_wire, mx.float32, mx.bfloat16, 64):
        assert 0 < apart(found, wanted) <= 2**-9 * largest


def test_small_leaves_go_together_and_large_ones_alone() -> None:
    sizes = [8, 8, 64, 4, 0, 4]
    rows = [(mx.float32, size) for size in sizes] + [(mx.bfloat16, 2)]
    assert planned(rows, 16) == [[0, 1], [2], [3, 5], [6]]


def complex_means(group: Group) -> Any:
    tx = distributed.average_gradients(group, wire=mx.bfloat16)
    grads = {"c": mx.array([[1 + 2j, 4j], [3, group.rank()]])}
    return tx.update(grads, tx.init(grads))[0]


def test_complex_gradients_are_averaged(two: World) -> None:
    for found in two.run(complex_means):
        assert same(found, {"c": mx.array([[1 + 2j, 4j], [3, 0.5]])})


def inside_of_partition(group: Group) -> Any:
    """Where nn.average_gradients crashes: the two averages see holes in the place of each other's leaves."""
    average = distributed.average_gradients(group)
    tx = mo.partition(
        {"matrix": mo.chain(average, mo.scale(2.0)), "other": average},
        lambda path, leaf: "matrix" if leaf.ndim == 2 else "other",
    )
    params, grads = start(), tree.full_like(start(), 1.0 + group.rank())
    update = mo.compile_update(mo.chain(tx, mo.scale(-1.0)))
    return tree.sub(params, update(grads, tx.init(params) and mo.chain(tx, mo.scale(-1.0)).init(params), params)[0])


def test_averages_work_inside_of_partitions(two: World) -> None:
    for found in two.run(inside_of_partition):
        for path, leaf in tree.items(found):
            assert mx.allclose(leaf, mx.array(3.0 if leaf.ndim == 2 else 1.5)), path


def looks_at_other_things(group: Group) -> Any:
    """Each rank evaluates something else, at other times: messages stand in line all the same."""
    tx = mo.adamw(0.05)
    params, state = start(), tx.init(start())
    step = mo.compile_step(loss_fn, tx, group=distributed.Exchange(group, bucket_bytes=32))
    losses = []
    for index in range(6):
        params, state, loss = step(params, state, *batch(index, group.rank()))
        losses.append(loss)
        if (index + group.rank()) % 3 == 0:
            mx.eval(losses[index // 2] if group.rank() else params["scale"])
    return params, losses


def test_no_order_of_evaluation_mixes_messages_up(two: World) -> None:
    here, there = two.run(looks_at_other_things)
    assert same(here, there)


def from_another_thread(group: Group) -> str:
    mx.eval(distributed.replicate({"w": mx.zeros((2,))}, group))
    errors = []

    def other() -> None:
        try:
            distributed.check_replicas({"w": mx.zeros((2,))}, group)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    return errors[0]


def test_a_second_thread_is_refused(two: World) -> None:
    for message in two.run(from_another_thread):
        assert message.startswith("distributed: all messages must be sent by one thread, got a second one.")


# Replicas


def odd_values(rank: int) -> Any:
    """Values that arithmetic would lose, of every dtype."""
    shifted = rank + 1
    return {
        "zeros": mx.array([-0.0, 0.0]) if rank == 0 else mx.ones((2,)),
        "nan": mx.array([0x7FC00000 + 7 * shifted, 0xFF800001], mx.uint32).view(mx.float32),
        "low": mx.array([shifted, -0.0]).astype(mx.bfloat16),
        "half": mx.array([shifted, 65504.0]).astype(mx.float16),
        "large": mx.array([shifted - 2**62], mx.int64),
        "small": mx.array([250 + shifted], mx.uint8),
        "truth": mx.array([rank == 0, rank != 0]),
        "complex": mx.array([1 + 2j * shifted]),
        "empty": (mx.zeros((0, 2)), None),
        "scalar": mx.array(shifted, mx.int32),
    }


def bits(node: Any) -> Any:
    return tree.map(lambda leaf: leaf.reshape(-1).view(mx.uint8), node)


def replicated(group: Group) -> tuple[Any, str]:
    """The bits of replicas, and what is said of values that are none."""
    told = ""
    try:
        distributed.check_replicas(odd_values(group.rank()), group)
    except distributed.ReplicaError as error:
        told = str(error)
    found = distributed.replicate(odd_values(group.rank()), group)
    distributed.check_replicas(found, group)
    return bits(found), told


def test_replicas_are_those_of_rank_0_to_the_bit(four: World) -> None:
    for found, told in four.run(replicated):
        assert same(found, bits(odd_values(0)))
        assert "'complex' differs on ranks 1, 2, 3 from rank 0" in told
        assert "and 4 more" in told


def one_bit(group: Group, place: tuple[int, int]) -> None:
    weight = mx.arange(12.0).reshape(3, 4)
    if group.rank() == 1:
        weight[place] = (weight[place].view(mx.uint32) + 1).view(mx.float32)
    distributed.check_replicas({"a": mx.zeros((5,)), "w": weight}, group)


@pytest.mark.parametrize("place", [(0, 0), (2, 3)])
def test_one_bit_that_differs_is_found_on_every_rank(two: World, place: tuple[int, int]) -> None:
    for outcome in two.outcomes(one_bit, place):
        assert "check_replicas: all ranks must hold the same values, but 'w' differs on rank 1 from rank 0." in str(
            outcome
        )
        assert "'a'" not in str(outcome)


def swapped(group: Group) -> None:
    """The same values in other places."""
    distributed.check_replicas({"w": mx.array([1.0, 2.0] if group.rank() else [2.0, 1.0])}, group)


def test_values_in_other_places_are_found(two: World) -> None:
    assert all("'w' differs" in str(outcome) for outcome in two.outcomes(swapped))


def drifting(group: Group) -> None:
    """A step that knows nothing of other ranks."""
    params, tx = start(), mo.sgd(0.1)
    with eager():
        params, _, _ = mo.compile_step(loss_fn, tx)(params, tx.init(params), *batch(0, group.rank()))
    distributed.check_replicas(params, group)


def test_a_step_without_the_group_drifts_and_is_caught(two: World) -> None:
    for outcome in two.outcomes(drifting):
        assert "'layers.0.weight' differs on rank 1 from rank 0" in str(outcome)
        assert "Average gradients by compile_step(..., group=group), and start from replicate(params, group)." in str(
            outcome
        )


# Ranks that do different things


def unlike(group: Group, what: str) -> None:
    params, tx, state = start(), mo.adam(0.1), None
    first = params["layers"][0]
    if group.rank() == 1:
        if what == "shape":
            first["bias"] = mx.zeros((6, 1))
        elif what == "dtype":
            first["bias"] = first["bias"].astype(mx.bfloat16)
        elif what == "missing":
            del first["bias"]
        elif what == "order":
            params["layers"][0] = dict(reversed(first.items()))
        elif what == "rate":
            tx = mo.adam(0.2)
        elif what == "values":
            params["scale"] = mx.array(0.75)
    state = tx.init(params)
    if what == "state" and group.rank() == 1:
        state = tree.set(state, learning_rate=0.3)
    size = 64 if what == "messages" and group.rank() == 1 else 32
    with eager():
        step = mo.compile_step(loss_fn, tx, group=distributed.Exchange(group, bucket_bytes=size))
        step(params, state, *batch(0, 0))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("shape", "on rank 1 'params.layers.0.bias' is float32 (6, 1) where rank 0 has float32 (6,)"),
        ("dtype", "on rank 1 'params.layers.0.bias' is bfloat16 (6,) where rank 0 has float32 (6,)"),
        ("missing", "on rank 1 'params.layers.0.bias' is missing where rank 0 has float32 (6,)"),
        ("order", "'params.layers.0.bias' stands where rank 0 has 'params.layers.0.weight': the order of keys differs"),
        ("rate", "on rank 1 'the transformation' is adam(0.2, b1=0.9,"),
        ("messages", "'the exchange' is Exchange(size=2, wire=None, bucket_bytes=64)"),
        ("values", "'params.scale' differs on rank 1 from rank 0"),
        ("state", "learning_rate' differs on rank 1 from rank 0"),
    ],
)
def test_ranks_that_differ_are_told_so_on_all(two: World, what: str, message: str) -> None:
    for outcome in two.outcomes(unlike, what):
        assert message in str(outcome)


def test_ranks_that_differ_are_named(four: World) -> None:
    def named(outcome: Any) -> bool:
        return "compile_step: all ranks must do the same, but on rank 1 " in str(outcome)

    assert all(named(outcome) for outcome in four.outcomes(unlike, "dtype"))


def grows_on_one_rank(group: Group) -> str:
    """A rank that gets other parameters later raises before it sends anything; the others go on when it comes back."""
    tx = mo.sgd(0.1)
    step = mo.compile_step(lambda params: mx.sum(params["w"]), tx, group=group)
    params = {"w": mx.zeros((3,))}
    params, state, _ = step(params, tx.init(params))
    message = ""
    if group.rank() == 1:
        larger = {"w": mx.zeros((4,))}
        try:
            step(larger, tx.init(larger))
        except ValueError as error:
            message = str(error)
    mx.eval(step(params, state))
    return message


def test_a_later_change_of_one_rank_is_refused_there(two: World) -> None:
    assert two.run(grows_on_one_rank) == [
        "",
        "compile_step: parameters and state must keep the form in which ranks compared them at the first call, got "
        "another. Compile another step for them, on all ranks.",
    ]


def draws(group: Group, apart: bool) -> list[str]:
    """Warnings of a step with dropout."""
    mx.random.seed(group.rank() if apart else 0)

    def dropout(params: Params, x: mx.array) -> mx.array:
        return mx.mean(params["w"] * mx.random.bernoulli(0.5, x.shape))

    tx, params = mo.sgd(0.1), {"w": mx.ones((4,))}
    with warnings.catch_warnings(record=True) as caught, eager():
        warnings.simplefilter("always")
        step = mo.compile_step(dropout, tx, group=group)
        for _ in range(2):
            params, _, _ = step(params, tx.init(params), mx.ones((4,)))
    return [str(warning.message) for warning in caught]


def test_equal_draws_are_a_warning(two: World) -> None:
    for told in two.run(draws, False):
        assert len(told) == 1
        assert told[0].startswith("compile_step: all ranks drew the same random numbers")
    assert two.run(draws, True) == [[], []]


# Ranks that go, and ranks that hang


def goes_in_mid_run(group: Group, how: str) -> str:
    """The last rank leaves after two steps; what the others see."""
    tx = mo.sgd(0.1)
    params, state = start(), tx.init(start())
    try:
        with distributed.deadline(3.0), eager():
            step = mo.compile_step(loss_fn, tx, group=group)
            for index in range(4):
                if index == 2 and group.rank() == group.size() - 1:
                    if how == "hangs":
                        time.sleep(30)
                    raise SystemExit(9)
                params, state, _ = step(params, state, *batch(index, group.rank()))
                mx.eval(params, state)
    except RuntimeError as error:
        return str(error)
    return "all steps were made"


def test_a_neighbour_of_a_lost_rank_raises_at_once() -> None:
    with World(2) as world:
        here, there = world.run_to_the_end(goes_in_mid_run, "leaves")
    assert "connection to a peer was lost" in str(here)
    assert there == Ended(9)


def test_who_waits_for_a_rank_that_hangs_ends_at_the_deadline() -> None:
    with World(2) as world:
        outcomes = world.run_to_the_end(goes_in_mid_run, "hangs")
        assert outcomes == [Ended(75), Ended(75)]
        assert "deadline: rank 0 has waited 3 s, for ranks that are gone or do something else." in world.log


def in_time(group: Group) -> bool:
    with distributed.deadline(0.2):
        distributed.check_replicas({"w": mx.zeros((3,))}, group)
    time.sleep(0.4)
    return True


def test_who_is_in_time_goes_on(two: World) -> None:
    assert two.run(in_time) == [True, True]


# Steps of each rank alone


def local_and_simulated(group: Group, every: int) -> tuple[Any, Any]:
    """Ranks that meet now and then, and the same done by one process for all of them."""
    outer, size = mo.sgd(0.7, momentum=0.9, nesterov=True), group.size()
    with eager():
        tx = mo.adamw(0.05)
        step = mo.compile_step(loss_fn, tx)
        local = distributed.local_steps(every, group=group)
        params, state = start(), tx.init(start())
        met = local.init(params)
        runs = [(params, state)] * size
        anchor, outer_state = params, outer.init(params)
        for index in range(2 * every + 1):
            params, state, _ = step(params, state, *batch(index, group.rank()))
            params, met = local(params, met)
            runs = [step(*run, *batch(index, rank))[:2] for rank, run in enumerate(runs)]
            if index % every == every - 1:
                walked = [tree.sub(anchor, params_of_rank) for params_of_rank, _ in runs]
                mean = tree.map(lambda *of_ranks: sum(of_ranks[1:], of_ranks[0]) / size, *walked)
                updates, outer_state = outer.update(mean, outer_state, anchor)
                anchor = mo.apply_updates(anchor, updates)
                runs = [(anchor, state_of_rank) for _, state_of_rank in runs]
    return (params, met.anchor, mo.eval_params(met, params)), (runs[group.rank()][0], anchor, anchor)


@pytest.mark.parametrize("every", [1, 3])
def test_two_ranks_that_meet_are_two_simulated_ones(two: World, every: int) -> None:
    for found, wanted in two.run(local_and_simulated, every):
        assert same(found, wanted)


def test_four_ranks_that_meet_are_four_simulated_ones(four: World) -> None:
    for found, wanted in four.run(local_and_simulated, 2):
        assert apart(found, wanted) < 1e-6


def apart_from_the_start(group: Group) -> None:
    params = {"w": mx.full((2,), float(group.rank()))}
    local = distributed.local_steps(1, group=group)
    local(params, local.init(params))


def test_ranks_that_set_out_from_different_places_are_told_so(two: World) -> None:
    for outcome in two.outcomes(apart_from_the_start):
        assert "'anchor.w' differs on rank 1 from rank 0" in str(outcome)


# One process


def test_one_process_gets_what_it_has() -> None:
    group = mx.distributed.init()
    params = start()
    assert distributed.replicate(params) is params
    distributed.check_replicas(params)
    tx = mo.chain(distributed.average_gradients(group), mo.adam(0.1))
    alone_step, step = mo.compile_step(loss_fn, mo.adam(0.1)), mo.compile_step(loss_fn, mo.adam(0.1), group=group)
    state = mo.adam(0.1).init(params)
    with eager():
        assert same(step(params, state, *batch(0, 0)), alone_step(params, state, *batch(0, 0)))
        grads = gradients(0)
        assert same(tx.update(grads, tx.init(grads))[0], mo.adam(0.1).update(grads, state_of(grads))[0])


def state_of(grads: Any) -> State:
    return mo.adam(0.1).init(grads)


def test_compile_update_averages_gradients_and_the_value(two: World) -> None:
    for found in two.run(updates_with_value):
        assert float(found["w"][0]) == pytest.approx(-1.5 * 0.5)


def updates_with_value(group: Group) -> Params:
    """Gradients 1 and 2, values 0 and 1: a step by the mean of one times the mean of the other."""

    def update(updates: Any, state: Any, params: Any = None, *, value: mx.array) -> tuple[Any, Any]:
        return tree.scale(-value, updates), state

    tx = mo.GradientTransformation(lambda params: (), update)
    with eager():
        step = mo.compile_update(tx, group=group)
        grads = {"w": mx.full((2,), 1.0 + group.rank())}
        return step(grads, (), {"w": mx.zeros((2,))}, value=float(group.rank()))[0]


def anything(value: Any) -> Any:
    """What types would not allow."""
    return value


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: distributed.average_gradients(anything({"w": mx.zeros((2,))})),
            TypeError,
            r"average_gradients: group must be one of mx.distributed, got a dict. This is no function of gradients as "
            r"in mlx.nn: write chain\(average_gradients\(\), ...\), or compile_step\(..., group=group\).",
        ),
        (
            lambda: distributed.Exchange(anything(3)),
            TypeError,
            "Exchange: group must be one of mx.distributed, got 3. Pass mx.d",
        ),
        (
            lambda: distributed.Exchange(wire=mx.float32),
            ValueError,
            "Exchange: wire must be mx.bfloat16, mx.float16 or None, got mlx.core.float32. Pick one of them.",
        ),
        (
            lambda: distributed.Exchange(bucket_bytes=3),
            ValueError,
            r"Exchange: bucket_bytes must be in \[4, 2\*\*31 - 1\]",
        ),
        (lambda: distributed.local_steps(0), ValueError, r"local_steps: every must be in \[1, 2\*\*31 - 1\], got 0"),
        (
            lambda: distributed.local_steps(2, anything(0.1)),
            TypeError,
            "local_steps: expected a GradientTransformation, got 0.1",
        ),
        (
            lambda: distributed.local_steps(2)({"w": mx.zeros((2,))}, anything(())),
            TypeError,
            r"local_steps: state must be a LocalStepsState, got tuple. Pass what init\(params\) or the last call",
        ),
        (lambda: distributed.deadline(0.0).__enter__(), ValueError, "deadline: seconds must be above 0, got 0.0"),
        (
            lambda: mo.compile_step(
                loss_fn, mo.chain(distributed.average_gradients(), mo.sgd(0.1)), group=mx.distributed.init()
            ),
            ValueError,
            r"compile_step: gradients must be averaged once, got a group and average_gradients\(\) in the chain. Leave "
            r"the latter out; what it was told goes into compile_step\(..., group=Exchange\(group, wire=...\)\).",
        ),
        (lambda: distributed.replicate({"w": 1.0}), ValueError, "replicate: at 'w': every leaf must be an mx.array"),
        (
            lambda: distributed.check_replicas({"w": 1.0}),
            ValueError,
            "check_replicas: at 'w': every leaf must be an mx.array, got 1.0. Wrap it in mx.array",
        ),
    ],
)
def test_bad_input_is_told_what_to_do(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def integer_gradients(group: Group) -> None:
    tx = distributed.average_gradients(group)
    grads = {"layers": [{"count": mx.array([1, 2])}]}
    tx.update(grads, tx.init(grads))


def test_whole_numbers_have_no_mean(two: World) -> None:
    with pytest.raises(RanksError, match=r"at 'layers.0.count': a mean of mlx.core.int32 cannot be taken over ranks"):
        two.run(integer_gradients)
