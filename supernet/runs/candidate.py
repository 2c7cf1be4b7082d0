"""The job that trains one of the searcher's best architectures from scratch, to compare them."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from supernet.data import Splits, split
from supernet.evaluate.curves import upper_bound
from supernet.randomness import Streams
from supernet.runs.job import Job
from supernet.runs.setup import Setup
from supernet.runs.training import NUMBERED, fresh_network, retrain_stage, training_settings
from supernet.train.candidate import CandidateStage

if TYPE_CHECKING:
    from supernet.runs.work import Work


@dataclass(frozen=True)
class Candidate(Job):
    """Trains the last of ``texts`` without the held-out images, which then judge it.

    The training ends early if the candidate cannot reach the accuracy of an earlier one. Therefore
    candidates need each other, and run one after the other.
    """

    texts: tuple[str, ...]  # the architectures, best first, up to this one

    smaller = "retrain.batch_size or a size under space.evaluation"

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"candidate/{len(self.texts) - 1}"

    def inputs(self, work: "Work") -> dict[str, Any]:
        settings = training_settings(work.setup) | work.setup.of("shortlist")
        return settings | {"architectures": list(self.texts)}

    def compute(self, work: "Work") -> dict[str, Any]:
        before = [work.result(Candidate(self.texts[:n])) for n in range(1, len(self.texts))]
        complete = [one["curve"] for one in before if not one["ended"]]
        stage = candidate_stage(work, self, complete)
        cost = work.train(stage)
        bound = None
        if stage.ended:
            epochs, best = work.config.retrain.epochs, max(curve[-1] for curve in complete)
            bound = upper_bound(stage.curve, epochs, work.config.shortlist.confidence, complete)
            work.progress.message(
                f"{self.name}: ended after {len(stage.curve)} of {epochs} epochs; it would come to "
                f"an accuracy of at most {bound:.2%} on the held-out images, where one before it "
                f"has {best:.2%}"
            )
        return dataclasses.asdict(cost) | {
            "text": self.texts[-1],
            "epochs": len(stage.curve),
            "ended": stage.ended,
            "held_out_accuracy": stage.curve[-1],
            "upper_bound": bound,
            "curve": stage.curve,
        }


def candidate_stage(work: "Work", job: Candidate, complete: list[list[float]]) -> CandidateStage:
    """The training of a candidate. ``complete`` are the curves of those that ran to the end."""
    setup, streams = work.setup, Streams(work.config.seed * 1000 + NUMBERED)
    parts = shortlist_splits(setup)
    network = fresh_network(setup, setup.space.decode(job.texts[-1]), streams)
    stage = retrain_stage(
        setup,
        job.name,
        network,
        parts.weights,
        streams,
        work.key(job),
        CandidateStage,
        held_out=parts.architecture,
        shortlist=setup.config.shortlist,
        finished=complete,
    )
    assert isinstance(stage, CandidateStage)
    return stage


@lru_cache(maxsize=1)  # not for every run of a study
def shortlist_splits(setup: Setup) -> Splits:
    """The images that a candidate trains on, and those that judge it (``architecture``)."""
    parts = ("images that candidates train on", "images held out by shortlist.held_out")
    chance = Streams(setup.config.seed).host("shortlist")
    share, images = 1 - setup.config.shortlist.held_out, setup.images
    found = split(
        setup.data.train.labels.cpu()[images],
        share,
        chance,
        parts=parts,
        names=setup.data.class_names,
        setting=f"shortlist.held_out={setup.config.shortlist.held_out}",
    )
    return Splits(images[found.weights], images[found.architecture])
