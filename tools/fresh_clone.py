"""Runs and times the README's commands as a new user would: in a fresh clone, with an empty home
and empty caches.

    python tools/fresh_clone.py [--pytest]

The clone holds only what is committed. It is in a temporary folder, which is removed at the end.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--pytest", action="store_true", help="run the tests as well, after the first command"
    )
    commands = ["pip install uv && uv run supernet"] + [
        "uv run pytest"
    ] * arguments.parse_args().pytest
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
            started = time.monotonic()
            code = subprocess.run(command, shell=True, cwd=clone, env=environment).returncode
            print(
                f"{command}: exit code {code} after {time.monotonic() - started:.0f} s", flush=True
            )
            if code:
                sys.exit(code)


if __name__ == "__main__":
    main()
