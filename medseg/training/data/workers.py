"""The processes that load data: how many a training needs, how they start, and the shared memory that they write to."""

import copy
import logging
import math
import multiprocessing
import os
import shutil
from multiprocessing.context import BaseContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from threading import Thread
from typing import Any, cast

from medseg.errors import MedsegError
from medseg.preprocessing.cache import amount
from medseg.system.relaunch import START_METHOD, Worker
from medseg.system.running import signals

log = logging.getLogger(__name__)

PREFETCHED = 2
"""Batches that each worker is asked for ahead."""
WITHOUT_MEASUREMENT = 8
"""Workers for a GPU whose speed is unknown, if there are so many cores."""
SHARED_MEMORY = Path("/dev/shm")
FREE = 0.9
"""Share of the free shared memory that batches may take."""
PRELOADED = "medseg.training.data.batches"


def slots_for(workers: int) -> int:
    """Return how many batches are in memory at once: those ahead, the one in use, the one on its way to the device.

    A worker is asked for batch k + ahead when batch k is taken, while batch k - 1 may still be copied to the device.
    """
    return workers * PREFETCHED + 2


def shared_bytes(workers: int, batch_bytes: int) -> int:
    """Return the bytes of shared memory (/dev/shm on Linux) that a training with so many workers needs."""
    return slots_for(workers) * batch_bytes if workers else 0


def workers_needed(load_seconds: float, step_seconds: float | None, cores: int, batch_bytes: int) -> int:
    """Return how many workers keep a GPU busy.

    Args:
        load_seconds: that one process takes to load a batch.
        step_seconds: that the device takes for a step; None: unknown.
        cores: that the process may use.
        batch_bytes: of a batch in shared memory, of all processes that train on this machine.
    """
    needed = math.ceil(load_seconds / step_seconds) + 1 if step_seconds else WITHOUT_MEASUREMENT
    workers = max(1, min(needed, cores))
    held = next((fewer for fewer in range(workers, 0, -1) if fits(shared_bytes(fewer, batch_bytes))), 0)
    if held < workers:
        log.warning(
            "%s has %s free: data is loaded by %d processes instead of %d, which need %s. In Docker, --shm-size=%dg"
            " gives more",
            *(SHARED_MEMORY, amount(free_bytes()), held, workers, amount(shared_bytes(workers, batch_bytes))),
            math.ceil(shared_bytes(workers, batch_bytes) / FREE / 1e9),
        )
    return held


def check_shared_memory(workers: int, batch_bytes: int) -> None:
    """Raise where shared memory cannot hold the batches of so many workers: writing to it would end the process.

    Raises:
        MedsegError: with what is needed and what is free.
    """
    needed = shared_bytes(workers, batch_bytes)
    if not fits(needed):
        raise MedsegError(
            f"trainer.workers={workers}: the processes that load data need {amount(needed)} of shared memory, and"
            f" {SHARED_MEMORY} has {amount(free_bytes())} free. Give the container more (in Docker by --shm-size),"
            " lower trainer.workers, or load data without further processes: trainer.workers=0."
        )


def fits(needed: int) -> bool:
    """Return whether shared memory has so many bytes free."""
    return needed <= FREE * free_bytes()


def free_bytes() -> float:
    """Return the free bytes of shared memory; infinite where the system does not bound it apart."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else math.inf


def context() -> BaseContext:
    """Return what starts workers: not as copies of this process, whose CUDA context, threads and locks are no use.

    On Linux they are forked from a server that has imported what they need; elsewhere each starts from nothing. Server
    and workers ignore what asks all processes of a job to end: the training saves its state first, and ends them.
    """
    workers: Any = copy.copy(multiprocessing.get_context(START_METHOD))
    workers.Process = Worker
    if START_METHOD == "forkserver":
        multiprocessing.set_forkserver_preload([PRELOADED])
        with signals.ignored():  # by itself the server ignores Ctrl-C only after its imports, and SIGTERM never
            ensure_running()
        # A worker that was asked for during the imports would start after Ctrl-C, and miss what it was to share
        first = Worker(target=int)
        first.start()
        first.join()
    return cast(BaseContext, workers)


def begin_worker(worker: int) -> None:
    """Let a worker end when the training does, not before, and a killed one too: PyTorch watches the server only."""
    signals.ignore()
    training = multiprocessing.parent_process()
    assert training is not None

    def wait() -> None:
        training.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()
