"""The runs of a study, which are called its cells: which there are, and what each changes.

A cell is one method with one seed on one space and data set. Beside the methods there are rivals,
unless they are switched off, each method with a shorter search (``study.shares``), and each method
without a trick of the recipe (``study.ablate``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from supernet.config import Config, StudySettings
from supernet.cost.rivals import within
from supernet.cost.settings import COUNTED
from supernet.errors import UserError
from supernet.runs.setup import Setup
from supernet.runs.work import counted_budget
from supernet.tricks import trick

# Random search without weight sharing, plain and with early stopping: recipe -> its searcher.
BY_CHANCE = {"random_search": "random", "early_stopping": "successive_halving"}
# What the line may say about a supernet is not for them.
NO_SUPERNET = {"sampler": "uniform", "learner": "fixed", "modifier": "[]", "guard": "[]"}
NO_SUPERNET |= {"instrument": "[]", "search.supernets": "0", "shortlist.size": "1"}
NO_BASELINE = {"baseline.architectures": "0", "baseline.rivals": "[]"}  # the methods' cells have it


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        entry: what is compared: a method, a rival, or a method that is changed.
        seed: the seed of the run.
        changes: the settings in which the run differs from the line of the study.
        group: the names of the space and of the data set, if the line lists them.
        base: the cell of the method that is changed. If its search is not, its architecture is
            trained again.
        share: of a shorter search, its share of the epochs.
        equal_cost: whether it may take as long as the methods took.
        method: whether it is one of the methods that are compared.
        made: whether it trains the rival of its name, which is known when the data are read.
    """

    entry: str
    seed: int
    changes: Mapping[str, str]
    group: tuple[str, ...] = ()
    base: "Cell | None" = None
    share: float | None = None
    equal_cost: bool = False
    method: bool = False
    made: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        return "-".join([*self.group, self.entry.replace(" ", "-"), str(self.seed)])

    @property
    def waits(self) -> bool:
        """Whether it needs to know more before it can begin, such as the results of others."""
        return self.trained_again is not None or self.equal_cost or self.made

    @property
    def trained_again(self) -> "Cell | None":
        """The cell whose architecture it trains by another recipe, if it is an ablation."""
        return self.base if self.share is None else None

    def needed(self, cells: Sequence["Cell"]) -> list["Cell"]:
        """Those of the cells whose results it waits for."""
        if self.equal_cost:
            return [one for one in cells if one.method and one.group == self.group]
        return [] if self.trained_again is None else [self.trained_again]


def cells_of(study: StudySettings, config_of: Callable[[Cell], Config]) -> list[Cell]:
    """All cells of a study. ``config_of`` gives the configuration of a cell.

    Raises:
        UserError: the settings of the study do not go together.
    """
    if not (study.methods and study.seeds):
        raise UserError("study.methods and study.seeds: there must be at least one of each")
    methods = methods_of(study)
    shorter = shorter_of(study, methods, config_of) if study.shares else []
    if study.published is not None:
        if study.ablate or len(study.spaces) > 1 or len(study.data) > 1:
            raise UserError(
                "study.published: nothing is retrained, and the table is that of one space; leave "
                "out study.ablate, and all but one of study.spaces and study.data"
            )
        return [*methods, *shorter]
    ablations = ablations_of(study, methods, config_of) if study.ablate else []
    rivals = rivals_of(study, methods, config_of) if study.rivals else []
    return [*methods, *rivals, *shorter, *ablations]


def methods_of(study: StudySettings) -> list[Cell]:
    """Every method with every seed on every space and data set."""
    varied = {"space": study.spaces, "data": study.data}
    groups = product(*([(kind, one) for one in some] for kind, some in varied.items() if some))
    return [
        Cell(
            method,
            seed,
            {**dict(group), "method": method, "seed": str(seed)},
            tuple(name for _, name in group),
            method=True,
        )
        for group in groups
        for method in study.methods
        for seed in study.seeds
    ]


def rivals_of(
    study: StudySettings, methods: Sequence[Cell], config_of: Callable[[Cell], Config]
) -> list[Cell]:
    """What every group is compared with: random search at equal cost, and the network that people
    have made by hand, or the largest one where there is no such network within the budget.

    There are none where networks grow or do not start from scratch: random search has no part in
    that.
    """
    found: list[Cell] = []
    for first in {cell.group: cell for cell in reversed(methods)}.values():
        setup = Setup(config_of(first))
        if setup.grows or setup.init != "scratch":
            continue
        made = "largest" if setup.space.hand_made is None else "hand_made"
        if made == "hand_made" and setup.config.budget.limits().keys() & COUNTED:  # needs the data
            (made,) = within([made], counted_budget(setup))
        for seed in study.seeds:
            same = {**first.changes, "seed": str(seed), **NO_BASELINE}
            found.append(Cell(made, seed, same, first.group, made=True))
            for name, searcher in BY_CHANCE.items():
                if name not in study.methods:
                    changes = same | NO_SUPERNET | {"method": name, "searcher": searcher}
                    found.append(Cell(name, seed, changes, first.group, equal_cost=True))
    return found


def shorter_of(
    study: StudySettings, methods: Sequence[Cell], config_of: Callable[[Cell], Config]
) -> list[Cell]:
    """Every method with each share of the epochs of its search.

    Raises:
        UserError: a method trains no supernet, or a share leaves all epochs.
    """
    found: list[Cell] = []
    for share, cell in product(study.shares, methods):
        search = config_of(cell).search
        epochs = max(1, round(share * search.epochs))
        if not search.supernets or epochs == search.epochs:
            why = "trains no supernet" if not search.supernets else f"searches for {epochs} epochs"
            raise UserError(
                f"study.shares: {cell.entry} {why}, of which {share:g} is no shorter search; leave "
                "one of the two out"
            )
        entry = f"{cell.entry} with {share:g} of its search"
        changes = {**cell.changes, **NO_BASELINE, "search.epochs": str(epochs)}
        found.append(Cell(entry, cell.seed, changes, cell.group, cell, share))
    return found


def ablations_of(
    study: StudySettings, methods: Sequence[Cell], config_of: Callable[[Cell], Config]
) -> list[Cell]:
    """Every method without each trick of ``study.ablate``: the architecture that it has found is
    trained again, and so are the random ones.

    Raises:
        UserError: there is no such trick, or no run uses it.
    """
    settings: dict[str, dict[str, Any]] = {}
    for cell in methods:  # they differ in their seeds alone, which change no recipe
        if "-".join([*cell.group, cell.entry]) not in settings:
            settings["-".join([*cell.group, cell.entry])] = asdict(config_of(cell))
    found: list[Cell] = []
    for name in study.ablate:
        one, before = trick(name), len(found)
        for cell in methods:
            if off := one.changes(settings["-".join([*cell.group, cell.entry])]):
                entry = f"{cell.entry} {one.words}"
                found.append(Cell(entry, cell.seed, {**cell.changes, **off}, cell.group, cell))
        if len(found) == before:
            raise UserError(
                f"study.ablate: no run uses {name} ({one.setting} is off already); leave it out"
            )
    return found
