"""How the C kernels are compiled, and what happens if they cannot be compiled."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from supernet.ops.fast import native
from supernet.ops.fast.native import built, library, supported

FAILING = """#!/bin/sh
[ "$1" = --version ] && exec echo gcc of this test
echo "In file included from depthwise.c:1:" >&2
echo "depthwise.c:3:7: error: expected a friend" >&2
exit 1
"""


@pytest.mark.parametrize("missing", ["asked for", "no compiler", "a compiler that fails"])
def test_without_a_compiler_there_are_no_kernels(missing, monkeypatch, tmp_path):
    """If a compiler is there and fails, one line says where, why, and what to do."""
    library.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    warned = nullcontext()
    if missing == "asked for":
        monkeypatch.setenv("SUPERNET_NATIVE", "0")
    elif missing == "no compiler":
        monkeypatch.setattr(native.shutil, "which", lambda name: None)
    else:
        compiler = tmp_path / "gcc"
        compiler.write_text(FAILING)
        compiler.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        line = (
            f"fast were not built.*{compiler} exited with 1: depthwise.c:3:7: error: expected a "
            "friend; .*SUPERNET_NATIVE=0 .*them$"
        )
        warned = pytest.warns(RuntimeWarning, match=line)
    try:
        with warned as said:
            assert library() is None
        assert library() is None and (said is None or len(said) == 1)
        assert not supported(torch.empty(1, 3, 6, 6, 4))
        assert not list(tmp_path.rglob("*.so"))
    finally:
        library.cache_clear()


RECORDING = """#!/bin/sh
[ "$1" = --version ] && exec echo gcc of this test
options="$*"
while [ "$1" != -o ]; do shift; done
echo "$options" > "$2"
"""


def test_they_are_compiled_for_the_processor_that_is_asked_for(monkeypatch, tmp_path):
    """The compiler of the test writes its options to the path of the library."""
    compiler = tmp_path / "gcc"
    compiler.write_text(RECORDING)
    compiler.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    libraries: dict[str, Path] = {}
    for march in ("native", "x86-64-v3"):
        if march == "native":
            monkeypatch.delenv("SUPERNET_MARCH", raising=False)
        else:
            monkeypatch.setenv("SUPERNET_MARCH", march)
        libraries[march] = built(str(compiler))
        assert f"-march={march} " in libraries[march].read_text()
    assert libraries["native"] != libraries["x86-64-v3"]
    assert len(list(tmp_path.rglob("*.so"))) == 2
