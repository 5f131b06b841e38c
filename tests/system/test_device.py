"""What float32 products of a training on a GPU are made with; the flags are there without one."""

import os

import pytest
import torch

from medseg.system.device import set_float32_products

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def flags(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def used():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


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
