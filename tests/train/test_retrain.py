"""The retrain stage is the same as a training written by hand in plain PyTorch, and its random
numbers depend only on its seed.
"""

import copy
import itertools
import math
import random

import numpy as np
import pytest
import torch

from supernet.data import Augment
from supernet.ops import DropPath
from supernet.runs.search import trained_supernet
from supernet.runs.training import Train, stage_of
from supernet.spaces.cells import Geometry
from supernet.spaces.darts import Darts
from tests.compare import identical
from tests.train.stopping import stopped_and_resumed, straight
from tests.variants import SPACES, TRAINED_SPACES, cells_alone

WITH_HEADS = TRAINED_SPACES | {
    "darts with auxiliary head": lambda: Darts(Geometry(4, 3), Geometry(4, 3), auxiliary=True)
}


@pytest.fixture(params=WITH_HEADS)
def space(request):
    return WITH_HEADS[request.param]()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_stopped_anywhere_and_resumed_it_ends_in_the_same_bits(
    space, retrain_stage, everything_varied, tmp_path, precision, request
):
    """Invariant 4. A second run with the same seed also has the same bits as the first, whatever
    else draws from torch's generator.
    """
    elsewhere = itertools.count()

    def make():
        torch.manual_seed(next(elsewhere))
        settings = dict(
            warmup_epochs=0.5,
            drop_path=0.5,
            ema_decay=0.9,
            label_smoothing=0.1,
            precision=precision,
        )
        return retrain_stage(space, augment=everything_varied, **settings)

    whole = make()
    rows = straight(whole)
    at = random.Random(request.node.name).randrange(1, whole.steps)
    resumed, resumed_rows = stopped_and_resumed(make, at, tmp_path)
    assert identical(whole.state_dict(), resumed.state_dict())
    assert identical(whole.trained().state_dict(), resumed.trained().state_dict())
    assert resumed_rows == rows and [step for _, step, _ in rows] == [2, 3, 4, 6]


def test_in_bf16_products_are_short_and_weights_are_not(space, retrain_stage):
    stage, products = retrain_stage(space, precision="bf16"), []
    for module in stage.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda *call: products.append(call[-1].dtype))
    figures = stage.step(0)
    assert set(products) == {torch.bfloat16} and figures["loss"].isfinite()
    assert {weight.dtype for weight in stage.network.parameters()} == {torch.float32}


def test_training_is_the_textbooks(space, retrain_stage):
    """SGD on the smoothed cross-entropy plus 0.4 times that of the auxiliary head, clipped by norm;
    the average is that of timm's documentation.
    """
    settings = dict(
        clip=0.5, label_smoothing=0.2, ema_decay=0.5, auxiliary_weight=0.4, weight_decay=0.01
    )
    stage, twin = (retrain_stage(space, **settings) for _ in range(2))
    network, heads = twin.network.train(), []
    if network_has_head := getattr(network, "auxiliary", None) is not None:
        network.auxiliary.register_forward_hook(lambda *call: heads.append(call[-1]))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    average = {name: value.clone() for name, value in network.state_dict().items()}

    def smoothed(outputs, labels):
        targets = 0.8 * torch.eye(3)[labels] + 0.2 / 3
        return -(targets * outputs.log_softmax(1)).sum(1).mean()

    for index in range(5):
        figures = stage.step(index)
        images, labels = next(twin.batches)
        outputs = network(images)
        loss = smoothed(outputs, labels)
        optimizer.zero_grad()
        (loss + 0.4 * smoothed(heads[-1], labels) if network_has_head else loss).backward()
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        for gradient in gradients:
            gradient.mul_(min(1.0, 0.5 / norm))
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * index / 6)) / 2
        optimizer.step()
        decay = 0.0 if index < 2 else min(0.5, 1 - index ** (-2 / 3))
        for name, value in network.state_dict().items():
            average[name] = (
                decay * average[name] + (1 - decay) * value
                if value.is_floating_point()
                else value.clone()
            )
        assert float(figures["loss"]) == pytest.approx(float(loss.detach()), rel=1e-4)
        assert float(figures["accuracy"]) == pytest.approx(
            float((outputs.argmax(1) == labels).float().mean())
        )
    assert len(heads) == (5 if network_has_head else 0)
    torch.testing.assert_close(
        dict(stage.network.state_dict()), dict(network.state_dict()), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(dict(stage.trained().state_dict()), average, rtol=1e-4, atol=1e-5)
    assert stage.trained() is not stage.network and twin.trained() is not twin.network


def test_without_an_average_the_network_itself_is_what_counts(space, retrain_stage):
    stage = retrain_stage(space)
    assert stage.trained() is stage.network


@cells_alone
def test_drop_path_grows_linearly_and_draws_from_the_stages_own_generator(space, retrain_stage):
    stage = retrain_stage(space, drop_path=0.6)
    drop_paths = [module for module in stage.network.modules() if isinstance(module, DropPath)]
    probabilities = []
    for index in range(stage.steps):
        stage.step(index)
        (probability,) = {drop_path.probability for drop_path in drop_paths}
        probabilities.append(probability)
    assert drop_paths and probabilities == pytest.approx([0.1 * index for index in range(6)])

    def loss_at_the_end(seed, drop):
        stage = retrain_stage(space, drop_path=drop)
        stage.streams.tensor("drop_path").manual_seed(seed)
        return float(stage.step(stage.steps - 1)["loss"])

    losses = [
        loss_at_the_end(seed, drop)
        for seed, drop in ((1, 0.9), (1, 0.9), (2, 0.9), (3, 0.0), (4, 0.0))
    ]
    assert losses[0] == losses[1] != losses[2] != losses[3] == losses[4]


def test_drop_path_zeroes_whole_samples_and_keeps_the_mean(noise):
    drop_path = DropPath(0.25)
    drop_path.generator = noise
    dropped = drop_path(torch.ones(4000, 2, 3, 3))
    per_sample = dropped.flatten(1)
    assert (per_sample == per_sample[:, :1]).all() and set(per_sample[:, 0].tolist()) == {
        0.0,
        float(torch.tensor(1 / 0.75)),
    }
    share = float((per_sample[:, 0] == 0).float().mean())
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    assert torch.equal(drop_path.eval()(dropped), dropped)


def test_training_images_are_augmented_as_told(retrain_stage):
    """In each image a square of 4 by 4 pixels, or the part of it inside the image, is 0, the mean
    colour. The rest is unchanged.
    """
    space = SPACES["nb201"]()
    stage, plain, seen = retrain_stage(space, augment=Augment(cutout=4)), retrain_stage(space), []
    stage.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stage.step(0)
    blank = seen[0] == 0
    assert blank.flatten(1).any(1).all() and blank.flatten(1).sum(1).max() == 16
    assert torch.equal(seen[0], next(plain.batches)[0].masked_fill(blank, 0))


def test_all_training_images_are_used_and_no_others(retrain_stage, data):
    stage, seen = retrain_stage(SPACES["nb201"]()), []
    stage.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for index in range(stage.steps_per_epoch):
        stage.step(index)
    pixels = (torch.cat(seen) * 255 * data.std + 255 * data.mean).round().to(torch.uint8)
    assert sorted(pixels.flatten(1).tolist()) == sorted(data.train.pixels.flatten(1).tolist())


@pytest.mark.parametrize("name", TRAINED_SPACES)
def test_inheriting_starts_at_the_supernets_own_subnet(name, make_run, noise):
    """Both compute the same function up to rounding: weights and BatchNorm statistics are those at
    the end of the search.
    """
    space = SPACES[name]()
    run = make_run(space)
    run.search()
    supernet = trained_supernet(run.work).supernet.eval()
    architecture = space.random(np.random.default_rng(0))
    stage = stage_of(run.work, Train("retrain", 0, architecture, "inherit"))
    images = torch.randn(5, 1, 8, 8, generator=noise)
    with torch.no_grad():
        outputs = supernet(images, space.path(architecture))
        torch.testing.assert_close(stage.network.eval()(images), outputs, rtol=1e-4, atol=1e-5)
        fresh = stage_of(run.work, Train("retrain", 0, architecture)).network.eval()(images)
    assert not torch.allclose(fresh, outputs, atol=1e-2)


def test_networks_of_one_index_start_alike_and_of_another_do_not(make_run):
    """Random architectures are trained with the same random numbers as the derived one, so that the
    comparison is fair.
    """
    run = make_run(SPACES["nb201"]())
    first, second = (run.work.space.random(np.random.default_rng(seed)) for seed in (0, 1))
    jobs = Train("retrain", 0, first), Train("random", 0, second), Train("retrain", 1, first)
    stages = [stage_of(run.work, job) for job in jobs]
    stems = [copy.deepcopy(stage.network.stem[0].weight) for stage in stages]
    batches = [next(stage.batches)[0] for stage in stages]
    assert torch.equal(stems[0], stems[1]) and not torch.equal(stems[0], stems[2])
    assert torch.equal(batches[0], batches[1]) and not torch.equal(batches[0], batches[2])
