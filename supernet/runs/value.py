"""What a searcher maximises: the value of a judgement, as ``judge.by`` says."""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from supernet.evaluate.accuracy import Judgement
from supernet.evaluate.untrained import VOTERS, vote
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.judging import all_judged, untrained

if TYPE_CHECKING:
    from supernet.runs.work import Work

JudgeOne = Callable[[Architecture, float], Judgement]


def valued(work: "Work", key: str, judge_one: JudgeOne) -> JudgeOne:
    """The judgements of ``judge_one`` with the value that the searcher maximises.

    By "accuracy" a judgement has no other value. By "loss" its value is exp(-loss), and by "vote"
    the logistic function of the vote, so that every value lies between 0 and 1. A vote is measured
    on the scale of ``judge.reference`` random architectures, which are judged first; ``key`` names
    the file that keeps their judgements.
    """
    by = work.config.judge.by
    if by == "accuracy":
        return judge_one
    value = value_of_loss if by == "loss" else value_of_vote(work, key, judge_one)

    def judge_with_value(architecture: Architecture, share: float) -> Judgement:
        judgement = judge_one(architecture, share)
        return dataclasses.replace(judgement, value=value(architecture, judgement))

    return judge_with_value


def value_of_loss(architecture: Architecture, judgement: Judgement) -> float:
    return math.exp(-judgement.loss)


def logistic(x: float) -> float:
    return (1 + math.tanh(x / 2)) / 2  # overflows for no x


def value_of_vote(
    work: "Work", key: str, judge_one: JudgeOne
) -> Callable[[Architecture, Judgement], float]:
    """The value by the vote of minus the loss and of the scores of the untrained network."""
    rng = Streams(work.config.seed).host("reference")
    reference = work.different(rng, work.config.judge.reference)
    with work.progress.stage("reference", len(reference)) as update:
        key = f"{key}-reference"
        judged, _ = all_judged(work, key, reference, lambda one: judge_one(one, 1.0), update)

    scored = untrained(work, VOTERS)

    def voters(architecture: Architecture, judgement: Judgement) -> list[float]:
        return [-judgement.loss, *scored(architecture).values()]

    scale = np.transpose([voters(*one) for one in zip(reference, judged, strict=True)])

    def value(architecture: Architecture, judgement: Judgement) -> float:
        said = np.array(voters(architecture, judgement))
        return logistic(float(vote(said[:, None], scale)[0]))

    return value
