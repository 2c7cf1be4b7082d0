"""Runs and times the README's commands as a new user would: in a fresh clone, with an empty home
and empty caches.

    python tools/fresh_clone.py [--pytest] [KEY=VALUE ...]

The settings go to ``uv run supernet``. For each command it prints the seconds that passed, and the
processor time of all its processes, installation included. The clone holds only what is committed.
It is in a temporary folder, which is removed at the end.
"""

import argparse
import contextlib
import ctypes
import os
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # of Linux, in <linux/prctl.h>
HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pytest", action="store_true", help="run the tests as well, at the end")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_args()
    run = shlex.join(["uv", "run", "supernet", *given.settings])
    adopt_orphans()
    commands = [f"pip install uv && {run}"] + ["uv run pytest"] * given.pytest
    with tempfile.TemporaryDirectory() as folder:
        home, clone = Path(folder) / "home", Path(folder) / "clone"
        home.mkdir()
        venv.create(Path(folder) / "python", with_pip=True)  # a Python without other packages
        path = f"{Path(folder) / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        ours = (
            "HOME",
            "PYTHONPATH",
            "VIRTUAL_ENV",
            "XDG_CACHE_HOME",
            "UV_CACHE_DIR",
            "PIP_CACHE_DIR",
        )
        environment = {k: v for k, v in os.environ.items() if k not in ours} | {
            "HOME": str(home),
            "PATH": path,
        }
        subprocess.run(["git", "clone", "-q", str(HERE), str(clone)], check=True)
        for command in commands:
            started, used = time.monotonic(), processor_seconds()
            code = subprocess.run(command, shell=True, cwd=clone, env=environment).returncode
            passed = time.monotonic() - started
            wait_for_orphans()
            used = processor_seconds() - used
            print(
                f"{command}: exit code {code} after {passed:.0f} s, {used:.0f} s of processor time",
                flush=True,
            )
            if code:
                sys.exit(code)


def adopt_orphans() -> None:
    """Makes this process the parent of processes whose own parent ends first, such as the server
    that forks workers. Otherwise their processor time would be lost. Only Linux can do this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for_orphans() -> None:
    """Waits until every process that this one started or adopted has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def processor_seconds() -> float:
    """The processor time of all processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
