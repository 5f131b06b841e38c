"""A trained model, or an ensemble of them, ready to segment scans: all that ``medseg predict`` does, in Python."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medseg.config.check import resolve
from medseg.config.settings import InferenceSettings
from medseg.errors import MedsegError, listing
from medseg.evaluation.images.overlays import notebook_png
from medseg.inference.loading import read_models
from medseg.inference.probabilities import Observer, Scorer, Slabs, averaged, kept_on_disk, slabs_within_memory
from medseg.inference.segmenter import inference_over, make_segmenter, postprocess_over
from medseg.inference.sliding_window import Network
from medseg.inference.trained_model import Model, scorer_of
from medseg.inference.uncertainty import STEPS, UncertaintyMap
from medseg.io.case import Case, Scan
from medseg.io.dicom.references import Privacy
from medseg.io.files.read import find_images
from medseg.io.files.scans import Source, read_scan
from medseg.io.files.write_masks import write_classes
from medseg.io.labels import LabelMap
from medseg.io.layouts.channels import cases_from_files
from medseg.preprocessing.geometry import SLAB, Geometry
from medseg.system.device import autocast, pick_device, pick_precision
from medseg.system.memory import MORE_MEMORY, enough_memory
from medseg.system.parallel import read_ahead


@dataclass(frozen=True, repr=False)
class Mask:
    """A predicted mask on the scan's own grid, which a notebook shows over the scan.

    ``indices`` are class indices (*spatial) uint8, 0 the background; ``values`` the same in the training masks' own
    values.

    >>> mask = medseg.Predictor.load("outputs/nuclei", device="cpu")("scan.png")
    >>> mask
    Mask(shape=(64, 64), voxels={'edema': ..., 'core': ..., 'enhancing': ...}, unit='px')
    >>> mask.indices.dtype.name, list(mask.voxels), mask.ml
    ('uint8', ['edema', 'core', 'enhancing'], None)
    >>> mask.save("mask.png")
    """

    scan: Scan
    indices: NDArray[np.uint8]
    label_map: LabelMap

    def __repr__(self) -> str:
        """Describe the mask by its shape and the size of each class."""
        return f"Mask(shape={self.indices.shape}, voxels={self.voxels}, unit={self.scan.unit!r})"

    def _repr_png_(self) -> bytes:
        return notebook_png(self.scan, self.indices, self.label_map)

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
        return {name: float(f"{count * voxel:.9g}") for name, count in self.voxels.items()}  # without rounding noise

    def save(
        self,
        path: str | Path,
        *,
        format: Literal["seg.nrrd", "rtstruct", "dicom_seg"] | None = None,
        codes: Mapping[str, Mapping[str, Any]] | None = None,
        privacy: Privacy = "keep",
    ) -> None:
        """Write the mask with the scan's geometry, whole or not at all.

        Args:
            path: its suffix names the format: ``.seg.nrrd``, or NIfTI, NRRD or MetaImage, or of a 2D image also PNG,
                TIFF or BMP, which hold ``values``.
            format: instead one that holds the names of the classes: "seg.nrrd", for 3D Slicer, or of a DICOM scan
                "dicom_seg" or "rtstruct", both called ``.dcm``.
            codes: what such a format says of a class in a terminology, by the class's name:
                ``{"liver": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}}``.
            privacy: "strip" leaves patient and study empty in DICOM objects.

        Raises:
            MedsegError: the format cannot hold the mask, or the file cannot be written.
        """
        form = format or ("seg.nrrd" if Path(path).name.lower().endswith(".seg.nrrd") else "image")
        if codes and form == "image":
            raise MedsegError(
                f"{path}: this format holds no codes of classes. Give format='seg.nrrd', 'rtstruct' or 'dicom_seg'."
            )
        write_classes(Path(path), self.indices, self.label_map, self.scan, form, codes, privacy)


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


class Options(TypedDict, total=False):
    """How a predictor computes, where that is not to be as the checkpoint says (see ``Predictor.load``)."""

    device: str
    precision: str | None
    inference: dict[str, Any] | None
    postprocess: dict[str, Any] | None
    reading: dict[str, Any] | None
    scratch: Path | None


class Predictor:
    """Segments scans with a trained network, or with the mean of several.

    What a scan may be, ``read_scan`` says: files, arrays with their spacing or affine, images of nibabel, SimpleITK and
    MONAI. ``label_map`` has the classes, ``device`` is where the network computes.

    >>> predictor = medseg.Predictor.load("outputs/nuclei", device="cpu")
    >>> predictor("scan.png").save("mask.png")
    >>> predictor.probabilities("scan.png").shape, predictor.uncertainty("scan.png").shape
    ((4, 64, 64), (64, 64))
    >>> for name, mask in predictor.folder("scans"):
    ...     mask.save(f"{name}-mask.png")
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
        self.may_lack = all(model.may_lack for model in models)
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
        cls, path: str | Path | Sequence[str | Path], *, trust: Collection[str] = (), **options: Unpack[Options]
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

    def __repr__(self) -> str:
        """Describe the predictor by what it takes, and what it finds."""
        models = sum(len(group.models) for group in self.groups)
        takes = f"{self.dims}D, {self.n_channels} channel(s)"
        return f"Predictor({takes}, finds={list(self.label_map.reported)}, models={models}, device='{self.device}')"

    def __call__(
        self, scan: Source, *, spacing: Sequence[float] | None = None, affine: ArrayLike | None = None
    ) -> Mask:
        """Segment one scan.

        Args:
            scan: a file (or a folder of DICOM slices); a list of files, one a channel; a NumPy array or torch tensor
                (C, *spatial), or (*spatial) where there is one channel; an image of nibabel, SimpleITK or MONAI; or a
                ``Scan``. See ``medseg.read_scan``.
            spacing: of an array, in mm along each spatial axis; volumes need it or ``affine``.
            affine: of an array instead, 4x4, voxel indices to mm in RAS+.

        Raises:
            MedsegError: the scan cannot be read, or does not fit the network.
        """
        prepared = self.prepare(scan, spacing=spacing, affine=affine)
        return self.finish(prepared, self.predict_labels(prepared))

    def probabilities(
        self, scan: Source, *, spacing: Sequence[float] | None = None, affine: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Return the probability of each output at each voxel of one scan, before any post-processing.

        Arguments and errors are those of a call. All are in memory at once.

        Returns:
            (K, *spatial) on the scan's own grid, 0 to 1, in the order of ``label_map.outputs``: the classes with the
            background, which add up to 1, or the regions.
        """
        prepared = self.prepare(scan, spacing=spacing, affine=affine)
        with enough_memory(f"for the probabilities of a scan of {prepared.scan.shape}", MORE_MEMORY):
            probs = np.empty((len(self.label_map.outputs), *prepared.scan.shape), np.float32)
        with self.computing(prepared):
            for slices, slab in self.slabs(prepared):
                probs[..., slices] = slab.float().cpu().numpy()
        return probs

    def uncertainty(
        self, scan: Source, *, spacing: Sequence[float] | None = None, affine: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Return how unsure the network is of each voxel of one scan: the entropy of its probabilities.

        Arguments and errors are those of a call.

        Returns:
            (*spatial) on the scan's own grid, from 0, sure, to 1, as good as a guess, in steps of 1/255.
        """
        prepared = self.prepare(scan, spacing=spacing, affine=affine)
        gathered = UncertaintyMap(prepared.scan.shape, regions=bool(self.label_map.regions))
        self.predict_labels(prepared, [gathered])
        return np.divide(gathered.values, STEPS, dtype=np.float32)

    def many(self, scans: Iterable[Source]) -> Iterator[Mask]:
        """Segment scans one after the other; the next is read while one is segmented.

        Args:
            scans: of any kind that a call takes; arrays as ``read_scan`` makes scans of them.

        Raises:
            MedsegError: a scan cannot be read, or does not fit the network.
        """
        for prepared in read_ahead(map(self.prepare, scans)):
            yield self.finish(prepared, self.predict_labels(prepared))

    def folder(self, path: str | Path) -> Iterator[tuple[str, Mask]]:
        """Segment the scans in a folder and its sub-folders; yield the name and the mask of each, by name.

        The name is the path below the folder, without the suffix and what tells the channels apart. The next scan is
        read while one is segmented. A broken scan stops no other: what went wrong is raised at the end.

        Raises:
            MedsegError: there is no scan; or at the end, with a line for each scan that could not be segmented.
        """
        found = find_images(Path(path))
        cases, problems = cases_from_files(Path(path), found, self.endings, may_lack=self.may_lack)

        def prepared(case: Case) -> Prepared | MedsegError:
            try:
                return self.prepare(case.images, case.absent)
            except MedsegError as error:
                return error

        for case, outcome in zip(cases, read_ahead(map(prepared, cases)), strict=True):
            try:
                if isinstance(outcome, MedsegError):
                    raise outcome
                mask = self.finish(outcome, self.predict_labels(outcome))
            except MedsegError as error:
                problems.append(f"{case.id}: {error}")
                continue
            yield case.id, mask
        if problems:
            raise MedsegError(f"{path}: all scans are segmented but {len(problems)}:\n{listing(problems)}")

    def prepare(
        self,
        source: Source,
        absent: Sequence[int] = (),
        *,
        spacing: Sequence[float] | None = None,
        affine: ArrayLike | None = None,
    ) -> Prepared:
        """Read a scan and bring it to the networks' grids; ``absent`` are the channels that it has no file of.

        Raises:
            MedsegError: the scan cannot be read, or has other dimensions or channels than the network was trained on.
        """
        scan = read_scan(source, spacing=spacing, affine=affine, dims=self.dims, absent=absent, **self.reading)
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
            return self.segmenter.predict_labels(self.slabs(prepared), prepared.scan.shape, observers)

    def finish(self, prepared: Prepared, predicted: NDArray[np.uint8]) -> Mask:
        """Post-process what ``predict_labels`` returned."""
        scan = prepared.scan
        with enough_memory(f"to post-process the mask of a scan of {scan.shape}", MORE_MEMORY):
            indices = self.segmenter.clean(
                predicted, spacing=scan.spacing, unit=scan.unit, voxel_volume=scan.voxel_volume
            )
        return Mask(scan, indices, self.label_map)

    def slabs(self, prepared: Prepared) -> Slabs:
        """Yield probabilities on the native grid; to be used within ``computing``."""
        limits = self.groups[0].scorer.limits
        return slabs_within_memory(lambda device: self.slabs_on(device, prepared), self.device, limits)

    def slabs_on(self, device: torch.device, prepared: Prepared) -> Slabs:
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
