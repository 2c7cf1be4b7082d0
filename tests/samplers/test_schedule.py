"""Schedules: which sampler leads at which step."""

from collections import Counter

import pytest
import torch
from scipy import stats

from supernet.errors import UserError
from supernet.learners.gradient import Gradient
from supernet.randomness import Streams
from supernet.samplers.policy import Policy
from supernet.samplers.progressive import Progressive
from supernet.samplers.sandwich import Sandwich
from supernet.samplers.schedule import Schedule
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from tests.budgets import budget_of
from tests.compare import identical
from tests.samplers.drawing import begun, is_path, judged
from tests.train.stopping import stopped_and_resumed, straight
from tests.variants import SPACES

HALVES = [[Uniform(), 0.5], [Softmax(), 0.5]]


class Spy(Softmax):
    """Remembers the progress of each call for mixtures."""

    def begin(self, *arguments):
        super().begin(*arguments)
        self.seen = []

    def mixtures(self, logits, progress, loss):
        self.seen.append(progress)
        return super().mixtures(logits, progress, loss)


def spied(schedule: Schedule, space) -> Schedule:
    schedule.samplers = [Spy() for _ in schedule.samplers]
    return begun(schedule, space)


def table_of(space):
    return {group.name: torch.zeros(group.shape) for group in space.groups}


@pytest.mark.parametrize(
    ("shares", "steps", "wanted"),
    [
        ([0.5, 0.5], 6, [3, 3]),
        ([0.5, 0.5], 7, [4, 3]),  # step 3 of 7 is before the half
        ([0.1, 0.2, 0.7], 10, [1, 2, 7]),  # 0.1 + 0.2 is more than 0.3
        ([0.3, 0.3, 0.4], 1000, [300, 300, 400]),
        ([1 / 3, 1 / 3, 1 / 3], 9, [3, 3, 3]),
        ([1.0], 4, [4]),
    ],
)
def test_each_leads_its_share_of_the_steps_to_the_step(shares, steps, wanted):
    space = SPACES["nb201"]()
    schedule = spied(Schedule([[Softmax(), share] for share in shares]), space)
    leaders = []
    for step in range(steps):
        schedule.relaxation(table_of(space), step / steps, torch.Generator())
        schedule.mixtures(table_of(space), step / steps, judged)
        leaders.append(schedule.leads)
    assert leaders == [phase for phase, count in enumerate(wanted) for _ in range(count)]
    for spy, count in zip(schedule.samplers, wanted, strict=True):
        own = [step / count for step in range(count)]
        assert len(spy.seen) == count and all(0 <= p < 1 for p in spy.seen)
        assert max(abs(a - b) for a, b in zip(spy.seen, own, strict=True)) < 1 / count


def test_what_is_drawn_is_what_the_leader_draws(space):
    logits = table_of(space)
    schedule = begun(Schedule([[Uniform(), 0.5], [Progressive(), 0.25], [Softmax(), 0.25]]), space)
    streams = Streams(0)
    alone = [Uniform(), Progressive(), Softmax()]
    for sampler in alone:
        sampler.begin(budget_of(space), streams, torch.device("cpu"))
    for step in range(8):
        phase, seen = (
            (0, step / 4) if step < 4 else (1, (step - 4) / 2) if step < 6 else (2, (step - 6) / 2)
        )
        (got,), (wanted,) = (
            sampler.mixtures(logits, progress, judged)
            for sampler, progress in ((schedule, step / 8), (alone[phase], seen))
        )
        assert {name: choice.active for name, choice in got.items()} == {
            name: choice.active for name, choice in wanted.items()
        }
        assert is_path(got) == (phase < 2)


def test_mixed_draws_a_leader_a_step_and_relaxes_with_the_one_that_draws(space):
    """Chi-squared of the shares. The leader of a step is the same for the logits and the weights,
    in any order of calls.
    """
    logits = table_of(space)
    schedule, twin = (
        spied(Schedule([[Softmax(), 0.2], [Softmax(), 0.3], [Softmax(), 0.5]], mixed=True), space)
        for _ in "ab"
    )
    leaders = []
    for step in range(500):
        schedule.relaxation(logits, step / 500, torch.Generator())
        leaders.append(schedule.leads)
        schedule.mixtures(logits, step / 500, judged)
        twin.mixtures(logits, step / 500, judged)
        assert schedule.leads == twin.leads == leaders[-1]
    counts = Counter(leaders)
    assert stats.chisquare([counts[phase] for phase in range(3)], [100, 150, 250]).pvalue > 1e-4
    assert sorted(p for spy in schedule.samplers for p in spy.seen) == [
        step / 500 for step in range(500)
    ]


def test_logits_are_scored_by_the_last_or_where_they_mix_by_the_most_probable(space):
    logits = table_of(space)
    for schedule, wanted in (
        (Schedule(HALVES), 1),
        (Schedule([[Uniform(), 0.4], [Softmax(), 0.6]], mixed=True), 1),
        (Schedule([[Uniform(), 0.6], [Softmax(), 0.4]], mixed=True), 0),
    ):
        begun(schedule, space)
        for position, sampler in enumerate(schedule.samplers):
            sampler.scores = lambda logits, position=position: position
        for step in range(4):
            schedule.mixtures(logits, step / 4, judged)
        assert schedule.scores(logits) == wanted


def test_it_distils_while_a_sampler_that_does_leads(space):
    schedule = begun(Schedule([[Uniform(), 0.5], [Sandwich(), 0.5]]), space)
    distils = []
    for step in range(4):
        schedule.mixtures(table_of(space), step / 4, judged)
        distils.append(schedule.distils)
    assert distils == [False, False, True, True]


@pytest.mark.parametrize(("at", "mixed"), [(2, False), (3, False), (4, False), (3, True)])
def test_stopped_before_at_and_after_the_switch_it_ends_in_the_same_bits(
    at, mixed, search_stage, tmp_path
):
    space = SPACES["nb201"]()

    def make():
        return search_stage(
            space,
            Schedule([[Uniform(), 0.5], [Sandwich(), 0.25], [Softmax(), 0.25]], mixed),
            Gradient(),
        )

    whole = make()
    rows = straight(whole)
    resumed, resumed_rows = stopped_and_resumed(make, at, tmp_path)
    assert identical(whole.state_dict(), resumed.state_dict()) and rows == resumed_rows
    assert resumed.sampler.scores(resumed.logits).keys() == resumed.logits.keys()


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([["uniform", 1.0]], "a phase is a pair of a sampler and its share"),
        ([[Uniform(), 0.5], [Softmax(), 0.6]], "must add up to 1"),
        (
            [[Uniform(), 1.5], [Softmax(), -0.5]],
            "the share of Softmax=-0.5: must be greater than 0",
        ),
        ([], "must add up to 1"),
        (["uniform", "softmax"], "uniform: a phase is a pair"),
        ([[Uniform(), "half"]], "a phase is a pair"),
        (
            [[Uniform(), 0.5], [Policy(hidden=8), 0.5]],
            "Policy has a policy, which no learner finds inside a schedule; choose",
        ),
    ],
)
def test_a_wrong_phase_is_one_line(phases, message):
    with pytest.raises(UserError, match=message) as caught:
        Schedule(phases)
    assert "\n" not in str(caught.value)


def test_a_phase_may_be_a_schedule_itself(space):
    logits = table_of(space)
    inner = Schedule([[Softmax(), 0.5], [Uniform(), 0.5]])
    schedule = begun(Schedule([[Uniform(), 0.5], [inner, 0.5]]), space)
    paths = [is_path(schedule.mixtures(logits, step / 8, judged)[0]) for step in range(8)]
    assert paths == [True] * 4 + [False] * 2 + [True] * 2
