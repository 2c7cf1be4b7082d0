"""The kernels give the same on every kind of processor and by every compiler that is at hand: with
SSE2 alone, AVX2 or AVX-512 (x86), and NEON (aarch64, by a cross-compiler and an emulator).

``driver.cpp`` runs every kernel. What it prints is compared with what it prints in the form for
this machine, which the other tests of this folder compare with torch.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from supernet.ops.fast.native import FLAGS, SOURCES
from tests.ops.fast.sums import compiled

DRIVER = Path(__file__).with_name("driver.cpp")
X86 = os.uname().machine == "x86_64"
# name -> the compiler and its options, and what runs the program
FORMS = {
    "clang": (["clang++", "-march=native", "-fopenmp"], []),
    "NEON": (
        ["aarch64-linux-gnu-g++", "-static", "-fopenmp"],
        [] if os.uname().machine == "aarch64" else ["qemu-aarch64-static"],
    ),
}
if X86:
    FORMS["SSE2, without OpenMP"] = ["g++", "-march=x86-64"], []


def printed(compiler, runner, folder):
    """The names and the numbers that the driver prints."""
    program = folder / "driver"
    sources = [source for source in SOURCES if source.suffix == ".cpp"]
    quickly = [flag for flag in FLAGS if flag != "-O3"] + ["-O1"]
    subprocess.run([*compiler, *quickly, DRIVER, *sources, "-o", program], check=True)
    lines = subprocess.run([*runner, program], check=True, capture_output=True, text=True).stdout
    names, values = zip(*(line.split() for line in lines.splitlines()), strict=True)
    return names, np.array(values, dtype=float)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return printed(["g++", "-march=native", "-fopenmp"], [], tmp_path_factory.mktemp("here"))


@compiled
@pytest.mark.parametrize("form", FORMS)
def test_the_numbers_are_those_of_this_machine(form, here, tmp_path):
    compiler, runner = FORMS[form]
    for needed in (compiler[0], *runner):
        if shutil.which(needed) is None:
            pytest.skip(f"no {needed} here")
    names, numbers = printed(compiler, runner, tmp_path)
    assert names == here[0] and {"products", "grams", "depthwise", "pooling", "fold"} <= {*names}
    np.testing.assert_allclose(numbers, here[1], rtol=1e-4, atol=1e-4)
