"""The options whose loss the supernet cannot bear (DARTS-PT)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supernet.cost.budget import Budget
from supernet.errors import UserError, require, unknown
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Choice, Logits, Mixture
from supernet.searchers.logits import ByLogits
from supernet.searchers.searcher import order

Judge = Callable[[Mixture, float], Judgement]  # a mixture and the share of the validation images
CRITERIA = ("accuracy", "loss")


@dataclass
class PerturbationSelection(ByLogits):
    """Perturbation-based selection (Wang et al., ICLR 2021, section 4, algorithm 1), instead of the
    largest logits.

    Slot by slot, in random order, each option is taken out of the supernet, whose other weights and
    logits stay; kept is the one whose loss hurts the validation accuracy most. After every decision
    the supernet is tuned for ``tune_epochs`` with the decisions so far, at ``lr`` falling to zero;
    by default a tenth of the search's, as in the authors' code. Where a space keeps some edges
    only, a second round takes out whole edges, and gives up the one that is missed least until the
    number is right. Under a budget only options are considered with which an architecture within it
    is still possible.

    Departures: the authors decide a slot of the normal and one of the reduction cell at once, go on
    training the logits while they tune (here they rest), and judge by the batch's BatchNorm
    statistics, where here they are recalibrated as for every judgement. The logits may as well
    never have learnt: the paper reports no loss from that.
    """

    needs_scores = False

    tune_epochs: float = 5.0
    lr: float | None = None
    criterion: str = "accuracy"
    images: float = 1.0  # the share of the validation images to judge on

    def __post_init__(self):
        super().__post_init__()
        require("searcher.tune_epochs", self.tune_epochs, least=0)
        if self.lr is not None:
            require("searcher.lr", self.lr, above=0)
        if self.criterion not in CRITERIA:
            raise UserError(f"searcher.criterion: {unknown(self.criterion, CRITERIA)}")
        require("searcher.images", self.images, above=0, below=1 + 1e-9)

    def projection(
        self, budget: Budget, judge: Judge, mean: Callable[[], Mixture], rng: np.random.Generator
    ) -> "Projection":
        ranked = (
            order
            if self.criterion == "accuracy"
            else lambda judgement: (judgement.loss, -judgement.accuracy)
        )
        return Projection(budget, lambda mixture: ranked(judge(mixture, self.images)), mean, rng)


class Projection:
    """The decisions so far: ``allowed[group]`` (bool [slots, options]) says what may still be
    chosen.

    ``judge`` gives the rank of a mixture, lower is better; ``mean`` is the mixture of a supernet in
    which nothing is decided.
    """

    def __init__(
        self,
        budget: Budget,
        judge: Callable[[Mixture], tuple[float, float]],
        mean: Callable[[], Mixture],
        rng: np.random.Generator,
    ):
        self.budget, self.space, self.judge, self.mean = budget, budget.space, judge, mean
        self.allowed = {
            group.name: torch.ones(group.shape, dtype=torch.bool) for group in self.space.groups
        }
        self.edges = [
            rule for rule in self.space.rules() if len(rule.slots) > 1
        ]  # so many of these slots keep an operation
        slots = [(group.name, slot) for group in self.space.groups for slot in range(group.slots)]
        self.order = [int(i) for i in rng.permutation(len(slots))] + [
            len(slots) + int(i) for i in rng.permutation(len(self.edges))
        ]
        self.slots = slots
        self.kept: list[dict[str, Any]] = []  # decision by decision, for people

    @property
    def questions(self) -> int:
        """How many decisions there are in all."""
        return len(self.order)

    def decide(self) -> None:
        """Takes the next decision."""
        question = self.order[len(self.kept)]
        if question < len(self.slots):
            self._decide_slot(*self.slots[question])
        else:
            self._decide_edges(self.edges[question - len(self.slots)])

    def mixture(self, without: tuple[str, int, int | None] | None = None) -> dict[str, Choice]:
        """What the supernet runs: decided slots run their option alone, the others the mean
        mixture.

        ``without`` leaves out one option of a slot, or with ``None`` for the option all that the
        slot has.
        """
        mixture = {}
        for name, choice in self.mean().items():
            active, weights = list(choice.active), choice.weights.clone()
            for slot, row in enumerate(self._operations(name).tolist()):
                left = [option for option, allowed in enumerate(row) if allowed]
                if len(left) < 2:
                    active[slot] = tuple(left)
                    weights[slot] = 1.0
            if without is not None and without[0] == name:
                _, slot, option = without
                active[slot] = tuple(o for o in active[slot] if option is not None and o != option)
            mixture[name] = Choice(tuple(active), weights)
        return mixture

    def scores(self) -> Logits:
        """What the derivation maximises, when all is decided: what may be chosen."""
        return {name: table.double() for name, table in self.allowed.items()}

    def _operations(self, group: str) -> Tensor:
        """What may still be chosen in a group, but for what merely says that an edge is left out."""
        table = self.allowed[group].clone()
        for rule in self.edges:
            if rule.group == group:
                for slot in rule.slots:
                    table[slot] &= torch.tensor(
                        [option in rule.options for option in range(table.shape[1])]
                    )
        return table

    def _decide_slot(self, group: str, slot: int) -> None:
        options = next(g.options for g in self.space.groups if g.name == group)
        operations = self._operations(group)[slot]
        beside = self.allowed[group][slot] & ~operations  # the edge may be left out as well

        def with_only(option: int) -> dict[str, Tensor]:
            row = beside.clone()
            row[option] = True
            return self._changed(group, slot, row)

        possible = [
            option
            for option in operations.nonzero().flatten().tolist()
            if self._completes(with_only(option))
        ]
        ranks = (
            {o: self.judge(self.mixture((group, slot, o))) for o in possible}
            if len(possible) > 1
            else dict.fromkeys(possible)
        )
        best = max(possible, key=ranks.__getitem__) if len(possible) > 1 else possible[0]
        self.allowed = with_only(best)
        without = {options[o]: abs(value[0]) for o, value in ranks.items() if value is not None}
        self.kept.append(
            {"group": group, "slots": [slot], "kept": options[best], "without": without}
        )

    def _decide_edges(self, rule: Any) -> None:
        left, without = list(rule.slots), {}
        while len(left) > rule.count:
            possible = {slot: self._without_edge(rule, slot) for slot in left}
            possible = {
                slot: allowed for slot, allowed in possible.items() if self._completes(allowed)
            }
            ranks = {slot: self.judge(self.mixture((rule.group, slot, None))) for slot in possible}
            missed_least = min(possible, key=ranks.__getitem__)
            self.allowed = possible[missed_least]
            without |= {str(slot): abs(value[0]) for slot, value in ranks.items()}
            left.remove(missed_least)
        self.kept.append(
            {"group": rule.group, "slots": list(rule.slots), "kept": left, "without": without}
        )

    def _without_edge(self, rule: Any, slot: int) -> dict[str, Tensor]:
        row = self.allowed[rule.group][slot].clone()
        row[list(rule.options)] = False
        return self._changed(rule.group, slot, row)

    def _changed(self, group: str, slot: int, row: Tensor) -> dict[str, Tensor]:
        table = self.allowed[group].clone()
        table[slot] = row
        return self.allowed | {group: table}

    def _completes(self, allowed: dict[str, Tensor]) -> bool:
        """Whether some architecture within the budget chooses nothing but what is ``allowed``."""
        if not self.budget.limits:
            return True
        best = self.budget.best({name: table.double() - 1 for name, table in allowed.items()})
        chosen = dict(best.choices)
        return all(
            bool(allowed[group.name][slot, group.options.index(option)])
            for group in self.space.groups
            for slot, option in enumerate(chosen[group.name])
        )

    def state_dict(self) -> dict[str, Any]:
        return {"allowed": dict(self.allowed), "order": list(self.order), "kept": list(self.kept)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.allowed, self.order, self.kept = (
            dict(state["allowed"]),
            list(state["order"]),
            list(state["kept"]),
        )
