"""What instruments measure is true, and they do not change a search."""

import copy
import json
import random

import pytest
import torch

from supernet.evaluate.accuracy import inherited_accuracy
from supernet.instruments.readings import GradientCosine
from supernet.learners.fixed import Fixed
from supernet.learners.gradient import Gradient
from supernet.mixture import softmax_mixture
from supernet.ops import PARAMETER_FREE
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from supernet.train.search import snapshot_of
from supernet.train.settings import MeasureSettings
from supernet.train.watch import Watch
from tests.compare import identical
from tests.train.stopping import stopped_and_resumed, straight
from tests.variants import GUARDS, INSTRUMENTS, LEARNERS, MODIFIERS, SAMPLERS, SPACES, cells_alone

EVERY = {name: make() for name, make in INSTRUMENTS.items()}
ALL = {"instruments": EVERY, "measure": MeasureSettings(every=1)}
GRADIENT = ("gradient", "gradient_2nd", "exponentiated")


@pytest.mark.parametrize(
    ("sampler", "learner", "modifiers"),
    [(name, "gradient", ()) for name in SAMPLERS if name != "policy"]
    + [("softmax", name, ()) for name in GRADIENT[1:]]
    + [("snas", "gradient", MODIFIERS)],
)
def test_a_search_is_the_same_to_the_bit_with_and_without_them(
    sampler, learner, modifiers, search_stage
):
    """Every instrument with every gradient method, and with all modifiers at once."""

    def make(**more):
        parts = [MODIFIERS[name]() for name in modifiers]
        return search_stage(
            SPACES["nb201"](),
            SAMPLERS[sampler](),
            LEARNERS[learner](),
            modifiers=parts,
            epochs=1,
            **more,
        )

    plain, measured = make(), make(**ALL)
    rows, more = straight(plain), straight(measured)
    assert identical(plain.state_dict() | {"watch": {}}, measured.state_dict() | {"watch": {}})
    for (_, step, figures), (_, same_step, among) in zip(rows, more, strict=True):
        assert step == same_step and figures == {name: among[name] for name in figures}
    said = more[-1][2].keys() - rows[-1][2].keys()
    assert {
        "share/skip",
        "share/parameter_free",
        "gap/mixture",
        "gap/derived",
        "eigenvalue",
        "gradient_cosine",
    } <= said
    assert any(name.startswith("gradient_norm/edges/") for name in said)
    assert measured.parts.keys() == INSTRUMENTS.keys() and all(
        seconds > 0 for seconds in measured.parts.values()
    )


def test_stopped_anywhere_and_resumed_they_say_the_same(search_stage, tmp_path, request):
    def make():
        return search_stage(SPACES["nb201"](), Softmax(), Gradient(), **ALL, epochs=1)

    whole = make()
    rows = straight(whole)
    resumed, resumed_rows = stopped_and_resumed(
        make, random.Random(request.node.name).randrange(1, whole.steps), tmp_path
    )
    assert identical(whole.state_dict(), resumed.state_dict()) and resumed_rows == rows


def test_expensive_ones_are_read_every_so_many_epochs_and_none_where_logits_rest(search_stage):
    stage = search_stage(
        SPACES["nb201"](),
        Softmax(),
        Gradient(),
        instruments=EVERY,
        measure=MeasureSettings(every=2),
        epochs=3,
    )
    rows = [figures for _, step, figures in straight(stage) if step % stage.steps_per_epoch == 0]
    assert [
        ("eigenvalue" in row, "gap/mixture" in row, "gradient_cosine" in row) for row in rows
    ] == [
        (False, False, True),
        (True, True, True),
        (False, False, True),
    ]
    assert not search_stage(SPACES["nb201"](), Uniform(), Fixed(), **ALL).watch.instruments
    assert set(Watch(EVERY).instruments) == {"shares", "gradient_cosine", "gradient_norms"}


@cells_alone
def test_shares_are_of_the_decisions_that_are_left(space, search_stage):
    """In the cells of DARTS, 8 of 14 edges are kept. An edge that is left out by this rule is not a
    decision for an option without weights.
    """
    stage = search_stage(space, Softmax(), Gradient(), **ALL)
    with torch.no_grad():
        for table in stage.logits.values():
            table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(3)))
    snapshot = snapshot_of(stage)
    edges = [option for cell in space.graph(snapshot.derived).values() for _, _, option in cell]
    decisions = 16 if space.name == "darts" else 6
    absent = decisions - len(edges)  # in NAS-Bench-201, "none" is chosen
    figures = stage.watch.instruments["shares"].read(snapshot)
    assert figures["share/skip"] == pytest.approx(edges.count("skip_connect") / decisions)
    free = sum(option in PARAMETER_FREE for option in edges) + absent
    assert (
        figures["share/parameter_free"] == pytest.approx(free / decisions) and 0 < free < decisions
    )


def test_the_gap_is_between_the_mixture_and_its_architecture_on_the_same_weights(
    space, search_stage, data, splits
):
    stage = search_stage(space, Softmax(), Gradient(), **ALL)
    for index in range(3):
        stage.step(index)
    figures = stage.watch.instruments["gap"].read(snapshot_of(stage))

    def pixels(indices):
        return (
            data.train.pixels[indices].float() / 255 - data.mean.view(-1, 1, 1)
        ) / data.std.view(-1, 1, 1)

    for name, mixture in (
        ("gap/mixture", softmax_mixture(stage.detached_logits)),
        ("gap/derived", space.path(space.derive(stage.scores()))),
    ):
        network = copy.deepcopy(stage.supernet)
        batches = [(pixels(part), data.train.labels[part]) for part in splits.architecture.split(4)]
        calibration = [pixels(part) for part in splits.weights.split(4)]
        judged = inherited_accuracy(network, mixture, batches, data.task, calibration)
        assert figures[name] == judged.accuracy


def test_the_cosine_is_that_of_successive_gradients():
    instrument = GradientCosine()
    instrument.begin(SPACES["nb201"](), torch.nn.Identity())
    for gradient in ([1.0, 0.0], None, [1.0, 1.0], [-1.0, -1.0]):
        instrument.step(
            None
            if gradient is None
            else {"a": torch.tensor([gradient[:1]]), "b": torch.tensor([gradient[1:]])}
        )
    assert instrument.read(None)["gradient_cosine"] == pytest.approx((0.5**0.5 - 1) / 2)
    assert instrument.read(None) == {}  # a new epoch
    instrument.step({"a": torch.tensor([[-1.0]]), "b": torch.tensor([[-1.0]])})
    assert instrument.read(None)["gradient_cosine"] == pytest.approx(1.0)


@cells_alone
def test_the_norms_are_those_of_all_weights_of_an_option(space, search_stage):
    stage = search_stage(space, Softmax(), Gradient(), **ALL, clip=0.0)
    squares = []
    stage.weights.optimizer.register_step_pre_hook(
        lambda *_: squares.append(by_option(stage.supernet))
    )
    for index in range(2):
        stage.step(index)
    figures = stage.watch.instruments["gradient_norms"].read(None)
    assert figures and figures.keys() == {f"gradient_norm/{name}" for name in squares[0]}
    for name in squares[0]:
        assert figures[f"gradient_norm/{name}"] == pytest.approx(
            sum(s[name] ** 0.5 for s in squares) / 2, rel=1e-4
        )


def by_option(supernet) -> dict[str, float]:
    """The squared norms of the gradients by group and option, by the names of the weights."""
    found = {}
    cells = {
        name: cell.group.name for name, cell in supernet.named_modules() if hasattr(cell, "group")
    }
    for name, weight in supernet.named_parameters():
        for cell, group in cells.items():
            if name.startswith(f"{cell}.edges."):
                option = name.removeprefix(f"{cell}.edges.").split(".")[1]
                found[f"{group}/{option}"] = found.get(f"{group}/{option}", 0.0) + float(
                    weight.grad.square().sum()
                )
    return found


def test_the_name_of_every_figure_begins_as_its_instrument_says(search_stage):
    """No other instrument's or guard's figure begins in the same way, unless it means the same."""
    guards = {name: make() for name, make in GUARDS.items()}
    stage = search_stage(SPACES["nb201"](), Softmax(), Gradient(), guards=guards, epochs=1, **ALL)
    straight(stage)
    described = stage.watch.described()
    assert described.keys() == INSTRUMENTS.keys() | {"oles"}  # early_stop logs the eigenvalue
    snapshot = snapshot_of(stage)
    figures = {name: one.read(snapshot) for name, one in stage.watch.instruments.items()}
    stage.step(0)
    figures["gradient_norms"] = stage.watch.instruments["gradient_norms"].read(snapshot)
    stage.step(1)
    figures["gradient_cosine"] = stage.watch.instruments["gradient_cosine"].read(snapshot)
    figures["oles"] = stage.watch.guards["oles"].figures
    for name, found in figures.items():
        assert found
        for figure in found:
            owners = [
                other
                for other, one in described.items()
                if figure.startswith(tuple(one["prefixes"]))
            ]
            assert owners == [name]


def test_what_is_described_is_json_and_says_what_a_class_says():
    guard = GUARDS["early_stop"]()
    watch = Watch({"mine": EVERY["gap"]}, {"stop": guard}, MeasureSettings(every=1))
    described = watch.described()
    assert json.loads(json.dumps(described)) == described
    assert described["mine"] == {
        "title": EVERY["gap"].title,
        "meaning": EVERY["gap"].meaning,
        "prefixes": list(EVERY["gap"].prefixes),
    }
    assert described["stop"]["prefixes"] == list(EVERY["eigenvalue"].prefixes)
