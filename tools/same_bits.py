"""Checks whether two revisions compute the same bits. Use it for every rebuild that must not change
results.

    python tools/same_bits.py record FILE [--revision REV] [--only WORD]
    python tools/same_bits.py compare BEFORE AFTER

``record`` does a fixed list of tiny runs (every method, every searcher, both cell spaces, budgets,
a shortlist, ``rank``, ``study``, a run that is killed and resumed) through the command line of a
revision, or of the working tree, with ``threads=1``. It records what the runs write: the figures in
``results.json`` except times, the architecture, and the sha256 of every tensor in every checkpoint.
``compare`` prints where two such records differ, and exits with 1 if they do.

Two revisions may give a file, a stage or a tensor different names. Tensors are therefore compared
by their checksums, without names or order. Figures that only one record has are listed, but do not
count as a difference.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "size=tiny",
    "threads=1",
    "tracker=none",
    "data.train_limit=160",
    "retrain.seeds=1",
    "retrain.epochs=1",
    "baseline.architectures=1",
]
# Keys of results.json that are not compared: figures that differ between two runs of the same code,
# and names that differ between revisions.
CLOCK = {"seconds", "total_seconds", "peak_memory_bytes", "environment", "parts", "git_commit"}
NAMES = {"schema", "parent", "folder", "memory", "instruments", "table"}


def runs(conf: Path) -> dict[str, list[str]]:
    """Name of each run -> its command line. Covers all methods and searchers in ``conf``."""
    found = {}
    for path in sorted((conf / "method").glob("*.yaml")):
        found[f"method {path.stem}"] = ["retrain", *TINY, f"method={path.stem}", *fewer(path)]
    for path in sorted((conf / "searcher").glob("*.yaml")):
        overrides = [f"searcher={path.stem}", *fewer(path)]
        method = "darts" if path.stem in ("logits", "sampled", "perturbation") else "spos"
        found[f"searcher {path.stem}"] = ["derive", *TINY, f"method={method}", *overrides]
    darts = [*TINY, "space=darts", "search.epochs=2"]
    found |= {f"darts {m}": ["retrain", *darts, f"method={m}"] for m in ("darts", "pdarts", "gdas")}
    spos = [*TINY, "method=spos", "searcher.candidates=6"]
    found |= {
        "darts second order": ["search", *darts, "method=darts_2nd"],
        "darts sampled": ["retrain", *darts, "method=spos", "searcher.candidates=3"],
        "partial channels": ["search", *darts, "method=pc_darts"],
        "bf16": ["search", *TINY, "method=darts", "precision=bf16"],
        "recomputed": ["search", *darts, "method=darts", "search.recompute=true"],
        "budget": ["retrain", *TINY, "method=darts", "budget.params=9000", "budget.madds=300000"],
        "budget sampled": ["derive", *spos, "searcher=evolution", "budget.params=9000"],
        "skips": ["derive", *TINY, "method=darts", "budget.skips=1"],
        "schedule": ["derive", *TINY, "method=darts", "sampler=[[uniform,0.5],[gdas,0.5]]"],
        "guards": ["search", *TINY, "method=darts", "guard=[early_stop,oles]", "search.epochs=4"],
        "inherited": ["retrain", *TINY, "method=darts", "retrain.init=inherit"],
        "averaged": ["retrain", *spos, "retrain.ema_decay=0.9", "retrain.warmup_epochs=0.5"],
        "given": ["retrain", *TINY, "architecture=" + "+".join(["|skip_connect~0|", *GIVEN])],
        "shortlist": ["retrain", *spos, "shortlist.size=2", "retrain.epochs=3"],
        "rank": ["rank", *spos, "rank.architectures=4", "rank.scratch=3"],
        "study": ["study", *TINY, "study.methods=[darts,spos]", "study.seeds=[0,1]"],
        "export": ["run", *TINY, "method=darts"],
    }
    return found


GIVEN = ["|nor_conv_3x3~0|none~1|", "|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"]


def fewer(path: Path) -> list[str]:
    """Overrides that reduce the work of the searcher that a configuration file chooses."""
    text = path.read_text(encoding="utf-8")
    chosen = text.partition("override /searcher:")[2].split()
    if chosen:
        text = (path.parent.parent / "searcher" / f"{chosen[0]}.yaml").read_text(encoding="utf-8")
    small = {"candidates": 6, "population": 4, "tune_epochs": 0.4}
    return [f"searcher.{k}={v}" for k, v in small.items() if f"\n{k}:" in text]


# --- recording


def record(file: Path, revision: str | None, only: str) -> None:
    """Does the runs whose names contain ``only`` and writes their record to ``file``."""
    with checkout(revision) as tree:
        command = [sys.executable, str(Path(__file__).resolve()), "run-all", str(tree), only]
        environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=environment, cwd=tree, stdout=subprocess.PIPE, check=True
        )
    file.write_bytes(done.stdout)


@contextlib.contextmanager
def checkout(revision: str | None) -> Iterator[Path]:
    """Yields a folder with the files of a revision; with ``None``, the working tree itself."""
    if revision is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", revision], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def run_all(tree: Path, only: str) -> None:
    """Does all runs in this process, with the package of ``tree``, and prints the record."""
    from supernet import cli

    assert Path(cli.__file__).is_relative_to(tree), cli.__file__
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as outputs:
        for name, line in runs(tree / "conf").items():
            if only not in name:
                continue
            folder, started = Path(outputs) / name.replace(" ", "-"), time.monotonic()
            code = quietly(cli.main, [*line, f"hydra.run.dir={folder}"])
            found[name] = {"code": code} | fingerprint(folder)
            print(f"{name}: {time.monotonic() - started:.1f} s", code, file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
        if only in "killed":
            found["killed"] = killed(tree, Path(outputs) / "killed")
    json.dump(found, sys.stdout, indent=1)


def quietly(main, line: list[str]) -> int | str:
    """Runs a command line and hides its output. Returns its exit code; if that is not 0, also what
    it wrote to standard error.
    """
    complaints = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(complaints):
        try:
            main(line)
        except SystemExit as exit:
            return f"{exit.code} {complaints.getvalue()}" if exit.code else 0
    return 0


def killed(tree: Path, folder: Path) -> dict[str, Any]:
    """The record of a run that is killed when it has its first checkpoint, and then resumed."""
    command = [sys.executable, "-m", "supernet.cli", "retrain"]
    line = [*TINY, "method=darts", "search.epochs=20", "checkpoint.every_seconds=0"]
    first = subprocess.Popen(
        [*command, *line, f"hydra.run.dir={folder}"], cwd=tree, stdout=subprocess.DEVNULL
    )
    while not any((folder / "checkpoints").glob("search*.pt")):
        if first.poll() is not None:
            raise RuntimeError("the run ended before it could be killed")
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    again = subprocess.run([*command, f"from={folder}"], cwd=tree, stdout=subprocess.DEVNULL)
    return {"code": again.returncode} | fingerprint(folder)


def fingerprint(folder: Path) -> dict[str, Any]:
    """The figures and the checksums of what is in the folder of a run, without times and names."""
    import torch

    tensors: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.pt")):
        for tensor in every_tensor(torch.load(path, map_location="cpu", weights_only=True)):
            data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            head = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
            tensors[hashlib.sha256(head + data).hexdigest()[:16]] += 1
    results = folder / "results.json"
    figures = dict(flat(json.loads(results.read_text()))) if results.exists() else {}
    exported = {
        f"export/{name}": hashlib.sha256((folder / "export" / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "model.onnx")
        if (folder / "export" / name).exists()
    }
    return {"figures": figures | exported, "tensors": dict(sorted(tensors.items()))}


def every_tensor(value: Any) -> Iterator[Any]:
    """Yields all tensors of a nested value."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from every_tensor(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from every_tensor(part)


def flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every figure of nested results with its path, without times and names."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name not in CLOCK | NAMES and not name.endswith("seconds"):
                yield from flat(part, f"{at}/{name}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from flat(part, f"{at}/{index}")
    else:
        yield at, value


# --- comparing


def compare(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Prints every difference between two records; whether there is none."""
    same = True
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            print(f"{name}: only {'after' if name in after else 'before'}")
            continue
        one, other = before[name], after[name]
        lines = [f"exit code {one['code']!r}, {other['code']!r}"] * (one["code"] != other["code"])
        figures = one["figures"], other["figures"]
        for place in sorted(figures[0].keys() & figures[1].keys()):
            if figures[0][place] != figures[1][place]:
                lines.append(f"{place}: {figures[0][place]!r}, {figures[1][place]!r}")
        bags = Counter(one["tensors"]), Counter(other["tensors"])
        lost, new = (bags[0] - bags[1]).total(), (bags[1] - bags[0]).total()
        if lost or new:
            lines.append(f"of {bags[0].total()} tensors {lost} are gone, {new} are new")
        same &= not lines
        alone = sorted(figures[0].keys() ^ figures[1].keys())
        aside = f" (figures of one side alone: {', '.join(alone[:6])} ...)" if alone else ""
        print(f"{name}: {'same' if not lines else 'DIFFERENT'}{aside}")
        for line in lines[:12]:
            print(f"    {line[:200]}")
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="do the runs and record their results")
    recording.add_argument("file", type=Path)
    recording.add_argument("--revision", help="a git revision; default: the working tree")
    recording.add_argument("--only", default="", help="do only runs with this word in their name")
    comparing = commands.add_parser("compare", help="print where two records differ")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    running = commands.add_parser("run-all")
    running.add_argument("tree", type=Path)
    running.add_argument("only")
    given = parser.parse_args()
    if given.command == "record":
        record(given.file, given.revision, given.only)
    elif given.command == "run-all":
        run_all(given.tree, given.only)
    else:
        sides = (
            json.loads(path.read_text(encoding="utf-8")) for path in (given.before, given.after)
        )
        sys.exit(0 if compare(*sides) else 1)


if __name__ == "__main__":
    main()
