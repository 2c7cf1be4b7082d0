"""The job that trains a supernet. A search may train several, which do not need each other."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from supernet.cost.budget import Budget
from supernet.errors import UserError
from supernet.randomness import Streams
from supernet.runs.fidelity import fidelity
from supernet.runs.job import Job, key_of
from supernet.runs.room import require_room_for_weights
from supernet.runs.setup import Setup
from supernet.train.checkpoint import Checkpoints
from supernet.train.search import SearchStage
from supernet.train.watch import Watch

if TYPE_CHECKING:
    from supernet.runs.work import Work

# The sections of settings that belong to the method: the training of a supernet depends on them.
METHOD = ("precision", "sampler", "learner", "modifier", "guard", "search", "budget")


@dataclass(frozen=True)
class Search(Job):
    """Trains supernet ``number`` of ``search.supernets``."""

    number: int = 0

    smaller = "search.batch_size or a size under space.search, or choose memory=fit"

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"search/{self.number}"

    def inputs(self, work: "Work") -> dict[str, Any]:
        setup = work.setup
        return {"images": weights_key(setup), "method": method_key(setup), "start": start_of(work)}

    def compute(self, work: "Work") -> dict[str, Any]:
        setup, start, weights = work.setup, start_of(work), None
        if start is not None and not work.checkpoints.path(self.name).exists():
            weights = start_weights(work, start)
            work.progress.message(f"search starts from the weights of {work.state.parent}")
        require_room_for_search(setup)
        stage = search_stage(
            setup,
            work.budget,
            self.number,
            start=weights,
            key=work.key(self),
            say=work.progress.message,
        )
        cost = dataclasses.asdict(work.train(stage))
        return cost | {
            "parts": {name: {"seconds": seconds} for name, seconds in cost["parts"].items()},
            "guards": stage.watch.fired,
            "instruments": stage.watch.described(),
            "epochs": work.config.search.epochs,
            "method": work.config.method,
            "warm_start": searched_before(work) if start is not None else None,
            "fidelity": fidelity(setup, "search"),
            "keys": {
                "start": start,
                "weights": weights_key(setup),
                "method": method_key(setup),
            },
        }


def searches(setup: Setup) -> list[Search]:
    """The jobs that train the supernets of a search."""
    return [Search(number) for number in range(setup.config.search.supernets)]


def last_search(setup: Setup) -> Search:
    """The job whose supernet judges architectures.

    Raises:
        UserError: the method trains no supernet.
    """
    if not setup.config.search.supernets:
        raise UserError("search.supernets=0: there is no supernet that could judge; train one")
    return searches(setup)[-1]


def require_room_for_search(setup: Setup) -> None:
    """Raises a UserError if the weights of the supernet are more than there is memory."""
    space = setup.config.search.phases[-1].resized(setup.space)
    require_room_for_weights(setup, "search", lambda: space.supernet(setup.task), Search.smaller)


def weights_key(setup: Setup) -> str:
    """A key of everything that the shapes of a supernet's weights, and its images, depend on."""
    space, data = setup.of("space")["space"], setup.of("data")["data"]
    images = [data[name] for name in ("source", "architecture_share", "train_limit", "image_size")]
    size = setup.space.network_settings("search")
    return key_of(space["_target_"], size, images, setup.config.seed)


def method_key(setup: Setup) -> str:
    """A key of the method: everything that a supernet's training depends on, except its start."""
    settings = setup.of(*METHOD, "data")
    search = {k: v for k, v in settings["search"].items() if k != "supernets"}
    watched = setup.settings["measure"]["images"] if setup.guards else None
    return key_of(weights_key(setup), settings | {"search": search}, watched)


def start_of(work: "Work") -> str | None:
    """The key of the parent's search if this search starts from its weights, else ``None``.

    It starts from them if the weights fit and the method is another one. If the method is the same,
    the parent's search is this search; then it has the same start as the parent's search.
    """
    origin, search = work.state.origin, work.config.search
    if origin is None:
        return None
    keys = origin["keys"]
    if keys["method"] == method_key(work.setup):
        return keys["start"]
    begins_anew = len(search.phases) > 1 or search.supernets > 1
    return None if begins_anew or keys["weights"] != weights_key(work.setup) else origin["key"]


def start_weights(work: "Work", key: str) -> dict[str, Tensor]:
    """The weights of the parent's supernet.

    Raises:
        UserError: its checkpoint does not exist any more.
    """
    assert work.state.parent is not None
    checkpoints = Checkpoints(Path(work.state.parent) / "checkpoints")
    saved = checkpoints.load(Search().name, key)
    if saved is None:
        raise UserError(
            f"{checkpoints.path(Search().name)} is missing: the search starts from the weights in "
            f"it; restore it, or train it again: supernet search from={work.state.parent}"
        )
    return checkpoints.weights(Search().name, saved, "supernet")


def searched_before(work: "Work") -> dict[str, Any]:
    """The search that this one starts from: folder, method and cost. It holds the search before it
    in the same way.
    """
    assert work.state.origin is not None
    found = {k: v for k, v in work.state.origin.items() if k not in ("key", "keys")}
    return {"folder": work.state.parent} | found


def search_stage(
    setup: Setup,
    budget: Budget,
    number: int = 0,
    *,
    start: dict[str, Tensor] | None = None,
    key: str = "",
    say: Any = lambda line: None,
) -> SearchStage:
    """The training of supernet ``number``: from fresh weights, or from the weights ``start``."""
    watch = Watch(setup.several("instrument"), setup.several("guard"), setup.config.measure, say)
    stage = SearchStage(
        setup.space,
        setup.data,
        setup.splits,
        setup.fresh("sampler"),
        setup.fresh("learner"),
        setup.config.search,
        augment=setup.search_augment,
        streams=Streams(setup.config.seed, f"supernet/{number}" if number else ""),
        device=setup.device,
        precision=setup.config.precision,
        budget=budget,
        modifiers=list(setup.several("modifier").values()),
        watch=watch,
        start=start,
        key=key,
    )
    stage.name, several = Search(number).name, setup.config.search.supernets
    stage.title = f"supernet {number + 1} of {several}" if several > 1 else "search"
    return stage


def trained_supernet(work: "Work", number: int | None = None) -> SearchStage:
    """The search stage as it was when it ended. Without a ``number``, it is that of the last
    supernet.

    Raises:
        UserError: its checkpoint does not exist any more.
    """
    job = last_search(work.setup) if number is None else searches(work.setup)[number]
    stage = search_stage(work.setup, work.budget, job.number, key=work.key(job))
    saved = work.checkpoints.load(job.name, work.key(job))
    if saved is None:
        raise UserError(
            f"{work.checkpoints.path(job.name)} is missing: the trained supernet was there; "
            f"restore it, or train it again: supernet search from={work.folder}"
        )
    work.checkpoints.restore(stage, saved)
    return stage
