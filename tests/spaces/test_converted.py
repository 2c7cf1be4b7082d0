"""Models as they are: what becomes a choice in them, and that nothing else changes."""

import numpy as np
import pytest
import timm
import torch

from supernet import convert
from tests.spaces.test_spaces import assert_same

MODELS = ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"]


@pytest.fixture(scope="module", params=MODELS)
def converted(request):
    """A model of timm, its space, and inputs."""
    name = request.param
    size = 32
    settings = {"img_size": size} if name.startswith("vit") else {}
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **settings)
    inputs = torch.randn(2, 3, size, size)
    return model, convert(model, inputs), inputs


def ends(space):
    return [space.express([gene.values[end] for gene in space.genes]) for end in (-1, 0)]


@torch.no_grad()
def test_the_largest_network_is_the_model_to_the_bit(converted):
    model, space, inputs = converted
    supernet, (largest, _) = space.supernet(space.any_task), ends(space)
    for training in (False, True):
        model.train(training), supernet.train(training)
        expected = model(inputs)
        assert torch.equal(supernet(inputs, space.path(largest)), expected)
    plain = space.inherit(supernet, largest)
    assert list(plain.state_dict()) == list(model.state_dict())
    for one, other in zip(plain.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(one, other)  # statistics of BatchNorm included


@torch.no_grad()
def test_a_path_is_its_plain_network(converted):
    _, space, inputs = converted
    supernet = space.supernet(space.any_task)
    rng = np.random.default_rng(0)
    for architecture in (*ends(space), space.random(rng), space.random(rng)):
        for training in (False, True):
            plain = space.inherit(supernet, architecture).train(training)
            for module in plain.modules():
                assert "supernet" not in "".join(kind.__module__ for kind in type(module).__mro__)
                assert not any("supernet" in type(v).__module__ for v in vars(module).values())
            assert_same(supernet.train(training)(inputs, space.path(architecture)), plain(inputs))
