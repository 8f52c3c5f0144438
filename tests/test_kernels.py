"""How many kernels a step is: read from the graph of unevaluated outputs, which costs nothing and never varies."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation

LEAVES = 3


def graph(tmp_path: Path, tx: GradientTransformation, dtype: mx.Dtype, leaves: int = LEAVES) -> Counter[str]:
    """Names of the kernels of one compiled update."""
    params = {f"w{index}": mx.ones((8, 8), dtype) for index in range(leaves)}
    state = tx.init(params)
    mx.eval(params, state)
    outputs: Any = mo.compile_update(tx)(params, state, params)
    file = tmp_path / "graph.dot"
    mx.export_to_dot(str(file), *tree.leaves(outputs))
    return Counter(re.findall(r'label ="(\w+)"', file.read_text()))


def leaf_kernels(kernels: Counter[str]) -> int:
    """Kernels that run over the elements of a leaf: the fused ones that write a parameter or a moment."""
    return sum(count for name, count in kernels.items() if count % LEAVES == 0 and "Broadcast" in name)


ONE_KERNEL = {
    "sgd": lambda: mo.sgd(0.1),
    "sgd momentum": lambda: mo.sgd(0.1, momentum=0.9),
    "adam": lambda: mo.adam(0.1),
    "nadam": lambda: mo.nadam(0.1),
    "adamw": lambda: mo.adamw(mo.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)),
    "adamw mlx": lambda: mo.adamw(0.1, bias_correction=False),
    "adamax": lambda: mo.adamax(0.1),
    "rmsprop": lambda: mo.rmsprop(0.1),
    "adagrad": lambda: mo.adagrad(0.1),
}


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ONE_KERNEL)
def test_one_kernel_for_each_leaf(name: str, dtype: mx.Dtype, tmp_path: Path) -> None:
    kernels = graph(tmp_path, ONE_KERNEL[name](), dtype)
    assert leaf_kernels(kernels) == LEAVES
    assert not any(count % LEAVES == 0 and name == "AsType" for name, count in kernels.items())


def test_the_count_catches_a_chain_that_does_not_fuse(tmp_path: Path) -> None:
    split = mo.chain(mo.scale_by_adam(), mo.centralize(), mo.scale_by_learning_rate(0.1))
    assert leaf_kernels(graph(tmp_path, split, mx.float32)) > LEAVES


@pytest.mark.parametrize("leaves", [1, 3])
def test_no_power_and_no_exponential_for_each_element(leaves: int, tmp_path: Path) -> None:
    """The bias corrections are scalars of a step, also where a single leaf would swallow their formula."""
    kernels = graph(tmp_path, mo.adamw(0.1), mx.float32, leaves)
    wide = [name for name in kernels if "Sqrt" in name and "Broadcast" in name]
    assert len(wide) == 1
    assert "Exp" not in wide[0]
    assert "Power" not in " ".join(kernels)


def test_clipping_adds_only_its_norm(tmp_path: Path) -> None:
    clipped = graph(tmp_path, mo.chain(mo.clip_by_global_norm(1.0), mo.adamw(0.1)), mx.float32)
    assert leaf_kernels(clipped) == LEAVES
    assert clipped["Square"] == clipped["Sum"] == LEAVES
