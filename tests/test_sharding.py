"""Memory shared out over ranks: the same updates to the bit, and what cannot be shared out is refused."""

from typing import Any

import mlx.core as mx
import pytest
from ranks import World
from test_distributed import eager, start, together

import mlxopt as mo
from mlxopt import distributed, tree
from mlxopt.base import GradientTransformation, Params
from mlxopt.distributed import sharding
from mlxopt.distributed.averages import _require_whole
from mlxopt.distributed.shares import By, Share, Span, gathered_parts, owners, part_of, ranges, remembered_of, span_at
from mlxopt.testing.comparing import same
from mlxopt.testing.problems import nested_problem
from mlxopt.testing.subjects import run

Group = mx.distributed.Group


# Who has what


def elements_of(shares: list[Share]) -> list[dict[str, set[int]]]:
    return [{path: set(range(span.start, span.stop)) for path, span in share.items()} for share in shares]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 100])
def test_ranges_are_equal_and_make_up_everything(size: int) -> None:
    params = start()
    shares = elements_of(ranges(params, size))
    lengths = [sum(len(elements) for elements in share.values()) for share in shares]
    assert max(lengths) - min(lengths) <= 1
    for path, leaf in tree.items(params):
        held = [element for share in shares for element in sorted(share.get(path, ()))]
        assert held == list(range(leaf.size))
        assert any(path in share for share in shares)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 100])
def test_each_leaf_has_one_owner(size: int) -> None:
    params = start()
    shares = owners(params, size)
    assert sorted(path for share in shares for path in share) == sorted(tree.paths(params))
    assert all(span.is_whole for share in shares for span in share.values())


def test_leaves_are_dealt_out_by_what_is_remembered_of_them() -> None:
    params = {"a": mx.zeros((6,)), "b": mx.zeros((4,)), "c": mx.zeros((4,)), "still": mx.zeros((9,))}
    tx = mo.partition(
        {"adam": mo.scale_by_adam(), "trace": mo.trace(0.9), "still": mo.set_to_zero()},
        {"a": "adam", "b": "trace", "c": "trace", "still": "still"},
    )
    remembered = remembered_of(params, tx.init(params))
    assert remembered == {"a": 48, "b": 16, "c": 16, "still": 0}
    assert [sorted(share) for share in owners(params, 2, remembered)] == [["a", "still"], ["b", "c"]]
    assert [sorted(share) for share in owners(params, 2)] == [["c", "still"], ["a", "b"]]


def test_two_leaves_of_one_path_are_an_error() -> None:
    params = {"a": {"b": mx.zeros((2,))}, "a.b": mx.zeros((2,))}
    with pytest.raises(mo.TreeError, match=r"'a.b' is the path of two leaves. Rename a key; best without dots"):
        owners(params, 2)


def test_a_part_names_the_range_of_a_leaf_that_is_cut() -> None:
    params = {"a": mx.arange(2.0), "w": mx.arange(6.0).reshape(2, 3)}
    first, second = (part_of(params, share) for share in ranges(params, 2))
    assert same(first, {"a": mx.arange(2.0), "w": {"0:2 of 6": mx.array([0.0, 1.0])}})
    assert same(second, {"a": tree.MaskedNode(), "w": {"2:6 of 6": mx.arange(2.0, 6.0)}})
    assert span_at("mu.w.2:6 of 6") == ("mu.w", Span(2, 6, 6))
    assert span_at("2:6 of 6") == ("", Span(2, 6, 6))
    assert span_at("mu.12:6 of it") == ("mu.12:6 of it", None)


def language_model(width: int = 768, layers: int = 12, vocabulary: int = 50257) -> Params:
    """The leaves of a small GPT-2."""

    def linear(rows: int, columns: int) -> dict[str, mx.array]:
        return {"weight": mx.zeros((rows, columns)), "bias": mx.zeros((rows,))}

    def norm() -> dict[str, mx.array]:
        return {"weight": mx.zeros((width,)), "bias": mx.zeros((width,))}

    block = {
        "attention": {name: linear(width, width) for name in ("query", "key", "value", "out")},
        "mlp": {"up": linear(4 * width, width), "down": linear(width, 4 * width)},
        "norms": [norm(), norm()],
    }
    return {
        "embedding": {"weight": mx.zeros((vocabulary, width))},
        "positions": {"weight": mx.zeros((1024, width))},
        "layers": [block] * layers,
        "norm": norm(),
    }


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
def test_a_rank_keeps_its_share_of_the_bytes_of_a_language_model(name: str, size: int) -> None:
    tx: GradientTransformation = getattr(mo, name)(1e-3)
    params = language_model()
    remembered = remembered_of(params, tx.init(params))
    whole, largest = tree.nbytes(tx.init(params)), max(remembered.values())
    by_leaf = [tree.nbytes(tx.init(part_of(params, share))) for share in owners(params, size, remembered)]
    assert max(by_leaf) <= max(1.1 * whole / size, largest + 1000)  # a leaf alone may be more than a share
    if name == "adamw":
        by_element = [tree.nbytes(tx.init(part_of(params, share))) for share in ranges(params, size)]
        assert max(by_element) - min(by_element) <= 8
        assert max(by_element) <= whole / size + 100
    if size == 2:
        assert min(by_leaf) >= 0.9 * whole / size


# One process


@pytest.mark.parametrize("by", ["leaf", "element"])
def test_one_rank_has_everything(by: By) -> None:
    inner = mo.chain(mo.adamw(0.1), mo.average_params(0.9))
    tx, problem = distributed.shard(inner, by=by), nested_problem()
    alone, sharded = run(inner, problem), run(tx, problem)
    assert same(sharded.updates, alone.updates)
    assert same([state.inner_state for state in sharded.states], alone.states)
    assert same(mo.eval_params(sharded.states[-1], problem.params), mo.eval_params(alone.states[-1], problem.params))
    assert repr(distributed.shard(mo.lion(0.1), by=by)) == f"shard({mo.lion(0.1)!r}, by={by!r})"
    assert "mu" in mo.describe(tx, problem.params)


def test_what_is_inside_can_be_read_and_set() -> None:
    tx, params = distributed.shard(mo.inject_hyperparams(mo.sgd)(0.5)), {"w": mx.array(1.0)}
    state = tree.set(tx.init(params), learning_rate=0.25)
    assert same(tx.update(params, state, params)[0], {"w": mx.array(-0.25)})
    assert tree.get(state, "learning_rate") == mx.array(0.25)


ADVICE = r"Put it before: chain\({}\(...\), shard\(...\)\). One of your own that looks no further says so"


@pytest.mark.parametrize(
    ("inner", "by", "message"),
    [
        (
            mo.chain(mo.clip_by_global_norm(1.0), mo.adamw(0.1)),
            "leaf",
            r"shard: inner must look at one leaf at a time, but clip_by_global_norm\(1.0\) looks at the whole tree, "
            "and would see a part of it. " + ADVICE.format("clip_by_global_norm"),
        ),
        (
            mo.lookahead(mo.partition({"a": mo.lamb(0.1), "b": mo.dog()}, lambda path, leaf: "a"), 2, 0.5),
            "leaf",
            r"but scale_by_dog\(.*\) looks at the whole tree.*" + ADVICE.format("scale_by_dog"),
        ),
        (
            mo.flatten(mo.adam(0.1)),
            "element",
            r"one element at a time, but flatten\(adam\(.*" + ADVICE.format("flatten"),
        ),
        (mo.sam(mo.sgd(0.1)), "leaf", r"but normalize\(\) looks at the whole tree"),
        (distributed.shard(mo.sgd(0.1)), "leaf", r"but shard\(sgd\(0.1\), by='leaf'\) looks at the whole tree"),
        (
            mo.chain(mo.clip(1.0), mo.lamb(0.1)),
            "element",
            r"shard: by='element' needs what looks at one element at a time, but scale_by_trust_ratio\(.*\) looks at "
            r"whole leaves. Pass by='leaf'\.",
        ),
    ],
    ids=["norm", "dog", "flatten", "sam", "shard", "lamb"],
)
def test_what_looks_further_is_refused(inner: GradientTransformation, by: By, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distributed.shard(inner, by=by)


def test_bad_arguments_are_told() -> None:
    with pytest.raises(TypeError, match=r"shard: expected a GradientTransformation, got 3"):
        distributed.shard(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shard: by must be one of .*'leaf', 'element'.*, got 'row'"):
        distributed.shard(mo.sgd(0.1), by="row")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"shard: group must be one of mx.distributed, got 2. Pass mx.distributed.init"):
        distributed.shard(mo.sgd(0.1), 2)  # type: ignore[arg-type]
    tx, params = distributed.shard(mo.sgd(0.1)), {"w": mx.array(1.0)}
    with pytest.raises(TypeError, match=r"shard: state must be a ShardedState, got tuple"):
        tx.update(params, mo.sgd(0.1).init(params), params)


def test_averages_must_make_up_whole_leaves() -> None:
    halves: list[Share] = [{"w": Span(0, 2, 5)}, {"w": Span(2, 5, 5)}]
    _require_whole(halves, ["b", "w"])
    message = (
        r"eval_params: averages of 'w' on all ranks must make up the whole leaf, got {} of 5. They are found where"
    )
    with pytest.raises(ValueError, match=message.format("2:5")):
        _require_whole([{}, halves[1]], ["w"])
    with pytest.raises(ValueError, match=message.format("0:5, 0:5")):
        _require_whole([{"w": Span(0, 5, 5)}] * 2, ["w"])


# Several ranks


def compiled_steps(group: Group) -> list[tuple[Any, Any]]:
    """Parameters and losses: plain, by leaf, by element."""
    found = []
    for tx in (mo.adamw(0.05), *(distributed.shard(mo.adamw(0.05), group, by=by) for by in ("leaf", "element"))):
        params, state, loss = together(group, tx)
        distributed.check_replicas((params, state), group)
        found.append((params, loss))
    return found


def test_compiled_steps_are_those_of_plain_averaging(two: World) -> None:
    for plain, by_leaf, by_element in two.run(compiled_steps):
        assert same(by_leaf, plain)
        assert same(by_element, plain)


@mo.readable
def agreeing() -> GradientTransformation:
    """Leave out what has another sign than the gradient: by the ``grad`` of its own elements."""

    def update(updates: Any, state: Any, params: Any = None, *, grad: Any, value: Any) -> Any:
        return tree.map(lambda u, g: mx.where(u * g > 0, value * u, 0.0), updates, grad), state

    return mo.GradientTransformation(mo.identity().init, update, reach="element")


def weights(path: str, leaf: mx.array) -> str:
    return "matrix" if leaf.ndim == 2 else "other"


def with_holes() -> Params:
    params = start()
    params["layers"][0]["bias"] = None
    return {**params, "hole": tree.MaskedNode()}


def complex_and_low() -> Params:
    keys = mx.random.split(mx.random.key(4), 4)
    return {
        "complex": mx.random.normal((3,), key=keys[0]) + 1j * mx.random.normal((3,), key=keys[1]),
        "low": mx.random.normal((5, 3), key=keys[2]).astype(mx.bfloat16),
        "high": mx.random.normal((2, 2), key=keys[3]),
    }


INNER: dict[str, tuple[GradientTransformation, tuple[By, ...]]] = {
    "adamw": (mo.adamw(0.05), ("leaf", "element")),
    "lion": (mo.lion(0.01), ("leaf", "element")),
    "muon": (mo.muon(0.05, ns_steps=2, matrices=lambda path, leaf: leaf.ndim == 2), ("leaf",)),
    "adafactor": (mo.adafactor(0.05, min_dim_size_to_factor=2), ("leaf",)),
    "lamb": (mo.lamb(0.05), ("leaf",)),
    "schedule_free": (mo.schedule_free_sgd(0.05), ("leaf", "element")),
    "average": (mo.chain(mo.sgd(0.05), mo.average_params(0.5)), ("leaf", "element")),
    "extras": (mo.chain(mo.trace(0.9), agreeing(), mo.scale(-0.1)), ("leaf", "element")),
    "partition": (mo.partition({"matrix": mo.adamw(0.05), "other": mo.sgd(0.05)}, weights), ("leaf",)),
}


def steps(group: Group, tx: GradientTransformation, params: Params, count: int = 3) -> tuple[Params, Params]:
    """Steps of a loop that takes gradients by itself: parameters, and what to evaluate with."""
    tx = mo.chain(distributed.average_gradients(group), tx)
    state = tx.init(params)
    for index in range(count):
        keys = mx.random.split(mx.random.key(100 * index + group.rank()), 2)
        grads = tree.random_like(keys[0], params)
        value = mx.array(1.0 + index)
        updates, state = tx.update(grads, state, params, value=value, grad=tree.scale(0.5 + index, params))
        params = mo.apply_updates(params, updates)
        mx.eval(params, state)
    distributed.check_replicas((params, state), group)
    return params, mo.eval_params(state, params)


def in_loops_of_ones_own(group: Group, names: list[str]) -> dict[str, bool]:
    found = {}
    for name in names:
        inner, kinds = INNER[name]
        trees = {
            "even": start(),
            "low": start(mx.bfloat16),
            "holes": with_holes(),
            "empty": {},
            "one": mx.zeros((3, 2)),
        }
        if name == "adamw":
            trees["complex"] = complex_and_low()
        for kind, params in trees.items():
            plain = steps(group, inner, params)
            for by in kinds:
                sharded = steps(group, distributed.shard(inner, group, by=by), params)
                found[f"{name} by {by}: {kind}"] = same(sharded, plain)
    return found


def test_loops_of_ones_own_are_those_of_plain_averaging(two: World) -> None:
    for found in two.run(in_loops_of_ones_own, [*INNER]):
        assert [name for name, is_same in found.items() if not is_same] == []


def of_four(group: Group) -> tuple[bool, ...]:
    """More ranks than leaves, some of which have nothing; and of one leaf."""
    inner = mo.adamw(0.05)
    few = {"a": mx.ones((3, 2)), "b": mx.ones((5,))}
    plain, alone = steps(group, inner, few)[0], steps(group, inner, mx.ones(()))[0]
    return (
        same(steps(group, distributed.shard(inner, group), few)[0], plain),
        same(steps(group, distributed.shard(inner, group, by="element"), few)[0], plain),
        same(steps(group, distributed.shard(inner, group), mx.ones(()))[0], alone),
    )


def test_more_ranks_than_leaves(four: World) -> None:
    assert four.run(of_four) == [(True, True, True)] * 4


def with_what_looks_further(group: Group) -> tuple[Any, Any]:
    """A norm before, and the shard inside of wrappers that look at everything."""

    def built(inner: GradientTransformation) -> GradientTransformation:
        wrapped = mo.partition({"matrix": inner, "other": mo.sgd(0.1)}, weights)
        return mo.skip_outliers(mo.chain(mo.clip_by_global_norm(0.1), wrapped), window=2)

    with eager():
        plain = together(group, built(mo.muon(0.1, ns_steps=1)))
        sharded = together(group, built(distributed.shard(mo.muon(0.1, ns_steps=1), group)))
        return plain[0], sharded[0]


def test_what_looks_further_stands_around(two: World) -> None:
    for plain, sharded in two.run(with_what_looks_further):
        assert same(plain, sharded)


def averages_inside_of_partition(group: Group) -> tuple[Any, Any]:
    def built(by: By | None) -> GradientTransformation:
        inner = mo.chain(mo.adam(0.1), mo.average_params(0.5))
        return mo.partition(
            {"matrix": inner if by is None else distributed.shard(inner, group, by=by), "other": mo.sgd(0.1)}, weights
        )

    plain, *sharded = [steps(group, built(by), start())[1] for by in (None, "leaf", "element")]
    return plain, sharded


def test_averages_are_found_inside_of_partition(two: World) -> None:
    for plain, sharded in two.run(averages_inside_of_partition):
        assert [same(found, plain) for found in sharded] == [True, True]


def without_params(group: Group) -> None:
    tx, params = distributed.shard(mo.sgd(0.1), group), {"w": mx.ones((2,))}
    tx.update(params, tx.init(params))


def test_shares_need_params(two: World) -> None:
    for outcome in two.outcomes(without_params):
        assert "shard: update needs params, got None. Call update(updates, state, params)." in str(outcome)


def reads_one_leaf_first(group: Group) -> Any:
    """Updates of which each rank looks at another leaf before it sends something else."""
    tx, params = distributed.shard(mo.sgd(0.5), group, by="element"), {"a": mx.ones((24,)), "b": mx.ones((30,))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "BUCKET_BYTES", 32)
        updates, _ = tx.update(params, tx.init(params), params)
        mx.eval(updates["b" if group.rank() else "a"])
        distributed.check_replicas({"w": mx.ones(())}, group)
        return tree.scale(-2.0, updates), params


def test_who_looks_at_one_leaf_gets_all(two: World) -> None:
    for found, wanted in two.run(reads_one_leaf_first):
        assert same(found, wanted)


def without_a_mean(group: Group) -> list[str]:
    """What a step says that takes gradients and does not average them, where others may."""
    tx = distributed.shard(mo.sgd(0.1), group)
    mo.compile_update(tx)
    mo.compile_step(bowl, mo.chain(distributed.average_gradients(group), tx))
    said = []
    for compiles in (mo.compile_step, mo.compile_accumulation):
        try:
            compiles(bowl, mo.chain(mo.clip(1.0), tx))
        except ValueError as error:
            said.append(str(error))
    return said


def bowl(params: Params) -> mx.array:
    return tree.norm(params, squared=True)


def test_a_step_of_ones_own_gradients_is_refused(two: World) -> None:
    message = (
        "{}: each rank would update its share by its own gradients, got shard(...) on 2 ranks and no group. Pass {}("
    )
    for said in two.run(without_a_mean):
        assert len(said) == 2
        for name, text in zip(("compile_step", "compile_accumulation"), said, strict=True):
            assert text.startswith(message.format(name, name))
    assert without_a_mean(mx.distributed.init()) == []


def bits_in_messages(group: Group, nbytes: int) -> tuple[bool, bool]:
    """Whether leaves of many forms come back from their parts, in messages of some size."""
    whole = {
        "odd": mx.array([0x7FC00007, 0x80000000, 1], mx.uint32).view(mx.float32),
        "low": mx.arange(7).astype(mx.bfloat16).reshape(7, 1),
        "complex": mx.array([1 + 2j, 3 - 4j, 5j]),
        "short": mx.arange(5).astype(mx.int16),
        "truth": mx.array([True, False, True]),
        "scalar": mx.array(7, mx.int32),
        "empty": mx.zeros((0, 3)),
        "large": mx.random.normal((11, 3), key=mx.random.key(1)),
    }

    def gathered(row: mx.array) -> mx.array:
        came = mx.distributed.all_gather(row, group=group)
        mx.eval(came)
        return came

    def comes_back(shares: list[Share]) -> bool:
        mine = part_of(whole, shares[group.rank()])
        found = gathered_parts(mine, group.rank(), shares, tree.zeros_like(whole), gathered, nbytes)
        bits = [tree.map(lambda leaf: leaf.reshape(-1).view(mx.uint8), node) for node in (found, whole)]
        return same(*bits)

    return comes_back(owners(whole, group.size())), comes_back(ranges(whole, group.size()))


@pytest.mark.parametrize("nbytes", [1, 16, 2**20])
def test_parts_come_together_to_the_bit(two: World, nbytes: int) -> None:
    assert two.run(bits_in_messages, nbytes) == [(True, True)] * 2
