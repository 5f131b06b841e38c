"""The data of a pre-training: patches to train on, and always the same patches to validate on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from medseg.training.data.datamodule import SegmentationData, as_it_is
from medseg.training.data.patches import Patches

PER_CASE = 8
"""Patches of each case that are validated on."""


class FixedBatches(Dataset[dict[str, Any]]):
    """The first patches of some cases in batches, each with its number."""

    def __init__(self, patches: Patches, batch_size: int) -> None:
        self.patches, self.batch_size = patches, batch_size
        self.total = PER_CASE * len(patches.files)

    def __len__(self) -> int:
        return -(-self.total // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number >= len(self):
            raise IndexError(number)
        first = number * self.batch_size
        numbers = range(first, min(first + self.batch_size, self.total))
        return {"image": default_collate([self.patches[n]["image"] for n in numbers]), "number": number}


class ReconstructionData(SegmentationData):
    """Serves preprocessed files of scans; see ``SegmentationData``. The user's transforms change training alone."""

    def __init__(
        self,
        train: Sequence[Path],
        val: Sequence[Path],
        *,
        patch_size: Sequence[int],
        foreground: float,
        context: Sequence[int],
        **options: Any,
    ) -> None:
        shared: dict[str, Any] = {"patch_size": patch_size, "foreground": foreground, "context": context}
        super().__init__(train, val, **shared, **options)
        patches = Patches(val, seed=self.seed, transform=dict, **shared)
        self.validation = FixedBatches(patches, self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of ``image`` (B, C, *patch) with their ``number``; each rank takes its own share."""
        share = self.share_of(len(self.validation))
        return DataLoader(self.validation, batch_size=None, sampler=share, collate_fn=as_it_is)
