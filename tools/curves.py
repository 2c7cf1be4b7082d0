"""Measures how often the rule that ends trainings early loses the best one, and what it saves.

    python tools/curves.py [--cells N] [--json FILE] [KEY=VALUE ...]

The tool trains N random architectures from scratch, each to its last epoch, and judges each on
held-out training images after every epoch. The settings KEY=VALUE are those of ``supernet``; the
default is ``size=small``, and ``data=npz data.source.path=FILE`` takes your own data. The tool then
applies the rule of ``shortlist`` to these learning curves, in many random orders, for each value of
``first_look`` and ``confidence``.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from supernet.cli.composition import composed
from supernet.environment import environment
from supernet.evaluate.curves import extrapolated
from supernet.randomness import Streams
from supernet.runs.candidate import Candidate, candidate_stage
from supernet.runs.folder import State
from supernet.runs.setup import Setup
from supernet.runs.work import Work
from supernet.train.loop import run_stage

LOOKS = (0.4, 0.6, 0.8)
CONFIDENCES = (0.5, 0.8, 0.95, 0.99)


def trained(work: Work, count: int) -> list[dict[str, Any]]:
    """Trains ``count`` different random architectures.

    Returns, for each, its text in the notation of the space, its number of parameters, the seconds
    that its training took, and its learning curve.
    """
    rng, found = Streams(work.config.seed).host("curves"), {}
    while len(found) < count:
        architecture = work.budget.random(rng)
        if architecture in found:
            continue
        text = work.space.encode(architecture)
        stage = candidate_stage(work, Candidate((text,)), [])
        cost = run_stage(stage)
        size = sum(weight.numel() for weight in stage.network.parameters())
        found[architecture] = {
            "text": text,
            "params": size,
            "seconds": cost.seconds,
            "curve": stage.curve,
        }
        print(
            f"{len(found)}/{count}  {cost.seconds:.1f} s  {stage.curve[-1]:.4f}  {text}",
            file=sys.stderr,
            flush=True,
        )
    return list(found.values())


def played(
    curves: np.ndarray, likely: np.ndarray, high: np.ndarray, first: int, bend: bool
) -> dict[str, float]:
    """Applies the rule of :func:`supernet.evaluate.curves.hopeless` to finished ``curves`` [runs,
    epochs], one after the other, from epoch ``first`` on.

    ``likely`` and ``high`` [runs, epochs] are the predictions after each epoch. Without ``bend``
    the rule does not add what the learning rate schedule may give.
    """
    epochs = curves.shape[1]
    finished, ended, wrong, spared = [], [], 0, 0
    for one in range(len(curves)):
        at = None
        if finished:
            last = curves[finished, -1]
            gained = np.maximum((last[:, None] - likely[finished]).max(0), 0) if bend else 0
            hopeless = np.flatnonzero((high[one] + gained < last.max())[first - 1 : epochs - 1])
            at = None if not len(hopeless) else first + int(hopeless[0])
        if at is None:
            finished.append(one)
        else:
            ended.append(one)
            spared += epochs - at
            wrong += curves[one, -1] > last.max()
    best = curves[:, -1].max()
    return {
        "ended": len(ended),
        "wrong": int(wrong),
        "spared": spared,
        "best_lost": float(curves[finished, -1].max() < best),
        "regret": float(best - curves[finished, -1].max()),
    }


def table(curves: np.ndarray, shortlist: int, orders: int, seed: int) -> list[dict[str, Any]]:
    """A row for each first look and confidence, with and without the bend of the schedule.

    The figures are means over ``orders`` random draws of ``shortlist`` curves.
    """
    (count, epochs), rng, rows = curves.shape, np.random.default_rng(seed), []
    draws = [rng.permutation(count)[:shortlist] for _ in range(orders)]
    for confidence in CONFIDENCES:
        forecasts = [
            [extrapolated(curve[: n + 1], epochs, confidence) for n in range(epochs)]
            for curve in curves
        ]
        likely, high = (
            np.array([[getattr(one, end) for one in row] for row in forecasts])
            for end in ("likely", "high")
        )
        for look in LOOKS:
            first = int(np.ceil(look * epochs))
            for bend in (False, True):
                each = [
                    played(curves[draw], likely[draw], high[draw], first, bend) for draw in draws
                ]
                total = {name: sum(one[name] for one in each) for name in each[0]}
                runs = sum(len(draw) for draw in draws)
                rows.append(
                    {
                        "first_epoch": first,
                        "confidence": confidence,
                        "bend": bend,
                        "ended": total["ended"] / runs,
                        "wrong_of_ended": total["wrong"] / total["ended"]
                        if total["ended"]
                        else None,
                        "epochs_saved": total["spared"] / (runs * epochs),
                        "best_lost": total["best_lost"] / orders,
                        "regret": total["regret"] / orders,
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings, as for supernet"
    )
    parser.add_argument("--cells", type=int, default=30, help="number of random architectures")
    parser.add_argument(
        "--shortlist", type=int, default=10, help="how many of them form one shortlist"
    )
    parser.add_argument(
        "--orders", type=int, default=1000, help="number of shortlists, drawn at random"
    )
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    parser.add_argument(
        "--curves",
        type=Path,
        help="file that --json wrote; use its curves instead of training again",
    )
    arguments = parser.parse_args()
    if arguments.curves:
        value = json.loads(arguments.curves.read_text(encoding="utf-8"))
    else:
        started = time.perf_counter()
        work = Work(Setup(composed(arguments.overrides)), State(Path("curves")))  # writes nothing
        value = {
            "overrides": arguments.overrides,
            "seed": work.config.seed,
            "runs": trained(work, arguments.cells),
        }
        value |= {
            "seconds": time.perf_counter() - started,
            "environment": environment(work.setup.device),
        }
    curves = np.array([one["curve"] for one in value["runs"]])
    value["rule"] = table(
        curves, min(arguments.shortlist, len(curves)), arguments.orders, value["seed"]
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(value, indent=1), encoding="utf-8")
    last = curves[:, -1]
    print(
        f"{len(curves)} curves of {curves.shape[1]} epochs, accuracy at the end {last.min():.2%} "
        f"to {last.max():.2%}"
    )
    print("first epoch  confidence  bend   ended  of these wrong  epochs saved  best lost  regret")
    for row in value["rule"]:
        bend, wrong = "yes" if row["bend"] else "no", row["wrong_of_ended"]
        print(
            f"{row['first_epoch']:>11}  {row['confidence']:>10}  {bend:<4}  {row['ended']:>6.1%}"
            f"  {'–' if wrong is None else format(wrong, '.2%'):>14}  {row['epochs_saved']:>12.1%}"
            f"  {row['best_lost']:>9.1%}  {row['regret']:.2%}"
        )


if __name__ == "__main__":
    main()
