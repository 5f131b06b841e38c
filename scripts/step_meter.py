"""Times training steps beside bare ones, a turn at a time, in a process that the benchmark of steps talks to.

It imports nothing but torch, so that the peers' environment can use it too.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

MARK = "TURN "
WARM_UP = 3  # steps


class StepMeter:
    """Called after each training step, does a bare step, and waits for the next turn when one is over.

    A training step lasts from the end of one bare step to the end of the next training step, so waiting for data is in
    it. Data workers are stopped during bare steps: what they do has to happen in the training's own time. A turn is the
    number of steps that a line on stdin asks for; its report is a line of JSON on stdout behind ``MARK``.

    Args:
        bare: forward, backward and optimizer step on a batch that stays where it is.
        batch: patches in a batch.
        told: what else the first report shall tell.
    """

    def __init__(self, bare: Callable[[], Any], *, batch: int, told: dict[str, Any] | None = None) -> None:
        self.bare, self.batch, self.told = bare, batch, told or {}
        self.left = WARM_UP
        self.steps: list[float] = []
        self.bare_steps: list[float] = []
        self.bare_cpu = 0.0
        self.began = clock()

    def after_step(self) -> None:
        """Note a step, do a bare one."""
        self.steps.append(clock() - self.began)
        with stopped_workers():
            began, cpu_began = clock(), time.process_time()
            self.bare()
            self.bare_steps.append(clock() - began)
            self.bare_cpu += time.process_time() - cpu_began
        self.left -= 1
        if not self.left:
            self.end_turn()
        self.began = clock()

    def end_turn(self) -> None:
        """Report and wait for the next turn; no further turn ends the process."""
        report = {"batch": self.batch, "steps": self.steps, "bare": self.bare_steps, "bare_cpu": self.bare_cpu}
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
        print(MARK + json.dumps({**report, "gpu_gb": peak, **self.told}), flush=True)
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # from inside a trainer; whoever asks for no further turn ends the workers too
        self.steps, self.bare_steps, self.bare_cpu, self.left = [], [], 0.0, int(line)


def clock() -> float:
    """Return the time in seconds after all work on the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def stopped_workers() -> Iterator[None]:
    """Let this process's children sleep."""
    workers = [worker.pid for worker in multiprocessing.active_children() if worker.pid]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
