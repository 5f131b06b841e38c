"""The data of a run as a LightningDataModule: patches to train on, whole cases to validate on."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from monai.transforms.compose import Compose
from monai.transforms.utility.dictionary import ToTensord
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from medseg.preprocessing.cache import load
from medseg.system.parallel import read_ahead
from medseg.system.random_seeds import seeded
from medseg.training.data.patches import Patches, PatchSampler


class WholeCases(Dataset[dict[str, Any]]):
    """Preprocessed cases as they lie on disk, each with its index in the list."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = load(self.files[index])
        entries = {name: case[name] for name in ("image", "annotated", "geometry", "spacing", "unit", "voxel_volume")}
        reference = case["truth"].numpy()  # an array stays off the training device
        return {**entries, "truth": reference, "index": index}


class TimedLoader(DataLoader[dict[str, Any]]):
    """A loader that adds up the seconds in which its batches are waited for."""

    waited = 0.0
    clock = staticmethod(time.perf_counter)

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        return self.timed(super().__iter__())  # workers start now, not at the first batch

    def timed(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield batches and note how long each took to come."""
        while True:
            began = self.clock()
            batch = next(batches, None)
            self.waited += self.clock() - began
            if batch is None:
                return
            yield batch


class LoaderAhead(DataLoader[dict[str, Any]]):
    """A loader whose next batch is read by a thread while the last is worked on."""

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        return read_ahead(super().__iter__())


def as_it_is(case: Any) -> Any:
    """Keep a case's arrays arrays: the loader would make tensors of them, which go to the training device."""
    return case


class SegmentationData(LightningDataModule):
    """Serves the preprocessed files of a split.

    ``transforms`` are the user's own MONAI dictionary transforms (keys "image" and "label", one sample at a time); they
    follow medseg's cutting of the patch in one MONAI ``Compose``. Batched augmentation comes later, on the device.
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
        workers: int = 0,
        seed: int = 0,
        context: Sequence[int] | None = None,
        transforms: Sequence[Callable[[Any], Any]] = (),
    ) -> None:
        super().__init__()
        self.val_files, self.batch_size, self.workers = val, batch_size, workers
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        # Plain tensors in the end: a MetaTensor would travel into metrics and from there, pickled, into checkpoints.
        self.transform = Compose([*transforms, ToTensord(["image", "label"], track_meta=False)]).set_random_state(seed)
        self.patches = Patches(
            train,
            patch_size=patch_size,
            context=context,
            foreground=foreground,
            seed=seed,
            transform=self.transform_sample,
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

    def transform_sample(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Apply the composed transforms, whose random draws depend on (seed, patch number) alone."""
        self.transform.set_random_state(seeded(self.seed, 3, sample.pop("n")).initial_seed() & 0xFFFFFFFF)
        return self.transform(sample)

    def train_dataloader(self) -> TimedLoader:
        """Batches of ``image`` (B, C, *patch), ``label`` (B, 1, *patch), ``annotated`` (B, K), ``index`` (B,)."""
        length = self.steps_per_epoch * self.batch_size
        rank, ranks = self.rank_of_ranks
        return TimedLoader(
            self.patches,
            batch_size=self.batch_size,
            sampler=PatchSampler(length, rank=rank, ranks=ranks),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.is_on_gpu,
        )

    def examples(self, number: int = 8) -> Iterator[dict[str, Tensor]]:
        """Yield the first ``number`` batches of the run's patches, cut anew."""
        for first in range(0, number * self.batch_size, self.batch_size):
            yield default_collate([self.patches[n] for n in range(first, first + self.batch_size)])

    def val_dataloader(self) -> LoaderAhead:
        """Whole cases, one at a time; each rank takes its own share."""
        return LoaderAhead(
            WholeCases(self.val_files),
            batch_size=None,
            sampler=self.share_of(len(self.val_files)),
            collate_fn=as_it_is,
            pin_memory=self.is_on_gpu,
        )
