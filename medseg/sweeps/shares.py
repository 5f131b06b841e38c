"""How a machine is shared out among jobs that run at once: its devices, and its cores."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medseg.config.check import look_up
from medseg.errors import MedsegError
from medseg.sweeps.process import Share
from medseg.system.cores import bound_cores, cores
from medseg.system.gpus.driver import VISIBLE, vendor_of_gpu
from medseg.system.relaunch import import_path, python_command

CONTEXT_GB = 0.7
"""What CUDA and its libraries take of a GPU's memory for a process, beside the tensors that a plan counts."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that PyTorch can use: what a process calls it in ``CUDA_VISIBLE_DEVICES``, and its free memory in GB."""

    name: str
    free_gb: float


def gpus() -> list[Gpu]:
    """Return the GPUs that PyTorch can use. A process that ends is asked: the context on each takes memory."""
    if vendor_of_gpu() is None:
        return []
    command = python_command("medseg.sweeps.shares", "print_gpus")
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": import_path()}, capture_output=True, text=True)
    if done.returncode:
        return []  # the first job says what is wrong
    free = json.loads(done.stdout)
    chosen = next((os.environ[name].split(",") for name in VISIBLE if os.environ.get(name)), None)
    names = chosen or [str(number) for number in range(len(free))]
    return [Gpu(name.strip(), gb) for name, gb in zip(names, free, strict=False)]


def print_gpus() -> int:
    """Print the free memory in GB of each GPU that PyTorch can use, as JSON."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    print(json.dumps([torch.cuda.mem_get_info(index)[0] / 1e9 for index in range(count)]))
    return 0


def shares_of(config: dict[str, Any], chosen: Sequence[int] | None) -> list[Share]:
    """Return the devices that jobs with this config may have at the same time, one each.

    ``trainer.accelerator`` or ``device`` of the config decide whether GPUs are used, ``trainer.devices`` how many a job
    has. ``chosen`` are the numbers of the only ones to use. Without a GPU the machine is one device.

    Raises:
        MedsegError: there is no such GPU, or there are fewer than a job needs.
    """
    kind = look_up(config, ("trainer", "accelerator"))[1] if config["command"] in ("train", "pretrain") else None
    kind = kind or config.get("device") or "auto"
    each = look_up(config, ("trainer", "devices"))[1]
    if isinstance(each, list):
        raise MedsegError(
            f"trainer.devices={each}: each job of a sweep sees only its own GPUs. Give their number, as in "
            f"trainer.devices={len(each)}, and by hydra.launcher.devices those that the sweep may use."
        )
    each = each if isinstance(each, int) and each > 0 else 1
    found = gpus() if kind in ("auto", "gpu", "cuda") else []
    if chosen is not None:
        if wrong := [number for number in chosen if not 0 <= number < len(found)]:
            raise MedsegError(f"hydra.launcher.devices: there is no GPU {wrong[0]}; PyTorch can use {len(found)} here.")
        found = [found[number] for number in chosen]
    if found and each > len(found):
        raise MedsegError(f"trainer.devices={each}: {len(found)} GPU(s) can be used.")
    parts = [found[first : first + each] for first in range(0, len(found) - each + 1, each)]
    names = [(",".join(gpu.name for gpu in part), min(gpu.free_gb for gpu in part)) for part in parts]
    variable = next((name for name in VISIBLE if os.environ.get(name)), VISIBLE[0])  # whose names these are
    on_gpus = [Share(f"cuda:{name}", {variable: name}, free_gb=free_gb) for name, free_gb in names]
    return on_gpus or [Share(kind if ":" in kind else "cpu")]


def divided(devices: Sequence[Share], jobs_per_device: int) -> list[Share]:
    """Return the shares of jobs of which several have a device, with the cores that this process may use divided.

    A container that may use the time of some cores sees all of the machine: each job is bound to as many as its part of
    that time.
    """
    shares = [device for _ in range(jobs_per_device) for device in devices]
    if len(shares) == 1:
        return shares
    bound, count = bound_cores(), max(1, cores() // len(shares))
    apart = max(count, len(bound) // len(shares))
    parts = ([bound[(nth * apart + core) % len(bound)] for core in range(count)] for nth in range(len(shares)))
    return [replace(share, cores=part) for share, part in zip(shares, parts, strict=True)]


def jobs_that_fit(plan: dict[str, Any], free_gb: float) -> int:
    """Return how many jobs of a plan a GPU with so much free memory holds, at least one.

    A plan that does not tell its memory is taken to need all.
    """
    peak = look_up(plan, ("measured", "peak_gb"))[1]
    return max(1, int(free_gb / (1.1 * peak + CONTEXT_GB))) if isinstance(peak, int | float) else 1
