"""Tables of transformations and charts of schedules: what stands in them is true, and nothing else happens."""

import importlib
import importlib.util
import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry import ENTRIES, NEWCOMERS, Entry

import mlxopt as mo
from mlxopt import tree
from mlxopt.base import GradientTransformation
from mlxopt.inspection.chart import WIDTH, count_axis, value_axis
from mlxopt.inspection.describing import describe
from mlxopt.inspection.lines import through
from mlxopt.inspection.plotting import plot
from mlxopt.testing.problems import plain_problem

PARAMS = {"w": mx.zeros((300, 2)), "b": mx.zeros((2,))}


def table(tx: GradientTransformation, params: Any = PARAMS) -> list[str]:
    return describe(tx, params).splitlines()


def texts(tx: GradientTransformation, params: Any = PARAMS) -> list[str]:
    """The first column, between the lines of parameters and state."""
    lines = table(tx, params)
    width = lines[0].index("arrays")
    return [line[:width].rstrip() for line in lines[3:-2]]


def cells(tx: GradientTransformation, text: str, params: Any = PARAMS) -> list[str]:
    """The other columns of the line with a text in the first."""
    lines = table(tx, params)
    width = lines[0].index("arrays")
    [line] = [line for line in lines if line[:width].strip() == text]
    return line[width:].split()


# describe: stages and fields


def test_a_chain_is_its_stages_with_their_fields() -> None:
    assert texts(mo.chain(mo.clip_by_global_norm(1.0), mo.sgd(0.1, momentum=0.9))) == [
        "clip_by_global_norm(1.0)",
        "  global_norm",
        "trace(0.9)",
        "  trace",
        "scale_by_learning_rate(0.1, flip_sign=True)",
        "  count",
        "  learning_rate",
    ]


def test_numbers_of_parameters_stages_fields_and_all() -> None:
    tx = mo.chain(mo.clip_by_global_norm(1.0), mo.scale_by_lion())
    assert cells(tx, "parameters (602)") == ["2", "float32", "2.41", "kB", "4.00"]
    assert cells(tx, "global_norm") == ["1", "float32", "4", "B", "0.01"]
    assert cells(tx, "mu") == ["2", "float32", "2.41", "kB", "4.00"]
    assert cells(tx, "state") == ["3", "2.41", "kB", "4.01"]


def test_a_recipe_is_shown_above_its_stages() -> None:
    lines = texts(mo.adam(0.1))
    assert lines[0].startswith("adam(0.1, b1=0.9, b2=0.999")
    assert "  scale_by_adam(b1=0.9, b2=0.999, eps=1e-08," in lines
    assert "    mu" in lines


def test_dtypes_and_shapes_are_those_of_the_state() -> None:
    low = tree.cast(PARAMS, mx.bfloat16)
    assert cells(mo.scale_by_adam(mu_dtype=mx.bfloat16), "mu", low) == ["2", "bfloat16", "1.20", "kB", "2.00"]
    assert cells(mo.scale_by_adam(), "nu", low) == ["2", "float32", "2.41", "kB", "4.00"]
    assert cells(mo.add_noise(0.1, 0.5, 0), "rng_key (2,)") == ["1", "uint32", "8", "B", "0.01"]


def test_groups_of_a_partition_with_their_counts() -> None:
    tx = mo.partition(
        {"matrix": mo.trace(0.9), "other": mo.sgd(0.1), "frozen": mo.set_to_zero()},
        lambda path, leaf: "matrix" if leaf.ndim == 2 else "other",
    )
    assert texts(tx) == [
        "partition({'matrix': trace(...), 'other': sgd(...),",
        "    'frozen': set_to_zero(...)}, <lambda>)",
        "  'matrix': 1 of 2 arrays, 600 parameters",
        "    trace(0.9)",
        "      trace",
        "  'other': 1 of 2 arrays, 2 parameters",
        "    sgd(0.1)",
        *["      " + line for line in texts(mo.chain(mo.sgd(0.1), mo.chain()))],
        "  'frozen': 0 of 2 arrays, 0 parameters",
        "    set_to_zero()",
    ]
    assert cells(tx, "'matrix': 1 of 2 arrays, 600 parameters") == ["1", "2.40", "kB", "3.99"]


def test_masks_say_how_many_leaves_they_choose() -> None:
    chosen = "on 1 of 2 arrays, 600 parameters"
    assert texts(mo.masked(mo.trace(0.9), mo.by_path("w"), otherwise="zero")) == [
        "masked(trace(...), by_path('w'), otherwise='zero')",
        f"  {chosen}",
        "  trace(0.9)",
        "    trace",
    ]
    assert texts(mo.freeze({"w": True, "b": False})) == [
        "freeze({'w': True, 'b': False})",
        f"  {chosen}",
        "  set_to_zero()",
    ]


def test_a_factory_that_masks_itself_is_one_stage() -> None:
    assert texts(mo.add_decayed_weights(0.1, mo.by_path("b"))) == [
        "add_decayed_weights(weight_decay=0.1, mask=by_path('b'))",
        "  on 1 of 2 arrays, 2 parameters",
        "  count",
        "  weight_decay",
    ]


class Remembering(NamedTuple):
    steps: mx.array
    inner: Any
    before: Any


def remembering(inner: GradientTransformation, before: Callable[[Any, Any], Any]) -> GradientTransformation:
    """A wrapper as a user would write it."""

    def init(params: Any) -> Remembering:
        state = inner.init(params)
        return Remembering(mx.array(0), state, before(state, params))

    def update(updates: Any, state: Remembering, params: Any = None, **extra: Any) -> Any:
        return updates, state

    return GradientTransformation(init, update, inner=[mo.Inner(inner, ("inner",))])


def test_the_state_inside_a_wrapper_is_found_where_it_says() -> None:
    tx = remembering(mo.chain(mo.trace(0.9), mo.scale(0.1)), lambda state, params: state)
    assert texts(tx) == ["remembering(...)", "  trace(0.9)", "    trace", "  scale(0.1)", "  steps", "  before"]


def test_a_wrapper_that_does_not_say_where_its_inner_state_stands() -> None:
    inner = mo.masked(mo.trace(0.9), mo.by_path("flat"), otherwise="zero")

    def init(params: Any) -> Any:
        return (inner.init({"flat": mx.zeros((tree.size(params),))}),)

    tx = GradientTransformation(init, lambda updates, state, params=None: (updates, state), inner=[inner])
    assert texts(tx.spelled("flat", lambda: "flat(...)")) == ["flat(...)", "  0"]


@pytest.mark.parametrize("state", [mx.zeros((7,)), [mx.zeros((7,))], {}, (), None])
def test_any_tree_of_arrays_may_be_a_state(state: Any) -> None:
    tx = GradientTransformation(lambda params: state, lambda updates, state, params=None: (updates, state))
    assert table(tx)[-1].split()[1] == str(len(tree.leaves(state)))


@pytest.mark.parametrize("entry", [*ENTRIES, *NEWCOMERS], ids=lambda entry: entry.name)
def test_every_transformation_is_described_with_its_whole_state(entry: Entry) -> None:
    """Fields and bytes add up: what stands on the lines of fields is the state, no more and no less."""
    params, tx = plain_problem().params, entry.build()
    lines, state = table(tx, params), tx.init(params)
    total = sum(leaf.nbytes for leaf in tree.leaves(state))
    assert lines[-1].split()[:4] == ["state", str(len(tree.leaves(state))), str(total), "B"]
    dtype_column = slice(lines[0].index("arrays") + 6, lines[0].index("dtype") + 5)
    fields = [line for line in lines[3:-2] if line[dtype_column].strip()]
    numbers = [line[dtype_column.stop :].split() for line in fields]
    assert sum(int(size) for size, _, _ in numbers) == total
    assert sum(int(line[: dtype_column.start].split()[-1]) for line in fields) == len(tree.leaves(state))


def test_nothing_of_the_size_of_the_model_is_allocated() -> None:
    params = {"w": mx.zeros((2**15, 2**15))}
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    lines = table(mo.partition({"all": mo.adamw(0.1)}, "all"), params)
    assert mx.get_peak_memory() - before < 2**16
    assert lines[-1].split()[2:] == ["8.59", "GB", "8.00"]


def test_a_long_expression_ends_with_dots() -> None:
    mask = {"w": True, "b": [False] * 200}
    lines = texts(mo.freeze(mask), {"w": mx.zeros((1,)), "b": [mx.zeros((1,))] * 200})
    assert lines[3].endswith(" ...")
    assert lines[4] == "  on 1 of 201 arrays, 1 parameters"


def test_empty_parameters_and_empty_chains() -> None:
    assert cells(mo.trace(0.9), "state", {}) == ["0", "0", "B", "-"]
    assert texts(mo.chain()) == ["chain()"]


def test_the_parameters_of_a_module() -> None:
    model = nn.Linear(3, 2)
    assert cells(mo.adam(0.1), "parameters (8)", model.trainable_parameters())[0] == "2"
    with pytest.raises(ValueError, match=r"describe: .*module Linear .* Pass model\.trainable_parameters\(\)"):
        describe(mo.adam(0.1), model)


def test_what_cannot_be_described_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"describe: expected a GradientTransformation, got <function adam"):
        describe(mo.adam, PARAMS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"describe: at 'w': every leaf must be an mx\.array, got 1\.0\. Wrap it"):
        describe(mo.adam(0.1), {"w": 1.0})


# plot: axes


@given(st.lists(st.floats(-1e38, 1e38), min_size=1, max_size=5))
def test_axes_of_values_hold_them_between_round_ticks(values: list[float]) -> None:
    axis = value_axis(values)
    slack = 1e-5 * (axis.high - axis.low)
    assert axis.low < axis.high
    assert axis.low - slack <= min(values) <= max(values) <= axis.high + slack
    assert 2 <= len(axis.ticks) <= 8
    assert len(set(axis.labels)) == len(axis.labels) == len(axis.ticks)
    for label, tick in zip(axis.labels, axis.ticks, strict=True):
        assert abs(float(label) - tick) <= 1e-3 * (axis.high - axis.low)


@given(st.integers(1, 2**31 - 1))
def test_axes_of_counts_have_whole_ticks(last: int) -> None:
    axis = count_axis(last)
    assert axis.ticks[0] == 0
    assert axis.ticks[-1] <= last
    assert 2 <= len(axis.ticks) <= 6 or last < 6
    assert [int(label.replace(",", "")) for label in axis.labels] == axis.ticks


def test_labels_are_short_and_in_one_notation() -> None:
    assert value_axis([0.0, 0.1]).labels == ["0", "0.025", "0.050", "0.075", "0.100"]
    assert value_axis([0.0, 3e-7]).labels == ["0", "1e-7", "2e-7", "3e-7"]
    assert value_axis([0.9, 0.999]).labels == ["0.900", "0.925", "0.950", "0.975", "1.000"]
    assert value_axis([2.0, 2.0]).labels[0] == "0"


# plot: charts


def test_one_schedule_in_the_terminal() -> None:
    lines = plot(mo.linear_schedule(0.0, 1.0, 10), 10).splitlines()
    assert lines[0] == "linear_schedule(0.0, 1.0, 10)"
    assert lines[2].startswith("1.00 ┤ ")
    assert lines[2].rstrip()[-1] != "┤"
    assert lines[18].startswith("   0 ┤⠒")
    assert lines[-1].split() == ["0", "2", "4", "6", "8", "10"]


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 12_345, 2**31 - 1])
@pytest.mark.parametrize("count", [1, 2, 26])
def test_charts_are_80_columns_wide(steps: int, count: int) -> None:
    schedule = mo.warmup_cosine_decay_schedule(0.0, 3e-4, min(10, steps - 1), steps)
    lines = plot({f"number {index}": schedule for index in range(count)}, steps).splitlines()
    assert max(map(len, lines)) == WIDTH
    assert sum("┤" in line for line in lines) == 4


def test_several_schedules_have_letters() -> None:
    chart = plot({"low": mo.constant_schedule(0.0), "high": mo.constant_schedule(1.0)}, 10)
    lines = chart.splitlines()
    assert lines[:2] == ["a  low    b  high", ""]
    assert letters(lines[2]) == ["b"] * 6
    assert letters(lines[18]) == ["a"] * 6


def letters(line: str) -> list[str]:
    """The letters on a line of a chart."""
    return [mark for mark in line.partition("┤")[2] or line.partition("│")[2] if mark.isalpha()]


def test_letters_of_curves_that_meet_take_turns() -> None:
    same = mo.constant_schedule(1.0)
    lines = plot({"one": same, "other": same, "lower": mo.constant_schedule(0.0)}, 10).splitlines()
    assert lines[0] == "a  one            b  other (on a)   c  lower"
    assert "".join(letters(lines[2])).removesuffix("a") == "ab" * 6
    assert set(letters(lines[18])) == {"c"}


def test_letters_stand_where_a_curve_is_alone() -> None:
    falling = mo.join_schedules([mo.constant_schedule(1.0), mo.linear_to_zero(1.0, 50)], [50])
    lines = plot({"constant": mo.constant_schedule(1.0), "falling": falling}, 100).splitlines()
    right = [line[45:] for line in lines[2:19]]
    assert set(letters("│" + right[0])) == {"a"}
    assert set("".join(right[2:])) & set("ab") == {"b"}


def test_every_curve_has_a_letter_however_short_it_is() -> None:
    short = {f"at {at}": lambda count, at=at: at / 20 if count == at else math.nan for at in range(20)}
    body = plot(short, 19).partition("\n\n")[2].partition("not finite")[0]
    assert {mark for line in body.splitlines() for mark in letters(line)} == set("abcdefghijklmnopqrst")


def test_long_names_go_on_in_the_next_line() -> None:
    names = ["word " * 30, "short"]
    lines = plot({name: mo.constant_schedule(1.0) for name in names}, 10).splitlines()
    assert [line[:3] for line in lines[:4]] == ["a  ", "   ", "b  ", ""]
    assert max(map(len, lines)) == WIDTH


# plot: jumps


def step(count: int) -> float:
    return 0.5 ** (count // 20)


def test_stairs_are_upright_at_the_counts_of_the_new_values() -> None:
    line = through(range(101), [step(count) for count in range(101)])
    corners = [(x, y) for index, (x, y) in enumerate(zip(line.x, line.y, strict=True)) if index not in line.measured]
    assert corners == [(20, 1.0), (40, 0.5), (60, 0.25), (80, 0.125), (100, 0.0625)]
    assert [line.y[index] for index in line.measured] == [step(count) for count in range(101)]


@pytest.mark.parametrize("steps", [40, 100, 1_000, 9_999, 10**6])
def test_a_riser_is_one_column_of_the_chart(steps: int) -> None:
    lines = plot(lambda count: 1.0 if count < steps // 2 else 0.0, steps).splitlines()
    columns = [[column for column, mark in enumerate(line) if "⠀" < mark <= "⣿"] for line in lines[3:18]]
    assert len({tuple(found) for found in columns}) == 1
    assert len(columns[0]) == 1


@pytest.mark.parametrize(
    "schedule",
    [
        mo.cosine_decay(1.0, 80),
        mo.warmup_cosine_decay_schedule(0.0, 1.0, 3, 100),
        mo.linear_to_zero(1.0, 10),
        mo.inverse_sqrt_schedule(1.0, 10),
        mo.wsd_schedule(1.0, 10, 50, 30, shape="1-sqrt"),
        mo.polynomial_schedule(1.0, 0.1, 5.0, 90),
    ],
    ids=repr,
)
def test_a_slope_is_no_jump(schedule: Any) -> None:
    values = schedule(mx.arange(101)).tolist()
    assert through(range(101), values).y == values


def test_a_jump_of_a_slope_and_one_beside_a_gap() -> None:
    restarts = mo.repeated(mo.cosine_decay(1.0, 25, 0.1), 25)(mx.arange(101)).tolist()
    assert [x for x in range(101) if through(range(101), restarts).x.count(x) == 2] == [25, 50, 75, 100]  # type: ignore[arg-type]
    beside = through(range(6), [math.nan, 1.0, 1.0, 0.0, 0.0, math.inf])
    assert beside.x == [0, 1, 2, 3, 3, 4, 5]


# plot: any function, any number


def of_one_count(count: int) -> float:
    return 1.0 if count < 5 else 0.5


@pytest.mark.parametrize(
    "schedule",
    [
        of_one_count,
        lambda count: 0.5 + 0.5 * (count < 5),
        lambda count: mx.where(mx.array(count) < 5, 1.0, 0.5),
        mo.join_schedules([mo.constant_schedule(1.0), mo.constant_schedule(0.5)], [5]),
        mo.piecewise_constant_schedule(1.0, {5: 0.5}),
        [1.0] * 5 + [0.5] * 6,
    ],
)
def test_any_function_of_a_count_is_a_schedule(schedule: Any) -> None:
    schedule = schedule if callable(schedule) else schedule.__getitem__
    assert plot({"x": schedule}, 10) == plot({"x": of_one_count}, 10)


def test_a_float_schedule_is_called_per_count() -> None:
    calls: list[Any] = []

    def schedule(count: Any) -> float:
        calls.append(count)
        return math.cos(count)

    plot(schedule, 3)
    assert calls[1:] == [0, 1, 2, 3]


def test_long_runs_are_sampled_from_end_to_end() -> None:
    seen: list[int] = []

    def schedule(count: Any) -> float:
        seen.append(int(count))
        return float(count)

    assert "1.00e9 ┤" in plot(schedule, 10**9)
    assert (seen[0], seen[-1], len(seen)) == (0, 10**9, 10_001)


def test_what_is_not_finite_is_a_gap_and_a_line() -> None:
    values = [1.0, 1.0, math.nan, math.inf, 1.0]
    lines = plot(values.__getitem__, 4).splitlines()
    assert lines[-1] == "__getitem__: not finite at 2 of 5 counts, first nan at 2"
    assert "⠒ " in lines[2]
    assert lines[2].endswith("⠒") or lines[2].endswith("⠐")
    nothing = plot({"x": lambda count: math.inf}, 4).splitlines()
    assert nothing[-1] == "x: not finite at 5 of 5 counts, first inf at 0"
    assert not any("⠀" < mark <= "⣿" for line in nothing for mark in line)


EXTREME = [1e308, -1.7e308, 1e-308, 5e-324, 1e200, 0.0, math.inf, -math.inf, math.nan, 10**400, -(10**400)]


@pytest.mark.parametrize("value", EXTREME, ids=str)
@pytest.mark.parametrize("other", [1.0, -1e308, 2e-308, math.nan], ids=str)
def test_extreme_numbers_are_drawn_or_named(value: Any, other: float) -> None:
    lines = plot({"x": lambda count: value if count < 5 else other}, 10).splitlines()
    endless = isinstance(value, int) or not math.isfinite(value)
    assert any(line.startswith("x: not finite at") for line in lines) == (endless or math.isnan(other))
    assert any("⠀" < mark <= "⣿" for line in lines for mark in line) == (not endless or not math.isnan(other))
    assert max(map(len, lines)) == WIDTH


def test_extreme_numbers_have_their_labels() -> None:
    assert plot(lambda count: 1e308, 4).splitlines()[2].startswith("1.00e308 ┤⠒")
    assert plot(lambda count: 5e-324, 4).splitlines()[2].startswith("6e-324 ┤")
    both = plot({"x": lambda count: (-1.7e308, 1.7e308)[int(count) % 2]}, 4).splitlines()
    assert [line.split()[0] for line in both if "┤" in line] == ["2e308", "1e308", "0", "-1e308", "-2e308"]


@pytest.mark.parametrize(
    ("schedules", "steps", "message"),
    [
        (0.1, 10, r"a schedule must be a function, got 0\.1\. Use constant_schedule\(0\.1\)"),
        ({"x": mx.array(0.5)}, 10, r"a schedule must be a function, got array\(0\.5.* Use constant_schedule"),
        ("cosine", 10, r"a schedule must be a function, got 'cosine'\. Pass one, or a dict of them"),
        ([of_one_count], 10, r"a schedule must be a function, got \[<function.* Pass one, or a dict of them"),
        ({}, 10, r"between 1 and 26 schedules fit a chart, got 0\. Draw several"),
        (dict.fromkeys(map(str, range(27)), of_one_count), 10, "between 1 and 26 schedules fit a chart, got 27"),
        (of_one_count, 0, r"steps must be in \[1, 2\*\*31 - 1\], got 0"),
        (of_one_count, 1.5, r"steps must be an integer, got 1\.5"),
        ({"x": lambda count: "high"}, 3, r"the schedule 'x' must return a number, got 'high' at count 0\. Return a"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(schedules: Any, steps: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^plot: {message}"):
        plot(schedules, steps)


def test_an_error_of_the_schedule_itself_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        plot(lambda count: 1 / (count - 3 if isinstance(count, int) else 0), 10)


# plot: pictures

has_matplotlib = importlib.util.find_spec("matplotlib") is not None
needs_matplotlib = pytest.mark.skipif(not has_matplotlib, reason="matplotlib is not installed")
SIX = {f"rate {index}": mo.cosine_decay(10.0**-index, 100) for index in range(6)}


def test_without_matplotlib_a_path_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plot: a picture needs matplotlib.* Run pip install 'mlxopt\[plot\]', or"):
        plot(SIX, 10, tmp_path / "rates.png")
    assert list(tmp_path.iterdir()) == []
    assert plot(SIX, 10)


@needs_matplotlib
@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
@pytest.mark.parametrize("schedules", [SIX, SIX["rate 2"]], ids=["six", "one"])
def test_a_path_saves_a_picture(schedules: Any, suffix: str, start: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"rates.{suffix}"
    assert plot(schedules, 100, path) == plot(schedules, 100, str(path)) == plot(schedules, 100)
    assert path.read_bytes().startswith(start)


@needs_matplotlib
def test_a_picture_of_gaps_and_of_many(tmp_path: Path) -> None:
    many: dict[str, Any] = {str(index): mo.constant_schedule(float(index)) for index in range(25)}
    many["gap"] = lambda count: math.nan if count > 3 else 1e30
    plot(many, 12, tmp_path / "many.svg")
    text = (tmp_path / "many.svg").read_text()
    assert "<svg" in text
    assert "gap" in text


@needs_matplotlib
@pytest.mark.parametrize("value", EXTREME, ids=str)
def test_extreme_numbers_in_a_picture(value: Any, tmp_path: Path) -> None:
    schedules = {"x": lambda count: value if count < 5 else -1e308, "y": lambda count: value}
    plot(schedules, 10, tmp_path / "extreme.png")
    plot(schedules["y"], 10, tmp_path / "one.png")
    assert (tmp_path / "extreme.png").exists()


@needs_matplotlib
def test_stairs_and_curves_that_run_together_in_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = importlib.import_module("matplotlib.figure")
    drawn: list[Any] = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda figure, path: drawn.append(figure.axes[0]))
    plot(step, 100, tmp_path / "stairs.png")
    [stairs] = drawn[0].lines
    points = list(zip(*stairs.get_data(), strict=True))
    assert all(x == other_x or y == other_y for (x, y), (other_x, other_y) in itertools.pairwise(points))

    half = mo.join_schedules([mo.constant_schedule(1.0), mo.linear_to_zero(1.0, 50)], [50])
    plot({"half": half, "all": mo.constant_schedule(1.0)}, 100, tmp_path / "together.png")
    solid, dashed, other = drawn[1].lines
    assert (solid.get_linestyle(), dashed.get_linestyle(), other.get_linestyle()) == ("-", "--", "-")
    assert solid.get_color() == dashed.get_color() != other.get_color()
    assert dashed.get_zorder() > other.get_zorder()
    assert [x for x, y in zip(*dashed.get_data(), strict=True) if not math.isnan(y)] == list(range(51))


@needs_matplotlib
def test_another_ending_is_an_error_before_anything_is_computed(tmp_path: Path) -> None:
    for name in ("rates.xyz", "rates"):
        with pytest.raises(ValueError, match=rf"plot: path must end with .* got '.*{name}'\. Use one of .*png"):
            plot(lambda count: pytest.fail("called"), 10, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@needs_matplotlib
def test_pyplot_and_the_settings_of_matplotlib_stay_as_they_are(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib, mlxopt; from mlxopt.inspection.plotting import plot\n"
        "before = matplotlib.rcParams.copy()\n"
        f"plot(mlxopt.cosine_decay(0.1, 10), 10, {str(tmp_path / 'rate.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert matplotlib.rcParams.copy() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
