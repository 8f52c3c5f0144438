"""The pages are run: their code and what it prints, their tables against the package, their links and commands."""

import contextlib
import inspect
import io
import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import pytest
from test_architecture import public_names

import mlxopt as mo
from mlxopt import distributed, interop

ROOT = Path(__file__).parent.parent
ROOMS = ["", "mlxopt", "mlxopt/distributed", "mlxopt/interop", "mlxopt/optimizers", "examples", "tests", "tests/bench"]
PAGES = {room or "front": (ROOT / room / "README.md").read_text() for room in ROOMS}
FRONT = PAGES["front"]
CONVERGENCE = (ROOT / "tests/convergence.md").read_text()


def section(page: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


# Code and what it prints


class Block(NamedTuple):
    """Code of a page, and the text that follows it as its output, if there is one."""

    code: str
    output: str | None


def blocks(page: str) -> list[Block]:
    found = re.findall(r"^```(python|text)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [
        Block(text, after if next_kind == "text" else None)
        for (kind, text), (next_kind, after) in itertools.pairwise([*found, ("", "")])
        if kind == "python"
    ]


def require_output(page: str) -> dict[str, Any]:
    """Run the code of a page in one namespace, and compare what it prints, apart from blanks and line breaks."""
    namespace: dict[str, Any] = {}
    for block in blocks(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, "README.md", "exec"), namespace)
        if block.output is not None:
            assert printed.getvalue().split() == block.output.split()
    return namespace


@pytest.mark.parametrize("name", PAGES)
def test_the_code_runs_and_prints_what_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    require_output(PAGES[name])


def test_there_is_code_to_run() -> None:
    assert [name for name, page in PAGES.items() if len(blocks(page)) >= 2] == [
        "front",
        "mlxopt",
        "mlxopt/distributed",
        "mlxopt/interop",
        "mlxopt/optimizers",
    ]
    assert sum(block.output is not None for page in PAGES.values() for block in blocks(page)) >= 5


def test_another_output_is_noticed() -> None:
    page = "```python\nx = 1\n```\nand\n```python\nprint(x,\n      2)\n```\n```text\n1   2\n```\n"
    assert [block.output for block in blocks(page)] == [None, "1   2\n"]
    require_output(page)
    with pytest.raises(AssertionError):
        require_output(page.replace("1   2", "1   3"))


# The front page


def test_the_front_page_is_short() -> None:
    assert len(FRONT.splitlines()) <= 200
    loop, *_ = blocks(FRONT)
    assert len(loop.code.splitlines()) <= 25
    assert loop.output is not None
    recipes = blocks(section(FRONT, "Recipes"))
    assert len(recipes) == 6
    assert max(len(recipe.code.splitlines()) for recipe in recipes) <= 8


def test_two_commands_set_up_and_run() -> None:
    commands = re.findall(r"^python3 -m venv .*", FRONT, re.MULTILINE)
    assert [command.split("&& ")[-1] for command in commands] == [
        ".venv/bin/python examples/quickstart.py",
        ".venv/bin/python -m pytest -n 2",
    ]


def test_quickstart_learns() -> None:
    code = "import quickstart; assert quickstart.main(steps=400) > 0.9"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "examples", capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "loss" in result.stdout


def test_the_front_page_shows_rows_of_the_benchmark() -> None:
    shown = re.findall(r"^\| \w.* x .* \|$", FRONT, re.MULTILINE)
    assert len(shown) == 3
    assert all(f"\n{row[:-1]}" in PAGES["tests/bench"] for row in shown)


# The loop that the pages teach: the model gets its parameters in every step, and nothing keeps the old ones


def test_every_loop_over_a_model_updates_it() -> None:
    loops = [block.code for page in PAGES.values() for block in blocks(page) if "= step(params" in block.code]
    of_models = [code for code in loops if "model" in code]
    assert len(of_models) >= 3
    update = r"= step\(.*\n(\s*if update_model:\n)?\s*model\.update\(params\)\n"
    assert all(re.search(update, code) for code in of_models)


def test_the_loop_of_the_front_page_leaves_one_copy_of_the_parameters() -> None:
    namespace: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(blocks(FRONT)[0].code.replace("501", "3"), namespace)
    trained = mo.tree.leaves(namespace["model"].trainable_parameters())
    assert all(one is other for one, other in zip(trained, mo.tree.leaves(namespace["params"]), strict=True))


def live_copies(update_model: bool) -> float:
    """What is alive after some steps of such a loop with Adam, in units of the parameters."""
    mx.synchronize()
    before = mx.get_active_memory()
    model = nn.Linear(512, 512)
    loss_fn = interop.functional(model, lambda model, x: mx.mean(mx.square(model(x))))
    params, tx = model.trainable_parameters(), mo.adam(1e-3)
    state, step = tx.init(params), mo.compile_step(loss_fn, tx)
    for _ in range(3):
        params, state, loss = step(params, state, mx.ones((1, 512)))
        if update_model:
            model.update(params)
        mx.eval(params, state, loss)
    mx.synchronize()
    return (mx.get_active_memory() - before) / mo.tree.nbytes(params)


def test_a_model_that_is_updated_in_every_step_costs_no_memory() -> None:
    assert live_copies(update_model=True) == pytest.approx(3, abs=0.1)
    assert live_copies(update_model=False) == pytest.approx(4, abs=0.1)


# Links between pages


def links(page: str) -> list[str]:
    """Targets of links and pictures that are not on the web."""
    return [target for target in re.findall(r"\]\(([^)]+)\)", page) if not target.startswith("https://")]


def anchors(page: str) -> set[str]:
    """How headings are linked to: in lower case, with hyphens for blanks and without other signs."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def broken_links(folder: Path, page: str) -> list[str]:
    broken = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        file = folder / target if target else None
        there = file is None or file.is_file()
        if not there or (anchor and anchor not in anchors(file.read_text() if file else page)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("room", ROOMS)
def test_links_lead_somewhere(room: str) -> None:
    assert broken_links(ROOT / room, PAGES[room or "front"]) == []


def test_links_of_the_table_of_convergence_lead_somewhere() -> None:
    assert broken_links(ROOT / "tests", CONVERGENCE) == []


def test_links_that_lead_nowhere_are_noticed() -> None:
    page = "# Some `words`, too\n```sh\n# none\n```\n[a](README.md#why) [b](#some-words-too) [c](https://x.y)"
    assert broken_links(ROOT, page) == []
    wrong = "[a](README.md#none) ![b](none.png) [c](#none)"
    assert broken_links(ROOT, f"{wrong}\n{page}") == ["README.md#none", "none.png", "#none"]


def test_every_page_can_be_reached_from_the_front() -> None:
    assert {f"{room}/README.md" for room in ROOMS[1:]} <= set(links(FRONT))
    stray = [
        str(path.relative_to(ROOT))
        for folder in ("mlxopt", "examples", "tests")
        for path in (ROOT / folder).rglob("README.md")
        if str(path.parent.relative_to(ROOT)) not in ROOMS
    ]
    assert stray == []


# Tables


EVERYTHING = section(PAGES["mlxopt"], "Everything")


def rows(text: str) -> list[tuple[list[str], str]]:
    """The names in the first cell of every row of the tables, and what the second cell says of them."""
    found = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.+) \|$", text, re.MULTILINE)
    return [(re.findall(r"\w+", names), meaning) for names, meaning in found]


def only_in(module: ModuleType) -> list[str]:
    """Public functions and errors of a module that the top level does not export."""
    return [
        name
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, ValueError)))
        and value.__module__.startswith(module.__name__)
        and not name.startswith("_")
        and vars(mo).get(name) is not value
    ]


def test_every_public_name_has_a_row_of_its_own() -> None:
    public, of_trees, of_interop, of_files, of_ranks, of_tests = re.split(
        r"`mlxopt\.(?:tree|interop|checkpoint|distributed|testing)` ", EVERYTHING
    )
    listed = [name for names, _ in rows(public) for name in names]
    states = [state for _, meaning in rows(public) for state in re.findall(r"\(state `(\w+)`\)", meaning)]
    assert all(len(names) == 1 for names, _ in rows(public))
    told = [*listed, *states, "checkpoint", "distributed", "interop", "testing", "tree", "schedules"]
    missing, added = set(public_names()) - set(told), set(told) - set(public_names())
    assert missing == set(), f"put a row for each of {sorted(missing)} into a table of mlxopt/README.md"
    assert added == set(), f"{sorted(added)} in the tables of mlxopt/README.md are not exported by mlxopt/__init__.py"
    assert len(told) == len(set(told))
    assert {name for names, _ in rows(of_ranks) for name in names} == {*only_in(distributed), "Averaged", "Exchange"}
    assert {name for names, _ in rows(of_interop) for name in names} == set(only_in(interop)) | {"optimizers"}
    for module, text in ((mo.tree, of_trees), (mo.checkpoint, of_files)):
        assert sorted(name for names, _ in rows(text) for name in names) == sorted(only_in(module))
    public_tests = [name for name in vars(mo.testing) if callable(getattr(mo.testing, name)) and name[0] != "_"]
    assert sorted(name for names, _ in rows(of_tests) for name in names) == sorted(public_tests)


def test_only_rows_are_rows() -> None:
    assert rows("Use `adam` | `sgd`\n| `lion` | what `trace` does |\n| `a`, `b` | two |\n| name | what |") == [
        (["lion"], "what `trace` does"),
        (["a", "b"], "two"),
    ]


def test_the_names_to_choose_from_exist() -> None:
    chosen = re.findall(r"`(\w+)`", section(PAGES["mlxopt/optimizers"], "Choosing"))
    assert len(chosen) > 25
    assert set(chosen) <= set(public_names())
    assert len(chosen) == len(set(chosen)), "each has one reason"


def test_every_example_is_listed() -> None:
    listed = re.findall(r"^\| \[(\w+\.py)\]\(\1\) \|", PAGES["examples"], re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_every_law_has_a_row() -> None:
    held = [*mo.testing.laws()]
    listed = [name for names, _ in rows(section(PAGES["tests"], "The laws")) for name in names]
    assert sorted(listed) == sorted(held)


# Commands


def test_the_options_of_the_pages_exist() -> None:
    """Every option that a page gives to a script of this repository is one that the script knows."""
    scripts = [*(ROOT / "tests/bench").glob("*.py"), ROOT / "tests/reference/make.py", ROOT / "tests/convergence.py"]
    shown = "".join(script.read_text() for script in scripts)
    text = PAGES["tests/bench"] + section(PAGES["mlxopt/optimizers"], "A golden run") + CONVERGENCE
    options = set(re.findall(r"(--[a-z]+)", text))
    assert options >= {"--scale", "--forms", "--stores", "--eager", "--rates"}
    assert options <= set(re.findall(r'add_argument\(\s*"(--[a-z]+)"', shown)) | {"--help"}
