"""``supernet rank``: does the supernet put architectures in the right order?

Random architectures are judged with inherited weights, as the searchers judge them. These
judgements are compared with the truth: the accuracy after training from scratch, a published table,
or both. Two predictors that cost nothing are compared too: the number of parameters and the number
of multiply-adds. A supernet that does not rank better than these is not worth its cost (Yang,
Esperança & Carlucci, ICLR 2020; Yu et al., ICLR 2020).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from supernet.errors import UserError
from supernet.evaluate.published import Published, read_published
from supernet.evaluate.ranking import correlations
from supernet.evaluate.untrained import SCORES, VOTERS, vote
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.contents import require_same_content
from supernet.runs.job import Job, key_of
from supernet.runs.judging import all_judged, judge, untrained
from supernet.runs.search import Search, last_search, searches, trained_supernet, weights_key
from supernet.runs.setup import option
from supernet.runs.training import Train, training_settings
from supernet.runs.work import Work
from supernet.track.console import Progress

Predicted = dict[str, np.ndarray]  # predictor -> what each supernet says of each architecture


def ranking(work: Work, others: Sequence[Work]) -> "Ranking":
    """The job that ranks architectures with the supernet of a run and with those of ``others``.

    Raises:
        UserError: another supernet is not trained, or has another space or other images; or the
            table does not belong to this space.
    """
    for one in (work, *others):
        last_search(one.setup)  # a run without a supernet ranks nothing
    for other in others:
        require_comparable(work, other)
    job = Ranking(tuple(drawn(work)), tuple(others))
    job.published(work)  # so that an error is raised before anything is trained
    return job


def require_comparable(work: Work, other: Work) -> None:
    """Raises a UserError if the ranks of another run's supernet cannot be compared with these."""
    require_same_content(other.setup, other.state, None, Progress(quiet=True))
    if any(other.result(job) is None for job in searches(other.setup)):
        raise UserError(
            f"rank.beside={other.folder}: holds no trained supernet; run supernet search "
            f"from={other.folder} first"
        )
    if weights_key(other.setup) != weights_key(work.setup):
        raise UserError(
            f"rank.beside={other.folder}: its space, geometry, seed or images are others; such "
            "ranks do not compare"
        )


@dataclass(frozen=True, eq=False)
class Ranking(Job):
    """Judges ``architectures`` with every supernet, and compares the order with the truth.

    It runs in the main process, because only this process knows the runs ``others``.
    """

    architectures: tuple[Architecture, ...]
    others: tuple[Work, ...]

    name = "rank"
    smaller = "judge.batch_size"

    def inputs(self, work: Work) -> dict[str, Any]:
        keys = [other.key(job) for other in self.others for job in searches(other.setup)]
        settings = work.setup.of("rank", "judge", "budget") | training_settings(work.setup)
        texts = [work.space.encode(architecture) for architecture in self.architectures]
        own = searches(work.setup)
        return settings | {"searches": own, "others": keys, "architectures": texts}

    def needs(self, work: Work) -> list[Search]:
        return searches(work.setup)

    def trainings(self, work: Work) -> list[Train]:
        """The jobs that train the first of the architectures from scratch."""
        few = self.architectures[: work.config.rank.scratch]
        return [Train("rank", index, architecture) for index, architecture in enumerate(few)]

    def published(self, work: Work) -> Published | None:
        """The published table, if there is one.

        Raises:
            UserError: one of the architectures is not in it.
        """
        settings = work.config.rank
        if settings.published is None:
            return None
        table = read_published("rank.published", Path(settings.published), settings.target)
        texts = [work.space.encode(architecture) for architecture in self.architectures]
        for text in texts:
            table.require(text, f"rank.published={settings.published}", work.space.name)
        return table

    def compute(self, work: Work) -> dict[str, Any]:
        runs = named([work, *self.others])
        texts = [work.space.encode(architecture) for architecture in self.architectures]
        predicted: Predicted = {}
        judging = 0.0
        for name, one in runs.items():
            more, took = inherited(work, name, one, self.architectures)
            predicted, judging = predicted | more, judging + took
        started = time.perf_counter()
        if work.setup.task.dtype.is_floating_point:  # the scores need gradients of inputs
            predicted |= voted(predicted, scores_of(work, self.architectures))
        costs = [work.budget.costs(architecture) for architecture in self.architectures]
        predicted |= {
            metric: np.array([[one[metric] for one in costs]]) for metric in ("params", "madds")
        }
        seconds = judging + time.perf_counter() - started

        truths: dict[str, list[float]] = {}
        if trained := [work.result(job) for job in self.trainings(work)]:
            truths["trained from scratch"] = [result["accuracy"] for result in trained]
        published, settings = self.published(work), work.config.rank
        if published is not None:
            truths[f"published {settings.target}"] = published.of(texts, settings.target)
        return {
            "architectures": len(texts),
            "supernets": [
                {"name": name, "folder": str(one.folder)} | cost(one) for name, one in runs.items()
            ],
            "published": settings.published,
            "against": against(predicted, truths, published, texts, Streams(work.config.seed)),
            "points": [
                {"text": text}
                | {name: float(values[:, i].mean()) for name, values in predicted.items()}
                | {name: values[i] for name, values in truths.items() if i < len(values)}
                for i, text in enumerate(texts)
            ],
            "seconds": seconds,  # of the judging; the trainings have their own
        }


def inherited(
    work: Work, name: str, one: Work, architectures: Sequence[Architecture]
) -> tuple[Predicted, float]:
    """The accuracy and minus the loss of each architecture with the weights of each supernet of the
    run ``one``: once with recalibrated BatchNorm statistics, and once with the statistics that the
    training left. Several supernets also judge together: the mean of what each says. And the
    seconds that it took.
    """
    predicted: Predicted = {}
    seconds = 0.0
    jobs = searches(one.setup)
    supernets = [trained_supernet(one, job.number).trained for job in jobs]
    for recalibrated in (True, False):
        how = "recalibrated" if recalibrated else "as trained"
        few = one.config.judge.recalibration_batches if recalibrated else 0
        accuracies, losses = [], []
        for job, supernet in zip(jobs, supernets, strict=True):
            judge_one = partial(
                judge,
                one.setup,
                supernet,
                share=1.0,
                recalibration_batches=few,
                workers=work.at_once,
            )
            key = f"rank-{key_of(one.key(job), few)}"
            label = f"{name}, {how}" + (f", {job.name}" if len(jobs) > 1 else "")
            with work.progress.stage(label, len(architectures)) as update:
                found, took = all_judged(work, key, architectures, judge_one, update)
            seconds += took
            accuracies.append([judgement.accuracy for judgement in found])
            losses.append([-judgement.loss for judgement in found])
        for ending, values in (("", np.array(accuracies)), (", minus loss", np.array(losses))):
            predicted[f"{name}, {how}{ending}"] = values
            if len(jobs) > 1:
                together = f"{name}, {len(jobs)} together, {how}{ending}"
                predicted[together] = values.mean(axis=0, keepdims=True)
    return predicted, seconds


def named(runs: Sequence[Work]) -> dict[str, Work]:
    """Each run by the name of its sampler, and of its folder if two have the same sampler."""
    samplers = [option(one.setup.sampler) for one in runs]
    return {
        s if samplers.count(s) == 1 else f"{s} ({one.folder.name})": one
        for s, one in zip(samplers, runs, strict=True)
    }


def scores_of(work: Work, architectures: Sequence[Architecture]) -> dict[str, list[float]]:
    """Every score of the untrained network of each architecture."""
    scored, each = untrained(work, list(SCORES)), []
    with work.progress.stage("untrained", len(architectures)) as update:
        for count, architecture in enumerate(architectures, start=1):
            each.append(scored(architecture))
            update(count, {})
    return {name: [one[name] for one in each] for name in SCORES}


def voted(inherited: Predicted, scores: Mapping[str, Sequence[float]]) -> Predicted:
    """The ``scores`` of untrained networks; the votes of some of them alone, and with minus the
    losses that each supernet gives after recalibration.
    """
    voters, losses = [scores[name] for name in VOTERS], ", recalibrated, minus loss"
    votes = {
        name.replace(losses, ", vote"): np.array([vote([one, *voters]) for one in values])
        for name, values in inherited.items()
        if name.endswith(losses)
    }
    alone = {name: np.array([values]) for name, values in scores.items()}
    return votes | alone | {"untrained, vote": np.array([vote(voters)])}


def cost(one: Work) -> dict[str, Any]:
    """The cost of the supernets of a run."""
    results = [one.result(job) for job in searches(one.setup)]
    sums = {name: sum(result[name] for result in results) for name in ("seconds", "steps")}
    return sums | {"epochs": results[0]["epochs"]}


def drawn(work: Work) -> list[Architecture]:
    """Different random architectures, as many as the setting says, or as are found within the
    budget.
    """
    rng = Streams(work.config.seed).host("rank")
    return work.different(rng, work.config.rank.architectures)


def against(
    predicted: Predicted,
    truths: dict[str, list[float]],
    published: Published | None,
    texts: list[str],
    streams: Streams,
) -> dict[str, dict[str, Any]]:
    """The correlations of each predictor with each truth. The other columns of a published table
    are predictors of its own truth too.
    """
    tables = {}
    for number, (truth, values) in enumerate(truths.items()):
        rivals = dict(predicted)
        if published is not None and truth.startswith("published"):
            if "trained from scratch" in truths and len(truths["trained from scratch"]) == len(
                texts
            ):
                rivals["trained from scratch"] = np.array([truths["trained from scratch"]])
            target = truth.removeprefix("published ")
            rivals |= {
                f"published {c}": np.array([published.of(texts, c)])
                for c in published.columns
                if c not in (target, "index")
            }
        tables[truth] = {
            name: correlations(
                scores[:, : len(values)],
                values,
                predicted["params"][0, : len(values)],
                streams.host(f"bootstrap/{number}/{name}"),
            )
            for name, scores in rivals.items()
        }
    return tables
