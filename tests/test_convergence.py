"""Every optimizer solves four small problems in the steps that ``convergence.md`` grants it; a broken one does not."""

import inspect
import re
from typing import Any

import convergence
import pytest
from convergence import PROBLEMS, Cell, Row, rows, solves, too_few
from test_architecture import public_names

import mlxopt as mo
from mlxopt.base import GradientTransformation

PAGE = convergence.TABLE.read_text()
ROWS = list(rows(PAGE))


def is_whole(name: str) -> bool:
    """Whether something public builds a whole optimizer, out of nothing."""
    factory = getattr(mo, name)
    if name.startswith("scale_by_") or not inspect.isfunction(factory):
        return False
    signature = inspect.signature(factory)
    if signature.return_annotation not in (GradientTransformation, mo.PrivateStep) or "inner" in signature.parameters:
        return False
    return "learning_rate" in signature.parameters or factory.__module__.startswith("mlxopt.optimizers.")


def test_every_optimizer_has_a_row() -> None:
    whole = {name for name in public_names() if is_whole(name)}
    assert whole >= {"adam", "polyak_sgd", "schedule_free_sgd", "dpsgd"}
    missing = whole - {row.name for row in ROWS}
    assert missing == set(), f"write rows for {sorted(missing)} into tests/convergence.md"


def test_the_page_names_the_problems() -> None:
    told = re.findall(r"^\| (.+?) \| .* \| ([\d.]+) of the first \|$", PAGE, re.MULTILINE)
    assert told == [(name, f"{problem.share:g}") for name, problem in PROBLEMS.items()]
    assert f"| optimizer | {' | '.join(PROBLEMS)} |" in PAGE


def test_no_row_stands_there_twice() -> None:
    expressions = [row.expression for row in ROWS]
    assert len(expressions) == len(set(expressions))


def cases() -> list[Any]:
    return [
        pytest.param(
            row.expression,
            name,
            cell,
            id=f"{row.expression}-{name}",
            marks=[pytest.mark.skip(reason=cell)] if isinstance(cell, str) else [],
        )
        for row in ROWS
        for name, cell in row.cells.items()
    ]


@pytest.mark.parametrize(("expression", "name", "cell"), cases())
def test_a_problem_is_solved_in_the_steps_of_the_table(expression: str, name: str, cell: Cell) -> None:
    assert solves(expression, name, cell), "it has become slower"
    assert not solves(expression, name, too_few(cell)), "it has become faster: measure its row anew"


# The table can fail

BROKEN_ADAM = {
    "it climbs": "chain(scale(-1.0), adam(rate))",
    "it forgets the power at once": "adam(rate, b2=0.0)",
    "it forgets the power a hundred times as fast": "adam(rate, b2=0.9)",
    "its power never falls": "amsgrad(rate)",
    "it divides twice": "chain(scale_by_adam(), adam(rate))",
    "it forgets half as fast": "adam(rate, b1=0.95)",
    "it has no momentum": "adam(rate, b1=0.0)",
    "it does not correct the start at zero": "adam(rate, bias_correction=False)",
    "its steps are twice as long": "chain(adam(rate), scale(2.0))",
}


@pytest.mark.parametrize("wrong", BROKEN_ADAM)
def test_a_broken_adam_fails_the_row_of_adam(wrong: str) -> None:
    [row] = [row for row in ROWS if row.expression == "adam(rate)"]
    cells = {name: cell for name, cell in row.cells.items() if isinstance(cell, Cell)}
    assert not all(solves(BROKEN_ADAM[wrong], name, cell) for name, cell in cells.items())


def test_no_problem_is_solved_before_it_begins() -> None:
    assert not any(solves("chain(adam(rate), set_to_zero())", name, Cell(2, 0.1)) for name in PROBLEMS)


# The command that measures


def test_what_is_measured_is_a_row_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    convergence.main(["fromage"])
    printed, _, least = capsys.readouterr().out.partition(" of ")
    [row], [old] = rows(printed), [row for row in ROWS if row.name == "fromage"]
    assert row.expression == old.expression
    for steps, cell, granted in zip(map(int, least.split(",")), row.cells.values(), old.cells.values(), strict=True):
        assert isinstance(cell, Cell)
        assert isinstance(granted, Cell)
        assert steps <= granted.steps
        assert 1.2 * steps <= cell.steps < 1.2 * steps + 10


def test_the_fewest_steps_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "solves", lambda expression, name, cell: cell.steps >= 34 * max(cell.rate, 1))
    assert convergence.fewest("", "", Cell(50, 1.0)) == 34
    assert convergence.fewest("", "", Cell(33, 1.0)) == 0
    assert convergence.best("", "") == Cell(34, 0.001)
    monkeypatch.setattr(convergence, "solves", lambda expression, name, cell: False)
    assert convergence.best("", "") is None
    assert convergence.measured("", "", Cell(33, 1.0), anew=False) == "not solved"
    assert convergence.measured("", "", "it is for other problems", anew=False) == "it is for other problems"


@pytest.mark.parametrize("text", ["| `adam(rate)` | 3 at 1 | 120 at 0.2 | 1000 at 1e-05 | a reason |"])
def test_a_row_reads_as_it_prints(text: str) -> None:
    [row] = rows(text)
    assert str(row) == text
    assert row == Row(
        "adam(rate)", dict(zip(PROBLEMS, [Cell(3, 1.0), Cell(120, 0.2), Cell(1000, 1e-5), "a reason"], strict=True))
    )


def test_a_row_with_a_cell_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        list(rows("| `adam(rate)` | 3 at 1 | 120 at 0.2 | 10 at 1 |"))
