"""Which device computes, and in which precision."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from medseg.errors import MedsegError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``: "auto" (a GPU where there is one), "cpu", "gpu", "cuda:1", "mps".

    Raises:
        MedsegError: the machine has no such device.
    """
    if name in ("auto", "gpu"):
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if name == "gpu" and device == "cpu":
            raise MedsegError("device gpu: no GPU is available here; use cpu or auto.")
        return torch.device(device)
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise MedsegError(
            f"device {name} is not available ({str(error).splitlines()[0]}). Give another by device, or in a training"
            " by trainer.accelerator: auto and cpu are there everywhere."
        ) from error
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """Return "bf16", "fp16" or "fp32": ``name`` itself, or for "auto" what the device computes fastest.

    bf16 nearly doubles a training step on CPUs with AVX512-BF16 or AMX, and needs no loss scaling, unlike fp16.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        abilities = torch.cpu.get_capabilities()
        return "bf16" if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else "fp32"
    return "fp32"


def set_float32_products(device: torch.device, *, deterministic: bool) -> None:
    """Let the float32 matrix products and convolutions of this process run on a CUDA device as a training wants them.

    In TF32 (factors of 10 bits, sums of 23), whose tensor cores are several times as fast; where results must be the
    same on every run, in full and by one algorithm. Before the first product: cuBLAS looks at its variable once.
    """
    if device.type != "cuda":
        return
    torch.set_float32_matmul_precision("highest" if deterministic else "high")
    torch.backends.cudnn.allow_tf32 = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def device_memory(device: torch.device) -> int:
    """Return the bytes that a training may take on a device: nine tenths of a GPU's, half of a CPU's; 0: unknown."""
    if device.type == "cuda":
        return int(0.9 * torch.cuda.get_device_properties(device).total_memory)
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a network runs in ``precision`` on ``device``."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])
