"""What the config leaves open, decided from the data and the device.

A plan is an overlay of the config: it holds values at the same places, which fill the nulls; only the preprocessing
node is planned as a whole.
"""

import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from medseg.config.settings import (
    PlanSettings,
    PreprocessingSettings,
    PretrainSettings,
    TrainerSettings,
    TrainingSettings,
    TrainSettings,
)
from medseg.errors import MedsegError
from medseg.io.labels import LabelMap
from medseg.preprocessing.fingerprint.fingerprint import Fingerprint
from medseg.preprocessing.fingerprint.pixel_size import coarsest
from medseg.preprocessing.fingerprint.symmetry import symmetric_axes
from medseg.preprocessing.intensity import DEFAULT_METHOD
from medseg.preprocessing.planning.resources import (
    SHRINK,
    SMALLEST,
    Probe,
    fit_layout,
    fit_step,
    fit_width,
    within_memory,
)
from medseg.system.device import device_memory, pick_precision

PATCH_VOXELS = {("cpu", 2): 256**2, ("cpu", 3): 64**3, ("cuda", 2): 512**2, ("cuda", 3): 128**3}
BATCH_VOXELS = {("cpu", 2): 600_000, ("cpu", 3): 200_000, ("cuda", 2): 12 * 512**2, ("cuda", 3): 2_500_000}
"""A CPU takes as long for a patch in larger batches, so that they cost steps (docs/development/measurements.md)."""
BASE_CHANNELS = {"cpu": 16, "cuda": 32}
MOST_IN_BATCH = 16
BATCH_SHARE = 0.05
"""A batch holds no more than this share of the voxels of all training cases (nnU-Net's rule)."""
MAX_DEPTH = 5
SMALLEST_MAP = 4  # voxels along an axis below which nnU-Net pools no further
SLICED = 1.2  # an axis this many times coarser than the finest is the one that slices follow each other along
COARSE = 2  # an axis this many times coarser than the finest is neither pooled nor convolved across, as in nnU-Net
ANISOTROPIC = 3  # a coarsest axis this many times coarser, and shorter, than the others gets a finer spacing
FINER = 10  # percentile of its spacings; the median would blur the thinner slices of many scans
COARSENING = 1.03  # from one spacing of a coarse grid that is tried to the next
LARGE = 0.25  # share of the median scan in a patch below which nnU-Net plans a low resolution
WORTH_COMPILING = 10 * 60  # seconds of training below which compiling takes longer than it saves


def make_plan(
    settings: TrainingSettings,
    fingerprint: Fingerprint,
    label_map: LabelMap,
    modality: Sequence[str] | None,
    device: torch.device,
    probe: Probe | None = None,
) -> dict[str, Any]:
    """Return the overlay that fills the config's nulls.

    Args:
        settings: of a training, None where the plan decides.
        fingerprint: the cases to learn from; test cases have no say.
        label_map: the classes, and the regions if these are learned; UNLABELLED: the images themselves are.
        modality: one name, or one a channel, or None where it is unknown.
        device: where training runs.
        probe: counts the memory and measures the speed of a plan on the device; None: as if both were enough.

    Raises:
        MedsegError: a value given in the config does not fit the data, or the memory.
    """
    kind = settings.plan.device or ("cuda" if device.type == "cuda" else "cpu")
    dims = settings.model.get("spatial_dims") or fingerprint.spatial_dims
    check_dims(settings, dims, fingerprint.spatial_dims)
    preprocessing = plan_preprocessing(settings.preprocessing, fingerprint, modality, kind)
    added = added_channels(settings, label_map)
    if (corrected := settings.plan.coarse_channels) not in (None, 0, added):
        allowed = f"0 or {added}, which the first stage adds" if added else "0; first_stage.use=channels adds some"
        raise MedsegError(f"plan.coarse_channels={corrected}; allowed: {allowed}.")
    fixed = {
        "in_channels": (fingerprint.channels + added) * (2 * settings.plan.context + 1),
        "coarse_channels": added if corrected is None else corrected,
        "out_channels": outputs_of(label_map, fingerprint.channels),
        "mirror_axes": mirror_axes(settings, label_map, fingerprint),
    }

    def draft(share: float) -> dict[str, Any]:
        plan = lay_out(settings, fingerprint, preprocessing, fixed, kind, dims, share)
        plan = {**plan, "trainer": plan_trainer(settings.limits, device)}
        if isinstance(settings, TrainSettings) and settings.first_stage.use:
            plan["first_stage"] = {"spacing": coarse_spacing(plan, fingerprint, settings.first_stage.spacing)}
        return plan

    if probe is None:
        return draft(1.0)
    trainer = settings.trainer
    limit, share = trainer.memory_gb * 1e9 if trainer.memory_gb else device_memory(device), 1.0
    while True:
        plan, share = within_memory(draft, probe, limit, is_given=trainer.memory_gb is not None, share=share)
        plan = fit_width(plan, probe, settings.limits.max_time, limit)
        plan.setdefault("measured", {})["precision"] = pick_precision(trainer.precision, device)
        if device.type == "cuda" and not trainer.deterministic:  # which must not depend on noise
            plan = fit_layout(plan, probe, trainer.channels_last)
        if device.type != "cuda" and not trainer.compile:
            return plan  # on a CPU neither channels last nor compiling ever paid (measured)
        if tried := fit_step(plan, probe, limit, must_compile=bool(trainer.compile)):
            return tried
        share *= SHRINK
        if share < SMALLEST:
            return plan  # training takes a batch in parts


def lay_out(
    settings: TrainingSettings,
    fingerprint: Fingerprint,
    preprocessing: dict[str, Any],
    fixed: dict[str, Any],
    kind: str,
    dims: int,
    share: float,
) -> dict[str, Any]:
    """Return the plan whose patch and batch hold ``share`` of the usual voxels of a ``kind`` of device."""
    given, budget = settings.plan, settings.plan.budget * share
    shape, spacing = network_grid(fingerprint, preprocessing["spacing"], preprocessing["resize"])
    axis = slice_axis(given, spacing, dims)
    training_voxels = float(np.prod(shape)) * len(fingerprint.cases)
    in_plane = [other for other in range(len(shape)) if other != axis]
    shape, spacing = [shape[other] for other in in_plane], [spacing[other] for other in in_plane]
    size = given.patch_size or limit(shape, round(PATCH_VOXELS[kind, dims] * budget))
    depth = settings.model.get("depth")
    if depth and given.strides and depth != len(given.strides):
        raise MedsegError(
            f"model.depth={depth} does not fit the {len(given.strides)} entries of plan.strides: give one of them."
        )
    strides, kernels = topology(size, spacing, depth or len(given.strides or ()) or None)
    strides, kernels = given.strides or strides, given.kernel_sizes or kernels
    divisor = [given.divisor] * dims if given.divisor else np.prod(strides, axis=0).tolist()
    patch = fit_patch(size, divisor, is_given=bool(given.patch_size))
    batch_voxels = min(BATCH_VOXELS[kind, dims] * budget, BATCH_SHARE * training_voxels)
    batch = int(np.clip(round(batch_voxels / np.prod(patch)), 2, MOST_IN_BATCH))
    model = {"spatial_dims": dims, "depth": len(strides), "base_channels": BASE_CHANNELS[kind]}
    needs_block = isinstance(settings, PretrainSettings) and settings.pretext.get("block", 0) is None
    return {
        **({"pretext": {"block": blocks(strides, axis, given.context)}} if needs_block else {}),
        "model": {key: value for key, value in model.items() if settings.model.get(key, 0) is None},
        "preprocessing": preprocessing,
        "plan": {
            **fixed,
            "patch_size": patch,
            "batch_size": given.batch_size or batch,
            "strides": strides,
            "kernel_sizes": kernels,
            "mirror_axes": [other for other in fixed["mirror_axes"] if other != axis],
            "slice_axis": axis,
        },
    }


def outputs_of(label_map: LabelMap, channels: int) -> int:
    """Return how many outputs a network has: a class or region each, or without any the image's own channels."""
    return len(label_map.outputs) if label_map.has_masks else channels


def added_channels(settings: TrainingSettings, label_map: LabelMap) -> int:
    """Return how many channels a first stage adds to the images': each class or region, but not the background."""
    has_channels = isinstance(settings, TrainSettings) and settings.first_stage.use == "channels"
    return len(label_map.reported) if has_channels else 0


def coarse_spacing(plan: dict[str, Any], fingerprint: Fingerprint, given: list[float] | None) -> list[float]:
    """Return the spacing that is given, or that of the grid on which a patch of the plan holds the median scan.

    It grows as that of nnU-Net's low resolution, by 3 % at a time: the axes that are more than twice as fine as the
    coarsest, if there are any, else all. nnU-Net ends where a patch holds a quarter of the scan.

    Raises:
        MedsegError: a patch holds the median scan as it is, or is of slices; or what is given is not coarser.
    """
    preprocessing, patch = plan["preprocessing"], plan["plan"]["patch_size"]
    shape, fine = network_grid(fingerprint, preprocessing["spacing"], preprocessing["resize"])
    if len(patch) < len(shape):
        raise MedsegError("first_stage: both stages see images as they are; leave out model.spatial_dims=2.")
    if np.prod(shape) <= np.prod(patch):
        raise MedsegError(
            f"first_stage: a patch of {patch} holds the median scan, {shape} voxels, so that coarse models would see"
            " nothing more. Train with one stage (first_stage.use=null, no experiment=cascade or roi)."
        )
    if given and len(given) != len(fine):
        raise MedsegError(
            f"first_stage.spacing={given} does not fit images that are {len(fine)}D: give {len(fine)} numbers."
        )
    if given and np.prod(given) <= np.prod(fine):
        raise MedsegError(
            f"first_stage.spacing={given}: its voxels are no larger than those of the second stage, {list(fine)}, and"
            " coarse models would see less of a scan. Give more, or null, to have it planned."
        )
    if given:
        return given
    spacing = np.array(fine)
    while np.prod(np.multiply(shape, fine) / spacing) > np.prod(patch):
        is_fine = spacing.max() > COARSE * spacing
        spacing[is_fine if is_fine.any() else slice(None)] *= COARSENING
    return [round(float(step), 6) for step in spacing]


def offer(plan: dict[str, Any], fingerprint: Fingerprint, settings: TrainSettings) -> str | None:
    """Return the advice to train in two stages where a patch holds less than a quarter of the median scan."""
    preprocessing, patch = plan["preprocessing"], plan["plan"]["patch_size"]
    shape, _ = network_grid(fingerprint, preprocessing["spacing"], preprocessing["resize"])
    share = float(np.prod(patch) / np.prod(shape))
    if settings.first_stage.use or len(patch) < len(shape) or preprocessing["resize"] or share >= LARGE:
        return None
    return (
        f"a patch of {' x '.join(map(str, patch))} holds {share:.0%} of the median scan, {' x '.join(map(str, shape))}"
        " voxels: experiment=cascade adds coarse models that see it whole, experiment=roi lets such models find the"
        " region to work in"
    )


def blocks(strides: Sequence[Sequence[int]], axis: int | None, context: int) -> list[int]:
    """Return how many input voxels one voxel of the level above the bottom spans, along each axis of a patch.

    Across the slices of a 2D network it is all that the network sees at once.
    """
    size = np.prod(strides[:-1], axis=0, dtype=int).tolist() if strides[1:] else [1] * len(strides[0])
    return size if axis is None else [*size[:axis], 2 * context + 1, *size[axis:]]


def plan_trainer(trainer: TrainerSettings, device: torch.device) -> dict[str, Any]:
    """Return how the device is used: compiler, layout of memory.

    Compiling did not pay on a CPU (measured); on a GPU it does, as nnU-Net found, in trainings that last.
    """
    lasts = not trainer.max_time or trainer.max_time >= WORTH_COMPILING
    return {
        "compile": device.type == "cuda" and lasts and find_spec("triton") is not None,
        "channels_last": False,
    }


def slice_axis(plan: PlanSettings, spacing: Sequence[float], dims: int) -> int | None:
    """Return the axis along which a 2D network goes through volumes, None where images and network agree.

    It is the coarsest axis, as in nnU-Net, which mostly is the one that the scanner went along; of isotropic volumes
    the last, so that slices are axial.
    """
    axis = plan.slice_axis
    if dims == len(spacing):
        if plan.context or axis is not None:
            raise MedsegError(
                f"plan.context={plan.context}, plan.slice_axis={axis}: these are for 2D networks on"
                f" volumes (model.spatial_dims=2); here the network is {dims}D like the images."
            )
        return None
    if axis is not None:
        return axis
    return int(np.argmax(spacing)) if max(spacing) > SLICED * min(spacing) else len(spacing) - 1


def check_dims(settings: TrainingSettings, dims: int, data_dims: int) -> None:
    """Reject a 3D network on 2D images, and values of other dimensions than the network's or the data's."""
    if dims > data_dims:
        raise MedsegError(f"model.spatial_dims={dims}: the data set's images are {data_dims}D; give 2 or null.")
    plan, preprocessing = settings.plan, settings.preprocessing
    of_network: dict[str, list[Any]] = {
        "plan.patch_size": [plan.patch_size],
        "plan.strides": plan.strides or [],
        "plan.kernel_sizes": plan.kernel_sizes or [],
    }
    of_data: dict[str, list[Any]] = {
        "preprocessing.spacing": [preprocessing.spacing],
        "preprocessing.resize": [preprocessing.resize],
    }
    for values, rank, owner in ((of_network, dims, "a network that is"), (of_data, data_dims, "images that are")):
        for name, entries in values.items():
            for entry in entries:
                if entry is not None and (not isinstance(entry, list) or len(entry) != rank):
                    numbers = f"{rank} numbers" + (" for each level" if name.endswith(("strides", "sizes")) else "")
                    raise MedsegError(f"{name}: {entry} does not fit {owner} {rank}D: give {numbers}, in a list.")


def plan_preprocessing(
    settings: PreprocessingSettings, fingerprint: Fingerprint, modality: Sequence[str] | None, kind: str
) -> dict[str, Any]:
    """Return the preprocessing node with every null decided."""
    channels = fingerprint.channels
    names: list[str | None] = list(modality) if modality else [None]
    if len(names) not in (1, channels):
        raise MedsegError(
            f"dataset.modality names {len(names)} channels, the images have {channels}: give one, or one a channel."
        )
    names = names * channels if len(names) == 1 else names
    methods = settings.normalize or [DEFAULT_METHOD[name] for name in names]
    methods = methods * channels if len(methods) == 1 else methods
    if len(methods) != channels:
        raise MedsegError(
            f"preprocessing.normalize names {len(methods)} methods, the images have {channels} channel(s)."
        )
    window = settings.window
    if window and (methods.count("ct") == 0 or len(window) != 2 or window[0] >= window[1]):
        raise MedsegError(f"preprocessing.window={window}: give [low, high], for channels whose normalisation is ct.")
    return {
        **vars(settings),
        "spacing": None if settings.resize else settings.spacing or plan_spacing(fingerprint, kind),
        "normalize": methods,
        "window": ct_windows(fingerprint, window) if "ct" in methods else None,
    }


def plan_spacing(fingerprint: Fingerprint, kind: str) -> list[float] | None:
    """Return the network grid's spacing: in mm, nnU-Net's rule; for 2D images in pixels, or None to keep them.

    The rule: the median spacing of each axis. Where one axis is more than three times coarser than the others and has
    less than a third of their voxels, it gets the tenth percentile of its spacings, though never less than the others'.
    2D images keep their pixel size; on a CPU they are downsampled as far as masks survive it.
    """
    cases = list(fingerprint.cases.values())
    if fingerprint.unit == "px":
        fidelities = [case.fidelity for case in cases if case.fidelity and not np.isnan(case.fidelity).any()]
        if kind != "cpu" or not fidelities:
            return None
        factor = coarsest(fidelities, min(np.median([case.shape for case in cases], axis=0)))
        return [float(factor)] * fingerprint.spatial_dims if factor > 1 else None
    spacings = np.array([case.spacing for case in cases])
    target = np.median(spacings, axis=0)
    shape = np.median([np.multiply(case.shape, np.divide(case.spacing, target)) for case in cases], axis=0)
    worst = int(np.argmax(target))
    others, lengths = np.delete(target, worst), np.delete(shape, worst)
    if target[worst] > ANISOTROPIC * others.max() and shape[worst] * ANISOTROPIC < lengths.min():
        target[worst] = max(np.percentile(spacings[:, worst], FINER), others.max())
    return [round(float(value), 6) for value in target]


def ct_windows(fingerprint: Fingerprint, window: list[float] | None) -> list[list[float]]:
    """Return [low, high, mean, std] for each channel, from the labelled voxels of the cases.

    nnU-Net's rule: clip to the 0.5 and 99.5 percentiles, then scale by mean and standard deviation. A window given in
    the config replaces the percentiles.
    """
    values = np.concatenate([case.intensities for case in fingerprint.cases.values()], axis=1)
    windows = []
    for channel in values:
        low, high = window or np.percentile(channel, [0.5, 99.5]).tolist()
        inside = channel.clip(low, high)
        windows.append([float(low), float(high), float(inside.mean()), float(max(inside.std(), 1e-6))])
    return windows


def network_grid(
    fingerprint: Fingerprint, spacing: Sequence[float] | None, resize: Sequence[int] | None
) -> tuple[list[int], list[float]]:
    """Return the median shape of the cases on the network grid and its spacing (ones for 2D images)."""
    if resize:
        return list(resize), [1.0] * len(resize)
    cases = fingerprint.cases.values()
    shapes = [np.multiply(case.shape, np.divide(case.spacing, spacing) if spacing else 1.0) for case in cases]
    shape = [max(1, round(float(size))) for size in np.median(shapes, axis=0)]
    return shape, list(spacing or [1.0] * fingerprint.spatial_dims)


def limit(shape: Sequence[int], voxels: int) -> list[int]:
    """Shrink the longest axes of ``shape`` until it holds at most ``voxels``."""
    patch = list(shape)
    while np.prod(patch) > voxels:
        patch[int(np.argmax(patch))] -= 1
    return patch


def topology(
    patch: Sequence[int], spacing: Sequence[float], depth: int | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Return pooling strides per level and kernel sizes per stage (one stage more than levels).

    Each level halves the axes that are long enough and not much coarser than the finest, so that voxels become
    isotropic on the way down; an axis is convolved across once it is no longer much coarser (nnU-Net's rule). A
    ``depth`` that asks for more levels than the patch allows goes on halving: ``fit_patch`` then grows the patch.
    """
    size, step = np.array(patch, float), np.array(spacing, float)
    strides: list[list[int]] = []
    kernels: list[list[int]] = []
    while True:
        fine = step < COARSE * step.min()
        kernels.append([3 if is_fine else 1 for is_fine in fine])
        halved = fine & (size >= 2 * SMALLEST_MAP)
        if len(strides) == (depth or MAX_DEPTH) or (depth is None and not halved.any()):
            return strides or [[2] * len(patch)], kernels if strides else kernels * 2
        halved = halved if halved.any() else fine
        strides.append([2 if half else 1 for half in halved])
        size, step = np.where(halved, np.ceil(size / 2), size), np.where(halved, step * 2, step)


def fit_patch(patch: Sequence[int], divisor: Sequence[int], *, is_given: bool) -> list[int]:
    """Round a patch up to multiples of ``divisor``; reject one from the config that is none."""
    fitted = [int(-(-size // d) * d) for size, d in zip(patch, divisor, strict=True)]
    if np.prod(np.divide(fitted, divisor)) < 2:  # instance norm needs more than one voxel at the bottom
        fitted[int(np.argmin(divisor))] *= 2
    if is_given and fitted != list(patch):
        raise MedsegError(
            f"plan.patch_size={list(patch)} does not fit the network, which needs multiples of {list(divisor)};"
            f" the next that works is {fitted}."
        )
    return fitted


def mirror_axes(settings: TrainingSettings, label_map: LabelMap, fingerprint: Fingerprint) -> list[int]:
    """Return the axes along which the data are symmetric, less left-right where class names tell left from right.

    Raises:
        MedsegError: the config wants to mirror left and right all the same.
    """
    names = [*label_map.names[1:], *(label_map.regions or ())]
    left_right = 1 if fingerprint.unit == "px" else 0  # a picture's columns run left to right, axes in mm R, A, S
    augmented: dict[str, Any] = settings.augment.spatial or {}
    check_mirrored("plan.mirror_axes", settings.plan.mirror_axes, left_right, names)
    check_mirrored("augment.spatial.mirror_axes", augmented.get("mirror_axes"), left_right, names)
    if settings.augment.spatial is None:
        return []  # test-time augmentation mirrors only what training did
    if augmented.get("mirror_axes") is not None:
        return list(augmented["mirror_axes"])
    thumbnails = [case.thumbnail for case in fingerprint.cases.values()]
    all_axes = settings.plan.mirror == "all"
    axes = list(range(fingerprint.spatial_dims)) if all_axes else symmetric_axes(thumbnails)
    return [axis for axis in axes if not (axis == left_right and is_sided(names))]


ANYWHERE = (("left", "right"), ("左", "右"))
AS_WORDS = (*ANYWHERE, ("l", "r"), ("lh", "rh"), ("lt", "rt"), ("sin", "dex"))


def is_sided(names: Iterable[str]) -> bool:
    """Return whether class names distinguish left and right: by a word of its own, or within a pair of names.

    Mirroring a patient makes a left kidney look like a right one, so such classes must not be mirrored.

    >>> is_sided(["kidney_left"]), is_sided(["LeftLung", "RightLung"]), is_sided(["bright spot"])
    (True, True, False)
    """
    lower = {name.lower() for name in names}
    words = {word for name in lower for word in re.split(r"[\W_\d]+", name)}
    if words & {side for pair in AS_WORDS for side in pair}:
        return True
    return any(left in name and name.replace(left, right) in lower for name in lower for left, right in ANYWHERE)


def check_mirrored(where: str, axes: Sequence[int] | None, left_right: int, names: Iterable[str]) -> None:
    """Reject axes to mirror, given at config key ``where``, that would turn left classes into right ones."""
    if axes and left_right in axes and is_sided(names := list(names)):
        raise MedsegError(
            f"{where}={list(axes)}: axis {left_right} runs from left to right, and the classes {', '.join(names)} tell"
            " the sides apart: mirrored, each would carry the other's name. Leave this axis out."
        )
