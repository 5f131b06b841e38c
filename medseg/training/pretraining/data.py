"""The data of a pre-training: patches to train on, and always the same patches to validate on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import default_collate

from medseg.training.data.datamodule import LoaderAhead, SegmentationData
from medseg.training.data.patches import Patches

PER_CASE = 8
"""Patches of each case that are validated on."""


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
        self.of_patches: dict[str, Any] = {"patch_size": patch_size, "foreground": foreground, "context": context}
        super().__init__(train, val, **self.of_patches, **options)

    def val_dataloader(self) -> LoaderAhead:
        """Batches of ``image`` (B, C, *patch) with their ``number``; each rank takes its own share."""
        files = [self.val_files[index] for index in self.validated]
        validation = Patches(files, seed=self.seed, transform=numbered, **self.of_patches)
        total = PER_CASE * len(files)
        batches = [range(first, min(first + self.batch_size, total)) for first in range(0, total, self.batch_size)]
        share = [list(batches[index]) for index in self.share_of(len(batches))]
        return LoaderAhead(validation, batch_sampler=share, collate_fn=self.images, pin_memory=self.is_on_gpu)

    def images(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the images of a batch of validation patches, and its number."""
        images = default_collate([sample["image"] for sample in samples])
        return {"image": images, "number": samples[0]["n"] // self.batch_size}


def numbered(sample: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a sample with its number."""
    return {**sample, "n": number}
