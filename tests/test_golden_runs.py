"""The script that makes golden runs: what it writes is what the tests read. No library that it runs is needed."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

SCRIPT = Path(__file__).parent / "reference" / "make.py"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, on a copy of the files, where the run of torch is that of a library whose steps are all 1."""
    spec = importlib.util.spec_from_file_location("make", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("trajectories.json", "inputs.safetensors", "inputs_quadratic.safetensors", "torch.safetensors"):
        shutil.copy(SCRIPT.parent / name, tmp_path / name)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "1.0+cpu")
    monkeypatch.setitem(module.RUN, "torch", steps_of_one)
    return module


def steps_of_one(case: dict[str, Any], stored: dict[str, Any]) -> list[dict[str, Any]]:
    start = {name.removeprefix("params."): leaf for name, leaf in stored.items() if name.startswith("params.")}
    return [{path: (leaf - (step + 1)).tolist() for path, leaf in start.items()} for step in range(case["steps"])]


def test_a_run_is_added_as_the_tests_read_it(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = make.read(tmp_path, "torch")
    mx.eval(before)
    assert make.main(["add", "torch.ones", "torch", "Ones", "--kwargs", '{"lr": 0.1}', "--notes", "all 1"]) == 0
    assert '"torch.ones": lambda: mo....,' in capsys.readouterr().out

    old, new = (
        {case["name"]: case for case in json.loads((folder / "trajectories.json").read_text())}
        for folder in (SCRIPT.parent, tmp_path)
    )
    assert new.pop("torch.ones") == {
        "name": "torch.ones",
        "factory": "Ones",
        "source": "torch",
        "source_version": "1.0",
        "kwargs": {"lr": 0.1},
        "inputs": "inputs",
        "steps": 12,
        "stores": "params",
        "notes": "all 1",
    }
    assert new == old
    after, start = make.read(tmp_path, "torch"), make.read(tmp_path, "inputs")["params.w"]
    assert all(mx.array_equal(after[name], before[name]) for name in before)
    added = {name for name in after if name not in before}
    assert {name.split(".")[2] for name in added} == {str(step) for step in range(12)}
    assert mx.array_equal(after["torch.ones:params.3.w"], start - 4)
    assert make.main(["check", "torch.ones"]) == 0


def test_stored_cases_are_written_as_they_are(make: Any, tmp_path: Path) -> None:
    assert make.as_text(make.read_cases(tmp_path)) == (SCRIPT.parent / "trajectories.json").read_text()


def test_check_notices_a_difference(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert make.main(["check", "torch.adam.default"]) == 1
    assert "above 1e-06" in capsys.readouterr().out


def test_a_name_is_replaced_only_if_asked(make: Any) -> None:
    again = ["add", "torch.sgd.quadratic", "torch", "Ones", "--inputs", "inputs_quadratic"]
    with pytest.raises(SystemExit, match=r"the name must be new, got 'torch\.sgd\.quadratic'"):
        make.main(again)
    make.main([*again, "--replace"])
    [case] = [case for case in make.read_cases(make.FOLDER) if case["name"] == "torch.sgd.quadratic"]
    assert (case["factory"], case["steps"]) == ("Ones", 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "lamb", "optax", "lamb"], r"a name must begin with the source, 'optax\.', got 'lamb'"),
        (["check", "optax.nothing"], "no golden run is called 'optax.nothing'"),
        (["check", "repo.lion"], "only runs of optax and torch can be made again, got 'repo'"),
    ],
)
def test_what_cannot_be_is_said(make: Any, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        make.main(arguments)


def test_a_library_that_is_not_there_is_named(make: Any) -> None:
    with pytest.raises(SystemExit, match=r"no_such_peer must be installed to run it.*pip install no_such_peer"):
        make.needed("no_such_peer")


def test_infinite_numbers_must_be_the_same(make: Any) -> None:
    run = [{"w": [1.0, float("nan")]}, {"w": [2.0, float("inf")]}]
    assert make.deviation(run, run) == 0.0
    assert make.deviation([run[0], {"w": [2.0, 1.0]}], run) == float("inf")


def test_what_stands_for_schedules_and_parts_is_built(make: Any) -> None:
    class Library:
        __name__ = "library"
        ramp = staticmethod(lambda init: f"ramp from {init}")
        sgd = staticmethod(lambda learning_rate: f"sgd with {learning_rate}")
        chain = staticmethod(lambda *parts: list(parts))

    part = {"$transform": "sgd", "kwargs": {"learning_rate": {"$schedule": "ramp", "kwargs": {"init": 1}}}}
    assert make.built(Library(), "chain", {"transforms": [part]}) == ["sgd with ramp from 1"]
    assert make.decoded(Library(), {"mask": {"$mask": {"w": True}}, "5": 0.1}) == {"mask": {"w": True}, 5: 0.1}
    with pytest.raises(SystemExit, match=r"got '\$fn'"):
        make.decoded(Library(), {"$fn": "abs"})
    with pytest.raises(SystemExit, match="library has no 'lamb'"):
        make.built(Library(), "lamb", {})


def test_it_says_how_it_is_used() -> None:
    shown = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True).stdout
    assert "make.py add optax.lamb optax lamb --kwargs" in shown
