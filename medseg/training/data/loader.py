"""The batches of a training on its device, epoch after epoch without a pause."""

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from medseg.errors import MedsegError
from medseg.training.data.batches import Batches, BatchNumbers
from medseg.training.data.workers import PREFETCHED, begin_worker, context


def as_it_is(item: Any) -> Any:
    """Return what a dataset gives: PyTorch would make tensors of arrays and numbers."""
    return item


class PatchLoader(DataLoader[int]):
    """Yields the batches of one epoch at each iteration, on the device; images are float32 there.

    Workers load on from epoch to epoch. They begin anew where the running batches are not at the epoch's first: when
    an epoch is repeated or was stopped midway. A resumed run begins with the batch after its last. A batch on the CPU
    is a view of the ring: it is good until the next one is asked for.
    """

    clock = staticmethod(time.perf_counter)

    def __init__(self, batches: Batches, numbers: BatchNumbers, *, workers: int, device: torch.device) -> None:
        super().__init__(
            batches,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            persistent_workers=workers > 0,
            multiprocessing_context=context() if workers else None,
            worker_init_fn=begin_worker if workers else None,
            collate_fn=as_it_is,
        )
        self.batches, self.numbers, self.device = batches, numbers, device
        self.waited = 0.0
        """Seconds in which batches were waited for."""
        self.running: Generator[dict[str, Tensor]] | None = None
        self.next_batch = 0
        """The batch, counted from the run's first, that ``running`` yields next."""
        if device.type == "cuda":
            page_lock(batches, device)

    def __len__(self) -> int:
        return self.numbers.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        # A generator: Lightning tells the sampler of the epoch after it has called ``iter``, before the first batch.
        began = self.clock()
        numbers = self.numbers.of_epoch
        if self.running is None or self.next_batch != numbers.start:
            if self.running:
                self.running.close()
            slots = super().__iter__()
            self.running = (on_cuda if self.device.type == "cuda" else on_device)(self.batches, slots, self.device)
            self.next_batch = numbers.start
        for _ in numbers:
            batch = next(self.running)
            self.waited += self.clock() - began
            self.next_batch += 1
            yield batch
            began = self.clock()

    def state_dict(self) -> dict[str, int]:
        """Return which batch of an epoch of how many comes next. Lightning keeps it with the state of the run."""
        return {"batch": self.next_batch, "steps": self.numbers.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the batch that comes next; called by Lightning where a run is resumed within an epoch.

        Raises:
            MedsegError: the epoch under way had another number of batches.
        """
        if state["steps"] != self.numbers.steps:
            raise MedsegError(
                f"trainer.steps_per_epoch={self.numbers.steps}: the run stopped within an epoch of {state['steps']}"
                " batches, which is to be ended first. Leave the setting out."
            )
        self.numbers.done = state["batch"]


def on_device(batches: Batches, slots: Iterator[int], device: torch.device) -> Generator[dict[str, Tensor]]:
    """Yield batches on the CPU, or on a device that the process waits for while it copies."""
    for slot in slots:
        batch = {name: tensor[slot].to(device) for name, tensor in batches.ring.items()}
        yield batch | {"image": batch["image"].float()}


def on_cuda(batches: Batches, slots: Iterator[int], device: torch.device) -> Generator[dict[str, Tensor]]:
    """Yield batches on a GPU, each copied by a stream of its own while the step before it runs."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copied(slot: int) -> tuple[dict[str, Tensor], torch.cuda.Event]:
        with torch.cuda.stream(stream):
            batch = {name: tensor[slot].to(device, non_blocking=True) for name, tensor in batches.ring.items()}
            batch["image"] = batch["image"].float()
            return batch, stream.record_event()

    try:
        batch, arrived = copied(next(slots))
        while True:
            following = copied(next(slots))
            step = torch.cuda.current_stream(device)
            step.wait_event(arrived)
            for tensor in batch.values():
                tensor.record_stream(step)  # its memory is not given away before the step is done
            yield batch
            arrived.synchronize()  # a worker may write to the slot as soon as the batch after the next is asked for
            batch, arrived = following
    finally:
        stream.synchronize()


def page_lock(batches: Batches, device: torch.device) -> None:
    """Let a GPU copy from the ring of batches while the process does something else; undone when they are gone.

    Where the driver refuses, copies are right all the same, and waited for.
    """
    cuda = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    for tensor in batches.ring.values():
        if int(cuda.cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0)) == 0:
            finalize(batches, cuda.cudaHostUnregister, tensor.data_ptr()).atexit = False
        else:
            with suppress(RuntimeError):  # CUDA keeps the refusal, and PyTorch raises it at the next kernel, whichever
                torch.zeros(1, device=device)
