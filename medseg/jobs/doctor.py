"""``medseg doctor``: what works on this machine, and what to do where something does not.

Exit status: 0, or 1 where a device that was asked for, or a GPU of the machine, or the cache's folder cannot be used.
"""

import logging
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from textwrap import fill
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from medseg import __version__
from medseg.config.check import read_settings
from medseg.config.extras import EXTRAS, missing_packages
from medseg.config.settings import DoctorSettings
from medseg.errors import MedsegError, first_line
from medseg.preprocessing.cache import amount
from medseg.system.cores import cores
from medseg.system.device import autocast, pick_device, pick_precision
from medseg.system.files import write_json
from medseg.system.gpus.driver import driver_version
from medseg.system.gpus.unused import unused_gpu
from medseg.system.parallel import free_memory
from medseg.system.printable import printable
from medseg.system.relaunch import START_METHOD
from medseg.training.data.workers import (
    FREE,
    SHARED_MEMORY,
    WITHOUT_MEASUREMENT,
    fits,
    free_bytes,
    shared_bytes,
)

log = logging.getLogger(__name__)

WIDTH, INDENT = 80, 13

WRITTEN, AT_ONCE = 100 << 20, 4 << 20
"""Bytes that are written to measure a disk, and in one piece."""

PATIENCE = 2.0
"""Seconds after which no more is written."""

BATCH_BYTES = 2 * 2 * 128**3 * (4 * 2 + 1)
"""Of a batch as large as most: two patches of BraTS with the largest margin, four channels in half precision."""


@dataclass(frozen=True)
class Finding:
    """A line of the report: what was looked at, what was found, and what to do where that is not as it should be.

    ``is_failure`` where what was asked for does not work.
    """

    name: str
    text: str
    cure: str = ""
    is_failure: bool = False

    def __str__(self) -> str:
        """Return the finding in lines of at most 80 columns."""
        beside = " " * INDENT
        wrapped = partial(fill, width=WIDTH, break_on_hyphens=False)
        lines = [wrapped(self.text, initial_indent=self.name.ljust(INDENT), subsequent_indent=beside)]
        if self.cure:
            lines.append(wrapped(f"→ {self.cure}", initial_indent=beside, subsequent_indent=f"{beside}  "))
        return printable("\n".join(lines))


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Print what works on this machine; return status, reason, score and seconds."""
    started = time.monotonic()
    settings = read_settings(DoctorSettings, config)
    findings = []
    for finding in examine(settings):
        print(finding, flush=True)
        findings.append(finding)
    if settings.json:
        write_json(settings.json, [asdict(finding) for finding in findings])
    failures = [f"{finding.name}: {finding.text}" for finding in findings if finding.is_failure]
    print(f"{len(failures)} of what was asked for does not work" if failures else "all that was asked for works")
    seconds = round(time.monotonic() - started, 1)
    return {
        "status": "failed" if failures else "done",
        "reason": "; ".join(failures),
        "score": None,
        "seconds": seconds,
    }


def examine(settings: DoctorSettings) -> Iterator[Finding]:
    """Yield all findings, one after the other."""
    yield from versions()
    devices = list[torch.device]()
    if settings.device == "auto":
        devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
        devices += [torch.device("mps")] if torch.backends.mps.is_available() else []
        if not devices and (unused := unused_gpu()):
            yield Finding("GPU", f"not used: {unused.reason}", unused.cure, is_failure=not unused.is_meant)
        devices.append(torch.device("cpu"))
    else:
        try:
            devices.append(pick_device(settings.device))
        except MedsegError as error:
            yield Finding(settings.device, str(error), is_failure=True)
    for device in devices:
        yield device_works(device)
    if devices:
        yield compiling_works(devices[0])
    yield from room_for_data(is_on_gpu=any(device.type == "cuda" for device in devices))
    yield disk_speed(settings.cache_dir)
    yield from missing_extras()


def versions() -> Iterator[Finding]:
    """Yield the versions of what computes."""
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    build = f"ROCm {torch.version.hip}" if torch.version.hip else build
    driver = f", driver {driver_version()}" if driver_version() else ""
    system = f"{platform.system()} {platform.machine()}"
    yield Finding("medseg", f"{__version__}, Python {platform.python_version()}, {system}")
    yield Finding("torch", f"{torch.__version__} for {build}{driver}")
    for name in ("lightning", "monai"):
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "missing", "Install medseg anew: pip install medseg.", is_failure=True)


def device_works(device: torch.device) -> Finding:
    """Return what a device is, and whether a network learns on it."""
    precision = pick_precision("auto", device)
    try:
        if device.type == "cuda":
            properties, (free, total) = torch.cuda.get_device_properties(device), torch.cuda.mem_get_info(device)
            what = f"{properties.name}, {total / 1e9:.1f} GB of memory, {free / 1e9:.1f} free, capability "
            what += f"{properties.major}.{properties.minor}"
        else:
            what = f"{cores()} of {os.cpu_count()} cores usable, {free_memory() / 1e9:.1f} GB of memory free"
        began = time.monotonic()
        network = nn.Conv3d(2, 4, 3).to(device)
        with autocast(device, precision):
            loss = network(torch.ones(1, 2, 8, 8, 8, device=device)).float().square().mean()
        loss.backward()
        is_finite = all(bool(each.grad.isfinite().all()) for each in network.parameters() if each.grad is not None)
    except (RuntimeError, AssertionError) as error:
        cure = "Install PyTorch anew: pytorch.org/get-started/locally."
        if device.type == "cuda":
            cure = "See what nvidia-smi says. New builds of PyTorch leave out old GPUs; an older build takes them."
        text = f"a convolution in {precision} does not work: {first_line(error)}"
        return Finding(str(device), text, cure, is_failure=True)
    seconds = time.monotonic() - began
    result = "works" if is_finite else "is not finite"
    cure = "" if is_finite else "Train with trainer.precision=fp32, or on another device."
    text = f"{what}; a convolution in {precision}, forward and backward, {result} ({seconds:.2f} s)"
    return Finding(str(device), text, cure, is_failure=not is_finite)


def compiling_works(device: torch.device) -> Finding:
    """Return whether a tiny function can be compiled, with nothing taken from earlier compilations.

    On a CPU, where trainings are not compiled, it is not tried: there it takes ten seconds of the compiler's.
    """
    if device.type == "cpu":
        return Finding("compiling", "not tried: a training on a CPU is not compiled")

    def function(x: torch.Tensor) -> torch.Tensor:
        return x.sin() + 1

    began = time.monotonic()
    try:
        with TemporaryDirectory() as folder, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder):
            compiled: Any = torch.compile(function, options={"compile_threads": 1})
            compiled(torch.ones(8, device=device))
    except Exception as error:  # of a compiler, its driver, or a missing header: of any kind
        cure = "Install Triton, a C compiler and Python's headers (on Debian: build-essential, python3-dev)."
        return Finding("compiling", f"on {device} does not work: {first_line(error)}", cure)
    return Finding("compiling", f"works on {device} ({time.monotonic() - began:.1f} s)")


def room_for_data(*, is_on_gpu: bool) -> Iterator[Finding]:
    """Yield how processes that load data are started, and the memory that they share."""
    yield Finding("workers", f"processes that load data start by {START_METHOD}; a training on a CPU has none")
    if not SHARED_MEMORY.is_dir():
        return
    workers = min(WITHOUT_MEASUREMENT, cores())
    needed = shared_bytes(workers, BATCH_BYTES)
    is_short = is_on_gpu and not fits(needed)
    cure = f"Start the container with --shm-size={math.ceil(needed / FREE / 1e9)}g (Docker)." if is_short else ""
    text = f"{amount(free_bytes())} free; {workers} workers that load batches of BraTS take {amount(needed)}"
    yield Finding(str(SHARED_MEMORY), text, cure)


def disk_speed(cache_dir: Path) -> Finding:
    """Return how fast the disk of the cache is written and read; what was written is gone afterwards.

    Linux is told to forget what it holds of the file in memory, so that reading is from the disk; elsewhere the speed
    of reading may be that of memory.
    """
    folder = next(each for each in (cache_dir.absolute(), *cache_dir.absolute().parents) if each.exists())
    piece, written = os.urandom(AT_ONCE), 0
    try:
        with TemporaryFile(dir=folder, buffering=0) as file:
            began = time.perf_counter()
            while written < WRITTEN and time.perf_counter() - began < PATIENCE:
                written += file.write(piece)
            os.fsync(file.fileno())
            writing = time.perf_counter() - began
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            began = time.perf_counter()
            while file.read(AT_ONCE):
                pass
            reading = time.perf_counter() - began
        free = shutil.disk_usage(folder).free
    except OSError as error:
        cure = "Give cache_dir a folder that can be written, on a disk with space."
        return Finding("cache", f"{folder}: cannot be written ({error.strerror})", cure, is_failure=True)
    speeds = (
        f"{what} {written / 1e6 / max(took, 1e-6):.0f} MB/s" for what, took in (("writes", writing), ("reads", reading))
    )
    return Finding("cache", f"{cache_dir}: {', '.join(speeds)}, {free / 1e9:.1f} GB free")


def missing_extras() -> Iterator[Finding]:
    """Yield the extras that are not installed."""
    for extra, (_, purpose) in EXTRAS.items():
        if missing := missing_packages(extra):
            cure = f"pip install 'medseg[{extra}]', if you need it."
            yield Finding(extra, f"{', '.join(missing)} missing: {purpose}", cure)
