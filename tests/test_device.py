"""Devices: chosen by name or by itself, refused in one line."""

import os

import pytest
import torch

from supernet.device import autocast, choose_device, describe, make_deterministic, peak_memory_bytes, present
from supernet.errors import UserError


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
        UserError, match=f"device={name}: not available on this machine, which has cpu.*; use device=auto"
    ) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def test_bf16_is_the_precision_of_matrix_products_inside_autocast_alone():
    device, matrix = torch.device("cpu"), torch.ones(2, 2)
    with autocast(device, "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast(device, "float32"):
        assert (matrix @ matrix).dtype == torch.float32


def test_peak_memory_is_in_bytes():
    held = torch.ones(2**24)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert held.nbytes < peak_memory_bytes(torch.device("cpu")) < machine


def test_kernels_are_not_chosen_by_timing(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    make_deterministic()
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
