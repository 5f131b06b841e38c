"""Synthetic heads with a lesion: data for demos and tests, drawn from formulas, in memory or on disk.

The unit of length inside is half the field of view, the origin its centre, the axes R, A, S. Every surface is a
formula of the position, so that one head can be scanned on any grid: two cases of a patient, or a 2D slice.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.io.case import FileValue, Scan

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
Axes = Sequence[Floats]
"""The coordinates of the sample points along R, A and S: three arrays of one axis each."""

LABELS: dict[str, FileValue] = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}
EDEMA, CORE, ENHANCING = 1, 2, 3

AIR, FAT, MUSCLE, BONE, FLUID, GREY, WHITE, VESSEL, LESION = range(9)  # the lesion's tissues are LESION + 0, 1, 2
TISSUE_OF_LABEL = {EDEMA: LESION, CORE: LESION + 1, ENHANCING: LESION + 2}

# In "mixed", the only channel of a one-channel phantom, all parts of the lesion show. In the others some look like
# the tissue around them. Everywhere each part is as bright as fat, muscle, fluid or vessels are.
CONTRASTS = {
    #        air   fat   muscle bone fluid grey  white vessel edema core enhancing
    "mixed": (0.02, 0.92, 0.68, 0.10, 0.20, 0.52, 0.40, 0.92, 0.68, 0.22, 0.92),
    "flair": (0.02, 0.76, 0.68, 0.10, 0.12, 0.50, 0.38, 0.15, 0.74, 0.30, 0.70),
    "t1gd": (0.02, 0.95, 0.45, 0.10, 0.18, 0.46, 0.62, 0.92, 0.47, 0.20, 0.95),
    "t1": (0.02, 0.95, 0.45, 0.10, 0.18, 0.46, 0.62, 0.30, 0.46, 0.22, 0.45),
    "t2": (0.02, 0.80, 0.70, 0.08, 0.95, 0.56, 0.40, 0.15, 0.78, 0.92, 0.57),
}

FINE = 2  # sample points a voxel along each axis: what partial volume and majority labels are made of
NOMINAL_SPACING = 1.1  # mm; the field of view is `size` voxels of it
SURFACE = 0.22  # depth of the brain's surface below the skin, as a share of the head's radius


def make_phantom(
    index: int, *, dims: int, channels: int, size: int, seed: int, lesion: float = 1.0
) -> tuple[Scan, Labels]:
    """Make one case: a head with a lesion of nested parts, and the class of every voxel (see ``LABELS``).

    The arguments alone decide the result. Cases 2k and 2k+1 are one patient: the same head on another grid, with
    another lesion and other noise. 3D scans have a spacing of 0.8 to 1.35 mm, any axis order and flips, and so many
    voxels an axis as make up a field of view of ``size`` times 1.1 mm. A 2D image (size, size) is the axial slice
    through the lesion's centre, front up, patient's right on the left, with values 0..255. The lesion is ``lesion``
    times as wide as usual.

    Returns:
        The scan, float32 (channels, *spatial) of whole numbers, and uint8 (*spatial) class indices.

    Raises:
        MedsegError: an argument is out of its range.
    """
    _check(index=index, dims=dims, channels=channels, size=size, seed=seed)
    patient, case = np.random.default_rng([seed, index // 2, 0]), np.random.default_rng([seed, index, 1])
    centre = case.uniform((0.20, -0.28, -0.15), (0.28, 0.28, 0.15)) * (case.choice([-1, 1]), 1, 1)  # in white matter
    spacing = np.full(3, NOMINAL_SPACING)
    if dims == 3:  # in mm, mildly different between the axes
        spacing = case.uniform(0.85, 1.25) * case.uniform(0.95, 1.07, 3)
    shape = np.rint(size * NOMINAL_SPACING / spacing).astype(int)
    half_view = size * NOMINAL_SPACING / 2
    fine, coarse = (_axes(shape, spacing / half_view, samples) for samples in (FINE, 1))
    if dims == 2:
        fine[2] = coarse[2] = centre[2:].astype(np.float32)

    tissue, depth = _head(patient, fine)
    label = _lesion(case, fine, centre, depth, scale=lesion * (0.65 if dims == 2 else 1.0))  # volumes are coarse
    _add_distractors(case, fine, centre, depth, tissue)
    for part, kind in TISSUE_OF_LABEL.items():
        tissue[label == part] = kind
    image = np.stack([_acquire(case, tissue, contrast, coarse) for contrast in _contrasts(channels)])  # (C, R, A, S)
    shares = [_block_mean((label == value).astype(np.float32)) for value in range(len(LABELS))]
    label = np.argmax(shares, axis=0).astype(np.uint8)  # (R, A, S), the class of most of a voxel's sample points
    return _picture(case, image, label) if dims == 2 else _volume(case, image, label, spacing)


def _check(*, index: int, dims: int, channels: int, size: int, seed: int) -> None:
    if dims not in (2, 3):
        raise MedsegError(f"phantom: dims={dims} must be 2 (images) or 3 (volumes)")
    lowest = {"index": (index, 0), "channels": (channels, 1), "size": (size, 16), "seed": (seed, 0)}
    for name, (value, least) in lowest.items():
        if value < least:
            raise MedsegError(f"phantom: {name}={value} must be at least {least}")


# ---- the grid


def _axes(shape: NDArray[np.int_], step: NDArray[np.float64], samples: int) -> list[Floats]:
    """Place ``samples`` points in every voxel of a grid that is centred on 0."""
    return [
        (((np.arange(n * samples) + 0.5) / samples - n / 2) * width).astype(np.float32)
        for n, width in zip(shape, step, strict=True)
    ]


def _volume(
    rng: np.random.Generator, image: Floats, label: Labels, spacing: NDArray[np.float64]
) -> tuple[Scan, Labels]:
    """Store a volume in a random axis order, with random flips; the affine keeps the anatomy where it is."""
    affine = np.diag([*spacing, 1.0])  # R, A, S voxel -> mm, the centre of the grid at 0
    affine[:3, 3] = -(np.array(label.shape) - 1) / 2 * spacing
    order, flipped = rng.permutation(3), rng.integers(0, 2, 3).astype(bool)
    gain = rng.uniform(300, 1500, (len(image), 1, 1, 1)).astype(np.float32)  # the arbitrary unit of each channel
    stored = np.zeros((4, 4))  # stored voxel -> R, A, S voxel
    stored[order, range(3)] = np.where(flipped, -1, 1)
    stored[order, 3] = np.where(flipped, np.array(label.shape)[order] - 1, 0)
    stored[3, 3] = 1
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in flipped)
    image = np.rint(image * gain).transpose(0, *(order + 1))[(slice(None), *turn)]
    label = label.transpose(order)[turn]
    return Scan(np.ascontiguousarray(image), affine @ stored), np.ascontiguousarray(label)


def _picture(rng: np.random.Generator, image: Floats, label: Labels) -> tuple[Scan, Labels]:
    """Turn a slice into a 2D image of 8 bits: rows from front to back, columns from right to left."""
    gain = rng.uniform(150, 200, (len(image), 1, 1, 1)).astype(np.float32)
    image = np.clip(np.rint(image * gain), 0, 255)[..., ::-1, ::-1, 0].swapaxes(-1, -2)  # (C, R, A, 1) -> (C, A, R)
    label = label[::-1, ::-1, 0].T
    return Scan(np.ascontiguousarray(image), np.eye(4), unit="px"), np.ascontiguousarray(label)


# ---- the anatomy


def _open(axes: Axes) -> tuple[Floats, Floats, Floats]:
    """Shape the coordinates for broadcasting: (R, 1, 1), (1, A, 1) and (1, 1, S)."""
    x, y, z = axes
    return x[:, None, None], y[None, :, None], z[None, None, :]


def _field(rng: np.random.Generator, axes: Axes, frequency: float, terms: int = 10) -> Floats:
    """Draw a smooth random function of the position with mean 0 and variance 1: a sum of products of cosines."""
    wave = rng.uniform(0.3, 1.0, (terms, 3)) * frequency
    phase = rng.uniform(0, 2 * np.pi, (terms, 3))
    x, y, z = (np.cos(np.outer(wave[:, i], axes[i]) + phase[:, i, None]).astype(np.float32) for i in range(3))
    planes = y[:, :, None] * z[:, None, :] * np.float32(np.sqrt(8 / terms))  # (terms, A, S)
    return np.tensordot(x, planes, axes=(0, 0))  # (R, A, S)


def _radius(position: Sequence[NDArray[np.floating]], centre: ArrayLike, radii: ArrayLike) -> Floats:
    """Distance from ``centre`` in units of an ellipsoid's radii: 1 on its surface."""
    centre, radii = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
    x, y, z = (((p - centre[i]) / radii[i]) ** 2 for i, p in enumerate(position))
    return np.sqrt(x + y + z)


def _head(rng: np.random.Generator, axes: Axes) -> tuple[Labels, Floats]:
    """Paint the tissues of a healthy head; return them and the depth below the skin (0 skin, 1 centre)."""
    x, y, z = (p + 0.02 * _field(rng, axes, 3.0) for p in _open(axes))  # a head of its own, not an ellipsoid
    depth = 1 - _radius((x * (1 + 0.15 * y), y, z), (0, 0, 0), (0.80, 0.94, 0.88) * rng.uniform(0.95, 1.02, 3))
    tissue = np.zeros(depth.shape, np.uint8)
    for limit, kind in ((0.0, FAT), (0.07, MUSCLE), (0.13, BONE), (0.18, FLUID), (SURFACE, GREY)):
        tissue[depth > limit] = kind

    fold = np.abs(_field(rng, axes, 22.0, terms=40))  # 0 on winding sheets: the floors of the sulci
    tissue[(depth > SURFACE + 0.07) & (fold > 0.4) | (depth > SURFACE + 0.17)] = WHITE
    tissue[(depth > SURFACE) & (depth < SURFACE + 0.12) & (fold < 0.13)] = FLUID
    tissue[(np.abs(x) < 0.02) & (depth > SURFACE) & (depth < SURFACE + 0.22)] = FLUID  # between the hemispheres

    x = np.abs(x)  # from here on both sides at once
    tissue[_radius((x, y, z), (0.20, -0.02, -0.05), (0.09, 0.20, 0.12)) < 1] = GREY  # deep nuclei
    width = rng.uniform(0.8, 1.3)
    bent = x - 0.45 * (y - 0.02) ** 2  # the horns of the ventricles part in front and behind
    tissue[_radius((bent, y, z), (0.08, 0.0, 0.08), (0.055 * width, 0.36, 0.16 * width)) < 1] = FLUID
    return tissue, depth


def _lesion(rng: np.random.Generator, axes: Axes, centre: NDArray[np.float64], depth: Floats, scale: float) -> Labels:
    """Label a lesion inside the brain: a core within an enhancing rim within edema, each of an uneven surface."""
    radii = scale * rng.uniform(0.95, 1.05) * rng.uniform(0.92, 1.08, 3)
    distance = _radius(_open(axes), centre, radii)
    rough = _field(rng, axes, 9.0).clip(-1.8, 1.8)  # clipped and weighted so that the parts stay nested
    label = np.zeros(distance.shape, np.uint8)
    label[distance + 0.05 * rough < 0.475] = EDEMA
    label[distance + 0.015 * rough < 0.335] = ENHANCING
    label[distance - 0.01 * rough < 0.155] = CORE
    label[depth < SURFACE] = 0
    return label


def _add_distractors(
    rng: np.random.Generator, axes: Axes, centre: NDArray[np.float64], depth: Floats, tissue: Labels
) -> None:
    """Paint what has a lesion's intensity and is none: vessels, and single blobs in the other hemisphere."""
    brain = depth > SURFACE
    tubes = _field(rng, axes, 6.0) ** 2 + _field(rng, axes, 6.0) ** 2 < 0.11**2  # where two random sheets cross
    tissue[tubes & brain] = VESSEL
    for kind, radius in zip(TISSUE_OF_LABEL.values(), (0.15, 0.10, 0.12), strict=True):
        side = -np.sign(centre[0])
        position = (side * rng.uniform(0.15, 0.42), rng.uniform(-0.5, 0.5), centre[2] + rng.uniform(-0.05, 0.05))
        blob = _radius(_open(axes), position, radius * rng.uniform(0.8, 1.2, 3)) < 1
        tissue[blob & brain] = kind


# ---- the scanner


def _contrasts(channels: int) -> list[NDArray[np.float64]]:
    """Intensity of every tissue in every channel; channels past the known contrasts have a random one each."""
    mixed, *known = (np.array(row) for row in CONTRASTS.values())
    if channels == 1:
        return [mixed]
    others = [np.random.default_rng(i).uniform(0.1, 0.9, len(mixed)) for i in range(len(known), channels)]
    for row in others:
        row[AIR] = mixed[AIR]
    return known[:channels] + others


def _acquire(rng: np.random.Generator, tissue: Labels, contrast: NDArray[np.float64], axes: Axes) -> Floats:
    """Scan one channel: partial volume, a smooth bias field, Rician noise (Gudbjartsson and Patz 1995, eq. 1)."""
    intensity = (contrast * rng.normal(1, 0.04, len(contrast))).astype(np.float32)
    clean = _block_mean(intensity[tissue]) * np.exp(0.15 * _field(rng, axes, 2.0))
    noise = rng.normal(0, rng.uniform(0.02, 0.04), (2, *clean.shape)).astype(np.float32)
    return np.hypot(clean + noise[0], noise[1])


def _block_mean(fine: Floats) -> Floats:
    """Average the sample points of each voxel; an axis of one point (the slice of a 2D image) stays."""
    for axis, length in enumerate(fine.shape):
        if length > 1:
            pairs = np.moveaxis(fine, axis, 0)
            fine = np.moveaxis((pairs[::2] + pairs[1::2]) * np.float32(1 / FINE), 0, axis)
    return fine


# ---- on disk


def write_phantom(root: Path, *, dims: int, channels: int, cases: int, size: int, seed: int) -> Path:
    """Write a phantom data set under ``root``, unless it is there already, and return ``root``.

    Volumes lie as in the Medical Segmentation Decathlon, as .nii.gz, with two more cases that have no masks. 2D images
    lie in ``images/`` and their masks in ``masks/``: PNG of one or three channels, or else .nii.gz. ``groups.csv`` (id,
    group) names the patients. The folder appears whole or not at all, also when several processes write it at once.

    Raises:
        MedsegError: an argument is out of its range, ``root`` holds something else or cannot be written.
    """
    _check(index=0, dims=dims, channels=channels, size=size, seed=seed)
    if cases < 1:
        raise MedsegError(f"phantom: cases={cases} must be at least 1")
    recipe = {
        "layout": "decathlon" if dims == 3 else "folder",
        "dims": dims,
        "channels": channels,
        "cases": cases,
        "size": size,
        "seed": seed,
        "suffix": ".png" if dims == 2 and channels in (1, 3) else ".nii.gz",
        "version": 1,  # of the drawing: raise it where the same arguments make another image
    }
    if _is_written(root, recipe):
        return root
    make = partial(make_phantom, dims=dims, channels=channels, size=size, seed=seed)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
            folder = Path(temporary) / root.name
            folder.mkdir()
            patients = (
                write_decathlon(folder, make, cases, channels) if dims == 3 else _write_folder(folder, make, cases)
            )
            with (folder / "groups.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("id", "group"), *patients.items()])
            (folder / "phantom.json").write_text(json.dumps(recipe, indent=1))
            try:
                folder.rename(root)
            except OSError:
                if not _is_written(root, recipe):  # what another process finished first is as good
                    raise
    except OSError as error:
        raise MedsegError(f"phantom: cannot write {root}: {error.strerror}; choose another dataset.root") from error
    return root


def _is_written(root: Path, recipe: Mapping[str, Any]) -> bool:
    """Return whether ``root`` holds just this data; an error where it holds other things."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    saved = root / "phantom.json"  # looked for last: another process may be moving the whole folder into place
    if not saved.is_file():
        raise MedsegError(f"phantom: {root} holds something else, nothing was written; choose another dataset.root")
    there = read_json_object(saved, "Choose another dataset.root, or delete the folder.")
    if there != recipe:
        other = [f"{key}={there.get(key)!r}, not {recipe[key]!r}" for key in recipe if there.get(key) != recipe[key]]
        raise MedsegError(f"phantom: {root} has {', '.join(other)}; choose another dataset.root or delete it")
    return True


def write_decathlon(
    folder: Path, make: Callable[[int], tuple[Scan, Labels]], cases: int, channels: int, prefix: str = "phantom"
) -> dict[str, str]:
    """Write the layout of the Medical Segmentation Decathlon (Antonelli et al. 2022); return each case's patient.

    Two unlabelled cases, of a patient without labelled ones, follow those of ``make`` below ``cases``.
    """
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir()
    training, test, patients = [], [], {}
    first_test = cases + cases % 2
    for index in (*range(cases), first_test, first_test + 1):
        scan, label = make(index)
        name = f"{prefix}_{index:03d}.nii.gz"
        image = "imagesTr" if index < cases else "imagesTs"
        write_nifti(folder / image / name, scan.image, scan)
        if index < cases:
            write_nifti(folder / "labelsTr" / name, label[None], scan)
            training.append({"image": f"./{image}/{name}", "label": f"./labelsTr/{name}"})
        else:
            test.append(f"./{image}/{name}")
        patients[f"{prefix}_{index:03d}"] = patient_of(index)
    description = {
        "name": "Phantom",
        "description": "Made-up heads with a lesion; groups.csv names the patients",
        "tensorImageSize": "3D" if channels == 1 else "4D",
        "modality": {str(channel): "MRI" for channel in range(channels)},
        "labels": {str(value): name for name, value in LABELS.items()},
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1))
    return patients


def _write_folder(folder: Path, make: Callable[[int], tuple[Scan, Labels]], cases: int) -> dict[str, str]:
    """Write ``images/`` and ``masks/`` with the same names; return each case's patient."""
    from PIL import Image

    for part in ("images", "masks"):
        (folder / part).mkdir()
    for index in range(cases):
        scan, label = make(index)
        for part, array in (("images", scan.image), ("masks", label[None])):
            if len(scan.image) in (1, 3):
                pixels = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)  # grey, or (row, column, RGB)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / f"case_{index:03d}.png")
            else:
                write_nifti(folder / part / f"case_{index:03d}.nii.gz", array, scan)
    return {f"case_{index:03d}": patient_of(index) for index in range(cases)}


def patient_of(index: int) -> str:
    """Return the patient of a case: cases 2k and 2k+1 are of one."""
    return f"patient_{index // 2:03d}"


def write_nifti(path: Path, array: Floats | Labels, scan: Scan) -> None:
    """Write (C, *spatial) as (i, j, k), or (i, j, k, C) where there are several channels; a 2D image has one slice."""
    import nibabel as nib

    if array.ndim == 3:
        array = array[..., None]  # (C, row, column) -> (C, row, column, 1)
    data = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    image = nib.Nifti1Image(data.astype(np.uint8 if array.dtype == np.uint8 else np.int16), scan.affine)
    image.set_qform(scan.affine, code=1)
    image.set_sform(scan.affine, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
