"""Selection of the options whose removal harms the supernet most (DARTS-PT)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supernet.bounds import NotNegative, Positive, Share
from supernet.cost.budget import Budget
from supernet.errors import UserError, unknown
from supernet.evaluate.accuracy import Judgement
from supernet.mixture import Choice, Logits, Mixture
from supernet.searchers.logits import ByLogits
from supernet.searchers.searcher import order
from supernet.spaces.space import Rule

Judge = Callable[[Mixture, float], Judgement]  # a mixture and the share of the validation images
CRITERIA = ("accuracy", "loss")


@dataclass
class PerturbationSelection(ByLogits):
    """Perturbation-based selection (Wang et al., ICLR 2021, section 4, algorithm 1), instead of the
    selection by the largest logits.

    The slots are decided one after another, in random order. For each option of a slot, the
    supernet is judged without this option; all other weights and logits stay the same. The slot
    keeps the option whose removal lowers the validation accuracy most. After every decision, the
    supernet, with the decisions so far, is tuned for ``tune_epochs`` epochs, at a learning rate
    that falls from ``lr`` to zero. By default ``lr`` is a tenth of the search's learning rate, as
    in the authors' code. In a space that keeps only some of its edges, a second round removes whole
    edges: it gives up the edge whose removal lowers the accuracy least, until the right number is
    left. Under a budget, the selection considers only options with which an architecture within the
    budget is still possible. The ``criterion`` "loss" judges by the validation loss instead of the
    accuracy.

    Departures: the authors decide one slot of the normal cell and one of the reduction cell at
    once, and go on training the logits while they tune (here the logits rest). They judge with the
    BatchNorm statistics of the batch; here the statistics are recalibrated, as for every judgement.
    The method also works with logits that have never learnt: the paper reports no loss from that.
    """

    needs_scores = False

    tune_epochs: NotNegative = 5.0
    lr: Positive | None = None
    criterion: str = "accuracy"
    images: Share = 1.0  # the share of the validation images to judge on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.criterion not in CRITERIA:
            raise UserError(f"searcher.criterion: {unknown(self.criterion, CRITERIA)}")

    def projection(
        self, budget: Budget, judge: Judge, mean: Callable[[], Mixture], rng: np.random.Generator
    ) -> "Projection":
        """The decisions of a selection, none of which is made yet.

        ``judge`` gives the judgement of a mixture on a share of the validation images, ``mean`` the
        mean mixture of the supernet.
        """

        def rank(mixture: Mixture) -> tuple[float, float]:
            judgement = judge(mixture, self.images)
            if self.criterion == "accuracy":
                return order(judgement)
            return judgement.loss, -judgement.accuracy

        return Projection(budget, rank, mean, rng)


class Projection:
    """The decisions so far: ``allowed[group]`` (bool [slots, options]) says which options may still
    be chosen.

    ``judge`` gives the rank of a mixture (lower is better). ``mean`` gives the mixture of a
    supernet in which nothing is decided.
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
        # each of these rules says how many of its slots (edges) keep an operation
        self.edges = [rule for rule in self.space.rules() if len(rule.slots) > 1]
        self.slots = [
            (group.name, slot) for group in self.space.groups for slot in range(group.slots)
        ]
        # the order of the decisions: first the indices of slots, then those of edges, plus count
        count = len(self.slots)
        self.order = [int(i) for i in rng.permutation(count)] + [
            count + int(i) for i in rng.permutation(len(self.edges))
        ]
        self.kept: list[dict[str, Any]] = []  # each decision as a record for readers

    @property
    def questions(self) -> int:
        """The number of decisions in all."""
        return len(self.order)

    def decide(self) -> None:
        """Makes the next decision."""
        question = self.order[len(self.kept)]
        if question < len(self.slots):
            self._decide_slot(*self.slots[question])
        else:
            self._decide_edges(self.edges[question - len(self.slots)])

    def mixture(self, without: tuple[str, int, int | None] | None = None) -> dict[str, Choice]:
        """The mixture that the supernet runs: a slot that is decided runs its option alone, and the
        other slots run as in the mean mixture.

        ``without`` is a triple (group, slot, option): this option is left out. If the option is
        ``None``, all options of the slot are left out.
        """
        mixture = {}
        for name, choice in self.mean().items():
            assert choice.weights is not None  # a mean mixture has a weight for every option
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
        """The scores from which the derivation makes the architecture, once all is decided: one for
        an option that may be chosen, zero for the others.
        """
        return {name: table.double() for name, table in self.allowed.items()}

    def _operations(self, group: str) -> Tensor:
        """The options of a group that may still be chosen [slots, options], without the option that
        only says that an edge is left out.
        """
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
        # the option that says that the edge is left out, if it may still be chosen
        absent = self.allowed[group][slot] & ~operations

        def with_only(option: int) -> dict[str, Tensor]:
            row = absent.clone()
            row[option] = True
            return self._changed(group, slot, row)

        possible = [
            option
            for option in operations.nonzero().flatten().tolist()
            if self._completes(with_only(option))
        ]
        best, ranks = possible[0], {}
        if len(possible) > 1:
            ranks = {option: self.judge(self.mixture((group, slot, option))) for option in possible}
            best = max(ranks, key=ranks.__getitem__)
        self.allowed = with_only(best)
        without = {options[option]: abs(rank[0]) for option, rank in ranks.items()}
        self.kept.append(
            {"group": group, "slots": [slot], "kept": options[best], "without": without}
        )

    def _decide_edges(self, rule: Rule) -> None:
        left = list(rule.slots)
        without: dict[str, float] = {}
        while len(left) > rule.count:
            possible = {slot: self._without_edge(rule, slot) for slot in left}
            possible = {
                slot: allowed for slot, allowed in possible.items() if self._completes(allowed)
            }
            ranks = {slot: self.judge(self.mixture((rule.group, slot, None))) for slot in possible}
            missed_least = min(possible, key=ranks.__getitem__)
            self.allowed = possible[missed_least]
            without |= {str(slot): abs(rank[0]) for slot, rank in ranks.items()}
            left.remove(missed_least)
        self.kept.append(
            {"group": rule.group, "slots": list(rule.slots), "kept": left, "without": without}
        )

    def _without_edge(self, rule: Rule, slot: int) -> dict[str, Tensor]:
        row = self.allowed[rule.group][slot].clone()
        row[list(rule.options)] = False
        return self._changed(rule.group, slot, row)

    def _changed(self, group: str, slot: int, row: Tensor) -> dict[str, Tensor]:
        table = self.allowed[group].clone()
        table[slot] = row
        return self.allowed | {group: table}

    def _completes(self, allowed: dict[str, Tensor]) -> bool:
        """Whether some architecture within the budget has only options that are ``allowed``."""
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
        self.allowed = dict(state["allowed"])
        self.order, self.kept = list(state["order"]), list(state["kept"])
