"""The public names, such as in ``from supernet import NB201``. To import them does not import
everything.
"""

import ast
import importlib
import subprocess
import sys

import pytest

import supernet
from tests.commands import ROOT

SOURCE = ast.parse((ROOT / "supernet" / "__init__.py").read_text(encoding="utf-8"))


def for_type_checkers():
    """Name -> module, as imported under ``if TYPE_CHECKING``."""
    (block,) = (node for node in SOURCE.body if isinstance(node, ast.If))
    return {alias.name: line.module for line in block.body for alias in line.names}


@pytest.mark.parametrize("name", supernet.__all__)
def test_a_public_name_is_what_its_module_holds(name):
    module = importlib.import_module(supernet.MODULES[name])
    assert getattr(supernet, name) is getattr(module, name)


def test_the_three_lists_agree():
    assert sorted(supernet.__all__) == sorted(supernet.MODULES)
    assert for_type_checkers() == supernet.MODULES
    assert set(supernet.__all__) <= set(dir(supernet))


def test_a_module_of_the_package_is_not_hidden_by_a_public_name():
    modules = {path.stem for path in (ROOT / "supernet").iterdir()}
    assert not modules & set(supernet.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'supernet' has no attribute 'NB202'"):
        _ = supernet.NB202
    with pytest.raises(ImportError, match="NB202"):
        exec("from supernet import NB202", {})


def test_importing_the_package_imports_nothing_that_takes_time():
    """Importing the package imports neither torch nor another part of the package. The first use of
    a name imports what it needs.
    """
    code = """
import sys
import supernet
dir(supernet)
print(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "numpy", "supernet")))
from supernet import UserError
print("torch" in sys.modules, UserError.__module__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["['supernet']", "False supernet.errors"]
