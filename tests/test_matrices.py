"""Orthogonal matrices: the iteration against exact decompositions, stacks, and the optimizers built on them."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from test_kernels import kernels

import mlxopt as mo
from mlxopt import tree
from mlxopt.compiled.program import TracedProgram
from mlxopt.numerics import matrices
from mlxopt.testing.comparing import number, same
from mlxopt.tracing import tracing
from mlxopt.tree import stacking

SHAPES = [(5, 5), (3, 7), (7, 3), (2, 9), (1, 4), (4, 1), (1, 1)]


def normal(*shape: int, seed: int = 0) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def polar(x: mx.array) -> mx.array:
    """The orthogonal factor by singular value decomposition."""
    u, _, v = mx.linalg.svd(x, stream=mx.cpu)
    rank = min(x.shape[-2:])
    return u[..., :, :rank] @ v[..., :rank, :]


def distance(x: mx.array, y: mx.array) -> float:
    return number(mx.max(mx.abs(x - y)))


@pytest.mark.parametrize("preconditioning", ["frobenius", "schatten", "aol"])
@pytest.mark.parametrize("shape", SHAPES)
def test_many_steps_find_the_orthogonal_factor(shape: tuple[int, int], preconditioning: Any) -> None:
    x = normal(*shape)
    result = mo.newton_schulz(x, "polar_express", 14, preconditioning=preconditioning)
    if preconditioning == "aol":  # scales rows, so that rows stay orthogonal but the factor is another one
        wide = result if shape[0] <= shape[1] else result.T
        assert distance(wide @ wide.T, mx.eye(min(shape))) < 1e-4
    else:
        assert distance(result, polar(x)) < 1e-4


@pytest.mark.parametrize(
    ("preset", "low", "high"), [("standard", 0.6, 1.25), ("dion", 0.8, 1.2), ("polar_express", 0.85, 1.15)]
)
def test_five_steps_bring_singular_values_near_one(preset: str, low: float, high: float) -> None:
    u, v = polar(normal(6, 6)), polar(normal(6, 6, seed=1))
    singular_values = mx.array([1.0, 0.7, 0.5, 0.3, 0.1, 0.05])
    _, found, _ = mx.linalg.svd(mo.newton_schulz((u * singular_values) @ v, preset), stream=mx.cpu)
    assert low < number(mx.min(found))
    assert number(mx.max(found)) < high


@pytest.mark.parametrize("shape", SHAPES)
def test_rotating_before_is_rotating_after(shape: tuple[int, int]) -> None:
    x, left, right = (
        normal(*shape),
        polar(normal(shape[0], shape[0], seed=1)),
        polar(normal(shape[1], shape[1], seed=2)),
    )
    assert distance(mo.newton_schulz(left @ x @ right), left @ mo.newton_schulz(x) @ right) < 1e-4


def test_the_scale_does_not_matter() -> None:
    x = normal(4, 6)
    for factor in (1e-12, 1e12):
        assert distance(mo.newton_schulz(factor * x, eps=0.0), mo.newton_schulz(x, eps=0.0)) < 1e-5


def test_a_tall_matrix_is_a_wide_one_transposed() -> None:
    x = normal(7, 3)
    assert same(mo.newton_schulz(x.T), mo.newton_schulz(x).T)


@pytest.mark.parametrize("steps", range(1, 9))
def test_long_matrices_take_a_cheaper_way_to_the_same_result(steps: int) -> None:
    x, rows = normal(2, 4, 32) / 20, matrices.coefficients("", "polar_express", steps)
    assert distance(matrices._iterate_gram(x, rows), matrices._iterate(x, rows)) < 1e-5


def test_a_stack_is_its_matrices_one_by_one() -> None:
    x = normal(3, 2, 4, 6)
    together = mo.newton_schulz(x)
    for i in range(3):
        for j in range(2):
            assert distance(together[i, j], mo.newton_schulz(x[i, j])) < 1e-6


def test_zero_stays_zero() -> None:
    for preconditioning in ("frobenius", "schatten", "aol"):
        assert number(mx.max(mx.abs(mo.newton_schulz(mx.zeros((2, 3)), preconditioning=preconditioning)))) == 0


# As a transformation


def direction(tx: mo.GradientTransformation, updates: Any) -> Any:
    return tx.update(updates, tx.init(updates), updates)[0]


def test_a_kernel_is_a_matrix_of_its_outputs() -> None:
    kernel = normal(4, 3, 3, 2)
    flat = direction(mo.orthogonalize(), {"w": kernel.reshape(4, 18)})
    assert same(direction(mo.orthogonalize(), {"w": kernel}), {"w": flat["w"].reshape(kernel.shape)})


def test_a_stack_of_experts_is_many_matrices() -> None:
    experts = normal(3, 4, 5)
    stacked = direction(
        mo.chain(mo.orthogonalize(stacked=mo.by_path("experts")), mo.scale_by_shape(0.2)), {"experts": experts}
    )
    one_by_one = direction(mo.orthogonalize(), {"a": [experts[i] for i in range(3)]})
    expected = mx.stack(one_by_one["a"]) * 0.2 * (4 * 5) ** 0.5
    assert distance(stacked["experts"], expected) < 1e-6


def test_the_number_of_products_does_not_grow_with_the_number_of_matrices(tmp_path: Path) -> None:
    def products(count: int) -> int:
        updates = {"layers": [{"w": normal(4, 6, seed=seed)} for seed in range(count)]}
        found = kernels(tmp_path, direction(mo.orthogonalize(), updates))
        return found["Matmul"] + found["AddMM"]

    assert products(8) == products(1) == 15


def test_adaptive_steps_shrink_with_the_gradient() -> None:
    tx = mo.orthogonalize("polar_express", 14, adaptive=True)
    x = normal(3, 5)
    _, singular_values, _ = mx.linalg.svd(x, stream=mx.cpu)
    assert distance(direction(tx, {"w": x})["w"], mx.sum(singular_values) * polar(x)) < 1e-3


def test_large_stacks_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "LARGEST_STACK", dict.fromkeys(stacking.LARGEST_STACK, 8))
    sizes: list[int] = []

    def doubled(x: mx.array) -> mx.array:
        sizes.append(x.shape[0])
        return 2 * x

    updates = {"a": [mx.ones((3,))] * 5, "b": mx.ones((20,)), "c": mx.ones((3,), mx.bfloat16)}
    assert same(tree.map_stacked(doubled, updates), tree.scale(2.0, updates))
    assert sorted(sizes) == [1, 1, 1, 2, 2]


def test_stacks_keep_to_the_streams_of_their_leaves() -> None:
    other = mx.new_stream(mx.cpu)
    seen = []

    def noted(x: mx.array) -> mx.array:
        seen.append((x.shape[0], mx.default_stream(mx.cpu) == other))
        return x

    with tracing(TracedProgram({"a.0": other, "a.2": other})):
        tree.map_stacked(noted, {"a": [mx.ones((2,))] * 5})
    assert sorted(seen) == [(2, True), (3, False)]


# Muon


MODEL = {
    "model": {
        "embed_tokens": {"weight": mx.ones((10, 4))},
        "layers": [
            {"mlp": {"up": {"weight": mx.ones((8, 4)), "bias": mx.ones((8,))}}, "norm": {"weight": mx.ones((4,))}}
        ],
        "conv": {"weight": mx.ones((6, 3, 3, 2))},
    },
    "lm_head": {"weight": mx.ones((10, 4))},
    "wte": mx.ones((10, 4)),
}


def test_muon_takes_the_matrices_of_hidden_layers() -> None:
    state = mo.muon(0.1).init(MODEL)
    assert tree.paths(tree.get(state, "muon")[0].ema) == ["model.layers.0.mlp.up.weight", "model.conv.weight"]
    assert tree.paths(tree.get(state, "otherwise")[0].mu) == [
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up.bias",
        "model.layers.0.norm.weight",
        "lm_head.weight",
        "wte",
    ]


@pytest.mark.parametrize(
    "matrices",
    [lambda path, leaf: "up" in path and leaf.ndim == 2, mo.by_path("*.up.weight")],
    ids=["function", "by_path"],
)
def test_muon_takes_what_it_is_told(matrices: Any) -> None:
    state = mo.muon(0.1, matrices=matrices).init(MODEL)
    assert tree.paths(tree.get(state, "muon")[0].ema) == ["model.layers.0.mlp.up.weight"]


def test_muon_takes_a_tree_of_bools() -> None:
    params = {"a": mx.ones((2, 2)), "b": mx.ones((2, 2))}
    state = mo.muon(0.1, matrices={"a": True, "b": False}).init(params)
    assert tree.paths(tree.get(state, "muon")[0].ema) == ["a"]


def test_a_step_of_muon_has_the_size_it_promises() -> None:
    """An orthogonal matrix has singular values of 1; with consistent_rms its elements have that root mean square."""
    params = {"w": normal(8, 4)}
    by_shape = direction(mo.muon(1.0, "polar_express", 14), params)["w"]
    _, singular_values, _ = mx.linalg.svd(by_shape, stream=mx.cpu)
    assert distance(singular_values, mx.full((4,), 2**0.5)) < 1e-3
    by_rms = direction(mo.muon(1.0, "polar_express", 14, consistent_rms=0.2), params)["w"]
    assert number(mx.sqrt(mx.mean(mx.square(by_rms)))) == pytest.approx(0.2, rel=1e-3)


# Adafactor


def test_rows_and_columns_tell_all_of_a_power_of_rank_one() -> None:
    g = mx.outer(mx.array([1.0, -2.0, 0.5]), mx.array([3.0, 0.1, -1.0, 2.0]))
    factored, whole = mo.scale_by_factored_rms(min_dim_size_to_factor=2), mo.scale_by_factored_rms(factored=False)
    assert distance(direction(factored, {"w": g})["w"], direction(whole, {"w": g})["w"]) < 1e-6


@pytest.mark.parametrize(("axes", "row", "col"), [("largest", (2, 3, 5), (7, 2, 3)), ("last", (7, 5, 2), (7, 5, 3))])
def test_which_axes_are_averaged(axes: Any, row: tuple[int, ...], col: tuple[int, ...]) -> None:
    shape = (7, 5, 2, 3) if axes == "last" else (7, 2, 3, 5)
    state = mo.scale_by_factored_rms(min_dim_size_to_factor=2, axes=axes).init({"w": mx.zeros(shape)})
    assert (state.v_row["w"].shape, state.v_col["w"].shape) == (row, col)
    assert tree.leaves(state.v) == []


def test_small_matrices_keep_their_whole_power() -> None:
    state = mo.adafactor().init({"small": mx.zeros((127, 500)), "large": mx.zeros((128, 500))})
    assert tree.paths(tree.get(state, "v")) == ["small"]
    assert tree.paths(tree.get(state, "v_row")) == ["large"]


def test_an_offset_starts_with_a_short_memory_again() -> None:
    """At the count of the offset the decay is 0, as in the first update of a run."""
    tx, g = mo.scale_by_factored_rms(step_offset=7), {"w": mx.array([3.0])}
    state = tree.set(tx.init(g), count=7, v={"w": mx.array([100.0])})
    assert tx.update(g, state)[1].v["w"].item() == 9.0
    fresh = tree.set(mo.scale_by_factored_rms().init(g), count=7, v={"w": mx.array([100.0])})
    decay = 1 - 8**-0.8
    assert mo.scale_by_factored_rms().update(g, fresh)[1].v["w"].item() == pytest.approx(decay * 100 + (1 - decay) * 9)


def test_adafactor_steps_by_a_share_of_the_size_of_the_parameters() -> None:
    params = {"w": mx.array([3.0, -4.0, 5.0]), "zero": mx.zeros((2,))}
    tx = mo.adafactor(0.1)
    updates = tx.update(tree.ones_like(params), tx.init(params), params)[0]
    assert distance(updates["w"], mx.full((3,), -0.1 * (50 / 3) ** 0.5)) < 1e-6
    assert distance(updates["zero"], mx.full((2,), -0.1 * 1e-3)) < 1e-9


# At the edges of what numbers can be


@pytest.mark.parametrize("preconditioning", ["frobenius", "schatten", "aol"])
@pytest.mark.parametrize("shape", [(4, 4), (4, 16)])
def test_huge_and_tiny_matrices_are_as_good_as_others(shape: tuple[int, int], preconditioning: Any) -> None:
    x = normal(*shape)
    expected = mo.newton_schulz(x, eps=0.0, preconditioning=preconditioning)
    for factor in (1e-30, 1e30):
        assert distance(mo.newton_schulz(factor * x, eps=0.0, preconditioning=preconditioning), expected) < 1e-4


@pytest.mark.parametrize("preconditioning", ["frobenius", "schatten", "aol"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_gradient_shows(preconditioning: Any, bad: float) -> None:
    x = mx.array([[1.0, bad], [0.5, 2.0]])
    assert mx.any(mx.isnan(mo.newton_schulz(x, preconditioning=preconditioning))).item()


def test_zero_without_eps_stays_zero() -> None:
    assert same(mo.newton_schulz(mx.zeros((2, 2)), eps=0.0), mx.zeros((2, 2)))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_low_precision_iterates_on_what_is_scaled_in_float32(dtype: mx.Dtype, scale: float) -> None:
    x = normal(4, 6)
    exact = direction(mo.orthogonalize(eps=0.0), {"w": x})["w"]
    low = direction(mo.orthogonalize(eps=0.0, dtype=dtype), {"w": scale * x})["w"]
    assert low.dtype == mx.float32
    assert distance(low, exact) < (0.02 if dtype == mx.float16 else 0.15)


def test_complex_matrices_are_an_error_that_names_them() -> None:
    with pytest.raises(tree.TreeError, match=r"orthogonalize: at 'w': a .*complex64 matrix cannot be made orthogonal"):
        direction(mo.orthogonalize(), {"w": mx.zeros((2, 2), mx.complex64)})


def test_leaves_whose_dotted_paths_coincide_stay_apart() -> None:
    leaves = {"a.b": mx.eye(2), "a": {"b": -mx.eye(2)}}
    assert same(tree.map_stacked(lambda x: 2 * x, leaves), tree.scale(2.0, leaves))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("layers.0.attention.q_proj.weight", True),
        ("multi_head_attention.out.weight", True),
        ("ensemble.weight", True),
        ("emb.weight", False),
        ("tok_emb.weight", False),
        ("tok_embeddings.weight", False),
        ("head.weight", False),
        ("lm_head.weight", False),
        ("classifier.weight", False),
        ("Embed_0.weight", False),
    ],
)
def test_hidden_layers_are_told_by_their_names(path: str, expected: bool) -> None:
    assert mo.is_hidden_matrix(path, mx.ones((2, 2))) is expected
    assert not mo.is_hidden_matrix(path, mx.ones((2,)))
