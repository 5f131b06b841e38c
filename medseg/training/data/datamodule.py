"""The data of a run as a LightningDataModule: patches to train on, whole cases to validate on."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from medseg.preprocessing.cache import load
from medseg.system.cores import cores
from medseg.system.parallel import read_ahead
from medseg.training.data.batches import Batches, BatchNumbers, batch_bytes, batch_type
from medseg.training.data.loader import PatchLoader, as_it_is
from medseg.training.data.patches import Patches
from medseg.training.data.transforms import SampleTransforms
from medseg.training.data.workers import check_shared_memory, slots_for, workers_needed

log = logging.getLogger(__name__)


class WholeCases(Dataset[dict[str, Any]]):
    """Preprocessed cases as they lie on disk, each with its index in the list."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = load(self.files[index])
        entries = {name: case[name] for name in ("annotated", "geometry", "spacing", "unit", "voxel_volume")}
        reference = case["truth"].numpy()  # an array stays off the training device
        return {**entries, "image": case["image"].float(), "truth": reference, "index": index}


class LoaderAhead(DataLoader[dict[str, Any]]):
    """A loader whose next batch is read by a thread while the last is worked on."""

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        return read_ahead(super().__iter__())


class SegmentationData(LightningDataModule):
    """Serves the preprocessed files of a split.

    ``transforms`` are the user's own MONAI dictionary transforms (keys "image" and "label", one sample at a time); they
    follow medseg's cutting of the patch in one MONAI ``Compose``. Batched augmentation comes later, on the device.
    ``workers`` is the number of processes that load patches; None: none for a CPU, as many as keep a GPU busy.
    """

    def __init__(
        self,
        train: Sequence[Path],
        val: Sequence[Path],
        *,
        patch_size: Sequence[int],
        batch_size: int,
        steps_per_epoch: int,
        foreground: float = 0.33,
        workers: int | None = 0,
        seed: int = 0,
        context: Sequence[int] | None = None,
        transforms: Sequence[Callable[[Any], Any]] = (),
    ) -> None:
        super().__init__()
        self.val_files, self.batch_size, self.workers = val, batch_size, workers
        self.validated = list(range(len(val)))
        """Indices of the cases that a validation takes; settled before the first one."""
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        self.step_seconds: float | None = None
        """Seconds that a step takes on the device, by which the number of workers is chosen; None: not measured."""
        self.processes_here = 1
        """How many processes of the training share this machine's cores and memory."""
        self.transforms = SampleTransforms(transforms, seed) if transforms else None
        self.patches = Patches(
            train,
            patch_size=patch_size,
            context=context,
            foreground=foreground,
            seed=seed,
            transform=self.transforms,
        )

    @property
    def rank_of_ranks(self) -> tuple[int, int]:
        """Which of how many processes this is."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def is_on_gpu(self) -> bool:
        """Whether batches are copied to a GPU, which page-locked memory speeds up."""
        return bool(self.trainer and self.trainer.strategy.root_device.type == "cuda")

    def share_of(self, count: int) -> list[int]:
        """Return which of ``count`` items of a validation this process takes.

        A process without any would skip the validation that the others wait for in; an item seen twice counts once.
        """
        rank, ranks = self.rank_of_ranks
        return [index % count for index in range(rank, max(count, ranks), ranks)]

    def train_dataloader(self, device: torch.device | None = None) -> PatchLoader:
        """Batches of ``image`` (B, C, *patch), ``label`` (B, 1, *patch), ``annotated`` (B, K), ``index`` (B,).

        They lie on ``device``; None: that of the training, or the CPU.

        Raises:
            MedsegError: the user's transforms cannot be sent to workers, or shared memory is too small.
        """
        rank, ranks = self.rank_of_ranks
        numbers = BatchNumbers(self.steps_per_epoch, self.batch_size, rank=rank, ranks=ranks)
        device = device or (self.trainer.strategy.root_device if self.trainer else torch.device("cpu"))
        dtype = batch_type(self.patches, device)
        workers = self.workers
        if workers is None:
            workers = 0 if device.type == "cpu" else self.workers_for(numbers, dtype)
        elif workers:
            check_shared_memory(workers, self.shared_batch_bytes(dtype))
        if workers and self.transforms:
            self.transforms.check_picklable()
        batches = Batches(self.patches, self.batch_size, slots_for(workers), dtype=dtype, is_shared=workers > 0)
        return PatchLoader(batches, numbers, workers=workers, device=device)

    def workers_for(self, numbers: BatchNumbers, dtype: torch.dtype) -> int:
        """Return how many workers keep the device busy, by the seconds that two batches take here and now."""
        batches = Batches(self.patches, self.batch_size, 1, dtype=dtype, is_shared=False)
        began = time.perf_counter()
        for batch in islice(numbers, 2):
            batches[batch]
        seconds = (time.perf_counter() - began) / 2
        own_cores = cores() // self.processes_here
        workers = workers_needed(seconds, self.step_seconds, own_cores, self.shared_batch_bytes(dtype))
        step = f"{self.step_seconds:.3f} s" if self.step_seconds else "an unknown time"
        log.info("data is loaded by %d processes: a batch takes one %.3f s, a step %s", workers, seconds, step)
        return workers

    def shared_batch_bytes(self, dtype: torch.dtype) -> int:
        """Return the bytes of a batch in shared memory, one for each process of the training on this machine."""
        return self.processes_here * batch_bytes(self.patches, self.batch_size, dtype)

    def examples(self, number: int = 8, *, transformed: bool = True) -> Iterator[dict[str, Tensor]]:
        """Yield the first ``number`` batches of the run's patches, cut anew, with the user's transforms or without."""
        patch = self.patches.__getitem__ if transformed else self.patches.untransformed
        for first in range(0, number * self.batch_size, self.batch_size):
            yield default_collate([patch(n) for n in range(first, first + self.batch_size)])

    def val_dataloader(self) -> LoaderAhead:
        """Whole cases, one at a time, of those that validate; each rank takes its own share."""
        return LoaderAhead(
            WholeCases(self.val_files),
            batch_size=None,
            sampler=[self.validated[index] for index in self.share_of(len(self.validated))],
            collate_fn=as_it_is,
            pin_memory=self.is_on_gpu,
        )
