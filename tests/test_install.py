"""The wheel works where there is no checkout. It is built and installed elsewhere as ``pip install
.`` does it, without a network.
"""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.commands import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A Python environment with the wheel and the packages of this environment. It lacks what .pth
    files add, and with that the checkout.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    places = {"base": str(folder), "platbase": str(folder)}
    others = Path(sysconfig.get_path("purelib", "venv", places)) / "others.pth"
    others.write_text("\n".join(path for path in sys.path if path.endswith("-packages")) + "\n")
    scripts = Path(sysconfig.get_path("scripts", "venv", places))
    subprocess.run([scripts / "python", "-m", "installer", wheel], check=True)
    return scripts


def test_the_wheel_holds_the_package_its_yaml_and_its_pages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    code = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "supernet").rglob("*.*")
        if path.suffix in (".py", ".cpp", ".h", ".typed", ".md", ".jinja", ".css", ".js")
    }
    settings = {
        f"supernet/{path.relative_to(ROOT)}"
        for path in (ROOT / "conf").rglob("*.*")
        if path.suffix in (".yaml", ".md")
    }
    assert names == code | settings


def test_the_installed_command_works_from_another_folder(installed, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def output(*command):
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    where = output(installed / "python", "-c", "import supernet; print(supernet.__file__)")
    assert Path(where).is_relative_to(installed.parent)
    output(
        installed / "supernet",
        "search",
        "size=tiny",
        "data.train_limit=320",
        "tracker=none",
        "method=spos",
    )
    (results,) = tmp_path.glob("outputs/*/*/results.json")
    found = json.loads(results.read_text())
    assert found["search"]["steps"] == 10
    assert found["environment"]["git_commit"] is None


def test_a_worker_that_is_lost_ends_the_tests_with_a_failure(tmp_path):
    """With the project's own settings of pytest: the first crash is the last, and no test waits."""
    (tmp_path / "test_lost.py").write_text(
        "import os, pytest\n\n"
        "@pytest.mark.parametrize('number', range(8))\n"
        "def test_lost(number):\n    os.abort()\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml")]
    found = subprocess.run(
        [*command, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode != 0
    assert "crashed while running" in found.stdout and "\n1 failed in " in found.stdout
