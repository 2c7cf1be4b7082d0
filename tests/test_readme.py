"""The README is true: its Python code runs, its commands are valid, and its tables name every
choice.
"""

import re
import shlex
from pathlib import Path

import pytest

from supernet import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^supernet .*?(?=\s+#|$)", README, re.MULTILINE)))


def test_it_opens_with_the_two_commands():
    assert README.split("```")[1].split("\n")[1:3] == [
        "pip install uv && uv run supernet",
        "pip install uv && uv run pytest",
    ]
    assert "pip install uv && uv run pytest" in (ROOT / ".ci" / "run").read_text()


def test_its_python_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(
        r"\|.+~0\|\+\|.+~0\|.+~1\|\+\|.+~0\|.+~1\|.+~2\|\n", capsys.readouterr().out
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command, tmp_path):
    """The commands are parsed and composed, and every value is checked. The tests of the command
    line show that commands also run.
    """
    words = [
        word
        for word in shlex.split(command)[1:]
        if not word.startswith("from=") and word not in ("evaluate", "export")
    ]
    line = cli.parse([word.replace("RUN_DIR", str(tmp_path)) for word in words])
    # as cli.main does
    for overrides in cli.single_jobs(line.overrides) if line.sweeps else [line.overrides]:
        cli.composed(overrides)


def test_it_names_every_command_and_every_choice():
    for name in cli.COMMANDS:
        assert f"| `{name}` |" in README
    for folder in (ROOT / "conf").iterdir():
        for path in folder.glob("*.yaml"):
            row = re.search(rf"^\| `{folder.name}` \|(.*)$", README, re.MULTILINE)
            assert row and f"`{path.stem}`" in row[1], f"{folder.name}={path.stem}"
