"""A study by a published table: nothing is retrained, accuracies and rivals are looked up."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from supernet.config import StudySettings
from supernet.evaluate.published import Published, read_published
from supernet.evaluate.statistics import paired
from supernet.mixture import Architecture
from supernet.randomness import Streams
from supernet.runs.setup import Setup
from supernet.runs.work import counted_budget
from supernet.study.comparison import Row, improvement_over, row, with_holm

SEARCHES = 1000  # random searches that are simulated in a published table


class Lookup:
    """The table of a study: what is within the budget, and its largest architecture.

    Raises:
        UserError: the table cannot be read, or is that of another space.
    """

    def __init__(self, setup: Setup):
        self.setup, self.settings = setup, setup.config.study
        assert self.settings.published is not None
        columns = (self.settings.target, self.settings.ranked_by)
        table = read_published("study.published", Path(self.settings.published), *columns)
        table.require_percent(self.settings.target, f"study.published={self.settings.published}")
        self.table, budget = table, counted_budget(setup)
        self.largest = self.text_of(budget.largest("params"))
        if budget.limits:
            self.table = table.among(lambda text: budget.allows(setup.space.decode(text)))

    def text_of(self, architecture: Architecture) -> str:
        """The text of an architecture, which must be in the table.

        Raises:
            UserError: it is not in the table.
        """
        where = f"study.published={self.settings.published}"
        text = self.setup.space.encode(architecture)
        return self.table.require(text, where, self.setup.space.name)

    def found(self, done: Row) -> Row:
        """The derived architecture of a run, and its published accuracy."""
        results, found = done["results"], done["found"]
        text = self.text_of(self.setup.space.decode(found["text"]))
        return {
            "method": results["method"],
            "seed": results["seed"],
            "text": text,
            "accuracy": self.table.of([text], self.settings.target)[0] / 100,
            "parameter_free": found["parameter_free"],
        }

    def completed(self, rows: list[Row]) -> list[Row]:
        """The rows with those of the rivals, and in each the regret: how far the best accuracy of
        the table is above the mean. Each method gets its improvement over the mean architecture,
        and is compared with the table's random search if it has no other comparison.

        The mean architecture and the mean of the random searches are known numbers, the same for
        every seed, so that the paired test is that of one sample against a number.
        """
        accuracies = self.table.columns[self.settings.target] / 100
        optimum, mean = float(accuracies.max()), float(accuracies.mean())
        rivals = rivals_of(self.table, self.settings, self.largest)
        chance = rivals[0]
        for one in rows:
            own = one["accuracies"]
            one["relative_improvement"] = improvement_over(own, [mean] * len(own))
            if one["against"] is None:
                compared = paired(own, [chance["mean"]] * len(own))
                one["against"] = {"method": chance["method"], "pairs": len(own)} | asdict(compared)
        with_holm([one["against"] for one in rows])
        group = {name: row[name] for row in rows[:1] for name in ("space", "data")}
        return [group | one | {"regret": optimum - one["mean"]} for one in (*rows, *rivals)]


def free(setup: Setup, architecture: Architecture) -> float:
    """The share of an architecture's decisions that chose an option without parameters."""
    groups = setup.space.groups
    return setup.space.share(architecture, {group.name: group.parameter_free for group in groups})


def rivals_of(published: Published, settings: StudySettings, largest: str) -> list[Row]:
    """Comparisons from the same table: random search, the architecture with the most parameters,
    the mean of all architectures, and the median.
    """
    accuracies = published.columns[settings.target]
    rng = Streams(0).host("rivals")
    found = published.random_search(
        settings.draws, settings.ranked_by, settings.target, SEARCHES, rng
    )
    nothing: dict[str, Any] = {"accuracies": [], "relative_improvement": None, "against": None}
    named: dict[str, Sequence[float]] = {
        f"random search, best of {settings.draws} by {settings.ranked_by}": found.tolist(),
        "most parameters": published.of([largest], settings.target),
        "mean architecture": [float(np.mean(accuracies))],
        "median architecture": [float(np.median(accuracies))],
    }
    return [row(name, [float(one) / 100 for one in some]) | nothing for name, some in named.items()]
