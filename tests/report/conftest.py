"""Run folders as three spaces leave them, with figures that nobody would find elsewhere on the
page. The first is of a single search under its older name, ``search``; the second of one supernet,
``search/0``; the third of three supernets, in a space that has no drawing.
"""

import json
import math
from pathlib import Path

import pytest
import yaml

NB201 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
DARTS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
KERNELS, WIDTHS = ("3x3", "5x5", "7x7"), tuple(str(width) for width in range(8, 80, 8))
OUTPUTS = [[str(node), "c_k", ""] for node in range(4)]  # edges that no decision is about
SPACES = {
    "nb201": {
        "stages": ("search",),
        "groups": {"edges": (6, NB201)},
        "choices": {
            "edges": [
                "nor_conv_3x3",
                "skip_connect",
                "nor_conv_1x1",
                "none",
                "avg_pool_3x3",
                "nor_conv_3x3",
            ]
        },
        "text": "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|"
        "+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|",
        "graph": {
            "cell": [
                ["0", "1", "nor_conv_3x3"],
                ["0", "2", "skip_connect"],
                ["1", "2", "nor_conv_1x1"],
                ["1", "3", "avg_pool_3x3"],
                ["2", "3", "nor_conv_3x3"],
            ]
        },
    },
    "darts": {  # DARTS_V1 of the paper
        "stages": ("search/0",),
        "groups": {"normal": (14, DARTS), "reduce": (14, DARTS)},
        "choices": {"normal": ["skip_connect"] * 14, "reduce": ["max_pool_3x3"] * 14},
        "text": "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), "
        "('sep_conv_3x3', 1), "
        "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], "
        "normal_concat=range(2, 6), "
        "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', "
        "0), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=range(2, "
        "6))",
        "graph": {
            "normal": [
                ["c_{k-1}", "0", "sep_conv_3x3"],
                ["c_{k-2}", "0", "sep_conv_3x3"],
                ["c_{k-2}", "1", "skip_connect"],
                ["c_{k-1}", "1", "sep_conv_3x3"],
                ["c_{k-2}", "2", "skip_connect"],
                ["c_{k-1}", "2", "sep_conv_3x3"],
                ["c_{k-2}", "3", "sep_conv_3x3"],
                ["0", "3", "skip_connect"],
                *OUTPUTS,
            ],
            "reduce": [
                ["c_{k-2}", "0", "max_pool_3x3"],
                ["c_{k-1}", "0", "max_pool_3x3"],
                ["0", "1", "skip_connect"],
                ["c_{k-2}", "1", "max_pool_3x3"],
                ["c_{k-2}", "2", "max_pool_3x3"],
                ["0", "2", "skip_connect"],
                ["0", "3", "skip_connect"],
                ["c_{k-2}", "3", "avg_pool_3x3"],
                *OUTPUTS,
            ],
        },
        "nodes": {
            name: ["c_{k-2}", "c_{k-1}", "0", "1", "2", "3", "c_k"] for name in ("normal", "reduce")
        },
    },
    "elastic": {  # no cells, no graph: kernels, widths and a depth
        "stages": ("search/0", "search/1", "search/2"),
        "groups": {"kernel": (4, KERNELS), "width": (2, WIDTHS), "depth": (1, ("2", "3", "4"))},
        "choices": {"kernel": ["5x5", "3x3", "7x7", "3x3"], "width": ["24", "64"], "depth": ["3"]},
        "text": "kernel=5x5,3x3,7x7,3x3 width=24,64 depth=3",
    },
}
INSTRUMENTS = {
    "shares": {
        "title": "share of the derivation (fraction)",
        "meaning": "a rise: options without weights take over",
        "prefixes": ["share/skip", "share/parameter_free"],
    },
    "eigenvalue": {
        "title": "dominant eigenvalue",
        "meaning": "growth: the search has come to a sharp place",
        "prefixes": ["eigenvalue"],
    },
    "gap": {
        "title": "accuracy, mixture and derived",
        "meaning": "far apart: the mixture is not what is derived from it",
        "prefixes": ["gap/"],
        "unit": "%",
    },
    "gradient_cosine": {
        "title": "cosine of logit gradients",
        "meaning": "near 1: step after step goes the same way",
        "prefixes": ["gradient_cosine"],
    },
    "gradient_norms": {
        "title": "gradient norm of an option's weights",
        "meaning": "near 0: the option no longer learns",
        "prefixes": ["gradient_norm/"],
    },
}
SEARCH_EPOCHS, STEPS, RETRAIN_EPOCHS = 12, 11, 8


def results(space: str) -> dict:
    parts = SPACES[space]
    return {
        "schema": 1,
        "name": f"darts-{space}-digits",
        "seed": 7,
        "space": space,
        "method": "darts",
        "data": "digits",
        "parent": None,
        "architecture": {"space": space}
        | {k: parts[k] for k in ("choices", "text", "graph", "nodes") if k in parts},
        "cost": {"params": 73754, "madds": 1234567},
        "search": {
            "seconds": 31.2,
            "steps": 132,
            "peak_memory_bytes": 812345678,
            "epochs": SEARCH_EPOCHS,
            "supernets": len(parts["stages"]),
            "instruments": INSTRUMENTS,
            "method": "darts",
            "warm_start": {
                "method": "spos",
                "seconds": 17.7,
                "steps": 99,
                "peak_memory_bytes": 1,
                "warm_start": None,
            },
            "fidelity": fidelity("search", SEARCH_EPOCHS, 50),
            "parts": {"eigenvalue": {"seconds": 4.56}},
            "guards": [{"guard": "early_stop", "epoch": 8, "what": "grew & <ended>"}],
        },
        "derive": {
            "searcher": "derived",
            "inherited_accuracy": 0.9123,
            "evaluated": 20,
            "judgements": 20,
            "images": 20 * 180,
            "seconds": 0.4,
            "pareto": pareto(),
        },
        "retrain": {
            "accuracy": [0.9811, 0.9722, 0.9855],
            "mean": 0.9796,
            "ci95": [0.9629, 0.9963],
            "seconds": 40.1,
            "epochs": RETRAIN_EPOCHS,
            "init": "scratch",
            "fidelity": fidelity("retrain", RETRAIN_EPOCHS, 600),
        },
        "random_baseline": {
            "accuracy": [0.9533, 0.9744],
            "mean": 0.96385,
            "ci95": [0.8298, 1.0979],
            "seconds": 35.6,
            "architectures": [
                {"text": "random & first", "params": 50010, "madds": 1000020, "accuracy": 0.9533},
                {"text": "random <second>", "params": 90030, "madds": 1500040, "accuracy": 0.9744},
            ],
        },
        "environment": {
            "python": "3.11.7",
            "torch": "2.15.0",
            "platform": "Linux <x86>",
            "git_commit": None,
        },
        "total_seconds": 107.3,
    }


def fidelity(stage: str, epochs: int, full: int) -> dict:
    return {
        "epochs": {"setting": f"{stage}.epochs", "value": epochs, "full": full},
        "training images": {"setting": "data.train_limit", "value": 10_000, "full": 50_000},
        "image size": {"setting": "data.image_size", "value": [16, 16], "full": [32, 32]},
    }


def pareto() -> list[dict]:
    """Three points of the front; as (accuracy, parameters) they are also the first, the middle and
    the last of those judged.
    """
    return [
        {
            "text": f"front {i}",
            "params": 40_101 + 1000 * i,
            "madds": 2_000_202 + i,
            "accuracy": 0.5112 + i / 100,
            "loss": 1.25 - i / 50,
        }
        for i in (0, 10, 19)
    ]


def rows(space: str) -> list[dict]:
    found = []
    for i in range(20):
        row = {
            "params": 40_101 + 1000 * i,
            "madds": 2_000_202 + i,
            "accuracy": 0.5112 + i / 100,
            "loss": 1.25 - i / 50,
        }
        if i not in (0, 10, 19):
            row["accuracy"] -= 0.3
        found.append({"stage": "derive", "step": i + 1} | row)
    stages = SPACES[space]["stages"]
    for i in range(1, SEARCH_EPOCHS * 2 + 1):  # supernets side by side, so their rows are mixed
        found += [search_row(space, stage, number, i) for number, stage in enumerate(stages)]
    for stage, scale in {
        "retrain/0": 3,
        "retrain/1": 3.2,
        "retrain/2": 3.4,
        "random/0": 2.6,
        "random/1": 2.8,
    }.items():
        for epoch in range(1, RETRAIN_EPOCHS + 1):
            row = {"stage": stage, "step": epoch * STEPS, "epoch": float(epoch)}
            found.append(
                row
                | {
                    "loss": scale * math.exp(-epoch / scale),
                    "accuracy": 1 - math.exp(-epoch / scale),
                }
            )
        found.append(
            {
                "stage": stage,
                "step": RETRAIN_EPOCHS * STEPS,
                "test_accuracy": 0.97,
                "test_loss": 0.1,
            }
        )
    return found


def search_row(space: str, stage: str, number: int, half_epochs: int) -> dict:
    """One row of supernet ``number``; the supernets differ in all figures."""
    epoch, shift = half_epochs / 2, number / 7
    row = {"stage": stage, "step": round(epoch * STEPS), "epoch": epoch}
    row |= {
        "loss": 2.3 * math.exp(-epoch / 5) + shift,
        "accuracy": 1 - math.exp(-epoch / (4 + shift)),
        "architecture_loss": 2.3 * math.exp(-epoch / 6) + 0.1 + shift,
    }
    if half_epochs % 2:
        return row
    row |= {
        "share/skip": epoch / 20,
        "share/parameter_free": epoch / 16,
        "gradient_cosine": 1 / (epoch + shift),
    }
    if epoch % 4 == 0:
        row |= {
            "eigenvalue": epoch**2 / 100 + shift,
            "gap/mixture": 0.8,
            "gap/derived": 0.8 - epoch / 50,
        }
    for group, (slots, options) in SPACES[space]["groups"].items():
        for option in options[-2:]:
            row[f"gradient_norm/{group}/{option}"] = 1 / (epoch + len(option))
        row[f"entropy/{group}"] = math.log(len(options)) - 0.05 * epoch
        for slot in range(slots):
            for j, option in enumerate(options):
                wave = math.sin(3 * slot + 2 * j + shift)
                row[f"logits/{group}/{slot}/{option}"] = 0.05 * epoch * wave
    return row


@pytest.fixture(params=SPACES, scope="module")
def run_folder(request, tmp_path_factory) -> Path:
    """The folder of a finished run; not to be changed."""
    return write(
        tmp_path_factory.mktemp(request.param) / "run", results(request.param), rows(request.param)
    )


def configuration() -> dict:
    return {
        "seed": 7,
        "search": {"epochs": SEARCH_EPOCHS, "lr": 0.0517},
        "data": {"name": "digits & <co>"},
        "tags": ["a", "b"],
    }


def write(folder: Path, figures: dict, logged: list[dict]) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(figures))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(configuration()))
    return folder
