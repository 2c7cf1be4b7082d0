"""The phases of a search: how settings expand into them, and what the search does with them."""

import pytest

from supernet.errors import UserError
from supernet.guards.early_stop import EarlyStop
from supernet.guards.oles import OLES
from supernet.learners.gradient import Gradient
from supernet.samplers.softmax import Softmax
from supernet.spaces.cells import Geometry, MixedCell
from supernet.spaces.darts import Darts
from supernet.spaces.nb201 import NB201
from supernet.train.phases import Phase, phases_of
from supernet.train.settings import SearchSettings
from tests.compare import identical
from tests.tasks import task_of
from tests.train.stopping import stopped_and_resumed, straight

DEPTHS, WIDTHS = [[0.0, 0.5], [0.5, 1.0]], [[0.0, 4], [0.25, 2], [0.75, 1]]
SPACES = {
    "nb201": lambda: NB201(Geometry(4, 2), Geometry(4, 2)),
    "darts": lambda: Darts(Geometry(4, 4), Geometry(4, 4), auxiliary=False),
}


def test_without_settings_a_search_is_one_fresh_phase_of_the_spaces_size():
    (phase,) = phases_of([], [])
    space = SPACES["nb201"]()
    assert phase == Phase(0.0, 1.0, True) and phase.resized(space) is space
    assert (phase.first_step(7), phase.rate_steps(7)) == (0, 7)


def test_depths_begin_anew_and_widths_go_on_and_both_at_once_are_fresh():
    assert phases_of(DEPTHS, []) == [
        Phase(0.0, 0.5, True, 0.5),
        Phase(0.5, 1.0, True, 1.0),
    ]
    assert phases_of([], WIDTHS) == [
        Phase(0.0, 1.0, True, 1.0, 4),
        Phase(0.25, 1.0, False, 1.0, 2),
        Phase(0.75, 1.0, False, 1.0, 1),
    ]
    assert phases_of(DEPTHS, [*WIDTHS[:1], [0.5, 2], [0.75, 1]]) == [
        Phase(0.0, 0.5, True, 0.5, 4),
        Phase(0.5, 1.0, True, 1.0, 2),
        Phase(0.75, 1.0, False, 1.0, 1),
    ]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 100, 1560])
@pytest.mark.parametrize(
    "shares", [[0.0, 0.333, 0.667], [0.0, 0.1, 0.30000000000000004], [0.0, 0.98, 0.99], [0.0]]
)
def test_a_phase_begins_when_its_share_is_over_and_its_rates_fill_the_search(shares, steps):
    """By definition, a phase begins with the first step before which its share is over, but at the
    last step at the latest.
    """
    phases = phases_of([[share, 1.0] for share in shares], [])
    for phase in phases:
        over = [step for step in range(steps) if step / steps + 1e-9 >= phase.start]
        assert phase.first_step(steps) == (over[0] if over else steps - 1)
    following = [phase.first_step(steps) for phase in phases[1:]]
    if len(set(following)) == len(following) and all(step < steps - 1 for step in following):
        assert sum(phase.rate_steps(steps) for phase in phases) == steps


@pytest.mark.parametrize("name", SPACES)
def test_depths_and_widths_go_together(name, search_stage, tmp_path):
    """At every step the cells and the parts of the channels are the expected ones. Only a depth
    restarts the learning rate. The last supernet is that of the space. A stop at any step does not
    change a bit: on cells of DARTS, which take long, one where both change.
    """

    def make():
        return search_stage(
            SPACES[name](),
            Softmax(),
            Gradient(lr=0.1),
            depths=DEPTHS,
            widths=WIDTHS,
            epochs=4,  # of three steps
        )

    stage, seen = make(), []
    step = stage.step

    def watched(index):
        rate = stage.weights.optimizer.param_groups[0]["lr"]
        figures = step(index)
        cells = [one for one in stage.supernet.modules() if isinstance(one, MixedCell)]
        seen.append((len(cells), {one.divisor for one in cells}, rate))
        return figures

    stage.step = watched
    rows = straight(stage)
    whole = SPACES[name]().supernet(task_of(3, 1))
    sizes = [len([one for one in whole.modules() if isinstance(one, MixedCell)])]
    assert [one for one, _, _ in seen] == [sizes[0] // 2] * 6 + sizes * 6
    assert [parts for _, parts, _ in seen] == [{4}] * 3 + [{2}] * 6 + [{1}] * 3
    rates = [rate for _, _, rate in seen]
    # the rate before a step: that of the sixth is left over from the phase before
    assert rates[1:6] == rates[7:12] and rates[1:6] == sorted(rates[1:6], reverse=True)
    stage.space.supernet(task_of(3, 1)).load_state_dict(stage.supernet.state_dict())

    for at in (3, 6, 7, 9) if name == "nb201" else (6,):
        resumed, resumed_rows = stopped_and_resumed(make, at, tmp_path / str(at))
        assert identical(stage.state_dict(), resumed.state_dict()) and resumed_rows == rows


def test_even_a_search_of_few_steps_ends_with_the_geometry_of_its_last_phase(search_stage):
    """This holds however late the phases begin, and if several begin with the same step."""
    depths = [[0.0, 0.3], [0.9, 0.6], [0.95, 1.0]]
    stage = search_stage(
        NB201(Geometry(4, 3), Geometry(4, 3)), Softmax(), Gradient(), depths=depths, epochs=1
    )
    straight(stage)
    stage.space.supernet(task_of(3, 1)).load_state_dict(stage.supernet.state_dict())


ONE_PHASE = (
    r"needs one supernet from the first step of the search to the last; leave it out, or set "
    r"search\.depths=\[\] and search\.widths=\[\]$"
)


@pytest.mark.parametrize("phases", [{"depths": DEPTHS}, {"widths": [[0.0, 2], [0.5, 1]]}])
def test_what_needs_one_supernet_all_the_time_is_refused_in_one_line(phases, search_stage):
    space = SPACES["nb201"]()
    with pytest.raises(UserError, match=r"^search\.freeze_weights: " + ONE_PHASE):
        SearchSettings(freeze_weights=True, **phases)
    guards = {"early_stop": EarlyStop(), "oles": OLES()}
    with pytest.raises(UserError, match=r"^guard=\[early_stop,oles\]: " + ONE_PHASE):
        search_stage(space, Softmax(), Gradient(), guards=guards, **phases)
    start = space.supernet(task_of(3, 1)).state_dict()
    with pytest.raises(
        UserError, match="^a start from the weights of another search: " + ONE_PHASE
    ):
        search_stage(space, Softmax(), Gradient(), start=start, **phases)


def test_one_depth_and_one_width_are_one_phase(search_stage):
    """All features that need a single phase work with these settings."""
    space = SPACES["nb201"]()
    search_stage(
        space,
        Softmax(),
        Gradient(),
        guards={"oles": OLES()},
        start=space.supernet(task_of(3, 1)).state_dict(),
        freeze_weights=True,
        depths=[[0.0, 1.0]],
        widths=[[0.0, 1]],
    )
