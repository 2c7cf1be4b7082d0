"""Models as they are: what becomes a choice in them, and that nothing else changes."""

import re
import shlex

import numpy as np
import pytest
import timm
import torch

from supernet import convert
from supernet.cost.count import count
from supernet.cost.latency import read_table
from supernet.export import load_bundle
from supernet.files import read_json
from supernet.spaces.converted.space import Converted
from tests.commands import ROOT, TINY, finished, supernet
from tests.spaces.test_spaces import assert_same
from tests.tasks import task_of

PAGE = ROOT / "supernet" / "spaces" / "README.md"
MODELS = ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"]

# Of other families of timm: name -> pixels of a side.
FAMILIES = dict.fromkeys(
    (
        *("lcnet_050", "tinynet_e", "mobilenetv2_050", "mnasnet_small", "semnasnet_050"),
        *("regnetx_002", "regnety_002", "ghostnet_050", "repghostnet_050", "fbnetc_100"),
        *("efficientnet_lite0", "selecsls42", "poolformer_s12", "convnextv2_atto", "starnet_s1"),
        *("mobilenetv4_conv_small", "hgnetv2_b0", "efficientvit_b0", "mobilevit_xxs"),
        *("seresnet18", "edgenext_xx_small", "hardcorenas_a"),
    ),
    64,
) | dict.fromkeys(("mixer_s32_224", "deit_tiny_patch16_224", "pit_ti_224", "levit_128s"), 224)


@pytest.mark.parametrize(("name", "pixels"), FAMILIES.items())
def test_families_of_timm_are_converted(name, pixels):
    """The largest network is the model to the bit, the smallest path is its plain network, and
    there is something to choose. What is left has a reason.
    """
    torch.manual_seed(0)
    model, inputs = timm.create_model(name, num_classes=5).eval(), torch.randn(1, 3, pixels, pixels)
    space = convert(model, inputs)
    largest, smallest = ends(space)
    supernet = space.supernet(space.any_task).eval()
    plain = space.inherit(supernet, smallest).eval()
    with torch.no_grad():
        assert torch.equal(supernet(inputs, space.path(largest)), model(inputs))
        assert_same(supernet(inputs, space.path(smallest)), plain(inputs))
    assert count(plain, space.any_task).params < 0.7 * count(model, space.any_task).params
    assert all(line.partition(": ")[2] for line in space.plan.left)


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


def test_the_example_of_the_page_runs(capsys):
    _, example = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    exec(example, {})
    assert "ChoiceGroup" in capsys.readouterr().out


def test_the_command_of_the_page_finds_a_network_under_a_limit_on_latency(tmp_path):
    """The model is shrunk, trained on, compared with itself and with uniform shrinking, and
    exported.
    """
    *_, line = re.findall(r"^supernet .*$", PAGE.read_text().replace("\\\n", ""), re.M)
    command = shlex.split(line)[1:]
    space, task = Converted("resnet10t"), task_of(10, 1)
    # A table as it is measured, but with times that follow from the sizes: on images of 8×8 pixels
    # the measured ones are about the same for all networks.
    measured = finished("latency", "space=timm", "space.model=resnet10t", *TINY, cwd=tmp_path)
    head, *rows = (measured / "latency.csv").read_text().splitlines()
    options = [row.rsplit(",", 1)[0] for row in rows]
    times = [sum(map(float, re.findall(r"[\d.]+", one.rpartition(",")[2]))) for one in options]
    lines = [f"{option},{time / 1000}" for option, time in zip(options, times, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join([head, *lines]) + "\n")
    least, most = map(read_table(tmp_path / "table.csv", space).of, reversed(ends(space)))
    limit = (least + most) / 2
    words = [f"budget.latency_ms={limit}" if w.startswith("budget") else w for w in command]
    words += [f"budget.latency_table={tmp_path}/table.csv", *TINY, "searcher.candidates=4"]
    words += ["searcher.population=2", "searcher.sample=2", "retrain.seeds=1", "tracker=none"]
    words += ["search.epochs=1", "retrain.epochs=1"]
    folder = finished(*words, "baseline.architectures=0", cwd=tmp_path)
    results, found = (read_json(folder / f"{n}.json") for n in ("results", "architecture"))
    network = space.standalone(space.decode(found["text"]), task)
    cost = count(network, task)
    assert results["cost"].items() >= {"params": cost.params, "madds": cost.madds}.items()
    whole, uniform = (results["rivals"][n]["architectures"][0] for n in ("whole", "uniform"))
    assert whole["latency_ms"] == most > limit
    assert limit >= max(uniform["latency_ms"], results["cost"]["latency_ms"])
    model = timm.create_model("resnet10t", num_classes=10, in_chans=1)
    assert whole["params"] == sum(weight.numel() for weight in model.parameters())
    exported = load_bundle(folder / "export", trust=True)
    network.load_state_dict(exported.state_dict(), strict=True)
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(exported(images), network.eval()(images))


def test_a_model_that_does_not_exist_is_one_line(tmp_path):
    outcome = supernet("check", "space=timm", "space.model=resnet81", *TINY, cwd=tmp_path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "did you mean 'resnet18'" in outcome.err


def test_models_of_torchvision_and_of_a_file_are_spaces(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\n\n\n"
        "def own(classes, channels):\n"
        "    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))\n"
    )
    line = ("space=timm", f"space.model={file}:own", "space.shape=[1,8,8]", "method=spos", *TINY)
    folder = finished("derive", *line, "searcher.candidates=3", "tracker=none", cwd=tmp_path)
    assert read_json(folder / "architecture.json")["space"] == "own"

    space = Converted("mnasnet0_5", shape=[3, 32, 32])  # timm has no model of that name
    task = task_of(10, 3, (32, 32))
    supernet_, inputs = space.supernet(task).eval(), torch.randn(2, 3, 32, 32)
    plain = space.inherit(supernet_, ends(space)[1]).eval()
    with torch.no_grad():
        assert_same(supernet_(inputs, space.path(ends(space)[1])), plain(inputs))


def test_pretrained_weights_are_kept(tmp_path):
    """timm reads them from a file, because tests have no network."""
    small = {"channels": [4, 4, 8, 8], "stem_width": 4}
    torch.manual_seed(1)
    trained = timm.create_model("resnet10t", num_classes=10, **small)
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth"), "num_classes": 10}
    settings = small | {"pretrained_cfg_overlay": overlay}
    space = Converted("resnet10t", settings, pretrained=True, shape=[3, 32, 32])
    network = space.standalone(ends(space)[0], task_of(10, 3, (32, 32)))
    for name, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
