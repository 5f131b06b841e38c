"""A trained model, or an ensemble of them, ready to segment scans: all that ``medseg predict`` does, in Python."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medseg.config.check import resolve
from medseg.config.settings import InferenceSettings
from medseg.errors import MedsegError
from medseg.inference.loading import read_models
from medseg.inference.probabilities import Observer, Scorer, Slabs, averaged, kept_on_disk, slabs_within_memory
from medseg.inference.segmenter import inference_over, make_segmenter, postprocess_over
from medseg.inference.sliding_window import Network
from medseg.inference.trained_model import Model, scorer_of
from medseg.io.arrays import scan_from_array
from medseg.io.case import Case, Scan
from medseg.io.files.read import read_case
from medseg.io.files.sizes import size_of
from medseg.io.files.voxel_check import check_voxels
from medseg.io.files.write_masks import write_mask
from medseg.io.labels import LabelMap
from medseg.io.warnings import logged
from medseg.preprocessing.geometry import SLAB, Geometry
from medseg.system.device import autocast, pick_device, pick_precision
from medseg.system.memory import MORE_MEMORY, TO_READ, enough_memory

Source = Scan | str | Path | Sequence[str | Path] | NDArray[Any] | Tensor
"""What can be segmented (see ``Predictor.__call__``)."""


@dataclass(frozen=True, repr=False)
class Mask:
    """A predicted mask on the scan's own grid.

    ``indices`` are class indices (*spatial), 0 the background; ``values`` the same in the training masks' own values.
    """

    scan: Scan
    indices: NDArray[np.uint8]
    label_map: LabelMap

    def __repr__(self) -> str:
        """Describe the mask by its shape and the size of each class."""
        return f"Mask(shape={self.indices.shape}, voxels={self.voxels}, unit={self.scan.unit!r})"

    @property
    def values(self) -> NDArray[np.int32]:
        """The mask in file values."""
        return self.label_map.decode(self.indices).astype(np.int32)

    @property
    def voxels(self) -> dict[str, int]:
        """Number of voxels of each foreground class, or of each region."""
        flat = torch.from_numpy(self.indices).flatten()  # NumPy would make 64-bit integers of it
        counted = torch.bincount(flat, minlength=len(self.label_map.names)).numpy()
        return {name: int(counted[list(members)].sum()) for name, members in self.label_map.reported.items()}

    @property
    def ml(self) -> dict[str, float] | None:
        """Volume of each foreground class, or region, in millilitres; None for 2D images."""
        if self.scan.unit != "mm" or self.indices.ndim != 3:
            return None
        voxel = self.scan.voxel_volume / 1000
        return {name: count * voxel for name, count in self.voxels.items()}

    def save(self, path: str | Path) -> None:
        """Write the mask with the scan's geometry, whole or not at all.

        The suffix names the format: NIfTI, NRRD or MetaImage, or of a 2D image also PNG, TIFF or BMP.

        Raises:
            MedsegError: the format cannot hold the mask, or the file cannot be written.
        """
        write_mask(Path(path), self.label_map.decode(self.indices), self.scan)


@dataclass(frozen=True)
class Group:
    """Models that go over a scan together, window by window, since they see it on the same grid."""

    models: tuple[Model, ...]
    scorer: Scorer

    @property
    def networks(self) -> list[Network]:
        """Patches to logits, of each model."""
        return [model.logits for model in self.models]


@dataclass(frozen=True)
class Prepared:
    """A scan, and for each group of models the image on its network grid and the way back."""

    scan: Scan
    inputs: tuple[tuple[Tensor, Geometry], ...]

    @property
    def without_image(self) -> "Prepared":
        """The same with a scan of zeros, which take no memory, in the place of its voxels."""
        image = np.broadcast_to(np.float32(0), self.scan.image.shape)
        return replace(self, scan=replace(self.scan, image=image))


class Predictor:
    """Segments scans with a trained network, or with the mean of several.

    >>> predictor = Predictor.load("outputs/train/decathlon/2026-11-22_10-00-00")
    >>> predictor("scan.nii.gz").save("mask.nii.gz")
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        device: str = "auto",
        precision: str | None = None,
        inference: dict[str, Any] | None = None,
        postprocess: dict[str, Any] | None = None,
        reading: dict[str, Any] | None = None,
        scratch: Path | None = None,
    ) -> None:
        first = models[0]
        self.device = pick_device(device)
        self.precision = pick_precision(precision or first.precision, self.device)
        self.label_map, self.endings = first.label_map, first.endings
        self.n_channels, self.dims = first.preprocessor.n_channels, len(first.patch_size)
        self.added_channels = max(model.preprocessor.added_channels for model in models)
        self.has_first_stage = any(model.first_stage for model in models)
        self.reading = resolve(reading or {}, first.reading)
        options = [inference_over(inference or {}, model.inference) for model in models]
        cleaning = postprocess_over(postprocess or {}, first.postprocess)
        self.segmenter = make_segmenter(options[0], cleaning, self.label_map, first.largest_of or ())
        self.groups = grouped(models, options)
        self.scratch = scratch
        advice = "Use device=cpu, or close what else uses the device." if self.device.type != "cpu" else MORE_MEMORY
        with enough_memory(f"on {self.device} for the networks' weights", advice):
            for model in models:
                for network in model.networks:
                    network.to(self.device).eval()
        self.recipe = {
            "inference": [vars(each) for each in options],
            "postprocess": vars(cleaning) | ({} if first.largest_of is None else {"largest_of": first.largest_of}),
            "precision": self.precision,
            "reading": self.reading,
        }

    @classmethod
    def load(
        cls, path: str | Path | Sequence[str | Path], *, trust: Collection[str] = (), **options: Any
    ) -> "Predictor":
        """Load a run directory's best checkpoint, a ``.ckpt`` file, or several as an ensemble.

        Args:
            path: a run directory, a ``.ckpt`` file, a folder of runs, or a list of them.
            trust: dotted names of network classes that the checkpoint may build beside those that medseg ships.
            options: ``device``: "auto", "cpu", "gpu" or a torch device; ``precision``: "bf16", "fp16", "fp32"; "auto":
                what the device computes fastest; None: as in training; ``inference``, ``postprocess``, ``reading``:
                values of ``inference.*`` and so on that replace the (first) checkpoint's, where None keeps them;
                ``scratch``: folder for temporary files, which ensembles of different grids need.

        Raises:
            MedsegError: no such checkpoint, a damaged one, or one that names a class that is not trusted.
        """
        return cls(read_models(path, trust), **options)

    def __call__(
        self, scan: Source, *, spacing: Sequence[float] | None = None, affine: ArrayLike | None = None
    ) -> Mask:
        """Segment one scan.

        Args:
            scan: a file (or a folder of DICOM slices); a list of files, one a channel; a NumPy array or torch tensor
                (C, *spatial), or (*spatial) where there is one channel; or a ``medseg.io.case.Scan``.
            spacing: of an array, in mm along each spatial axis; volumes need it or ``affine``.
            affine: of an array instead, 4x4, voxel indices to mm in RAS+.

        Raises:
            MedsegError: the scan cannot be read, or does not fit the network.
        """
        if hasattr(scan, "ndim"):
            scan = scan_from_array(scan, self.dims, spacing, affine)
        elif spacing is not None or affine is not None:
            raise MedsegError("spacing and affine are for arrays: files and scans have their own.")
        prepared = self.prepare(scan)
        return self.finish(prepared, self.predict_labels(prepared))

    def prepare(self, scan: Scan | str | Path | Sequence[str | Path], absent: Sequence[int] = ()) -> Prepared:
        """Read a scan and bring it to the networks' grids; ``absent`` are the channels that it has no file of.

        Raises:
            MedsegError: the scan cannot be read, or has other dimensions or channels than the network was trained on.
        """
        if not isinstance(scan, Scan):
            files = files_of(scan)
            case = Case(str(files[0]), str(files[0]), files, **self.reading, absent=tuple(absent))
            with logged(), enough_memory(lambda: f"to read {files[0]}, {size_of(case)}", TO_READ):
                scan = read_case(case, spatial_dims=self.dims)
        else:
            check_voxels(scan.image, str(getattr(scan.layout, "path", "the scan")))
        if (len(scan.shape), len(scan.image)) != (self.dims, self.n_channels):
            raise MedsegError(
                f"the scan is {len(scan.shape)}D with {len(scan.image)} channel(s), shape {scan.shape}; "
                f"the model takes {self.dims}D images with {self.n_channels} channel(s)."
            )
        with enough_memory(f"to preprocess a scan of {scan.image.shape}", MORE_MEMORY):
            return Prepared(scan, tuple(group.models[0].preprocessor(scan) for group in self.groups))

    def predict_labels(self, prepared: Prepared, observers: Sequence[Observer] = ()) -> NDArray[np.uint8]:
        """Run the networks; return labels that are not yet post-processed (see ``Segmenter.predict_labels``)."""
        with self.computing(prepared):
            return self.segmenter.predict_labels(self.probabilities(prepared), prepared.scan.shape, observers)

    def finish(self, prepared: Prepared, predicted: NDArray[np.uint8]) -> Mask:
        """Post-process what ``predict_labels`` returned."""
        scan = prepared.scan
        with enough_memory(f"to post-process the mask of a scan of {scan.shape}", MORE_MEMORY):
            indices = self.segmenter.clean(
                predicted, spacing=scan.spacing, unit=scan.unit, voxel_volume=scan.voxel_volume
            )
        return Mask(scan, indices, self.label_map)

    def probabilities(self, prepared: Prepared) -> Slabs:
        """Yield probabilities on the native grid; to be used within ``computing``."""
        limits = self.groups[0].scorer.limits
        return slabs_within_memory(lambda device: self.probabilities_on(device, prepared), self.device, limits)

    def probabilities_on(self, device: torch.device, prepared: Prepared) -> Slabs:
        """Yield probabilities on the native grid, added up on a device; the networks compute on theirs.

        Of groups of models on different grids all but the last leave theirs in a temporary file first. Their slabs are
        thinner, since one of each grid and their mean are in memory together.
        """
        slabs = []
        for number, (group, (image, geometry)) in enumerate(zip(self.groups, prepared.inputs, strict=True), 1):
            blocks = group.scorer.blocks(group.networks, image.to(device), geometry, self.device)
            blocks = blocks if number == len(self.groups) else kept_on_disk(blocks, self.scratch)
            slabs.append(group.scorer.slabs(blocks, geometry, device, SLAB // (2 * len(self.groups) - 1)))
        return slabs[0] if len(slabs) == 1 else averaged(slabs, [len(group.models) for group in self.groups])

    @contextmanager
    def computing(self, prepared: Prepared) -> Iterator[None]:
        """Compute without gradients and in the predictor's precision; say what to do where memory runs out."""
        grids = " and ".join(str(tuple(image.shape)) for image, _ in prepared.inputs)
        elsewhere = "" if self.device.type == "cpu" else "Try device=cpu. "
        with (
            enough_memory(
                f"on {self.device} for a scan of {prepared.scan.shape}, {grids} on the network grid, even with one "
                "window at a time",
                elsewhere + MORE_MEMORY,
            ),
            torch.inference_mode(),
            autocast(self.device, self.precision),
        ):
            yield


def files_of(scan: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """Return the files of a scan, one for all channels or one a channel; MedsegError where these are none."""
    if isinstance(scan, str | Path):
        return (Path(scan),)
    if not isinstance(scan, Sequence) or not scan or not all(isinstance(file, str | Path) for file in scan):
        raise MedsegError(
            f"a scan is a file, a list of files, one a channel, an array or a Scan; this is {type(scan).__name__}"
            f"{' of ' + type(next(iter(scan))).__name__ if isinstance(scan, Sequence) and scan else ''}."
            " Stack arrays of channels into one (channels, *spatial)."
        )
    return tuple(map(Path, scan))


def grouped(models: Sequence[Model], settings: Sequence[InferenceSettings]) -> list[Group]:
    """Put models of the same grid and windows together, in the order of the first of each."""
    keys: list[Any] = []  # of plain containers, which may not be hashed
    members: list[list[Model]] = []
    scorers: list[Scorer] = []
    for model, inference in zip(models, settings, strict=True):
        key = (model.grid, inference.overlap, inference.tta)
        if key not in keys:
            keys.append(key)
            members.append([])
            scorers.append(scorer_of(model, inference))
        members[keys.index(key)].append(model)
    return [Group(tuple(each), scorer) for each, scorer in zip(members, scorers, strict=True)]
