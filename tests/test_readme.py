"""The README is run: its code in order, its table against the package, its commands against CI and examples."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

from test_architecture import public_names

import mlxopt as mo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 9
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


def test_every_public_name_is_in_the_table() -> None:
    table = README.split("## Everything")[1].split("## Where it differs")[0]
    listed = set(re.findall(r"`(\w+)`", table))
    assert [name for name in public_names() if name not in listed and name not in ("tree", "schedules")] == []
    functions = [name for name, value in vars(mo.tree).items() if inspect.isfunction(value)]
    assert [name for name in functions if name not in listed] == []


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
