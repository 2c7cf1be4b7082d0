"""Compares growth (Petridish) with growth by chance, a wider seed, and searches, on several seeds.

    python tools/growth.py --data c16.npz [--seeds 0 1 2] [--only by_chance wider] [--folder DIR]
    python tools/growth.py --text book.txt ...

Each variant is a run of the command line in a folder of its own, which goes on where it was
stopped. Every run retrains its network by one recipe. The epochs of the variants are chosen so that
none costs less than Petridish; the table says what each took. It prints the table as Markdown: the
mean test accuracy with its 95% interval, that minus Petridish's with the same seeds, the least
validation error, the hypervolume of multiply-adds and validation error, and the seconds of
everything.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supernet import cli
from supernet.evaluate.hull import hypervolume
from supernet.evaluate.statistics import mean_and_interval

COMMON = ["size=small", "tracker=none", "jobs=1", "measure.every=0", "baseline.architectures=0"]
COMMON += ["retrain.seeds=1", "retrain.epochs=15"]
IMAGES = ["data=npz", "data.train_limit=4000", "data.architecture_share=0.25"]
TEXT = ["data=text", "space=growing_text", "data.train_limit=6400", "data.architecture_share=0.25"]
GROWTH = ["method=petridish", "growth.models=6", "growth.seed_epochs=8", "search.epochs=3"]
GROWTH += ["growth.epochs=5"]
WIDER = ["growth.models=1", "growth.seed_epochs=1"]

# name -> what differs from Petridish
GROWN = {
    "petridish": [],
    "by_chance": ["growth.by_chance=true", "growth.epochs=12"],
    "without_l1": ["learner.weight=0"],
    "scaled": ["space.scale=0.0001"],
    "signed": ["sampler.signed=true"],
    "cold": ["growth.warm_start=false"],
    "one": ["space.keep=1"],
    "six": ["space.keep=6"],
}
OTHERS = {
    "steady_darts": ["method=steady_darts", "search.epochs=12"],
    "random_search": ["method=spos", "search.epochs=1", "shortlist.size=5"],
}


def lines(name: str, images: bool, wider: int) -> list[str]:
    """The settings of a variant. ``wider`` are the channels of the wider seed."""
    if name in OTHERS:
        return OTHERS[name]
    settings = [*GROWTH, *GROWN.get(name, WIDER)]
    if name == "wider":
        width = "evaluation.channels" if images else "embedding"
        settings += [f"space.{width}={wider}", "retrain.epochs=60"]
    return settings


def run(name: str, seed: int, data: Sequence[str], folder: Path, wider: int) -> dict[str, Any]:
    """The results of one run, which is done if its folder does not hold them."""
    path = folder / f"{name}-{seed}"
    known = path / "results.json"
    if not known.exists() or "retrain" not in json.loads(known.read_text(encoding="utf-8")):
        common = [*COMMON, f"seed={seed}", f"hydra.run.dir={path}"]
        cli.main(["retrain", *common, *lines(name, "data=npz" in data, wider), *data])
    found: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
    return found


def row(name: str, found: list[dict[str, Any]], rival: list[float], most: float) -> str:
    """A row of the table."""
    accuracy = [one["retrain"]["mean"] for one in found]
    cells = [name, shown(accuracy), "–" if name == "petridish" else shown(less(accuracy, rival))]
    grown = [one["growth"]["models"] for one in found if "growth" in one]
    errors = [min(model["error"] for model in models) for models in grown]
    volumes = [
        hypervolume([(model["madds"], model["error"]) for model in models], (most, 1.0))
        for models in grown
    ]
    cells += [shown(errors) if errors else "–", shown(volumes) if volumes else "–"]
    cells += [f"{np.mean([one['cost']['madds'] for one in found]):,.0f}"]
    cells += [f"{np.mean([one['total_seconds'] for one in found]):.0f}"]
    return f"| {' | '.join(cells)} |"


def less(accuracy: list[float], rival: list[float]) -> list[float]:
    return [mine - other for mine, other in zip(accuracy, rival, strict=True)]


def shown(values: list[float]) -> str:
    """A mean and its interval, in percent."""
    mean, interval = mean_and_interval(values)
    ends = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * mean:.1f}{ends}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="an npz file of images")
    source.add_argument("--text", type=Path, help="a text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="names of variants; petridish is always there")
    parser.add_argument("--folder", type=Path, default=Path("growth"))
    parser.add_argument("--wider", type=int, default=20, help="channels of the wider seed")
    parser.add_argument("--settings", nargs="*", default=[], help="further settings of every run")
    given = parser.parse_args()
    data = [*(TEXT if given.text else IMAGES), *given.settings]
    data.append(f"data.source.path={(given.text or given.data).resolve()}")
    names = [*GROWN, "wider", *(() if given.text else OTHERS)]
    names = [name for name in names if not given.only or name in (*given.only, "petridish")]
    found = {
        name: [run(name, seed, data, given.folder, given.wider) for seed in given.seeds]
        for name in names
    }
    models = [
        m
        for runs in found.values()
        for one in runs
        for m in one.get("growth", {}).get("models", [])
    ]
    most = max(model["madds"] for model in models)
    rival = [one["retrain"]["mean"] for one in found["petridish"]]
    print("| variant | test accuracy (%) | minus petridish | least validation error (%) | ", end="")
    print("hypervolume (%) | multiply-adds | seconds |\n|---|---|---|---|---|---|---|")
    for name, runs in found.items():
        print(row(name, runs, rival, most))


if __name__ == "__main__":
    main()
