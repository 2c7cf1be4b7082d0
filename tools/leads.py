"""Measures leads that may make a supernet rank architectures better, and that no setting has.

    python tools/leads.py RANK_DIR LEAD [--cells N]

RANK_DIR is a folder of ``supernet rank from=RUN_DIR rank.published=FILE.npz`` whose supernet was
trained on uniform single paths. Its architectures are judged once more, by what a LEAD makes of the
same settings in the same number of steps. The tool prints Kendall's tau with the published
accuracy, of the accuracy, of minus the loss and of the vote, each with its 95% interval.

LEAD is one of:

    batch         BatchNorm uses the statistics of each judged batch, not recalibrated ones
    checkpoints   the mean of the judgements with the weights after each of the last three epochs
    several:N     the mean of the judgements of N supernets, of which N - 1 are trained in addition
    skips         accuracy and loss without what a skip connection adds to them beyond the truth,
                  by least squares on the first 30 architectures; tau is that of the others
    split:COPIESxEPOCHS,...
                  few-shot supernets (Zhao et al., ICML 2021): COPIES copies of the weights are
                  trained for EPOCHS epochs each. Each copy trains the architectures that have the
                  same options in the first slots: as many slots as the copies need. The copies of a
                  part begin with the weights that they have in common with those of the part
                  before; if there are fewer copies than before, with the mean of those. So 1x30,5x6
                  shares less and less (Zhou et al., ECCV 2022), 5x6,1x30 more and more, and 5x12
                  never shares all.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from supernet.cli.composition import composed
from supernet.cli.recorded import overrides_of
from supernet.evaluate.accuracy import Judgement, evaluate, mean_judgement
from supernet.evaluate.ranking import correlations
from supernet.evaluate.untrained import VOTERS, vote
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.folder import State
from supernet.runs.judging import batches, judge, judge_together
from supernet.runs.search import search_stage, trained_supernet
from supernet.runs.setup import Setup
from supernet.runs.work import Work
from supernet.samplers.uniform import Uniform
from supernet.train.loop import run_stage
from supernet.train.search import SearchStage

Judge = Callable[[Architecture], Judgement]
Weights = dict[str, Tensor]
ANCHORS = 30  # architectures that are trained in truth, for the lead "skips"
LAST = 3  # epochs whose weights judge, for the lead "checkpoints"


@dataclasses.dataclass
class Within(Uniform):
    """Uniform paths that have the ``options`` in the first slots."""

    options: tuple[str, ...] = ()

    def drawn(self) -> Architecture:
        rest = self.space.values(super().drawn())[len(self.options) :]
        return self.space.express([*self.options, *rest])


def batch_statistics(work: Work, _: str) -> Judge:
    supernet = trained_supernet(work).trained.eval()
    for module in supernet.modules():
        if isinstance(module, _BatchNorm):
            module.train().momentum = 0.0  # the running statistics stay as they are
    setup, size = work.setup, work.config.judge.batch_size

    def judge_one(architecture: Architecture) -> Judgement:
        mixture = setup.space.path(architecture)
        images = batches(setup, setup.splits.architecture, size)
        return evaluate(lambda inputs: supernet(inputs, mixture), images, setup.task)

    return judge_one


def checkpoints(work: Work, _: str) -> Judge:
    stage, kept = search_stage(work.setup, work.budget), []
    end_of_epoch = stage.end_of_epoch

    def kept_at_the_end() -> dict[str, float]:
        if stage.done > stage.planned - LAST * stage.steps_per_epoch:
            kept.append(copied(stage.trained))
        return end_of_epoch()

    stage.end_of_epoch = kept_at_the_end  # type: ignore[method-assign]
    run_stage(stage)

    def judge_one(architecture: Architecture) -> Judgement:
        each = []
        for weights in kept:
            stage.trained.load_state_dict(weights)
            each.append(judge(work.setup, stage.trained, architecture))
        return mean_judgement(each)

    return judge_one


def several(work: Work, count: str) -> Judge:
    stages = [trained_supernet(work)]
    for number in range(1, int(count)):
        stages.append(search_stage(work.setup, work.budget, number))
        run_stage(stages[-1])
    return lambda architecture: judge_together(work.setup, stages, architecture)


def split(work: Work, parts: str) -> Judge:
    """Supernets for the options of the first slots; see the head of this file."""
    found: dict[tuple[str, ...], Weights] = {(): copied(fresh(work, (), 1).supernet)}
    for copies, epochs in (tuple(map(int, part.split("x"))) for part in parts.split(",")):
        keys, before = list(keys_of(work, copies)), found
        found = {}
        for number, options in enumerate(keys):
            stage = fresh(work, options, epochs, mean(common(before, options)), number)
            run_stage(stage)
            found[options] = copied(stage.trained)
            print(f"copy {number + 1} of {copies} is trained", file=sys.stderr, flush=True)
    stages = {options: fresh(work, options, 1, weights) for options, weights in found.items()}
    slots = len(next(iter(stages)))

    def judge_one(architecture: Architecture) -> Judgement:
        options = tuple(work.space.values(architecture)[:slots])
        return judge(work.setup, stages[options].trained, architecture)

    return judge_one


def keys_of(work: Work, copies: int) -> Iterable[tuple[str, ...]]:
    """The options in the first slots, one tuple for each of ``copies``."""
    genes = work.space.genes
    for slots in range(len(genes) + 1):
        keys = list(itertools.product(*(gene.values for gene in genes[:slots])))
        if len(keys) >= copies:
            break
    if len(keys) != copies:
        sys.exit(f"split: {copies} copies do not divide the first slots; {len(keys)} would")
    return keys


def common(states: dict[tuple[str, ...], Weights], options: tuple[str, ...]) -> list[Weights]:
    """The states whose architectures have some in common with a copy that has ``options``."""
    return [
        state
        for theirs, state in states.items()
        if all(a == b for a, b in zip(theirs, options, strict=False))
    ]


def mean(states: list[Weights]) -> Weights:
    return {
        name: torch.stack([state[name] for state in states]).float().mean(0).to(value.dtype)
        for name, value in states[0].items()
    }


def copied(supernet: nn.Module) -> Weights:
    return {name: value.clone() for name, value in supernet.state_dict().items()}


def fresh(
    work: Work,
    options: tuple[str, ...],
    epochs: int,
    start: Weights | None = None,
    number: int = 0,
) -> SearchStage:
    """A search of ``epochs`` epochs among the architectures that have the ``options``."""
    setup = Setup(
        dataclasses.replace(
            work.config, search=dataclasses.replace(work.config.search, epochs=epochs)
        )
    )
    stage = search_stage(setup, work.budget, number, start=start)
    stage.sampler = Within(options=options)
    stage.sampler.begin(work.budget, stage.streams, stage.device)
    return stage


def corrected(work: Work, points: list[dict], truth: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """What was ``seen`` without what skip connections add to it beyond the ``truth``."""
    groups = work.space.groups
    chosen = [work.space.decode(point["text"]) for point in points]
    skips = np.array([sum(one[g.name].count(g.skip or "") for g in groups) for one in chosen])
    equations = np.stack([truth, skips, np.ones(len(truth))], axis=1)[:ANCHORS]
    slope, excess, _ = np.linalg.lstsq(equations, seen[:ANCHORS], rcond=None)[0]
    print(f"a skip connection is worth {excess:+.4f}, a point of the truth {slope:+.4f}")
    return seen - excess * skips


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="RANK_DIR")
    parser.add_argument("lead", metavar="LEAD")
    parser.add_argument("--cells", type=int, metavar="N", help="judge the first N architectures")
    given = parser.parse_args()
    if given.lead.partition(":")[0] not in ("skips", *JUDGES):
        parser.error(f"LEAD={given.lead}: choose skips, {', '.join(JUDGES)}")
    torch.set_num_threads(1)
    ranked = State.read(given.folder)
    result = ranked.stages["rank"]["result"]
    points, folder = result["points"][: given.cells], Path(result["supernets"][0]["folder"])
    name = result["supernets"][0]["name"]
    (target,) = (key for key in result["against"] if key.startswith("published "))
    truth = np.array([point[target] for point in points])
    work = Work(Setup(composed(overrides_of(folder))), State.read(folder))
    seen = [
        np.array([point[f"{name}, recalibrated{what}"] for point in points])
        for what in ("", ", minus loss")
    ]
    params, scores = [p["params"] for p in points], [[p[v] for p in points] for v in VOTERS]
    others = slice(ANCHORS if given.lead == "skips" else 0, None)
    for row, (accuracy, loss) in (
        ("as ranked", seen),
        (given.lead, measured(work, given.lead, points, truth, seen)),
    ):
        for how, values in (
            ("accuracy", accuracy),
            ("minus the loss", loss),
            ("vote", vote([loss, *scores])),
        ):
            rng = Streams(work.config.seed).host("bootstrap")
            found = correlations(values[others], truth[others], params[others], rng)
            print(
                f"{row}, {how}: {shown(found['all'])}, best tenth {shown(found['best_tenth'])}",
                flush=True,
            )


def measured(
    work: Work, lead: str, points: list[dict], truth: np.ndarray, seen: list[np.ndarray]
) -> list[np.ndarray]:
    """Accuracy and minus the loss of each architecture by a lead."""
    if lead == "skips":
        return [corrected(work, points, truth, values) for values in seen]
    name, _, details = lead.partition(":")
    judge_one = JUDGES[name](work, details)
    found = [judge_one(work.space.decode(point["text"])) for point in points]
    return [np.array([one.accuracy for one in found]), np.array([-one.loss for one in found])]


JUDGES: dict[str, Callable[[Work, str], Judge]] = {
    "batch": batch_statistics,
    "checkpoints": checkpoints,
    "several": several,
    "split": split,
}


def shown(found: dict) -> str:
    low, high = found["tau_ci95"] or (float("nan"),) * 2
    return f"{found['tau'] or float('nan'):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
