import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest
from compiler import quicken

# MLX does not write its kernel cache atomically: every worker process gets a folder of its own, before MLX looks.
_folder = tempfile.mkdtemp(prefix="mlxopt-tests-")
os.environ["TMPDIR"] = _folder
tempfile.tempdir = _folder
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the path
    quicken(Path(_folder))

_common = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("ci", _common, max_examples=20, derandomize=True, database=None)
hypothesis.settings.register_profile("long", _common, max_examples=500)
hypothesis.settings.load_profile("ci")


ONCE = ("compiled_equals_eager", "compiled_equals_eager_in_nested_trees")
"""Laws that share their kernels."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what takes compilers long, and is compiled elsewhere too, to the long profile."""
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
