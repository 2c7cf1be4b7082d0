"""The job that decides on the architecture."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supernet.cost.count import count
from supernet.files import write_json
from supernet.mixture import Architecture
from supernet.runs.candidate import Candidate
from supernet.runs.grow import Growth, best_of
from supernet.runs.job import Job
from supernet.runs.judge import Judge
from supernet.runs.setup import SOURCE
from supernet.runs.training import training_settings
from supernet.spaces.capabilities import Drawable

if TYPE_CHECKING:
    from supernet.runs.work import Work


@dataclass(frozen=True)
class Derive(Job):
    """Decides on the architecture, and computes its costs. With ``growth``, it is one of the
    networks that have grown.
    """

    growth: Growth | None = None

    name = "derive"

    def inputs(self, work: "Work") -> dict[str, Any]:
        if work.setup.given is not None:
            given = work.setup.given.to_dict()
            return work.setup.of("space", "data", "budget") | {"architecture": given}
        if self.growth is not None:
            return work.setup.of("budget") | {"growth": self.growth}
        if work.config.shortlist.size == 1:
            return {"judge": Judge()}
        settings = training_settings(work.setup) | work.setup.of("shortlist")
        return {"judge": Judge(), "candidates": settings}

    def compute(self, work: "Work") -> dict[str, Any]:
        shortlist = None
        if work.setup.given is not None:
            architecture = work.setup.given
            nothing = dict.fromkeys(("evaluated", "judgements", "images"), 0)
            found = {"searcher": "given", "inherited_accuracy": None, "seconds": 0.0} | nothing
        elif self.growth is not None:
            one, among = best_of(work, self.growth), len(self.growth.models)
            architecture = work.space.decode(one["text"])
            found = {"searcher": "growth", "inherited_accuracy": 1 - one["error"], "seconds": 0.0}
            images = among * len(work.setup.splits.architecture)
            found |= {"evaluated": among, "judgements": among, "images": images}
        else:
            judged = work.result(Judge())
            best, found = judged["best"][0], judged["found"]
            if work.config.shortlist.size > 1:
                shortlist = outcome(work)
                best = shortlist["best"]
            architecture = work.space.decode(best)
        network = work.space.standalone(architecture, work.setup.task)
        cost = dataclasses.asdict(count(network, work.setup.task))
        priced = {m: table.of(architecture) for m, table in work.budget.measured.items()}
        done = {
            "architecture": described(work, architecture),
            "cost": cost | priced,
            "derive": found,
        }
        return done if shortlist is None else done | {"shortlist": shortlist}


def shortlist(work: "Work") -> list[Candidate]:
    """The jobs that train the searcher's best architectures. Each needs those before it."""
    if work.setup.given is not None or work.config.shortlist.size == 1:
        return []
    best = tuple(work.result(Judge())["best"])
    return [Candidate(best[: number + 1]) for number in range(len(best))]


def outcome(work: "Work") -> dict[str, Any]:
    """The result of the shortlist: the best candidate of those that were trained to the end."""
    candidates = [work.result(job) for job in shortlist(work)]
    winner = max((one for one in candidates if not one["ended"]), key=lambda one: one["curve"][-1])
    columns = ("text", "epochs", "ended", "held_out_accuracy", "upper_bound")
    return {
        "best": winner["text"],
        "seconds": sum(one["seconds"] for one in candidates),
        "candidates": [{name: one[name] for name in columns} for one in candidates],
    }


def described(work: "Work", architecture: Architecture) -> dict[str, Any]:
    """An architecture in the form of ``architecture.json``."""
    found = architecture.to_dict() | {
        "text": work.space.encode(architecture),
        "classes": work.setup.contents[SOURCE]["classes"],
    }
    if isinstance(work.space, Drawable):
        found["graph"] = work.space.graph(architecture)
    return found


def write_architectures(work: "Work", derived: dict[str, Any]) -> Architecture:
    """Writes ``architecture.json`` and the Pareto front, if they are missing."""
    if not (path := work.folder / "architecture.json").exists():
        write_json(path, derived["architecture"])
    for number, point in enumerate(derived["derive"].get("pareto", []), start=1):
        if not (path := work.folder / "pareto" / f"{number:02}.json").exists():
            write_json(path, described(work, work.space.decode(point["text"])))
    return Architecture.from_dict(derived["architecture"])
