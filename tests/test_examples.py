"""The examples, run with small settings: what they show is there and true, with matplotlib and without."""

import importlib
import importlib.util
import inspect
import math
import re
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import mlxopt as mo
from mlxopt.schedules import Curve
from mlxopt.testing.comparing import number

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


def require_picture(drawn: bool, path: Path, text: str, chart: str = "┤") -> None:
    """One picture and its path, or a chart."""
    assert path.exists() == drawn
    assert (str(path) in text) == drawn
    assert (chart in text) != drawn
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
    follows_the_loss = {"plateau_schedule"}
    assert set(shown) == factories - follows_the_loss | {"your_own"}
    assert len(shown) == len(set(shown))
    require_picture(drawn, tmp_path / "schedules.png", text, chart="█")
    if not drawn:
        lines = text.splitlines()
        assert all(any(line.startswith(f"  {name} ") for line in lines) for name in shown)
        assert len(lines) <= len(shown) + len(module.GALLERY) + 2
        assert max(map(len, lines)) <= 80


def test_the_groups_of_the_gallery_fill_a_grid(example: Any) -> None:
    assert len({len(schedules) for schedules in example("schedules").GALLERY.values()}) == 1


def test_the_curves_of_the_gallery_fit_their_frames(example: Any) -> None:
    module = example("schedules")
    for schedules in module.GALLERY.values():
        for schedule in schedules:
            curve = schedule(mx.arange(module.STEPS + 1))
            assert 0 <= number(mx.min(curve)) <= number(mx.max(curve)) <= 1.05, schedule


def test_a_line_of_blocks_is_the_curve(example: Any) -> None:
    module = example("schedules")
    assert module.blocks(mo.linear_schedule(0.0, 1.0, 100), 9) == " ▁▂▃▄▅▆▇█"
    assert module.blocks(mo.step_decay(1.0, 0.5, 50), 8) == "████▄▄▄▂"


@pytest.mark.parametrize(("name", "highest"), [("schedules", 800), ("swapping", 1100)])
def test_the_pictures_of_the_readme_are_wide_and_small(name: str, highest: int) -> None:
    data = (FOLDER / "pictures" / f"{name}.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    assert (width, 550 <= height <= highest) == (1600, True)
    assert len(data) < 120_000


@drawn
def test_swapping_trains_with_each_optimizer(
    example: Any, drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("swapping", drawn)
    monkeypatch.setattr(module, "FAMILIES", {"SGD": [mo.sgd], "Adam": [mo.adam]})
    results = module.main(steps=40, out=str(tmp_path))
    text = capsys.readouterr().out
    assert list(results) == ["adam", "sgd"]
    assert results["adam"].lowest.loss < results["sgd"].lowest.loss < 0.69
    assert round(results["adam"].lowest.bytes_per_parameter) == 8
    assert [line.split()[0] for line in text.splitlines()[7:9]] == ["adam", "sgd"]
    assert (tmp_path / "swapping.png").exists() == drawn
    assert (str(tmp_path / "swapping.png") in text) == drawn


def invented(module: Any, losses: Any) -> Any:
    """Runs that end with a loss that is a function of the place in the grid, and the places that were tried."""
    tried: list[int] = []

    def train(rate: float) -> Any:
        tried.append(round(2 * math.log10(rate)))
        return module.Run(losses(tried[-1]), 42, 4.0)

    return module.sweep(train), tried


def test_thirty_optimizers_have_a_line_each(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("swapping", has_matplotlib)
    best: dict[str, int] = {}
    names = [optimizer.__name__ for optimizers in module.FAMILIES.values() for optimizer in optimizers]

    def trainer(optimizer: Any, *_: Any) -> Any:
        best[optimizer.__name__] = len(best) % 17 - 9  # from beyond one end of the grid to beyond the other
        return lambda rate: module.Run(0.02 + abs(math.log10(rate) - best[optimizer.__name__] / 2), None, 4.0)

    monkeypatch.setattr(module, "trainer", trainer)
    results = module.main(steps=1, out=str(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[0] in names]
    assert len(names) == len(set(names)) == 30
    assert [row[0] for row in rows] == list(results)
    assert sorted(results) == sorted(names)
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert len(module.COLORS) == len(module.FAMILIES)
    at_an_end = {name for name in names if not module.LOWEST < best[name] < module.HIGHEST}
    assert {row[0] for row in rows if row[1][0] in "<>" and row[2][0] == "<" and row[3] == "?"} == at_an_end
    assert {row[0] for row in rows[-len(at_an_end) :]} == at_an_end, "the others come first"
    assert any(line.startswith("> or <") for line in lines)


@pytest.mark.parametrize("best", [-7, -4, -2, 0, 3, 5])
def test_the_grid_grows_until_the_best_rate_is_inside(example: Any, best: int) -> None:
    module = example("swapping")
    result, tried = invented(module, lambda index: 0.3 + abs(index - best))
    assert (result.rate, result.beyond, result.loss) == (f"{module.grid_rate(best):g}", "", "0.3")
    assert min(tried) < best < max(tried)
    assert len(tried) == len(set(tried)) <= 6 + abs(best)


@pytest.mark.parametrize(
    ("losses", "rate"),
    [
        pytest.param(lambda index: 0.5 - 0.01 * index, ">1000", id="rising"),
        pytest.param(lambda index: 0.5 + 0.01 * index, "<0.0001", id="falling"),
        pytest.param(lambda index: 0.5, ">1000", id="level"),
        pytest.param(lambda index: math.inf, ">1000", id="diverging"),
    ],
)
def test_the_end_of_the_grid_is_never_reported_as_best(example: Any, losses: Any, rate: str) -> None:
    module = example("swapping")
    result, tried = invented(module, losses)
    assert (result.rate, result.loss[0]) == (rate, "<")
    assert module.LOWEST <= min(tried) < max(tried) <= module.HIGHEST
    _, _, row, _, note = module.table({"sgd": result}).splitlines()
    assert row.split()[:2] == ["sgd", rate]
    assert "the best lies beyond it" in note
    assert "42" not in row, "the steps of a run that is not the best"
    assert "lies beyond" not in module.table({"sgd": invented(module, abs)[0]})


def test_all_rates_that_reach_the_target_are_tried(example: Any) -> None:
    module = example("swapping")
    result, tried = invented(module, lambda index: 0.02 + 0.01 * abs(index) if -5 <= index <= 3 else 0.7)
    assert sorted(tried) == list(range(-6, 5))
    row = module.table({"sgd": result}).splitlines()[2]
    assert row.split()[4] == "9"
    assert row.endswith("    ▇▅▅▅▅▅▄▅▅▅▇  "), "two blanks between the columns, and one for each rate that was not tried"


def test_rates_are_two_to_a_decade(example: Any) -> None:
    assert [example("swapping").grid_rate(index) for index in range(-4, 3)] == [0.01, 0.03, 0.1, 0.3, 1, 3, 10]


def test_a_run_that_diverges_is_never_the_best(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("swapping")
    start = {"w": mx.array(1.0)}
    monkeypatch.setattr(module, "loss_fn", lambda params, point: mx.square(params["w"] * point))
    train = module.trainer(mo.sgd, start, [(mx.array(1.0),)] * 200, (mx.array(1.0),))
    wild, tame = train(100.0), train(0.1)
    assert wild.loss == math.inf
    assert 1e-25 < tame.loss < 1e-6
    assert module.Sweep({4: wild, -2: tame}).best == -2
    assert (wild.reached, tame.reached) == (None, 13)


def test_the_rate_falls_unless_averages_stand_in_for_it(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("swapping")
    monkeypatch.setattr(module, "loss_fn", lambda params, point: params["w"] * point)
    point = (mx.array(1.0),)
    fallen = module.trainer(mo.sgd, {"w": mx.array(0.0)}, [point] * 200, point)(0.1)
    monkeypatch.setattr(module, "schedule_free", mo.sgd)
    steady = module.trainer(mo.sgd, {"w": mx.array(0.0)}, [point] * 200, point)(0.1)
    assert (fallen.loss, steady.loss) == (pytest.approx(-10.05, abs=1e-3), pytest.approx(-20, abs=1e-3))


def test_curves_end_at_the_frame(example: Any) -> None:
    module = example("swapping")
    runs = {index: module.Run(loss, None, 4.0) for index, loss in ((0, 1e-9), (-1, 0.01), (1, math.inf), (-2, 0.0))}
    assert module.Sweep(runs).curve == ([-1.0, -0.5, 0.0, 0.5], [module.BOTTOM, -2.0, module.BOTTOM, module.TOP])


def test_all_thirty_optimizers_take_a_rate_and_its_fall(example: Any) -> None:
    params = {"w": mx.array([[1.0, -2.0], [0.5, 1.0]])}

    def sizes(optimizer: Any) -> list[float]:
        """Of the second step, since ADOPT's first one is zero, at a rate of 0.1 and at half of it."""
        tx = mo.inject_hyperparams(lambda rate, share: optimizer(rate * share))(1.0, mo.step_decay(1.0, 0.5, 1))
        value = mx.array(9.0)
        _, state = tx.update(params, mo.tree.set(tx.init(params), rate=0.1), params, value=value)
        steps = [tx.update(params, state._replace(count=mx.array(c)), params, value=value)[0] for c in (0, 1)]
        return [number(mo.tree.norm(step)) for step in steps]

    for optimizers in example("swapping").FAMILIES.values():
        for optimizer in optimizers:
            whole, half = sizes(optimizer)
            assert 0 < whole < 1.5, optimizer
            assert 0.4 < half / whole < 0.85, f"{optimizer}: MADGRAD's steps fall the least, as a power of the rate"


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
    assert "    monitor({'update_norm': norm, 'update_ratio': update_ratio}),\n)\n" in text
    assert re.search(r"\d+\.\d% of 1000 new points are classified correctly", text)
    assert max(map(len, text.splitlines())) <= 80 or drawn
    require_picture(drawn, tmp_path / "watching.png", text)


def test_the_module_is_up_to_date_whenever_it_is_looked_at(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen = example("watching"), []
    made, evaluate = module.network(8), mx.eval
    monkeypatch.setattr(module, "network", lambda: made)

    def watch(params: Any, *others: Any) -> None:
        held = mo.tree.leaves(made.trainable_parameters())
        seen.append(all(one is other for one, other in zip(mo.tree.leaves(params), held, strict=True)))
        evaluate(params, *others)

    monkeypatch.setattr(mx, "eval", watch)
    module.main(steps=3)
    assert seen == [True] * 3


def test_long_expressions_are_written_out(example: Any) -> None:
    written_out = example("quickstart").written_out
    tx = mo.chain(mo.clip(1.0), mo.freeze({"w": True, "b": [True, False]}), mo.sgd(mo.cosine_decay(0.1, 100)))
    for width in (20, 40, 60, 200):
        text = written_out(repr(tx), width)
        assert repr(eval(text, {**vars(mo)})) == repr(tx)
        assert max(map(len, text.splitlines())) <= max(width, 40)
    assert written_out(repr(tx), 60).splitlines()[:2] == ["chain(", "    clip(1.0),"]


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


def test_minimize_draws_lbfgs_below_adam(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    curves = example("minimize").main(evaluations=40)
    text = capsys.readouterr().out
    assert {len(curve) for curve in curves.values()} == {40}
    assert curves["lbfgs"][-1] < curves["adam"][-1] < curves["adam"][0] == curves["lbfgs"][0]
    assert "a  lbfgs   b  adam" in text
    assert text.count("iteration    0") == 2


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
        "obeys_the_laws": lambda count: mx.log(count.astype(mx.float32)),
        "stays_between_zero_and_peak": lambda count: count - 10.0,
        "falls_after_the_warmup": lambda count: count.astype(mx.float32),
    }
    properties = {holds.__name__: holds for holds in module.EXAMPLES}
    for name, rule in broken.items():
        found = module.counterexample(properties[name], lambda *_, rule=rule: Curve(rule), 50)
        assert found is not None, name
    assert set(properties) == set(broken)


@drawn
def test_the_language_model_learns_skips_and_resumes(
    example: Any, drawn: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = 30
    seen = example("language_model", drawn).main(steps, out=str(tmp_path))
    text = capsys.readouterr().out
    require_picture(drawn, tmp_path / "language_model.png", text)
    assert f"after micro-batch {2 * steps + 2}: 2 are gathered" in text
    assert {len(losses) for losses in seen.values()} == {steps}
    broken = [index for index, loss in enumerate(seen["training"]) if math.isnan(loss)]
    assert broken == [25]
    tested, averaged = seen["test"], seen["test of the average"]
    assert tested[25] == tested[24]
    assert averaged[25] == averaged[24] != tested[24]
    assert max(tested[-1], averaged[-1]) < 0.6 * tested[0]


def test_private_training_learns_no_label_by_heart(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("private_gradients")
    module.EXAMPLES, module.WRONG, module.EXPECTED_BATCH, module.HIDDEN = 300, 30, 100, 64
    found = module.main(steps=100)
    text = capsys.readouterr().out
    (new, known), (private_new, private_known) = found["ordinary"], found["private"]
    assert private_known < 0.3 < 0.6 < known
    assert private_new > 0.85
    assert new > 0.7
    assert "100 steps, noise multiplier 1.0,\nevery example drawn by a chance of 0.333." in text
    assert max(map(len, text.splitlines())) <= 80


def test_batches_of_private_training_are_drawn_by_chance(example: Any) -> None:
    module = example("private_gradients")
    data = module.Data(mx.arange(1000.0)[:, None], mx.arange(1000.0))
    sizes, seen = [], []
    for key in mx.random.split(mx.random.key(0), 20):
        x, y, is_there = module.drawn(data, key)
        assert x.shape[0] % 80 == 0
        chosen = y[: int(number(mx.sum(is_there)))].tolist()
        assert mx.array_equal(x[:, 0], y)
        assert len(set(chosen)) == len(chosen)
        sizes.append(len(chosen))
        seen += chosen
    assert len(set(sizes)) > 5
    assert abs(sum(sizes) / 20 - 200) < 4 * (160 / 20) ** 0.5
    assert len(set(seen)) > 950


def test_distributed_stops_and_goes_on(example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Alone; worlds of several ranks go on with the runs of others in test_distributed_checkpoints.py."""
    module, folder = example("distributed"), str(tmp_path / "run")
    module.main(until=3, folder=folder)
    assert module.main(until=4, folder=folder) > 0.3
    text = capsys.readouterr().out
    assert "1 rank, of which the first keeps a state 2.00 times the size of the parameters" in text
    assert f"goes on from step 3 of {folder}" in text
    assert text.count("saved") == 2
