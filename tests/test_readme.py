"""The README is run: its code in order, its table against the package, its commands against CI and examples."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from test_architecture import public_names

import mlxopt as mo
from mlxopt import interop

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 9
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


EVERYTHING = README.split("\n## Everything\n")[1].split("\n## ")[0]


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
    public, of_trees, of_interop, of_files = re.split(r"`mlxopt\.(?:tree|interop|checkpoint)` ", EVERYTHING)
    listed = [name for names, _ in rows(public) for name in names]
    states = [state for _, meaning in rows(public) for state in re.findall(r"\(state `(\w+)`\)", meaning)]
    assert all(len(names) == 1 for names, _ in rows(public))
    assert sorted(listed + states + ["checkpoint", "tree", "schedules"]) == sorted(public_names())
    assert {name for names, _ in rows(of_interop) for name in names} == set(only_in(interop)) | {"optimizers"}
    for module, text in ((mo.tree, of_trees), (mo.checkpoint, of_files)):
        assert sorted(name for names, _ in rows(text) for name in names) == sorted(only_in(module))


def test_only_rows_are_rows() -> None:
    assert rows("Use `adam` | `sgd`\n| `lion` | what `trace` does |\n| `a`, `b` | two |\n| name | what |") == [
        (["lion"], "what `trace` does"),
        (["a", "b"], "two"),
    ]


def test_every_example_is_listed() -> None:
    listed = re.findall(r"^\| `examples/(\w+\.py)` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_two_commands_set_up_and_run() -> None:
    commands = re.findall(r"^python3 -m venv .*", README, re.MULTILINE)
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
