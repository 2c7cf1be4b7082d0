"""A process of its own that tries the search of a run, or its retraining, and says how much memory
that took at most.

    python -m supernet.trial search|retrain < SETTINGS.json

It serves :mod:`supernet.cost.memory`, which says why.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

from supernet.config import Config, typed
from supernet.cost.budget import Budget
from supernet.device import peak_memory_bytes, reproducible, reset_peak_memory
from supernet.randomness import Streams
from supernet.runs.search import search_stage
from supernet.runs.setup import Setup
from supernet.runs.training import fresh_network, retrain_stage
from supernet.spaces.space import Form

# Paths differ in what they take: the most of so many comes within some percent of the most of a
# whole search.
STEPS = 12
# The steps of one network are all alike; the second one has the optimiser's state from the start.
STEPS_OF_NETWORK = 3


def main() -> None:
    """Reads the settings of a run as JSON, prints the bytes of the peak."""
    with suppress(OSError):  # if memory runs out, the kernel should end this process, not the other
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    setup = Setup(typed(Config, json.load(sys.stdin), ""))
    # To measure latencies takes longer than the trial, and does not change what it takes.
    limits = {m: v for m, v in setup.config.budget.limits().items() if m != "latency_ms"}
    budget = Budget(setup.space, setup.task, limits)
    with reproducible(setup.config.threads):
        print(PEAKS[sys.argv[1]](setup, budget))


def peak_of_search(setup: Setup, budget: Budget) -> int:
    """The most memory that the search holds, in bytes, once everything is loaded.

    Its steps are taken from all over the search, because warm-ups, phases and schedules change what
    a step does; then comes the end of an epoch, with what instruments and guards compute there.
    """
    stage = search_stage(setup, budget)
    reset_peak_memory(setup.device)
    for number in range(STEPS):
        stage.step(number * (stage.planned - 1) // (STEPS - 1))
    stage.end_of_epoch()
    return peak_memory_bytes(setup.device)


def peak_of_retraining(setup: Setup, budget: Budget) -> int:
    """The same for the training of a network: the given one, or the one with most parameters."""
    streams = Streams(setup.config.seed * 1000)
    architecture = setup.given or budget.largest("params")
    # A network with the supernet's weights has its form; other weights take as much memory.
    form: Form = "search" if setup.config.retrain.init == "inherit" else "evaluation"
    network = fresh_network(setup, architecture, streams, form)
    stage = retrain_stage(setup, "trial", network, setup.images, streams)
    reset_peak_memory(setup.device)
    for number in range(min(STEPS_OF_NETWORK, stage.steps)):
        stage.step(number)
    return peak_memory_bytes(setup.device)


PEAKS = {"search": peak_of_search, "retrain": peak_of_retraining}

if __name__ == "__main__":
    main()
