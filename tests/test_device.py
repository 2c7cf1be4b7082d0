"""Devices: chosen by name or automatically; a missing device is refused in one line."""

import ctypes
import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
import torch

from supernet import device as device_module
from supernet.device import (
    autocast,
    available_memory_bytes,
    choose_device,
    computes_bf16,
    describe,
    left_in_control_groups,
    peak_memory_bytes,
    present,
    reproducible,
    reset_peak_memory,
)
from supernet.errors import UserError

CPUINFO = Path("/proc/cpuinfo")


def test_auto_takes_the_accelerator_if_there_is_one(monkeypatch):
    real = choose_device()
    assert torch.ones(2, device=real).sum().item() == 2 and describe(real)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert choose_device() == choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("mps"))
    assert choose_device() == torch.device("mps") and choose_device("cpu") == torch.device("cpu")
    assert present("mps") and present("cpu") and not present("cuda")


@pytest.mark.parametrize("name", ["xpu", "hpu", "vulkan", "meta", "gpu", "", "cpu:x"])
def test_a_device_that_is_not_here_is_one_line(name):
    with pytest.raises(
        UserError,
        match=f"device={name}: not available on this machine, which has cpu.*; use device=auto",
    ) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def test_bf16_is_the_precision_of_matrix_products_inside_autocast_alone():
    device, matrix = torch.device("cpu"), torch.ones(2, 2)
    with autocast(device, "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast(device, "float32"):
        assert (matrix @ matrix).dtype == torch.float32


X86 = {"architecture": "x86_64", "avx2": True, "avx512_f": False, "avx512_bf16": False}
X86 |= {"amx_bf16": False, "avx_ne_convert": False}
ARM = {"architecture": "aarch64", "neon": True, "bf16": False}


@pytest.mark.parametrize(
    ("features", "limit", "expected"),
    [
        (X86, "", False),
        (X86 | {"avx512_f": True}, "", False),
        (X86 | {"avx512_f": True, "avx512_bf16": True}, "", True),
        (X86 | {"avx512_f": True, "avx512_bf16": True}, "AVX512_CORE_BF16", True),
        (X86 | {"avx512_f": True, "avx512_bf16": True}, "AVX512_CORE", False),
        (X86 | {"avx512_f": True, "avx512_bf16": True, "amx_bf16": True}, "avx2", False),
        (X86 | {"avx_ne_convert": True}, "", True),
        (ARM, "", False),
        (ARM | {"bf16": True}, "", True),
        (ARM | {"bf16": True}, "AVX2", True),  # the limit is on x86 alone
        ({}, "", True),  # nothing is known, so nothing is said
    ],
)
def test_whether_a_processor_computes_bf16_follows_from_its_features(
    features, limit, expected, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert computes_bf16(torch.device("cpu")) is expected
    assert computes_bf16(torch.device("meta"))


@pytest.mark.skipif(not CPUINFO.exists(), reason="there is no list of the processor's features")
def test_the_features_that_torch_finds_are_those_that_the_system_finds(monkeypatch):
    """Linux names the features in /proc/cpuinfo: flags on x86, Features on ARM."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    text = CPUINFO.read_text()
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.M).group(1).split()
    assert computes_bf16(torch.device("cpu")) == bool(
        {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "svebf16"} & set(flags)
    )


def test_peak_memory_is_in_bytes():
    held = torch.ones(2**24)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert held.nbytes < peak_memory_bytes(torch.device("cpu")) < machine


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak stays")
def test_a_peak_can_be_forgotten():
    cpu = torch.device("cpu")
    held = torch.ones(2**25)
    reset_peak_memory(cpu)  # what other tests held before does not count
    before = peak_memory_bytes(cpu)
    size = held.nbytes
    del held
    reset_peak_memory(cpu)
    assert peak_memory_bytes(cpu) < before - size / 2
    again = torch.ones(2**25)
    assert peak_memory_bytes(cpu) > before - size / 2 and again.nbytes == size


def test_available_memory_has_what_is_held_and_no_more_than_there_is():
    cpu, machine = torch.device("cpu"), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    held = torch.ones(2**26)
    assert held.nbytes < available_memory_bytes(cpu) <= machine


def test_without_what_only_posix_has_the_module_imports_and_says_what_it_cannot_know(
    monkeypatch, tmp_path
):
    """Windows has no module ``resource``, no ``sysconf`` and no /proc, and ``CDLL(None)`` fails
    there.
    """

    def windows(name):
        raise TypeError(f"argument of type {name!r} is not iterable")

    monkeypatch.setitem(sys.modules, "resource", None)  # its import raises ImportError
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(ctypes, "CDLL", windows)
    spec = importlib.util.spec_from_file_location("fresh_device", device_module.__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    fresh.STATUS = fresh.MEMORY = tmp_path / "missing"
    cpu = fresh.choose_device("cpu")
    fresh.reset_peak_memory(cpu)
    assert fresh.peak_memory_bytes(cpu) == 0
    with pytest.raises(UserError, match=r"memory: .*; set memory=ignore"):
        fresh.available_memory_bytes(cpu)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no getrusage")
def test_without_proc_the_peak_is_that_of_getrusage(monkeypatch, tmp_path):
    by_proc = peak_memory_bytes(torch.device("cpu"))
    monkeypatch.setattr(device_module, "STATUS", tmp_path / "missing")
    assert peak_memory_bytes(torch.device("cpu")) >= 0.9 * by_proc  # this peak never falls


def test_limits_of_control_groups_count_up_to_the_root(tmp_path):
    """In version 2 the limits of the groups a/b and a count. In version 1 the container shows its
    own group as the root. Cached files do not count as used.
    """

    def group(folder, limit, used, names=("memory.max", "memory.current"), cached="inactive_file"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in zip(
            (*names, "memory.stat"), (limit, used, f"anon 1\n{cached} 7\n"), strict=True
        ):
            (folder / name).write_text(str(value))

    own = tmp_path / "own"
    group(tmp_path / "top" / "a" / "b", "max", 50)
    group(tmp_path / "top" / "a", 1000, 400)
    group(tmp_path / "top", 3000, 2000)
    group(tmp_path, 1, 0)  # above the root: not ours
    own.write_text("0::/a/b\n")
    assert list(left_in_control_groups(own, tmp_path / "top")) == [607, 1007]
    v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(tmp_path / "old" / "memory", 500, 100, v1, "total_inactive_file")
    own.write_text("5:cpu,cpuacct:/x\n4:memory:/docker/x\n")
    assert list(left_in_control_groups(own, tmp_path / "old")) == [407]


def test_kernels_are_not_chosen_by_timing_and_threads_are_those_that_were_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    cudnn, threads = torch.backends.cudnn, torch.get_num_threads()
    with reproducible(threads + 1):
        assert cudnn.deterministic and not cudnn.benchmark
        assert torch.get_num_threads() == threads + 1
    assert (cudnn.deterministic, cudnn.benchmark) == (False, True)
    assert torch.get_num_threads() == threads
