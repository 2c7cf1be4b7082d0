"""Judging is compared with scikit-learn; BatchNorm statistics are compared with their definition
and tried on real digits.
"""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from supernet.data import Digits, evaluation_batches, split
from supernet.evaluate import accuracy
from supernet.evaluate.accuracy import Judgement, evaluate, inherited_accuracy, recalibrate
from supernet.learners.fixed import Fixed
from supernet.mixture import softmax_mixture
from supernet.samplers.uniform import Uniform
from supernet.spaces.cells import Geometry
from supernet.spaces.nb201 import NB201
from supernet.train.loop import run_stage
from supernet.train.search import SearchStage
from supernet.train.settings import SearchSettings
from tests.compare import identical
from tests.tasks import task_of
from tests.variants import cells_alone

TASK = task_of(3, 1)


def batches(count=11, size=4, seed=0):
    noise = torch.Generator().manual_seed(seed)
    images, labels = (
        torch.randn(count, 1, 8, 8, generator=noise),
        torch.randint(3, (count,), generator=noise),
    )
    return list(zip(images.split(size), labels.split(size), strict=True))


def snapshot(network: nn.Module):
    """A copy of everything that judging could change."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    return {
        "state": {name: value.clone() for name, value in network.state_dict().items()},
        "modes": [module.training for module in network.modules()],
        "momenta": [norm.momentum for norm in norms],
        "gradients": [weight.grad for weight in network.parameters()],
    }


def uniform(space):
    return softmax_mixture({group.name: torch.zeros(group.shape) for group in space.groups})


@pytest.fixture
def supernet(space):
    """A supernet whose BatchNorms have seen other images before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        supernet = space.supernet(task_of(3, 1))
    for images, _ in batches(seed=5):
        supernet(2 * images + 1, uniform(space))
    return supernet


@pytest.fixture
def path(space):
    return space.path(space.random(np.random.default_rng(0)))


def test_accuracy_and_loss_are_scikit_learns(noise):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    given = batches(23, 5)
    judgement = evaluate(network, given, TASK)
    labels = torch.cat([y for _, y in given])
    probabilities = torch.cat([network(x).softmax(1) for x, _ in given]).detach().double().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    assert judgement.accuracy == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert judgement.loss == pytest.approx(
        log_loss(labels, probabilities, labels=[0, 1, 2]), rel=1e-6
    )
    assert judgement.images == 23 and network[1].weight.grad is None


def test_the_standard_error_is_that_of_a_share():
    """It is compared with the deviation of the mean of as many images, each right or wrong."""
    right = np.array([1] * 30 + [0] * 10)
    assert Judgement(0.75, 1.0, 40).standard_error == pytest.approx(right.std() / math.sqrt(40))
    assert Judgement(1.0, 0.0, 40).standard_error == 0.0


@cells_alone
def test_recalibrated_statistics_are_the_mean_over_the_batches(space, supernet, path):
    """They are the means of each batch's own mean and unbiased variance. Statistics that the path
    does not use stay unchanged.
    """
    before, inputs = snapshot(supernet), {}
    norms = {
        name: module
        for name, module in supernet.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    for name, norm in norms.items():
        norm.register_forward_pre_hook(
            lambda _, given, name=name: inputs.setdefault(name, []).append(given[0])
        )
    recalibrate(supernet, path, [images for images, _ in batches(12)])
    assert len(inputs) > 5
    if len(space.groups) > 1:
        assert len(inputs) < len(norms)
    for name, norm in norms.items():
        mean, variance = (
            before["state"][f"{name}.running_mean"],
            before["state"][f"{name}.running_var"],
        )
        if name in inputs:
            assert len(inputs[name]) == 3
            mean = torch.stack([x.mean((0, 2, 3)) for x in inputs[name]]).mean(0)
            variance = torch.stack([x.var((0, 2, 3), unbiased=True) for x in inputs[name]]).mean(0)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
    after = snapshot(supernet)
    assert all(identical(before[what], after[what]) for what in ("modes", "momenta", "gradients"))
    weights = dict(supernet.named_parameters())
    assert all(torch.equal(after["state"][name], before["state"][name]) for name in weights)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("calibrated", [True, False])
def test_judging_leaves_the_supernet_as_it_was(space, supernet, path, training, calibrated):
    supernet.train(training)
    before = snapshot(supernet)
    calibration = [images for images, _ in batches(seed=1)] if calibrated else None
    judgement = inherited_accuracy(supernet, path, batches(), TASK, calibration)
    assert identical(snapshot(supernet), before)
    supernet.eval()
    if calibrated:
        recalibrate(supernet, path, calibration)
    assert judgement == evaluate(lambda images: supernet(images, path), batches(), TASK)


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_bits_do_not_depend_on_the_number_of_workers(supernet, path, calibrated, monkeypatch):
    """Parts of a batch are judged at once, and each thread has as many threads of torch as this."""
    monkeypatch.setattr(accuracy, "PIXELS", 0)  # so that a part is as small as possible
    threads, used = torch.get_num_threads(), set()
    supernet.register_forward_hook(lambda *_: used.add(torch.get_num_threads()))
    calibration = [images for images, _ in batches(seed=1)] if calibrated else None
    given = batches(100, 50)
    one, *others = (
        inherited_accuracy(supernet, path, given, TASK, calibration, workers)
        for workers in (1, 2, 3, 20)
    )
    assert one.images == 100 and all(other == one for other in others)
    assert used == {threads} and torch.get_num_threads() == threads
    assert [len(images) for images, _ in accuracy.in_parts(given)] == [*6 * [8], 2, *6 * [8], 2]


def test_parts_of_a_batch_give_what_the_whole_gives(supernet, path, monkeypatch):
    given = batches(100, 100)
    whole = inherited_accuracy(supernet, path, given, TASK)
    monkeypatch.setattr(accuracy, "PIXELS", 0)
    parts = inherited_accuracy(supernet, path, given, TASK)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert (parts.accuracy, parts.images) == (whole.accuracy, whole.images)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("where", ["calibration", "judging"])
def test_even_if_its_images_cannot_be_read(supernet, path, where, workers):
    def damaged(given):
        yield from given
        raise OSError("damaged")

    before = snapshot(supernet)
    calibration = [images for images, _ in batches()]
    with pytest.raises(OSError):
        if where == "calibration":
            inherited_accuracy(supernet, path, batches(), TASK, damaged(calibration), workers)
        else:
            inherited_accuracy(supernet, path, damaged(batches()), TASK, calibration, workers)
    assert identical(snapshot(supernet), before)


def test_a_dense_mixture_is_judged_alike(space, supernet):
    mixture = uniform(space)
    judgement = inherited_accuracy(supernet, mixture, batches(), TASK)
    supernet.eval()
    assert judgement == evaluate(lambda images: supernet(images, mixture), batches(), TASK)


@pytest.fixture(scope="module")
def trained():
    """A small supernet, trained on digits by uniform paths, and the batches to calibrate and to
    judge with.
    """
    data = Digits().load()
    splits = split(data.train.labels, 0.5, np.random.default_rng(0))
    space = NB201(Geometry(8, 1), Geometry(8, 1))
    stage = SearchStage(
        space, data, splits, Uniform(), Fixed(), SearchSettings(epochs=8, batch_size=32, lr=0.1)
    )
    run_stage(stage)

    def some(indices):
        return list(evaluation_batches(data.train, indices, 256, data.mean, data.std))

    return (
        space,
        stage.supernet,
        [images for images, _ in some(splits.weights)],
        some(splits.architecture),
    )


PATHS = [
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|",
    "|nor_conv_1x1~0|+|skip_connect~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
]


@pytest.mark.parametrize("text", PATHS)
def test_on_digits_the_statistics_of_many_paths_fit_no_single_one_and_recalibration_mends_it(
    trained, text
):
    """Guo et al. 2020, section 3.3: a path is accurate only with its own statistics."""
    space, supernet, calibration, images = trained
    path = space.path(space.decode(text))
    shared, own = (
        inherited_accuracy(supernet, path, images, TASK, given) for given in (None, calibration)
    )
    assert own.accuracy - shared.accuracy > 5 * math.hypot(
        own.standard_error, shared.standard_error
    )
    assert own.accuracy > 0.1 + 5 * own.standard_error, "better than chance"
