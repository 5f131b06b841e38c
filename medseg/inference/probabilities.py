"""Probabilities of a scan on its native grid, slab by slab, of one network or of several."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medseg.errors import MedsegError
from medseg.inference.sliding_window import (
    MemoryLimits,
    Network,
    Weighting,
    gaussian,
    sigmoid,
    sliding_window,
    softmax,
    starts,
    unchanged,
)
from medseg.io.case import Scan
from medseg.io.formats.slab_writer import shares_file
from medseg.preprocessing.geometry import SLAB, Geometry
from medseg.system.file_names import file_names
from medseg.system.memory import drop_frames, free_caches, is_out_of_memory

log = logging.getLogger(__name__)

Slabs = Iterator[tuple[slice, Tensor]]
"""Slices of the last native axis and their probabilities (K, *native grid, these slices only), in turn."""

Observer = Callable[[slice, Tensor], None]
"""Called with every slab: slices of the last native axis, and the probabilities (K, *native grid, these slices)."""


NEVER = -100.0
"""A logit whose probability is zero in float32."""


class NotFiniteError(MedsegError):
    """A network's output is NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """How a prepared image becomes probabilities.

    Args:
        patch_size: the window's size on the network grid.
        n_outputs: K, the classes with the background, or the regions.
        regions: whether outputs are regions, each with its own probability, and no classes that exclude each other.
        overlap: share of a window that its neighbour covers.
        batch_size: windows to one pass of the network.
        mirror_axes: axes flipped for test-time augmentation; none without it.
        context: voxels along each axis that the network sees beside a window.
        averaging: what windows, flips, networks and neighbouring voxels are averaged as; nnU-Net takes logits.
        weighting: gives the weights of a window's voxels.
        limits: what memory turns out to allow: it bounds ``batch_size`` for all scans after one for which it ran out.
    """

    patch_size: Sequence[int]
    n_outputs: int
    regions: bool = False
    overlap: float = 0.5
    batch_size: int = 1
    mirror_axes: Sequence[int] = ()
    context: Sequence[int] | None = None
    averaging: Literal["probabilities", "logits"] = "probabilities"
    weighting: Weighting = gaussian
    limits: MemoryLimits = field(default_factory=MemoryLimits, compare=False)

    def blocks(
        self, networks: Sequence[Network], image: Tensor, geometry: Geometry, device: torch.device | None = None
    ) -> Iterator[Tensor]:
        """Yield averaged probabilities or logits on the network grid in blocks of slices, for ``Geometry.slabs``.

        They are added up where the image lies; ``device`` is the networks', None where that is the same.

        Raises:
            NotFiniteError: some are NaN or infinite.
        """
        main_axis, from_end = geometry.slab_axis
        probabilities = sigmoid if self.regions else softmax
        for block in sliding_window(
            networks,
            image,
            patch_size=self.patch_size,
            n_outputs=self.n_outputs,
            main_axis=main_axis,
            from_end=from_end,
            overlap=self.overlap,
            batch_size=self.batch_size,
            mirror_axes=self.mirror_axes,
            context=self.context,
            activation=probabilities if self.averaging == "probabilities" else unchanged,
            weighting=self.weighting,
            device=device,
            limits=self.limits,
        ):
            if not block.sum().isfinite():  # of NaN or infinity anywhere: one pass over what hundreds of layers made
                raise NotFiniteError(
                    "the network's output for this scan is not finite (NaN or infinity), so no mask is made of it. Try "
                    "precision=fp32 (numbers above 65504 are infinite in fp16), and look at the scan's intensities."
                )
            yield block

    def count_windows(self, shape: Sequence[int]) -> int:
        """Return how many windows of an image of this spatial shape the network is given, flipped ones included."""
        grid = (max(size, patch) for size, patch in zip(shape, self.patch_size, strict=True))
        along = (len(starts(size, patch, self.overlap)) for size, patch in zip(grid, self.patch_size, strict=True))
        return prod(along) * 2 ** len(self.mirror_axes)

    def slabs(self, blocks: Iterator[Tensor], geometry: Geometry, device: torch.device, most: int = SLAB) -> Slabs:
        """Yield probabilities on the native grid, at most ``most`` of them at once; outside the crop is background."""
        outside = torch.full((self.n_outputs,), NEVER if self.averaging == "logits" else 0.0, device=device)
        if not self.regions:
            outside[0] = 1.0 if self.averaging == "probabilities" else 0.0
        for slices, probs in geometry.slabs(blocks, outside, most):
            if self.averaging == "logits":
                probs = probs.sigmoid() if self.regions else probs.softmax(0)
            yield slices, probs

    def __call__(self, networks: Sequence[Network], image: Tensor, geometry: Geometry) -> Slabs:
        """Yield the probabilities of an image (C, *network grid) that lies on the networks' device."""

        def slabs_on(device: torch.device) -> Slabs:
            return self.slabs(self.blocks(networks, image.to(device), geometry, image.device), geometry, device)

        return slabs_within_memory(slabs_on, image.device, self.limits)


def slabs_within_memory(slabs_on: Callable[[torch.device], Slabs], device: torch.device, limits: MemoryLimits) -> Slabs:
    """Yield a scan's probabilities, made on a device, or on the CPU as soon as the device's memory runs out.

    ``slabs_on`` makes the same slabs each time that it is called, whatever the device.
    """
    done = 0  # slices that have been yielded
    if device.type != "cpu":
        try:
            for slices, probs in slabs_on(device):
                yield slices, probs
                done = slices.stop
                del probs
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            drop_frames(error)
        free_caches()  # after the error is gone
        if not limits.is_device_full:
            limits.is_device_full = True
            log.warning(
                "memory of %s is short: probabilities are added up in the memory of the CPU, which is slower", device
            )
    for slices, probs in slabs_on(torch.device("cpu")):
        if slices.start >= done:
            yield slices, probs


def averaged(ensemble: Sequence[Slabs], weights: Sequence[int]) -> Slabs:
    """Average the slabs of several groups of models, weighted by how many models each has."""
    for slabs in zip(*ensemble, strict=True):
        slices, total = slabs[0][0], slabs[0][1] * (weights[0] / sum(weights))
        for (_, probs), weight in zip(slabs[1:], weights[1:], strict=True):
            total.add_(probs, alpha=weight / sum(weights))
        yield slices, total


def kept_on_disk(blocks: Iterable[Tensor], folder: Path | None = None) -> Iterator[Tensor]:
    """Take all blocks now, and yield them again from a temporary file in ``folder``; None: where the system has them.

    So models of different grids go over a scan one after the other, with one's scores in memory at a time.
    """
    device, count = torch.device("cpu"), 0
    try:
        file = TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the iterator
        for block in blocks:
            np.save(file, block.cpu().numpy(), allow_pickle=False)
            device, count = block.device, count + 1
        file.seek(0)
    except OSError as error:
        raise MedsegError(
            f"{folder or gettempdir()}: the probabilities of one model cannot be kept there while the next one computes"
            f" ({error.strerror or error}). Make space."
        ) from error

    def again() -> Iterator[Tensor]:
        with file:
            for _ in range(count):
                yield torch.from_numpy(np.load(file, allow_pickle=False)).to(device)

    return again()


@contextmanager
def probability_files(folder: Path, names: Sequence[str], like: Scan, written: list[Path]) -> Iterator[Observer]:
    """Yield what writes the probabilities (K, *) of each class or region into ``folder/NAME.nii.gz``.

    They are there when the block ends well, and their paths then added to ``written``.
    """
    stems = file_names(names)
    paths = [folder / f"{stems[name]}.nii.gz" for name in names]
    with ExitStack() as stack:
        files = [stack.enter_context(shares_file(path, like)) for path in paths]

        def write(slices: slice, probs: Tensor) -> None:
            for file, probs_of_class in zip(files, probs.float().cpu().numpy(), strict=True):
                file.write(probs_of_class)

        yield write
    written += paths
