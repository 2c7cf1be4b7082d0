"""Compares growth (Petridish) with growth by chance, a wider seed, and searches, on several seeds;
and measures what each part of the method does.

    python tools/growth.py --data c16.npz [--seeds 0 1 2] [--only by_chance wider] [--folder DIR]
    python tools/growth.py --text book.txt ...
    python tools/growth.py --data c16.npz --ablations

Each variant is a run of the command line in a folder of its own, which goes on where it was
stopped. The found networks are retrained by one recipe. What comes before has so many epochs, or
networks, that a rival costs about as much as Petridish, and the table says what each took. The
wider seed has nothing before: "wider" costs less, and "wider_longer" spends the same cost on more
epochs of its training. The table, in Markdown, has the mean test
accuracy with its 95% interval, that minus Petridish's with the same seeds, the least validation
error, the hypervolume of multiply-adds and validation error, and the seconds of everything. The
ablations only grow, to four networks, and have no test accuracy.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from supernet import cli
from supernet.evaluate.hull import hypervolume
from supernet.evaluate.statistics import mean_and_interval, paired_difference_and_interval

COMMON = ["size=small", "tracker=none", "jobs=1", "measure.every=0", "baseline.architectures=0"]
COMMON += ["retrain.seeds=1", "retrain.epochs=15"]
IMAGES = ["data=npz", "data.train_limit=4000", "data.architecture_share=0.25"]
TEXT = ["data=text", "data.train_limit=6400", "data.architecture_share=0.25"]
GROWTH = ["method=petridish", "growth.models=5", "growth.seed_epochs=8", "search.epochs=2"]
GROWTH += ["growth.epochs=6"]
# the wider seed, by the recipe of all and with more epochs, on images and on text
WIDER = {"wider": (15, 15), "wider_longer": (62, 110)}

# name -> what differs from Petridish
GROWN = {"petridish": [], "by_chance": ["growth.by_chance=true", "growth.epochs=9"]}
FEW = 4  # networks of an ablation
ABLATIONS = {
    "petridish": [],
    "without_l1": ["learner.weight=0"],
    "scaled": ["space.scale=0.0001"],
    "signed": ["sampler.signed=true"],
    "cold": ["growth.warm_start=false"],
    "one": ["space.keep=1"],
    "six": ["space.keep=6"],
}
# searches: their settings on images, and on text, where they find networks as large as growth does
OTHERS = {
    "steady_darts": (
        ["method=steady_darts", "search.epochs=12"],
        ["method=steady_darts", "search.epochs=2"],
    ),
    "random_search": (
        ["method=spos", "search.epochs=1", "shortlist.size=16"],
        ["method=spos", "search.epochs=1", "shortlist.size=5"],
    ),
}
SEARCHED_TEXT = ["space=gpt", "budget.madds=5300000"]


def lines(name: str, images: bool, wider: int) -> list[str]:
    """The settings of a variant. ``wider`` are the channels of the wider seed."""
    if name in OTHERS:
        return [*OTHERS[name][not images], *([] if images else SEARCHED_TEXT)]
    growth = [*GROWTH, *([] if images else ["space=growing_text"])]
    if name in WIDER:
        width, epochs = "evaluation.channels" if images else "embedding", WIDER[name][not images]
        alone = ["growth.models=1", "growth.seed_epochs=1"]
        return [*growth, *alone, f"space.{width}={wider}", f"retrain.epochs={epochs}"]
    return [*growth, *(GROWN | ABLATIONS)[name]]


def run(name: str, seed: int, data: Sequence[str], folder: Path, wider: int) -> dict[str, Any]:
    """The results of one run, which is done if its folder does not hold them. An ablation only
    grows.
    """
    path, ablation = folder / f"{name}-{seed}", name in ABLATIONS and name != "petridish"
    known, last = path / "results.json", "growth" if ablation else "retrain"
    if not known.exists() or last not in json.loads(known.read_text(encoding="utf-8")):
        common = [*COMMON, f"seed={seed}", f"hydra.run.dir={path}"]
        settings = [*common, *lines(name, "data=npz" in data, wider), *data]
        command = (
            ["search", *settings, f"growth.models={FEW}"] if ablation else ["retrain", *settings]
        )
        cli.main(command)
    found: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
    return found


def row(name: str, found: list[dict[str, Any]], rival: list[float], most: float) -> list[str]:
    """A row of the table of rivals."""
    accuracy = [one["retrain"]["mean"] for one in found]
    cells = [name, shown(accuracy), "–" if name == "petridish" else shown(accuracy, rival)]
    models = [one["growth"]["models"] for one in found if "growth" in one]
    cells += figures(models, most) if models else ["–", "–"]
    cells += [f"{np.mean([one['cost']['madds'] for one in found]):,.0f}"]
    return [*cells, f"{np.mean([one['total_seconds'] for one in found]):.0f}"]


def figures(grown: list[list[dict[str, Any]]], most: float) -> list[str]:
    """The least validation error, and the hypervolume, of several growths."""
    errors = [min(model["error"] for model in models) for models in grown]
    points = [[(model["madds"], model["error"]) for model in models] for models in grown]
    return [shown(errors), shown([hypervolume(one, (most, 1.0)) for one in points])]


def shown(values: list[float], minus: list[float] | None = None) -> str:
    """A mean and its interval, in percent, or those of the differences of pairs."""
    found = mean_and_interval(values)
    if minus is not None:
        found = paired_difference_and_interval(values, minus)
    mean, interval = found
    ends = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * mean:.1f}{ends}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="an npz file of images")
    source.add_argument("--text", type=Path, help="a text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="names of variants; petridish is always there")
    parser.add_argument("--ablations", action="store_true", help="the parts of the method instead")
    parser.add_argument("--folder", type=Path, default=Path("growth"))
    parser.add_argument("--wider", type=int, default=20, help="channels of the wider seed")
    parser.add_argument("--settings", nargs="*", default=[], help="further settings of every run")
    given = parser.parse_args()
    data = [*(TEXT if given.text else IMAGES), *given.settings]
    data.append(f"data.source.path={(given.text or given.data).resolve()}")
    names = [*ABLATIONS] if given.ablations else [*GROWN, *WIDER, *OTHERS]
    names = [name for name in names if not given.only or name in (*given.only, "petridish")]
    found = {
        name: [run(name, seed, data, given.folder, given.wider) for seed in given.seeds]
        for name in names
    }
    few = FEW if given.ablations else None
    grown = {
        name: [one["growth"]["models"][:few] for one in runs if "growth" in one]
        for name, runs in found.items()
    }
    most = max(one["madds"] for runs in grown.values() for models in runs for one in models)
    columns, end = ["variant"], ["least validation error (%)", "hypervolume (%)"]
    if given.ablations:
        columns += end
        rows = [[name, *figures(models, most)] for name, models in grown.items()]
    else:
        columns += ["test accuracy (%)", "minus petridish", *end, "multiply-adds", "seconds"]
        rival = [one["retrain"]["mean"] for one in found["petridish"]]
        rows = [row(name, runs, rival, most) for name, runs in found.items()]
    for cells in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
