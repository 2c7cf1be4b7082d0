"""The source that an exported network takes along, of this project and of a user's own package."""

import importlib
import sys
import textwrap

import pytest
import torch
from torch import nn

from supernet.errors import UserError
from supernet.export.source import About, network_source, run_source
from tests.tasks import task_of

TASK = task_of(3, 1)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a user's package, and imports the class ``Net`` of its module ``net``."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(**modules: str) -> type[nn.Module]:
        (tmp_path / "own").mkdir()
        for name, text in ({"__init__": ""} | modules).items():
            (tmp_path / "own" / f"{name}.py").write_text(textwrap.dedent(text))
        return importlib.import_module("own.net").Net

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "own"]:
        del sys.modules[name]


def source(kind, **settings) -> str:
    return network_source(kind, settings, About("a", "0", TASK, [0.0], [1.0]))


PARTS = """
    import math
    from torch import nn
    from supernet.ops import Pool

    # as many
    TIMES: int = 2
    SCALE = math.sqrt(4.0)
    SIZES = {"small": 4, "large": 8}
    LAYERS = {
        "conv": lambda c: nn.Conv2d(c, c, 3, padding=1),
        "pool": lambda c: Pool(c, "avg"),
    }

    def block(name, channels):
        return nn.Sequential(*(LAYERS[name](channels) for _ in range(TIMES)))

    def never_used():
        import own_secret
"""
NET = """
    from __future__ import annotations

    import torch.nn.functional as F
    from torch import nn

    from .parts import SCALE, SIZES, block

    class Base(nn.Module):
        def other(self) -> Net:
            return Net(["pool"])

    class Net(Base):
        def __init__(self, names: list[str]):
            super().__init__()
            self.settings = dict(names=names)
            width = SIZES["small"]
            self.stem = nn.Conv2d(1, width, 3)
            self.blocks = nn.Sequential(*(block(name, width) for name in names))
            self.head = nn.Linear(width, 3)

        def forward(self, x):
            return SCALE * self.head(F.relu(self.blocks(self.stem(x))).mean(dim=(2, 3)))
"""


def test_the_source_of_a_users_package_stands_alone(package, tmp_path):
    """The package has constants, functions, relative imports, classes that need each other, and
    operations of this project. Of tables of functions only the used entries are copied; other
    tables are copied as a whole.
    """
    kind = package(net=NET, parts=PARTS)
    before = set(sys.modules)
    text = source(kind, names=["pool", "pool"])
    assert set(sys.modules) == before  # the export imported nothing
    assert "never_used" not in text and "nn.Conv2d(c, c" not in text and '"large": 8' in text
    (tmp_path / "network.py").write_text(text)
    rebuilt = run_source(tmp_path / "network.py").network()
    network = kind(["pool", "pool"])
    network.load_state_dict(rebuilt.state_dict())
    images = TASK.example(2)
    assert type(rebuilt) is not kind and torch.equal(network(images), rebuilt(images))
    assert type(rebuilt.other()).__name__ == "Net"


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("import own.parts as p\nclass Net:\n    def f(self): return p.SCALE", "as a whole"),
        ("from own import parts\nclass Net:\n    def f(self): return parts.SCALE", "as a whole"),
        ("from .parts import SCALE as S\nclass Net:\n    def f(self): return S", "by its own name"),
        ("import numpy as np\nclass Net:\n    def f(self): return np.pi", "imports numpy"),
        ("from scipy import fft\nclass Net:\n    def f(self): return fft", "imports scipy"),
        (
            "from .parts import block\nfrom .others import other\n"
            "class Net:\n    def f(self): return block, other",
            "block is defined in own.others and in own.parts",
        ),
    ],
)
def test_source_that_cannot_stand_alone_is_one_line(package, net, words):
    others = "def block(): pass\ndef other(): return block()"
    kind = package(net=net, parts=PARTS, others=others)
    with pytest.raises(UserError, match="cannot export the network") as error:
        source(kind)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_class_inside_a_function_is_one_line():
    class Net(nn.Module):
        pass

    with pytest.raises(UserError, match=r"<locals>\.Net is defined inside something else"):
        source(Net)
