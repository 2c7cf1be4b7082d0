"""Judges an architecture without a supernet: it is trained from scratch."""

import dataclasses
from typing import TYPE_CHECKING

from supernet.evaluate.accuracy import Judgement, evaluate
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.judging import batches, finite
from supernet.runs.training import NUMBERED, fresh_network, retrain_stage
from supernet.train.loop import run_stage
from supernet.train.settings import RetrainSettings

if TYPE_CHECKING:
    from supernet.runs.work import Work


def epochs_of(settings: RetrainSettings, share: float) -> int:
    """The epochs of a training of which a searcher asks for a ``share``: at least one."""
    return max(1, round(share * settings.epochs))


def judged_by_training(work: "Work", architecture: Architecture, share: float) -> Judgement:
    """Trains an architecture for a ``share`` of the epochs of ``retrain``, and judges it.

    It learns from the images from which the weights of a supernet would learn, and is judged on all
    that a supernet's architecture would be chosen by, so that methods with and without a supernet
    see the same. The learning rate falls to its end within the share (as in Li & Talwalkar, UAI
    2019, every training of successive halving is a whole one); a longer training begins anew. A
    training that is stopped begins anew as well.
    """
    setup, config = work.setup, work.config.retrain
    epochs = epochs_of(config, share)
    shorter = dataclasses.replace(
        config, epochs=epochs, warmup_epochs=config.warmup_epochs * epochs / config.epochs
    )
    # as the candidates of a shortlist: no retraining has these random numbers
    streams = Streams(work.config.seed * 1000 + NUMBERED)
    network = fresh_network(setup, architecture, streams)
    stage = retrain_stage(setup, "trial", network, setup.splits.weights, streams, settings=shorter)
    run_stage(stage, stop=work.stop)  # the searcher shows how far it is
    seen = batches(setup, setup.splits.architecture)
    return finite("trial", evaluate(stage.trained().eval(), seen, setup.task))
