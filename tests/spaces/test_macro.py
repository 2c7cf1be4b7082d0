"""The macro, elastic and transformer spaces, compared with figures that their papers and
repositories publish, and with counts by hand. Networks are counted on the meta device.
"""

import pytest
import torch

from supernet.cost.count import count
from supernet.errors import UserError
from supernet.mixture import Architecture
from supernet.spaces.mobilenet import MobileNet
from supernet.spaces.shufflenet import ShuffleNet
from tests.tasks import task_of

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


def test_the_network_of_single_path_one_shot():
    space, text = ShuffleNet(), "2 1 0 1 2 0 2 0 2 0 2 3 0 0 0 0 3 2 3 3"
    architecture = space.decode(text)
    assert space.encode(architecture) == text
    found = counted(space, block=list(architecture["block"]))
    assert (found.params, found.madds) == (3_558_464, 322_918_720)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (MobileNet, {"strides": [1, 1]}, "a stride for all of these"),
        (ShuffleNet, {"blocks": [4]}, "as many stages"),
        (ShuffleNet, {"widths": [16, 63, 160, 320, 640, 1024]}, "must be even"),
        (ShuffleNet, {"widths": [0, 2, 4, 6, 8, 10]}, "must be at least 2"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(kind, settings, said):
    with pytest.raises(UserError, match=said) as error:
        kind(**settings)
    assert "\n" not in str(error.value)


def test_another_text_than_digits_is_one_line():
    for text in ("0 1 2", "4 " * 20, ""):
        with pytest.raises(UserError, match="expected a digit from 0 to 3 for each of 20 blocks"):
            ShuffleNet().decode(text)
