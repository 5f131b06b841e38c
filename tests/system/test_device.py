"""How much memory a training may take on a GPU, and what its float32 products are made with; none is needed."""

import os

import pytest
import torch

from medseg.system.device import device_memory, set_float32_products

CUDA, GB = torch.device("cuda"), 10**9


@pytest.fixture(autouse=True)
def flags(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def used():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("index", "expected"), [(0, 0.9 * 22), (1, 0.9 * 5)])
def test_of_a_gpu_what_is_free_or_held_by_this_process(monkeypatch, index, expected):
    free, held = {0: 20 * GB, 1: 5 * GB}, {0: 2 * GB, 1: 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index], 24 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: held[device.index])
    assert device_memory(torch.device("cuda", index)) == pytest.approx(expected * GB)


def test_a_gpu_uses_tf32_unless_results_must_be_the_same_on_every_run():
    set_float32_products(CUDA, deterministic=False)
    assert used() == ("high", True)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    set_float32_products(CUDA, deterministic=True)
    assert used() == ("highest", False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    set_float32_products(CUDA, deterministic=False)  # the next job of a sweep
    assert used() == ("high", True)


def test_a_cpu_is_left_as_it_is():
    before = used()
    set_float32_products(torch.device("cpu"), deterministic=False)
    assert used() == before
