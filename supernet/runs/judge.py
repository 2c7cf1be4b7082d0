"""The job that runs the searcher, which judges architectures with the weights of the supernet, or
by training them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Architecture, Logits
from supernet.randomness import Streams
from supernet.runs.job import Job
from supernet.runs.judging import (
    costs_of,
    judge,
    judge_together,
    kept_judgements,
    shown,
)
from supernet.runs.search import Search, searches, trained_supernet
from supernet.runs.setup import option
from supernet.runs.training import training_settings
from supernet.runs.trial import judged_by_training
from supernet.runs.value import valued
from supernet.searchers.perturbation import PerturbationSelection
from supernet.searchers.searcher import SearchResult, order, search
from supernet.train.search import SearchStage, mean_scores
from supernet.train.tuning import TuningStage

if TYPE_CHECKING:
    from supernet.runs.work import Work

ROWS, TUNING = "derive", TuningStage.name  # the names under which judgements and tuning are logged


@dataclass(frozen=True)
class Judge(Job):
    """Finds the searcher's best architectures, as many as the shortlist has."""

    name = "judge"
    stages = (ROWS, TUNING)
    smaller = "judge.batch_size"

    def inputs(self, work: "Work") -> dict[str, Any]:
        size = work.config.shortlist.size
        settings = work.setup.of("searcher", "judge", "budget", "distinct")
        if not searches(work.setup):
            settings |= training_settings(work.setup)
        return settings | {"searches": searches(work.setup), "size": size}

    def needs(self, work: "Work") -> list[Search]:
        return searches(work.setup)

    def compute(self, work: "Work") -> dict[str, Any]:
        """The best architectures, best first, and a record of the search.

        The scores, and the judgements with inherited weights, are the means over all supernets. A
        derivation by perturbation tunes the last supernet, which then judges alone. Without a
        supernet there are no scores, and architectures are trained.
        """
        stages = [trained_supernet(work, job.number) for job in searches(work.setup)]
        searcher, budget = work.setup.fresh("searcher"), work.budget
        tuned: dict[str, Any] = {}
        scores = mean_scores([stage.scores() for stage in stages]) if stages else {}
        if isinstance(searcher, PerturbationSelection):
            scores, tuned = perturbed(work, stages[-1], searcher, work.key(self))
            stages = stages[-1:]
        searcher.begin(budget, scores, Streams(work.config.seed).host("searcher"))

        def judge_one(architecture: Architecture, share: float) -> Judgement:
            if not stages:
                return judged_by_training(work, architecture, share)
            return judge_together(work.setup, stages, architecture, share, work.at_once)

        with kept_judgements(work, work.key(self)) as kept:
            with_value = valued(work, work.key(self), judge_one)

            def judge_next(architecture: Architecture, share: float) -> Judgement:
                kept.about_to_judge()
                return with_value(architecture, share)

            with work.progress.stage(ROWS, searcher.total) as update:
                found = search(
                    searcher,
                    judge_next,
                    kept.known,
                    lambda count, judgement: update(count, shown(judgement)),
                    work.same,
                )
            seconds = kept.seconds + tuned.pop("seconds", 0.0)
        best = sorted(found.judged, key=lambda architecture: order(found.judged[architecture]))
        judgement = found.judged[best[0]]
        return {
            "best": [work.space.encode(one) for one in best[: work.config.shortlist.size]],
            "found": {
                "searcher": option(searcher),
                "inherited_accuracy": judgement.accuracy,
                "standard_error": judgement.standard_error,
                "evaluated": len(found.judged),  # on all validation images
                "judgements": len(found.told),  # and on shares of them
                "images": found.images,
                "seconds": seconds,
                **tuned,
                "pareto": logged_front(work, found),
            },
        }


def logged_front(work: "Work", found: SearchResult) -> list[dict[str, Any]]:
    """Logs every architecture that was judged. Returns the Pareto front of accuracy and cost."""
    costs = {one: costs_of(work, one) for one in found.judged}
    with work.rows(ROWS) as rows:
        for index, (architecture, judgement) in enumerate(found.judged.items(), start=1):
            rows.log(ROWS, index, shown(judgement) | costs[architecture])
    if len(costs) == 1:
        return []
    metric = work.config.judge.cost
    return [
        {"text": work.space.encode(architecture)} | costs[architecture] | shown(judgement)
        for architecture, judgement in found.front(lambda one: costs[one][metric])
    ]


def perturbed(
    work: "Work", stage: SearchStage, searcher: PerturbationSelection, key: str
) -> tuple[Logits, dict[str, Any]]:
    """The scores of a derivation by perturbation, and a record of how they were found.

    The supernet of ``stage`` is tuned for this.
    """
    projection = searcher.projection(
        work.budget,
        lambda mixture, share: judge(
            work.setup, stage.supernet, mixture, share, workers=work.at_once
        ),
        lambda: stage.sampler.mean(stage.detached_logits, 1 - 1 / stage.planned),
        Streams(work.config.seed).host("perturbation"),
    )
    lr = searcher.lr or work.config.search.lr / 10
    cost = work.train(TuningStage(stage, projection, searcher.tune_epochs, lr, key=key))
    return projection.scores(), {
        "seconds": cost.seconds,
        "tuned_steps": cost.steps,
        "kept": projection.kept,
    }
