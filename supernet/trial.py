"""A process of its own that tries the search of a run, or its retraining, and prints the peak of
its memory.

    python -m supernet.trial search|retrain < SETTINGS.json

:mod:`supernet.cost.memory` starts it, and says why it is needed.
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
from supernet.runs.work import counted_budget
from supernet.spaces.space import Form

# Paths need different amounts of memory. The peak of this many steps is within some percent of the
# peak of a whole search.
STEPS = 12
# All steps of one network are alike; from the second one on, the optimiser has its state.
STEPS_OF_NETWORK = 3


def main() -> None:
    """Reads the settings of a run as JSON, and prints the peak in bytes."""
    with suppress(OSError):  # if memory runs out, the kernel should end this process, not the other
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    setup = Setup(typed(Config, json.load(sys.stdin), ""))
    # Measuring latencies would take longer than the trial, and does not change the peak.
    with reproducible(setup.config.threads):
        print(PEAKS[sys.argv[1]](setup, counted_budget(setup)))


def peak_of_search(setup: Setup, budget: Budget) -> int:
    """The largest amount of memory that the search holds, in bytes, after everything is loaded.

    The steps are spread over the whole search, because warm-ups, phases and schedules change what a
    step does. The end of an epoch follows, with the computations of instruments and guards.
    """
    stage = search_stage(setup, budget)
    reset_peak_memory(setup.device)
    for number in range(STEPS):
        stage.step(number * (stage.planned - 1) // (STEPS - 1))
    stage.end_of_epoch()
    return peak_memory_bytes(setup.device)


def peak_of_retraining(setup: Setup, budget: Budget) -> int:
    """The same for the training of a network: the given one, or the largest in parameters."""
    streams = Streams(setup.config.seed * 1000)
    architecture = setup.given or budget.largest("params")
    # A network that inherits has the form of the supernet. Its other weights take as much memory.
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
