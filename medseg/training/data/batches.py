"""Batches of patches, written by any process into memory that all of them share."""

from collections.abc import Iterator
from itertools import count

import torch
from torch.utils.data import Dataset, Sampler

from medseg.errors import MedsegError
from medseg.preprocessing.cache import form_of
from medseg.training.data.patches import Patches


class BatchNumbers(Sampler[range]):
    """The numbers of the patches in each batch, epoch after epoch without end.

    The patches of epoch e begin at e times the number of patches in an epoch. Ranks divide what would be one batch of a
    single process: the first takes the first patches, and so on, with the same draws of the augmentation. The batches
    before ``done`` are not wanted again: a resumed run has had them.
    """

    def __init__(self, steps: int, batch_size: int, *, rank: int = 0, ranks: int = 1) -> None:
        self.steps, self.batch_size, self.rank, self.ranks = steps, batch_size, rank, ranks
        self.epoch = self.done = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin with the batches of this epoch; called by Lightning before each."""
        self.epoch = epoch

    @property
    def of_epoch(self) -> range:
        """The batches of the epoch that are left, counted from the run's first."""
        return range(max(self.epoch * self.steps, self.done), (self.epoch + 1) * self.steps)

    def __iter__(self) -> Iterator[range]:
        for batch in count(self.of_epoch.start):
            first = (batch * self.ranks + self.rank) * self.batch_size
            yield range(first, first + self.batch_size)


class Batches(Dataset[int]):
    """Writes a batch, given by its patches' numbers, into the next slot of a ring and returns the number of the slot.

    So a patch is copied once from the mapped file to where the device takes it from, into pages that are there already:
    fresh ones, and the copies of collating and pinning, would take ten times as long as the copy. Samples that the
    user's own transforms change are copied once more.

    Args:
        patches: what batches are made of.
        batch_size: patches in a batch.
        slots: length of the ring. A batch stays as it is until so many later ones have been asked for.
        dtype: of the images.
        is_shared: whether other processes write into the ring.
    """

    def __init__(self, patches: Patches, batch_size: int, slots: int, *, dtype: torch.dtype, is_shared: bool) -> None:
        self.patches, self.slots = patches, slots
        self.ring = patches.empty(slots, batch_size, dtype=dtype)
        if is_shared:
            for tensor in self.ring.values():
                tensor.share_memory_()  # type: ignore[no-untyped-call]

    def __getitem__(self, numbers: range) -> int:
        slot = numbers.start // (len(numbers) * numbers.step) % self.slots
        for position, n in enumerate(numbers):
            sample = {name: tensor[slot, position] for name, tensor in self.ring.items()}
            if self.patches.transform:
                transformed = self.patches[n]
                for name, tensor in sample.items():
                    value = torch.as_tensor(transformed[name])
                    if value.shape != tensor.shape:
                        raise MedsegError(
                            f"augment.transforms: {name} of shape {tuple(value.shape)}, where {tuple(tensor.shape)} was"
                            " given. Leave out transforms that change the size of a patch; plan.patch_size sets it."
                        )
                    tensor.copy_(value)
            else:
                self.patches.write(n, sample)
        return slot


def batch_type(patches: Patches, device: torch.device) -> torch.dtype:
    """Return the type in which images travel to a device: the smallest that holds what the cache has of all cases.

    The CPU gets float32, as it computes with, and so does whatever is the result of the user's own transforms.
    """
    if device.type == "cpu" or patches.transform:
        return torch.float32
    types = {form_of(file)[1] for file in patches.files}
    return torch.float16 if types == {torch.float16} else torch.float32


def batch_bytes(patches: Patches, batch_size: int, dtype: torch.dtype) -> int:
    """Return the bytes of a batch in the ring."""
    with torch.device("meta"):
        return sum(tensor.nbytes for tensor in patches.empty(batch_size, dtype=dtype).values())
