"""What guards do, and at which moment."""

import itertools
import random
from types import SimpleNamespace

import pytest
import torch

from supernet.errors import UserError
from supernet.guards.early_stop import EarlyStop
from supernet.guards.oles import OLES
from supernet.instruments import instrument
from supernet.instruments.readings import Eigenvalue
from supernet.learners.gradient import Gradient
from supernet.samplers.softmax import Softmax
from supernet.samplers.uniform import Uniform
from supernet.train.settings import MeasureSettings
from tests.compare import identical
from tests.tasks import task_of
from tests.train.stopping import stopped_and_resumed, straight
from tests.variants import SPACES, cells_alone


def test_stopped_anywhere_and_resumed_it_ends_in_the_same_bits(
    guard, search_stage, tmp_path, request
):
    def make():
        return search_stage(SPACES["nb201"](), Softmax(), Gradient(lr=0.1), guards=guard, epochs=1)

    whole = make()
    rows = straight(whole)
    resumed, resumed_rows = stopped_and_resumed(
        make, random.Random(request.node.name).randrange(1, whole.steps), tmp_path
    )
    assert identical(whole.state_dict(), resumed.state_dict()) and resumed_rows == rows
    assert whole.parts.keys() == guard.keys() and all(
        tensor.grad is None for tensor in whole.supernet.parameters()
    )


# --- early stop


def fired_at(guard: EarlyStop, eigenvalues):
    """The epoch at which a fresh guard ends a search with these eigenvalues, and what it does;
    ``None`` if it does not end the search.
    """
    guard.begin(SPACES["nb201"](), torch.nn.Identity())
    for epoch, value in enumerate(eigenvalues, start=1):
        snapshot = SimpleNamespace(
            epoch=epoch, eigenvalue=value, logits={"edges": torch.full((6, 5), float(epoch))}
        )
        if (fired := guard.end_of_epoch(snapshot)) is not None:
            return epoch, fired
    return None


@pytest.mark.parametrize("seed", range(20))
def test_early_stop_is_the_papers_rule(seed):
    """Compared with the rule, written out for each epoch of random readings."""
    eigenvalues = (
        torch.rand(40, generator=torch.Generator().manual_seed(seed)).double()
        + torch.linspace(0, 1.5, 40)
    ).tolist()
    window, k, ratio = 5, 5, 0.6

    def mean(epoch):
        return sum(eigenvalues[epoch - window : epoch]) / window

    expected = [t for t in range(window + k, 41) if mean(t - k) / mean(t) < ratio][:1]
    found = fired_at(EarlyStop(window=window, k=k, ratio=ratio), eigenvalues)
    assert [found[0]] if found else expected == []
    if found:
        assert found[1].stops and float(found[1].logits["edges"][0, 0]) == expected[0] - k
        assert f"epoch {expected[0] - k}" in found[1].what


def test_early_stop_lets_steady_falling_and_negative_curvature_go_on():
    for eigenvalues in (
        [1.0] * 30,
        [1 / t for t in range(1, 30)],
        [-float(t) for t in range(30)],
        [0.0] * 30,
    ):
        assert fired_at(EarlyStop(), eigenvalues) is None
    assert fired_at(EarlyStop(), [1.0] * 9 + [100.0])[0] == 10


def test_early_stop_reads_every_so_many_epochs():
    epoch, fired = fired_at(EarlyStop(every=2, window=1, k=2), [1.0, 99.0, 1.0, 2.0, 1.0, 400.0])
    assert epoch == 6 and float(fired.logits["edges"][0, 0]) == 2


def test_a_search_that_is_stopped_ends_there_with_the_logits_from_before(
    search_stage, tmp_path, monkeypatch
):
    def make(say=lambda line: None):
        monkeypatch.setattr(
            instrument,
            "dominant_eigenvalue",
            lambda *arguments: 2.0 ** len(stages[-1].watch.guards["early_stop"].readings),
        )
        stage = search_stage(
            SPACES["nb201"](),
            Softmax(),
            Gradient(lr=0.1),
            guards={"early_stop": EarlyStop(window=1, k=1)},
            say=say,
            epochs=5,
        )
        stages.append(stage)
        return stage

    def doubled(*arguments):
        return 2.0 ** len(stages[-1].watch.guards["early_stop"].readings)

    monkeypatch.setattr(instrument, "dominant_eigenvalue", doubled)
    stages, said = [], []
    stage = make(said.append)
    rows = straight(stage)
    assert stage.steps == 2 * stage.steps_per_epoch == rows[-1][1]
    (fired,) = stage.watch.fired
    assert (fired["guard"], fired["epoch"]) == ("early_stop", 2) and "from 1 to 2" in fired["what"]
    assert said == [f"guard early_stop, epoch 2: {fired['what']}"]
    first = search_stage(SPACES["nb201"](), Softmax(), Gradient(lr=0.1), epochs=5)
    for index in range(first.steps_per_epoch):
        first.step(index)
    # the progress of a step is that of the whole search
    assert identical(stage.detached_logits, first.detached_logits)
    resumed, resumed_rows = stopped_and_resumed(make, 4, tmp_path)
    assert identical(resumed.state_dict(), stage.state_dict()) and resumed_rows == rows


def test_the_guard_and_the_instrument_read_the_same_eigenvalue_once(search_stage, monkeypatch):
    calls = itertools.count(1)
    monkeypatch.setattr(instrument, "dominant_eigenvalue", lambda *arguments: float(next(calls)))
    stage = search_stage(
        SPACES["nb201"](),
        Softmax(),
        Gradient(),
        instruments={"eigenvalue": Eigenvalue()},
        measure=MeasureSettings(every=1),
        guards={"early_stop": EarlyStop()},
        epochs=2,
    )
    rows = straight(stage)
    assert [figures["eigenvalue"] for _, step, figures in rows if step % 3 == 0] == [1.0, 2.0]


# --- OLES


def oles(space, supernet, **settings) -> OLES:
    guard = OLES(**settings)
    guard.begin(space, supernet)
    return guard


def test_oles_freezes_what_learns_against_the_validation_images(noise):
    """An operation goes on if its two gradients agree. It does not if they are opposite, or differ
    a little too much.
    """
    space = SPACES["nb201"]()
    supernet = space.supernet(task_of(3, 1))
    guard = oles(space, supernet, window=3, threshold=0.4)
    angles = {
        name: angle for name, angle in zip(guard.weights, itertools.cycle([1.0, 0.5, 0.3, -1.0]))
    }
    owner = {weight: name for name, weights in guard.weights.items() for weight in weights}

    def validation(weights):
        """A gradient with the wanted cosine to the gradient of each operation as a whole."""
        found = []
        for weight in weights:
            beside = torch.randn(weight.shape, generator=noise)
            whole = [w for w in guard.weights[owner[weight]]]
            assert len(whole) == 1  # a convolution: its BatchNorm has no weights during search
            beside -= weight.grad * (beside * weight.grad).sum() / weight.grad.square().sum()
            sine = (1 - angles[owner[weight]] ** 2) ** 0.5
            found.append(
                angles[owner[weight]] * weight.grad / weight.grad.norm()
                + sine * beside / beside.norm()
            )
        return found

    for look in range(3):
        assert not guard.frozen
        for weight in owner:
            weight.grad = torch.randn(weight.shape, generator=noise)
        guard.step(validation)
        assert (look < 2) == all(weight.grad is not None for weight in owner)
    assert set(guard.frozen) == {name for name, angle in angles.items() if angle < 0.4} != set()
    assert all((weight.grad is None) == (name in guard.frozen) for weight, name in owner.items())
    fired = guard.end_of_epoch(None)
    assert (
        f"({len(guard.frozen)} of {len(angles)} operations in all)" in fired.what
        and not fired.stops
    )
    assert guard.end_of_epoch(None) is None  # it is said only once
    assert guard.figures == {"share/frozen": len(guard.frozen) / len(angles)}


def test_a_frozen_operation_never_moves_again_and_the_others_do(search_stage):
    stage = search_stage(
        SPACES["nb201"](),
        Softmax(),
        Gradient(),
        guards={"oles": OLES(window=1, threshold=1.0)},
        epochs=4,
        weight_decay=0.1,
    )
    stage.watch.guards["oles"].weights.pop(spared := next(iter(stage.watch.guards["oles"].weights)))
    stage.step(0)  # every cosine is less than 1
    before = {name: tensor.clone() for name, tensor in stage.supernet.named_parameters()}
    for index in range(1, 6):
        stage.step(index)
    for name, tensor in stage.supernet.named_parameters():
        frozen = any(
            name.startswith(f"{operation}.") for operation in stage.watch.guards["oles"].frozen
        )
        assert torch.equal(tensor, before[name]) == frozen
    assert (
        len(stage.watch.guards["oles"].frozen) == 6 * 3 * 2 - 1
        and spared not in stage.watch.guards["oles"].frozen
    )


@cells_alone
def test_the_validation_gradient_is_of_the_images_that_the_logits_learnt_from(space, search_stage):
    stage, twin = (
        search_stage(space, Softmax(), Gradient(lr=0.1), guards={"oles": OLES()}) for _ in range(2)
    )
    seen = []
    look = OLES.look

    def looking(guard, validation):
        weights = list(stage.supernet.parameters())
        before = {name: buffer.clone() for name, buffer in stage.supernet.named_buffers()}
        seen.append(
            (
                validation(weights),
                [weight.detach().clone() for weight in weights],
                stage.detached_logits,
            )
        )
        assert all(
            torch.equal(before[name], buffer) for name, buffer in stage.supernet.named_buffers()
        )
        look(guard, validation)

    stage.watch.guards["oles"].look = lambda validation: looking(
        stage.watch.guards["oles"], validation
    )
    stage.step(0)
    ((found, weights, logits),) = seen
    images, labels = next(twin.architecture_batches)
    with torch.no_grad():
        for weight, value in zip(twin.supernet.parameters(), weights, strict=True):
            weight.copy_(value)
    mixture = twin.sampler.mean({name: table.clone() for name, table in logits.items()}, 0.0)
    loss = twin.weights.loss(twin.supernet.train()(images, mixture), labels)
    torch.testing.assert_close(
        list(found),
        list(torch.autograd.grad(loss, list(twin.supernet.parameters()))),
        rtol=1e-4,
        atol=1e-6,
    )


def test_oles_looks_at_what_ran_alone(search_stage):
    """On single paths most operations have no gradient in a step; the guard leaves them out."""
    stage = search_stage(SPACES["nb201"](), Uniform(), Gradient(), guards={"oles": OLES()})
    stage.step(0)
    looks = stage.watch.guards["oles"].looks
    assert 0 < sum(looks.values()) < len(looks) / 2


def test_oles_needs_something_to_freeze():
    with pytest.raises(
        UserError, match=r"guard=\[oles\]: no option of the space nb201 has weights"
    ):
        oles(SPACES["nb201"](), torch.nn.Identity())
