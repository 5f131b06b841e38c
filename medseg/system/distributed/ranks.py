"""The processes of one training: the first tells the others what they need, and none waits for one that has died.

What is done once, from reading the data set to writing the report, the first does. The others wait for its word, from
before anything is read. They talk through a store that the first serves (``torch.distributed.TCPStore``), in which a
thread of each leaves a sign of life every second. So one that is killed, hangs or loses its machine ends the training
within a minute, wherever the main threads wait: NCCL would wait for ten minutes, Gloo for half an hour.

What they tell is plain data, as JSON: nothing that comes through the port is code.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from medseg.errors import MedsegError
from medseg.system.cores import cores
from medseg.system.distributed.place import Place
from medseg.system.files import remove_unfinished
from medseg.system.relaunch import leave_process_group, start

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

log = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds from one sign of life to the next."""
SILENCE = 30.0
"""Seconds without one after which a process counts as lost: a thread may be held up for some while a file is read."""
SUSPECT_SILENCE = 5.0
"""The same once a connection has broken, which a process that is killed does at once."""
GRACE, GRACE_OF_OTHERS = 10.0, 3.0
"""Seconds in which the first process can end by itself once another is lost, and others, which have nothing to write,
before their thread ends them."""
ARRIVAL = 120.0
"""Seconds in which all must have come, which import PyTorch from one busy disk on a cluster."""

LEFT_TO_THE_FIRST = ("SIGINT", "SIGTERM", "SIGUSR1")
"""Signals that the others leave to the first, which decides when the training ends, and tells them."""


class LostError(MedsegError):
    """Another process of the training is gone, and the training with it."""


class Ranks:
    """The processes that train together, as one of them sees them; by itself, one has nobody to tell.

    Args:
        place: of this process.
        devices: those of the processes on this machine, by their local ranks.
    """

    def __init__(self, place: Place | None = None, devices: Sequence[torch.device] = (torch.device("cpu"),)) -> None:
        self.place, self.devices = place or Place(), devices
        self.device = devices[self.place.local_rank]
        self.rank, self.size, self.local_size = self.place.rank, self.place.size, self.place.local_size
        self.is_first = self.rank == 0
        self.store: Store | None = None
        self.started: dict[int, subprocess.Popen[str]] = {}  # by rank, processes that this one has started
        self.verdict = ""  # why the training cannot go on
        self.silence = SILENCE
        self.is_lost, self.is_leaving = threading.Event(), threading.Event()
        self.watcher = threading.Thread(target=self.watch, name="ranks", daemon=True)
        self.last_words: Callable[[str], None] = lambda verdict: None
        """What keeps the verdict before the thread ends a process that hangs."""

    @property
    def tells_of_first(self) -> bool:
        """Whether it is for this process to say that the first is gone."""
        return self.rank == 1 and self.is_lost.is_set() and self.verdict.startswith("process 1 of")

    def join(self) -> None:
        """Meet the others in the store, and wait until all that a launcher has started have come.

        Raises:
            MedsegError: the first process cannot be reached, or others do not come.
        """
        if self.size == 1:
            return
        if not distributed.is_available():
            raise MedsegError(
                "this build of PyTorch has no torch.distributed, by which several devices train together."
            )
        if not self.is_first:
            for name in LEFT_TO_THE_FIRST:
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), lambda *_: None)
            logging.getLogger("medseg").setLevel(logging.ERROR)
        self.store = self.connect(serves=self.is_first)
        self.store.set(f"host/{self.rank}", socket.gethostname())
        if self.place.launcher:
            self.wait_until_all_are_here()
            self.watcher.start()

    def connect(self, *, serves: bool = False) -> "Store":
        """Return a connection to the store, which one operation at a time can use; the first process serves it."""
        place, torchrun_serves = self.place, os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        try:
            store = distributed.TCPStore(  # type: ignore[attr-defined]
                place.address,
                place.port,
                is_master=serves and not torchrun_serves,
                timeout=timedelta(seconds=ARRIVAL),
                wait_for_workers=False,
            )
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            raise MedsegError(
                f"the processes of this training cannot meet at {place.address}:{place.port}: rank {self.rank} of"
                f" 0 to {self.size - 1} gave up after at most {ARRIVAL:.0f} s ({why}). Another port: MASTER_PORT=N."
            ) from error
        self.place = replace(place, port=store.port)  # any that is free, where none was given
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store outlives the processes
        return distributed.PrefixStore(f"medseg/{attempt}", store)  # type: ignore[attr-defined]

    def wait_until_all_are_here(self) -> None:
        """Wait for those that a launcher has started; raise MedsegError where some do not come."""
        assert self.store
        until = time.monotonic() + ARRIVAL
        while absent := [rank for rank in range(self.size) if not self.store.check([f"host/{rank}"])]:
            if time.monotonic() > until:
                raise MedsegError(
                    f"{len(absent)} of the {self.size} processes of this training have not come within {ARRIVAL:.0f} s:"
                    f" rank {', '.join(map(str, absent))}."
                )
            time.sleep(0.1)

    def start(self, config: dict[str, Any]) -> None:
        """Share out the cores, and where no launcher has done so start the further processes, with this config."""
        if self.size == 1:
            return
        threads = os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // self.local_size)))
        torch.set_num_threads(int(threads))
        if self.is_first and not self.place.launcher:
            for rank in range(1, self.size):
                place = replace(self.place, rank=rank, local_rank=rank)
                quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # else PyTorch adds pages to what is said of a lost process
                self.started[rank] = start(config, quiet | place.environment)
            self.watcher.start()

    def tell(self, name: str, value: Any) -> None:
        """Give the others a value that JSON can hold, by a name that is used once."""
        if self.store:
            self.store.set(name, json.dumps(value))

    def hear(self, name: str) -> Any:
        """Wait for a value that another process tells as long as all are alive, and return it.

        Raises:
            LostError: one of them is gone.
        """
        assert self.store
        try:
            while not self.store.check([name]):
                if self.is_lost.wait(0.1):
                    raise LostError(self.verdict)
            return json.loads(self.store.get(name))
        except RuntimeError as error:
            self.explain(error)
            raise

    def gather(self, name: str, value: Any) -> list[Any]:
        """Return the values of all processes, by rank, to the first; to another its own."""
        if self.is_first:
            return [value, *(self.hear(f"{name}/{rank}") for rank in range(1, self.size))]
        self.tell(f"{name}/{self.rank}", value)
        return [value]

    def form_group(self) -> None:
        """Form PyTorch's group of processes, which exchange gradients by it; ``leave_process_group`` ends it."""
        if self.store:
            is_cuda = self.device.type == "cuda"
            distributed.init_process_group(
                "nccl" if is_cuda else "gloo",
                store=distributed.PrefixStore("group", self.store),  # type: ignore[attr-defined]
                rank=self.rank,
                world_size=self.size,
                device_id=self.device if is_cuda else None,
            )

    def explain(self, error: Exception) -> None:
        """Raise LostError where an error comes of another process's end, do nothing where it does not.

        A connection to a process that is killed breaks at once. Which it was is known when its signs of life stop.
        """
        words = ("gloo", "nccl", "connection", "socket", "peer", "store", "remote worker")
        if self.store and isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words):
            self.silence = SUSPECT_SILENCE
            if self.is_lost.wait(SILENCE):
                raise LostError(self.verdict) from error

    def watch(self) -> None:
        """Leave signs of life, look for the others', and end this process where it does not end by itself."""
        seen = dict.fromkeys(range(self.size), (b"", time.monotonic()))
        number = 0
        try:
            store = self.connect()
            store.set_timeout(timedelta(seconds=SILENCE))
            while not (self.verdict or self.is_leaving.wait(BEAT)):
                number += 1
                store.set(f"alive/{self.rank}", str(number))
                self.verdict = self.look(store, seen)
            if self.verdict and self.is_first:
                store.set("ended", self.verdict)
        except (RuntimeError, MedsegError):
            self.verdict = f"process 1 of {self.size} (rank 0) is gone: it was killed, or its machine cannot be reached"
        if self.is_leaving.is_set():
            return
        self.is_lost.set()
        if self.is_leaving.wait(GRACE if self.is_first else GRACE_OF_OTHERS):
            return
        for process in self.started.values():
            process.kill()
        if self.is_first or self.tells_of_first:
            log.error("%s", self.verdict)
            self.last_words(self.verdict)
        remove_unfinished()
        os._exit(1)

    def look(self, store: "Store", seen: dict[int, tuple[bytes, float]]) -> str:
        """Return why the training has to end, nothing if it has not. The first looks at all, the others at the first.

        Args:
            store: the thread's own connection.
            seen: the last sign of life of each process, and when it was seen.
        """
        if not self.is_first and store.check(["ended"]):
            return store.get("ended").decode()
        ended = {rank: process.returncode for rank, process in self.started.items() if process.poll() is not None}
        if self.is_first and store.check(["failed"]):
            return store.get("failed").decode()
        for rank in range(1, self.size) if self.is_first else (0,):
            if store.check([f"left/{rank}"]):
                continue
            if (code := ended.get(rank)) is not None:
                cause = ", mostly for lack of memory" if code == -9 else ""
                how = f"killed by signal {-code}{cause}" if code < 0 else f"ended with exit status {code}"
                return f"process {rank + 1} of {self.size} (rank {rank}) was {how}"
            # That it has come is its first sign of life: it may be killed before it leaves another.
            signs = [name for name in (f"alive/{rank}", f"host/{rank}") if store.check([name])]
            if signs and (sign := store.get(signs[0])) != seen[rank][0]:
                seen[rank] = (sign, time.monotonic())
            sign, when = seen[rank]
            if (silent := time.monotonic() - when) > (self.silence if sign else ARRIVAL):
                host = store.get(f"host/{rank}").decode() if store.check([f"host/{rank}"]) else "no host"
                return (
                    f"process {rank + 1} of {self.size} (rank {rank} on {host}) has given no sign of life for"
                    f" {silent:.0f} s: it was killed, hangs, or its machine cannot be reached"
                )
        return ""

    def leave(self, error: BaseException | None) -> None:
        """Take leave of the others, in good order or with the error that ends this process."""
        self.is_leaving.set()
        if not self.store:
            return
        with suppress(RuntimeError):  # the store may be gone
            if error is None:
                self.store.set(f"left/{self.rank}", "")
            elif self.is_first:
                self.store.set("ended", "the first process has failed")
            elif not self.is_lost.is_set():
                self.store.set("failed", f"process {self.rank + 1} of {self.size} (rank {self.rank}) failed: {error}")
        leave_process_group()  # which others may be waiting in
        until = time.monotonic() + (GRACE_OF_OTHERS if error else GRACE)
        for process in self.started.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Meet the other processes, and take leave of them when the block ends.

    Raises:
        SystemExit: of a process that failed and is not the first, which says what has happened for all of them.
    """
    try:
        ranks.join()
        try:
            yield
        except RuntimeError as error:  # wherever it was that this process waited for another
            ranks.explain(error)
            raise
    except BaseException as error:
        ranks.leave(error)
        if ranks.is_first or ranks.tells_of_first or not isinstance(error, MedsegError | KeyboardInterrupt):
            raise
        raise SystemExit(1) from error
    ranks.leave(None)
