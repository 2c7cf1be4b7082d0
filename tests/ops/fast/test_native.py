"""How the C++ kernels are compiled, and what happens if they cannot be compiled."""

import hashlib
import os
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from supernet.ops.fast import native
from supernet.ops.fast.kept import kept, sound
from supernet.ops.fast.native import built, library, supported

FAILING = """#!/bin/sh
[ "$1" = --version ] && exec echo compiler of this test
echo "In file included from depthwise.cpp:1:" >&2
echo "depthwise.cpp:3:7: error: expected a friend" >&2
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
        compiler = tmp_path / "g++"
        compiler.write_text(FAILING)
        compiler.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        line = (
            f"fast were not built.*{re.escape(str(compiler))} exited with 1: "
            "depthwise.cpp:3:7: error: expected a friend; .*SUPERNET_NATIVE=0 .*the kernels$"
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
[ "$1" = --version ] && exec echo compiler of this test
refused=none
case "$*" in *$refused*) echo "error: unsupported option '$refused'" >&2; exit 1;; esac
options="$*"
while [ "$1" != -o ]; do shift; done
echo "$options" > "$2"
"""


def test_they_are_compiled_for_the_processor_that_is_asked_for(monkeypatch, tmp_path):
    """The compiler of the test writes its options to the path of the library."""
    compiler = tmp_path / "g++"
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


def test_a_compiler_without_openmp_makes_kernels_for_one_thread(monkeypatch, tmp_path):
    compiler = tmp_path / "clang++"
    compiler.write_text(RECORDING.replace("=none", "=-fopenmp"))
    compiler.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = built(str(compiler)).read_text()
    assert "-O3" in options and "-fopenmp" not in options


# --- the cache: what is loaded is what was compiled, by this user


def cut_short(path):
    path.write_bytes(path.read_bytes()[:3000])


def one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


def another(path):
    path.write_bytes(b"another library")


def written_by_the_group(path):
    path.chmod(0o770)


def written_by_everyone(path):
    path.chmod(0o707)


def a_link(path):
    elsewhere = path.with_name("elsewhere")
    path.replace(elsewhere)
    path.symlink_to(elsewhere)


def open_folder(path):
    path.parent.chmod(0o777)


UNSOUND = [cut_short, one_bit, emptied, another, written_by_the_group, written_by_everyone]
UNSOUND += [a_link, open_folder]


@pytest.mark.parametrize("spoil", UNSOUND, ids=lambda spoil: spoil.__name__)
def test_an_unsound_library_is_compiled_anew(spoil, monkeypatch, tmp_path):
    """The "library" is what the compiler of the test writes. The real one is 300 kB, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def compile_to(path):
        calls.append(path)
        path.write_bytes(bytes(range(256)) * 40)

    path = kept("key", compile_to)
    content = path.read_bytes()
    assert kept("key", compile_to) == path and len(calls) == 1
    spoil(path)
    again = kept("key", compile_to)
    assert len(calls) == 2 and again.read_bytes() == content
    assert sound(again) and again.parent.stat().st_mode & 0o777 == 0o700
    assert kept("key", compile_to) == again and len(calls) == 2
    assert [file.suffix for file in path.parent.glob("*.so")] == [".so"]


@pytest.mark.parametrize("whose", ["another user's", "a link", "in a folder that is open"])
def test_a_folder_of_someone_else_gives_no_library(whose, monkeypatch, tmp_path):
    home = tmp_path / "cache"
    home.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    if whose == "another user's":
        monkeypatch.setattr("supernet.ops.fast.kept.os.getuid", lambda: os.geteuid() + 1)
    elif whose == "a link":
        (tmp_path / "theirs").mkdir()
        (home / "supernet").symlink_to(tmp_path / "theirs")
    else:
        home.chmod(0o777)
    library.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=r"were not built.*compiled kernels.*NATIVE=0"):
            assert library() is None
    finally:
        library.cache_clear()
    assert not list(tmp_path.rglob("*.so"))


def test_the_library_on_disk_is_the_one_that_is_loaded():
    """A process maps the file that has been verified, under the name that holds its checksum."""
    if library() is None:
        pytest.skip("no compiler here")
    path = Path(library()._name)
    assert sound(path) and path.stem.endswith(hashlib.sha256(path.read_bytes()).hexdigest())
