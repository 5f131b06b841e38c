"""Which device computes, and in which precision."""

import logging
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from medseg.errors import MedsegError
from medseg.system.gpus.driver import free_memory_by_uuid
from medseg.system.gpus.unused import UnusedGpu, unused_gpu

log = logging.getLogger(__name__)

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

Devices = int | str | list[int]
"""What ``trainer.devices`` may be: so many, "auto" or -1 for all GPUs, or the numbers of some."""


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``: "auto" (a GPU where there is one), "cpu", "gpu", "cuda:1", "mps".

    Of several GPUs it is the one with most free memory, the same for all of the process.

    The first time that "auto" leaves a GPU of the machine unused, a warning says why and what to do.

    Raises:
        MedsegError: the machine has no such device.
    """
    device = kind_of(name)
    return device if device.index is not None or device.type != "cuda" else torch.device("cuda", emptiest_gpu())


def pick_devices(name: str, devices: Devices) -> list[torch.device]:
    """Return the devices of this machine that work together, which ``name`` and ``devices`` choose.

    One is that of ``pick_device``. Several GPUs are the first, all, or those of a list. On a CPU each is a process; all
    of it is one.

    Raises:
        MedsegError: the machine has not so many, or none of these numbers.
    """
    if devices == 1:
        return [pick_device(name)]
    device = kind_of(name)
    if device.type != "cuda":
        number = 1 if devices in ("auto", -1) else devices
        if isinstance(number, int) and (number == 1 or device.type == "cpu"):
            return [device] * number
        raise MedsegError(
            f"trainer.devices={devices}: these are several GPUs, or the numbers of some, but the device is {device}."
        )
    there = torch.cuda.device_count()
    numbers = devices if isinstance(devices, list) else [*range(there if devices in ("auto", -1) else int(devices))]
    if len({*numbers}) < len(numbers) or not {*numbers} <= {*range(there)}:
        counted = f", numbered from 0 to {there - 1}" if isinstance(devices, list) else ""
        raise MedsegError(f"trainer.devices={devices}: this machine has {there} GPU(s){counted}.")
    return [torch.device("cuda", number) for number in numbers]


def kind_of(name: str) -> torch.device:
    """Return the device called ``name``, without a number where it does not say which of several GPUs."""
    if name in ("auto", "gpu", "cuda"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a driver that is too old, of which more is said below
            is_available = torch.cuda.is_available()
        if is_available:
            return torch.device("cuda")
        if name != "cuda" and torch.backends.mps.is_available():
            return torch.device("mps")
        unused = unused_gpu()
        if name == "auto":
            if unused:
                say_once(unused)
            return torch.device("cpu")
        why = f"{unused.reason}. {unused.cure}".rstrip() if unused else "there is none in this machine."
        raise MedsegError(f"device {name}: no GPU can be used: {why} auto and cpu compute on the CPU.")
    if not re.fullmatch(r"cpu|mps|(cuda|xpu)(:\d+)?", name):
        raise MedsegError(f"device {name!r}: there is none of this name. Give auto, cpu, gpu, cuda:N or mps.")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0].partition(". ")[0]  # the rest is for PyTorch's developers
        raise MedsegError(
            f"device {name} is not available ({why}). Give another by device, or in a training by trainer.accelerator:"
            " auto and cpu are there everywhere."
        ) from error
    return torch.device(name)


def fullest(devices: Sequence[torch.device]) -> torch.device:
    """Return the device with least free memory: what fits there fits on all."""
    if devices[0].type != "cuda" or len({*devices}) == 1:
        return devices[0]
    free = free_memory()
    return min(devices, key=lambda device: free[device.index])


@cache  # the job fills the GPU that it is on, which must not move it to another
def emptiest_gpu() -> int:
    """Return the number of the GPU with most free memory."""
    total = torch.cuda.device_count()
    if total == 1:
        return 0
    free = free_memory()
    emptiest = free.index(max(free))
    log.info("cuda:%d is used, of %d GPUs the one with most free memory (%.1f GB)", emptiest, total, max(free) / 1e9)
    return emptiest


def free_memory() -> list[int]:
    """Return the free bytes of each GPU by its number; 0 for all where the driver cannot be asked."""
    by_uuid = free_memory_by_uuid()
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [by_uuid.get(str(each.uuid).removeprefix("GPU-"), 0) for each in properties]


@cache
def say_once(unused: UnusedGpu) -> None:
    """Say why no GPU is used: as a warning, unless somebody chose so."""
    if unused.is_meant:
        log.info("computing on the CPU: %s", unused.reason)
    else:
        log.warning(
            "the GPU of this machine is not used, and the CPU is many times slower: %s. %s medseg doctor shows more.",
            *(unused.reason, unused.cure),
        )


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
    """Return the bytes that a training may take on a device; 0: unknown.

    Of a GPU they are nine tenths of what is free or held by this process, of a CPU half of all memory. For several GPUs
    the device is the ``fullest``.
    """
    if device.type == "cuda":
        return int(0.9 * (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)))
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a network runs in ``precision`` on ``device``."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])
