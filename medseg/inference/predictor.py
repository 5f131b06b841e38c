"""A trained model, ready to segment scans: all that ``medseg predict`` does, in Python."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.build import build, named_targets
from medseg.config import resolve
from medseg.device import autocast, pick_device, pick_precision
from medseg.errors import MedsegError
from medseg.inference.checkpoint import Checkpoint, read_checkpoint
from medseg.inference.regions import Regions
from medseg.inference.segmenter import Segmenter
from medseg.io.case import Case, Scan
from medseg.io.files import read_case, write_mask
from medseg.io.labels import LabelMap
from medseg.models.slices import context_in_volume, logits_of, patch_in_volume
from medseg.preprocessing.preprocessor import Preprocessor


@dataclass(frozen=True)
class Mask:
    """A predicted mask on the scan's own grid.

    ``indices`` are class indices (*spatial), 0 the background; ``values`` the same in the training masks' own values.
    """

    scan: Scan
    indices: NDArray[np.uint8]
    label_map: LabelMap

    @property
    def values(self) -> NDArray[np.int32]:
        """The mask in file values."""
        return self.label_map.decode(self.indices)

    @property
    def voxels(self) -> dict[str, int]:
        """Number of voxels of each foreground class, or of each region."""
        counted = np.bincount(self.indices.ravel(), minlength=len(self.label_map.names))
        return {name: int(counted[list(members)].sum()) for name, members in self.label_map.reported.items()}

    @property
    def ml(self) -> dict[str, float] | None:
        """Volume of each foreground class, or region, in millilitres; None for pictures and single slices."""
        if self.scan.unit != "mm" or self.indices.ndim != 3:
            return None
        voxel = self.scan.voxel_volume / 1000
        return {name: count * voxel for name, count in self.voxels.items()}

    def save(self, path: str | Path) -> None:
        """Write the mask with the scan's geometry, whole or not at all."""
        write_mask(Path(path), self.values, self.scan)


class Predictor:
    """Segments scans with a trained network.

    >>> predictor = Predictor.load("outputs/train/hippocampus/2026-11-22_10-00-00")
    >>> predictor("scan.nii.gz").save("mask.nii.gz")
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocessor: Preprocessor,
        segmenter: Segmenter,
        label_map: LabelMap,
        logits: Callable[[Tensor], list[Tensor]],
        endings: Sequence[Sequence[str]] | None = None,
        reading: Mapping[str, Any] | None = None,
        device: torch.device,
        precision: str,
    ) -> None:
        self.network = network.to(device).eval()
        self.preprocessor, self.segmenter, self.label_map, self.logits = preprocessor, segmenter, label_map, logits
        self.endings, self.reading, self.device, self.precision = endings, dict(reading or {}), device, precision

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        trust: Collection[str] = (),
        device: str = "auto",
        precision: str | None = None,
        inference: dict[str, Any] | None = None,
        postprocess: dict[str, Any] | None = None,
        reading: dict[str, Any] | None = None,
    ) -> "Predictor":
        """Load a run directory's best checkpoint, or a ``.ckpt`` file.

        Args:
            path: a run directory or a ``.ckpt`` file.
            trust: dotted names of network classes that the checkpoint may build beside those that medseg ships.
            device: "auto", "cpu", "gpu" or a torch device.
            precision: "bf16", "fp16", "fp32"; "auto": what the device computes fastest; None: as in training.
            inference: values of ``inference.*`` that replace the checkpoint's; None keeps them.
            postprocess: values of ``postprocess.*`` likewise.
            reading: ``geometry`` and ``reference`` likewise: what becomes of channels on other grids (see ``Case``).

        Raises:
            MedsegError: no such checkpoint, a damaged one, or one that names a class that is not trusted.
        """
        checkpoint = read_checkpoint(path)
        config = checkpoint.content["config"]
        network = build(config["model"], trusted=named_targets() | set(trust))
        load_weights(network, checkpoint)
        place = pick_device(device)
        return cls(
            network,
            preprocessor=Preprocessor(**config["preprocessing"]),
            segmenter=make_segmenter(
                config["plan"],
                resolve(inference or {}, config["inference"]),
                resolve(postprocess or {}, config["postprocess"]),
                checkpoint.label_map,
            ),
            label_map=checkpoint.label_map,
            logits=logits_of(network, config["plan"]),
            endings=checkpoint.content["channels"],
            reading=resolve(reading or {}, {name: config["dataset"][name] for name in ("geometry", "reference")}),
            device=place,
            precision=pick_precision(precision or config["trainer"]["precision"], place),
        )

    def __call__(self, scan: Scan | str | Path | Sequence[Path]) -> Mask:
        """Segment one scan, given in memory, as a file, or as one file a channel.

        Raises:
            MedsegError: the scan cannot be read, or does not fit the network.
        """
        if not isinstance(scan, Scan):
            files = (Path(scan),) if isinstance(scan, str | Path) else tuple(scan)
            case = Case(str(files[0]), str(files[0]), files, **self.reading)
            scan = read_case(case, spatial_dims=len(self.segmenter.patch_size))
        self.check_channels(scan)
        image, geometry = self.preprocessor(scan)
        try:
            with autocast(self.device, self.precision):
                indices = self.segmenter(
                    self.logits,
                    image.to(self.device),
                    geometry,
                    spacing=scan.spacing,
                    unit=scan.unit,
                    voxel_volume=scan.voxel_volume,
                )
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise MedsegError(
                f"out of memory on {self.device}: a scan of {scan.shape}, {tuple(image.shape)} on the network grid. "
                "Try inference.batch_size=1 or device=cpu."
            ) from error
        return Mask(scan, indices, self.label_map)

    def check_channels(self, scan: Scan) -> None:
        """Refuse a scan of other dimensions or channels than the network was trained on."""
        dims, channels = len(self.segmenter.patch_size), len(self.preprocessor.config["normalize"])
        if (len(scan.shape), len(scan.image)) != (dims, channels):
            raise MedsegError(
                f"the scan is {len(scan.shape)}D with {len(scan.image)} channel(s), shape {scan.shape}; "
                f"the model takes {dims}D images with {channels} channel(s)."
            )


def make_segmenter(
    plan: dict[str, Any], inference: dict[str, Any], postprocess: dict[str, Any], label_map: LabelMap
) -> Segmenter:
    """Build the segmenter from the nodes of a config whose plan is filled in."""
    return Segmenter(
        patch_size=patch_in_volume(plan),
        context=context_in_volume(plan),
        regions=Regions.of(label_map),
        overlap=inference["overlap"],
        batch_size=inference["batch_size"],
        mirror_axes=plan["mirror_axes"] if inference["tta"] else (),
        threshold=inference["threshold"],
        postprocess=postprocess,
    )


def load_weights(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into its network, all of them."""
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise MedsegError(f"{checkpoint.path}: its weights do not fit its own description.\n{error}") from error
