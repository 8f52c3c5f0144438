import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from compiler import quicken

if TYPE_CHECKING:
    from ranks import Engine, World

# MLX does not write its kernel cache atomically: every worker process gets a folder of its own, before MLX looks.
_worker = os.environ.get("PYTEST_XDIST_WORKER")
_folder = tempfile.mkdtemp(prefix=f"{_worker or 'mlxopt-tests'}-")
os.environ["TMPDIR"] = _folder
tempfile.tempdir = _folder
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
if _worker is None:  # workers inherit the path
    quicken(Path(_folder))

_common = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("ci", _common, max_examples=20, derandomize=True, database=None)
hypothesis.settings.register_profile("long", _common, max_examples=500)
hypothesis.settings.load_profile("ci")


ONCE = ("compiled_equals_eager", "compiled_equals_eager_in_nested_trees")
"""Laws that share their kernels."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what takes compilers long, and is compiled elsewhere too, to the long profile.

    Tests of several ranks come first: of the whole suite xdist deals the first eighth to one worker, and two cores bear
    one world at a time.
    """
    items.sort(key=lambda item: not hasattr(getattr(item, "module", None), "World"))
    if config.getoption("--hypothesis-profile") == "long":
        return
    kept = [item for item in items if not _is_for_the_long_profile(item)]
    if len(kept) < len(items):
        left_out = {id(item) for item in items} - {id(item) for item in kept}
        config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
        items[:] = kept


def _is_for_the_long_profile(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    law, entry = getattr(params.get("law"), "name", ""), getattr(params.get("entry"), "name", "")
    compiles = law.startswith("compiled_") or item.name.startswith("test_other_hyperparameters_need_no_new_kernels")
    if not compiles:
        return False
    within, variants = _compiled_elsewhere()
    return entry in within or (entry in variants and law not in ONCE)


@functools.cache
def _compiled_elsewhere() -> tuple[set[str], set[str]]:
    from registry import VARIANTS, WITHIN

    return WITHIN, VARIANTS


@pytest.fixture(scope="session")
def two() -> "Iterator[World]":
    """Two ranks of ring."""
    yield from _world(2)


@pytest.fixture(scope="session")
def four() -> "Iterator[World]":
    """Four ranks of ring; on two cores each of their messages takes milliseconds."""
    yield from _world(4)


@pytest.fixture(scope="session")
def two_of_mpi() -> "Iterator[World]":
    """Two ranks of MPI, where it is installed."""
    if shutil.which("mpirun") is None:
        pytest.skip("MPI is not installed: there is no mpirun")
    yield from _world(2, "mpi")


def _world(size: int, engine: "Engine" = "ring") -> "Iterator[World]":
    from ranks import World

    with World(size, engine) as world:
        yield world
