"""The examples, run with small settings: what they show is there and true, with matplotlib and without."""

import importlib
import importlib.util
import inspect
import math
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from strategies import number

import mlxopt as mo
from mlxopt.schedules import Curve

FOLDER = Path(__file__).parent.parent / "examples"
has_matplotlib = importlib.util.find_spec("matplotlib") is not None

WITH_AND_WITHOUT = [
    pytest.param(True, marks=pytest.mark.skipif(not has_matplotlib, reason="matplotlib is not installed")),
    False,
]
drawn = pytest.mark.parametrize("drawn", WITH_AND_WITHOUT, ids=["picture", "text"])


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import an example by name as a script would see it, on a machine with matplotlib or on one without."""

    def load(name: str, drawn: bool = False) -> Any:
        monkeypatch.syspath_prepend(str(FOLDER))
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda other: None if other == "matplotlib" and not drawn else find(other)
        )
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def require_picture(drawn: bool, path: Path, text: str) -> None:
    """One picture and its path, or a chart."""
    assert path.exists() == drawn
    assert (str(path) in text) == drawn
    assert ("┤" in text) != drawn
    if drawn:
        assert path.read_bytes().startswith(b"\x89PNG")


@drawn
def test_schedules_shows_every_public_schedule(
    example: Any, drawn: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("schedules", drawn)
    shown = module.main(out=str(tmp_path))
    text = capsys.readouterr().out
    factories = {name for name, value in vars(mo.schedules).items() if inspect.isfunction(value)}
    assert set(shown) == factories
    require_picture(drawn, tmp_path / "schedules.png", text)
    if not drawn:
        assert all(f"{name}(" in text for name in factories)


def test_the_curves_of_the_gallery_fit_their_frames(example: Any) -> None:
    module = example("schedules")
    for name, schedule in module.by_name(module.GALLERY).items():
        curve = schedule(mx.arange(module.STEPS + 1))
        assert 0 <= number(mx.min(curve)) <= number(mx.max(curve)) <= 1.05, name


@drawn
def test_swapping_compares_ten_optimizers(
    example: Any, drawn: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("swapping", drawn)
    chosen = {name: module.OPTIMIZERS[name] for name in ("adam", "sgd")}
    assert len(module.OPTIMIZERS) == 10
    module.OPTIMIZERS = chosen
    results = module.main(steps=60, rates=[1e-6, 0.1], out=str(tmp_path))
    text = capsys.readouterr().out
    assert list(results) == ["adam", "sgd"]
    assert results["adam"].final < results["sgd"].final < results["sgd"].losses[0]
    assert results["adam"].rate == results["sgd"].rate == 0.1
    assert round(results["adam"].bytes_per_parameter) == 8
    assert [line.split()[0] for line in text.splitlines()[3:5]] == ["adam", "sgd"]
    require_picture(drawn, tmp_path / "swapping.png", text)


def test_a_run_that_diverges_is_never_the_best(example: Any) -> None:
    module = example("swapping")
    wild, tame = module.Result(1.0, [1.0, math.nan], 8.0), module.Result(0.1, [1.0, 0.05], 8.0)
    assert wild.final == math.inf
    assert min([wild, tame], key=lambda result: result.final) is tame
    assert (wild.steps_to_target, tame.steps_to_target) == (None, 1)


def test_all_ten_optimizers_start_and_take_a_learning_rate(example: Any) -> None:
    module = example("swapping")
    params = {"w": mx.array([1.0, -2.0])}
    for name, optimizer in module.OPTIMIZERS.items():
        state = mo.tree.set(optimizer.init(params), learning_rate=0.1)
        updates, _ = optimizer.update(params, state, params)
        assert 0 < number(mo.tree.norm(updates)) < 1.5, name


@drawn
def test_watching_measures_every_step(
    example: Any, drawn: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("watching", drawn)
    numbers = module.main(steps=40, out=str(tmp_path))
    text = capsys.readouterr().out
    assert {name: len(values) for name, values in numbers.items()} == dict.fromkeys(
        ("loss", "gradient", "update", "ratio", "rate"), 40
    )
    schedule = mo.warmup_cosine_decay_schedule(0.0, 1e-2, 4, 40)
    assert numbers["rate"] == schedule(mx.arange(40)).tolist()
    assert numbers["update"][0] == 0.0 < min(numbers["update"][1:])
    assert all(0 < ratio < update for ratio, update in zip(numbers["ratio"][1:], numbers["update"][1:], strict=True))
    assert sum(numbers["loss"][-5:]) < sum(numbers["loss"][:5])
    assert "\r" not in text, "no progress bar where nobody watches"
    assert "monitor({'update_norm': norm, 'update_ratio': update_ratio})" in text
    require_picture(drawn, tmp_path / "watching.png", text)


def test_the_progress_bar_fits_a_terminal(
    example: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("watching")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for done in (0, 750, 1500):
        module.bar(done, 1500, loss=1.234e-5, ratio=9.87e-10)
    _, empty, half, full = capsys.readouterr().out.split("\r")
    assert [line.count("█") for line in (empty, half, full)] == [0, 12, 24]
    assert len({len(line.rstrip("\n")) for line in (empty, half, full)}) == 1
    assert len(empty) < 80
    assert full.endswith("\n")


def test_property_testing_finds_the_mistake_and_nothing_else(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("property_testing")
    results = module.main(share=0.5)
    text = capsys.readouterr().out
    assert set(results) == {"slow_start", "broken_slow_start"}
    assert set(results["slow_start"].values()) == {None}
    [failed] = [name for name, found in results["broken_slow_start"].items() if found]
    assert failed == "stays_between_zero_and_peak"
    assert "at count 46341" in results["broken_slow_start"][failed]
    assert "FAILS  stays between zero and peak" in text


def test_property_testing_reports_each_broken_property(example: Any) -> None:
    module = example("property_testing")
    broken = {
        "is_finite": lambda count: mx.log(count.astype(mx.float32)),
        "stays_between_zero_and_peak": lambda count: count - 10.0,
        "falls_after_the_warmup": lambda count: count.astype(mx.float32),
        "is_exact_where_the_pieces_meet": lambda count: 0.5 + 0 * count,
        "is_the_same_in_an_array": lambda count: 1.0 if count.ndim else 0.0,
    }
    properties = {holds.__name__: holds for holds in module.EXAMPLES}
    for name, rule in broken.items():
        found = module.counterexample(properties[name], lambda *_, rule=rule: Curve(rule), 50)
        assert found is not None, name
    assert set(properties) - set(broken) == {"is_the_same_compiled"}
