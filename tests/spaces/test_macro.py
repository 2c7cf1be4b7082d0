"""The macro, elastic and transformer spaces, compared with figures that their papers and
repositories publish, and with counts by hand. Networks are counted on the meta device.
"""

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

from supernet.cost.count import count
from supernet.cost.table import counted as tables_of
from supernet.errors import UserError
from supernet.mixture import Architecture, softmax_mixture
from supernet.spaces.mobilenet import MobileNet
from supernet.spaces.resnet import ResNet
from supernet.spaces.shufflenet import ShuffleNet
from supernet.spaces.vit import ViT
from tests.tasks import task_for, task_of
from tests.variants import ALL_SPACES

ELASTIC = ("mobilenet", "shufflenet", "resnet", "vit", "gpt")
IMAGENET = task_of(1000, 3, (224, 224))


def counted(space, task=IMAGENET, **chosen):
    """The cost of the network with these options: group -> one for all slots, or one for each."""
    rows = {
        group.name: found if isinstance(found, list) else [found] * group.slots
        for group in space.groups
        for found in [chosen[group.name]]
    }
    architecture = space.validate(
        Architecture.of(space.name, **{name: list(map(str, row)) for name, row in rows.items()})
    )
    with torch.device("meta"):
        return count(space.standalone(architecture, task), task)


@pytest.mark.parametrize(
    ("sizes", "params", "millions"),
    [
        ((7, 6, 4), 7_664_760, 566.17),
        ((5, 4, 3), 4_551_792, 250.75),
        ((3, 3, 2), 3_410_792, 121.28),
    ],
)
def test_networks_of_once_for_all(sizes, params, millions):
    kernel, expansion, depth = sizes
    found = counted(MobileNet(), kernel=kernel, expansion=expansion, depth=depth)
    assert (found.params, round(found.madds / 1e6, 2)) == (params, millions)


def test_a_resolution_costs_what_the_network_costs_on_such_images():
    """A network that resizes its images has the published cost at 224 pixels, on larger images too,
    and computes what the plain one computes on images that were resized before.
    """
    space = MobileNet(resolutions=[128, 224])
    chosen = {"kernel": 5, "expansion": 4, "depth": 3}
    for given in (IMAGENET, task_of(1000, 3, (256, 256))):
        found = counted(space, given, resolution="224_224", **chosen)
        assert (found.params, round(found.madds / 1e6, 2)) == (4_551_792, 250.75)
    small = counted(space, IMAGENET, resolution="128_128", **chosen)
    assert small == counted(MobileNet(), task_of(1000, 3, (128, 128)), **chosen)

    space, images = ALL_SPACES["mobilenet"](resolutions=[8, 16]), torch.randn(2, 3, 32, 32)
    task, rng = task_of(5, 3, (32, 32)), np.random.default_rng(0)
    supernet = space.supernet(task).eval()
    for pixels in (8, 16):
        chosen = dict(space.random(rng).choices) | {"resolution": (f"{pixels}_{pixels}",)}
        architecture = Architecture.of(space.name, **chosen)
        plain = space.inherit(supernet, architecture).eval()
        smaller = F.interpolate(images, (pixels, pixels), mode="bilinear", antialias=True)
        found = supernet(images, space.path(architecture))
        assert torch.equal(found, plain(images))
        plain.resolution = None
        assert torch.equal(found, plain(smaller))
    logits = {group.name: torch.zeros(group.slots, len(group.options)) for group in space.groups}
    uniform = softmax_mixture(logits)
    with pytest.raises(UserError, match="choose a method that trains paths"):
        supernet(images, uniform)


def test_the_network_of_single_path_one_shot():
    space, text = ShuffleNet(), "2 1 0 1 2 0 2 0 2 0 2 3 0 0 0 0 3 2 3 3"
    architecture = space.decode(text)
    assert space.encode(architecture) == text
    found = counted(space, block=list(architecture["block"]))
    assert (found.params, found.madds) == (3_558_464, 322_918_720)


@pytest.mark.parametrize(
    ("scale", "params", "embedding", "heads", "ratios"),
    [
        (
            *("small", 22_891_432, 384, [6, 6, 5, 7, 5, 5, 5, 6, 6, 7, 7, 6, 7]),
            [3.0, 3.5, 3.0, 3.5, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.5, 4.0],
        ),
        (
            *("base", 53_691_688, 576, [9, 9, 9, 9, 9, 10, 9, 9, 10, 9, 10, 9, 9, 10]),
            [3.5, 3.5, 4.0, 3.5, 4.0, 3.5, 3.5, 3.0, 4.0, 4.0, 3.0, 4.0, 3.0, 3.5],
        ),
    ],
)
def test_networks_of_autoformer(scale, params, embedding, heads, ratios):
    """Blocks beyond the depth get the last of the options, which must not count."""
    space = ViT(scale)
    beyond = max(space.lists[3]) - len(heads)
    chosen = {
        "embedding": embedding,
        "depth": len(heads),
        "heads": heads + [max(heads)] * beyond,
        "ratio": ratios + [max(ratios)] * beyond,
    }
    assert counted(space, **chosen).params == params


def by_hand(stem, widths, blocks, middles):
    """The parameters of a ResNet-50D. ``stem``: the outputs of its convolutions. ``middles``: the
    channels in the middle of the blocks of each stage.
    """
    total = sum(9 * i * o + 2 * o for i, o in zip([3, *stem[:-1]], stem, strict=True))
    before = stem[-1]
    for wide, number, middle in zip(widths, blocks, middles, strict=True):
        total += before * wide + 2 * wide  # the shortcut of the first block
        for _ in range(number):
            total += before * middle + 9 * middle**2 + middle * wide + 4 * middle + 2 * wide
            before = wide
    return total + 1000 * before + 1000


def test_the_elastic_resnet_at_its_ends_and_in_between():
    """The widths in the counts by hand are the products, rounded to multiples of 8 by hand. In
    between lies the ResNet-50D of timm.
    """
    space = ResNet()
    largest = counted(space, width=1.0, stem=1, depth=4, depth2=6, expansion=0.35)
    assert largest.params == by_hand(
        [32, 32, 64], [256, 512, 1024, 2048], [4, 4, 6, 4], [88, 176, 360, 720]
    )
    smallest = counted(space, width=0.65, stem=0, depth=2, depth2=4, expansion=0.2)
    assert smallest.params == by_hand(
        [24, 40], [168, 336, 664, 1328], [2, 2, 4, 2], [32, 64, 136, 264]
    )
    known = counted(space, width=1.0, stem=1, depth=[3, 4, 3], depth2=6, expansion=0.25)
    with torch.device("meta"):
        assert known == count(timm.create_model("resnet50d"), IMAGENET)


@pytest.mark.parametrize("name", ELASTIC)
def test_tables_of_costs_are_exact(name):
    """Sums of terms, each over a few decisions, are what torch's own counter finds."""
    space, rng = ALL_SPACES[name](), np.random.default_rng(0)
    task = task_for(space)
    tables = tables_of(space, task)
    for _ in range(8):
        architecture = space.random(rng)
        with torch.device("meta"):
            found = count(space.standalone(architecture, task), task)
        assert tables["params"].of(architecture) == found.params
        assert tables["madds"].of(architecture) == found.madds


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (MobileNet, {"strides": [1, 1]}, "a stride for all of these"),
        (ShuffleNet, {"blocks": [4]}, "as many stages"),
        (ShuffleNet, {"widths": [16, 63, 160, 320, 640, 1024]}, "must be even"),
        (ResNet, {"strides": [1, 1]}, "as many stages"),
        (ResNet, {"depths": [-1]}, "must be at least 0"),
        (ViT, {"scale": "bas"}, "did you mean 'base'"),
        (ViT, {"head_width": 0}, "must be at least 1"),
        (ShuffleNet, {"widths": [0, 2, 4, 6, 8, 10]}, "must be at least 2"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(kind, settings, said):
    with pytest.raises(UserError, match=said) as error:
        kind(**settings)
    assert "\n" not in str(error.value)


def test_patches_that_do_not_fill_an_image_are_a_fault():
    assert list(ViT().faults(task_of(10, 3, (24, 40)), 2)) == [
        "space.patch=16 does not divide images of 24×40 pixels"
    ]
    assert not list(ViT().faults(IMAGENET, 2))


def test_another_text_than_digits_is_one_line():
    for text in ("0 1 2", "4 " * 20, ""):
        with pytest.raises(UserError, match="expected a digit from 0 to 3 for each of 20 blocks"):
            ShuffleNet().decode(text)
