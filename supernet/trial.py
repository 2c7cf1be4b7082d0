"""A process of its own that tries the search of a run, or its retraining, and says how much memory
that took at most.

    python -m supernet.trial search|retrain < SETTINGS.json

For :mod:`supernet.cost.memory`, which says why.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from supernet.config import Config, typed
from supernet.cost.budget import Budget
from supernet.device import peak_memory_bytes, reset_peak_memory
from supernet.run import Run

# paths differ in what they take: the most of so many comes within some percent of the most of a
# search
STEPS = 12
STEPS_OF_NETWORK = 3  # are all alike; the second has the optimiser's state from its beginning


def main() -> None:
    """Reads the settings of a run as JSON, prints the bytes of the peak."""
    with suppress(
        OSError
    ):  # if there is too little, the kernel is to take this process, and not the one that asks
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    run = Run(typed(Config, json.load(sys.stdin), ""), Path(os.devnull))
    settings = run.config.budget
    if (
        settings.measures and settings.latency_table is None
    ):  # to measure a table takes longer than the trial: any latency will do
        limits = {
            metric: limit for metric, limit in settings.limits().items() if metric != "latency_ms"
        }
        run.budget = Budget(run.space, run.data.task, limits)
    print(PEAKS[sys.argv[1]](run))


def peak_of_search(run: Run) -> int:
    """The most memory that the run's search holds, in bytes, once everything is loaded.

    Its steps are taken from all over the search, because warm-ups, depths and schedules change what
    a step does; then comes the end of an epoch, with what instruments and guards compute there.
    """
    stage = run.search_stage()
    reset_peak_memory(run.device)
    for number in range(STEPS):
        stage.step(number * (stage.planned - 1) // (STEPS - 1))
    stage.end_of_epoch()
    return peak_memory_bytes(run.device)


def peak_of_retraining(run: Run) -> int:
    """The same of the training of a network: of the one that is given, or else of that which has
    most parameters.
    """
    architecture = run.given or run.budget.largest("params")
    # what starts from the supernet's weights has its form; other weights take as much memory
    form = "search" if run.config.retrain.init == "inherit" else "evaluation"
    stage = run.retrain_stage("trial", architecture, 0, "scratch", form=form)
    reset_peak_memory(run.device)
    for number in range(min(STEPS_OF_NETWORK, stage.steps)):
        stage.step(number)
    return peak_memory_bytes(run.device)


PEAKS = {"search": peak_of_search, "retrain": peak_of_retraining}

if __name__ == "__main__":
    main()
