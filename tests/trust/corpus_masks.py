"""Odd and damaged masks, as ``corpus`` has them: data sets of one image and its mask, which are read as ``train`` does.

What is expected are the class indices on the image's grid.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import zoom
from trust.corpus import Sample, nifti_bytes, with_fields

SHAPE = (16, 14, 12)
BLOBS = np.zeros(SHAPE, np.uint8)
BLOBS[3:8, 3:8, 3:8], BLOBS[9:14, 5:11, 4:9] = 1, 2
AFFINE = np.diag([2.0, 3, 4, 1])


def dataset(root: Path, mask: NDArray[Any] | bytes, affine: NDArray[Any] = AFFINE, suffix: str = "nii") -> Path:
    """Write an image and its mask below a folder of their own and return the mask's path."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(3)
    nib.save(nib.Nifti1Image(rng.normal(100, 20, SHAPE).astype(np.float32), AFFINE), root / "images" / "a.nii")
    path = root / "masks" / f"a.{suffix}"
    path.write_bytes(mask if isinstance(mask, bytes) else nib.Nifti1Image(mask, affine, dtype=mask.dtype).to_bytes())
    return path


def masks(folder: Path) -> Iterator[Sample]:
    """Values, types, shapes and grids of masks of volumes."""
    noise = np.random.default_rng(4).uniform(-1, 1, SHAPE)
    kept: dict[str, NDArray[Any]] = {kind: BLOBS.astype(kind) for kind in ("u1", "i1", "<u2", ">i2", "i4", "f4", "f8")}
    kept |= {
        "i8": BLOBS.astype("i8"),
        "values_255": (BLOBS * 127).astype("u1"),
        "values_3000": (BLOBS.astype("i2") * 1500),
        "value_most": (BLOBS.astype("i8") * (2**30 - 1)).astype("i4"),
        "noise_of_scaling": (BLOBS + 0.001 * noise).astype("f4"),
    }
    for name, mask in kept.items():
        yield _sample(name, dataset(folder / name, mask), BLOBS)
    slope = with_fields(nifti_bytes((BLOBS * 2).astype("i2")), scl_slope=0.5, scl_inter=0, sform_code=1)
    yield _sample("slope", dataset(folder / "slope", _with_affine(slope)), BLOBS)
    negative = np.where(BLOBS == 1, -1, BLOBS).astype("i2")  # -1, 0 and 2: the background is 0
    yield _sample("negative", dataset(folder / "negative", negative), "either")
    many = np.arange(BLOBS.size).reshape(SHAPE)
    wrong: dict[str, tuple[NDArray[Any], str]] = {
        "fractions": ((BLOBS * 0.5).astype("f4"), "hold no label"),
        "noise": ((BLOBS + 0.2 * noise).astype("f4"), "hold no label"),
        "probabilities": (np.clip(BLOBS + noise, 0, 1).astype("f4"), "hold no label"),
        "nan": (np.where(BLOBS == 1, np.nan, BLOBS).astype("f4"), "NaN"),
        "infinite": (np.where(BLOBS == 1, np.inf, BLOBS).astype("f8"), "NaN or infinite"),
        "value_2_31": (BLOBS.astype("u4") * 2**31 // 2 * 2, "below 2^31"),
        "value_2_40": (BLOBS.astype("i8") * 2**40, "below 2^31"),
        "value_1e20": ((BLOBS * 1e20).astype("f4"), "below 2^31"),
        "classes_33": ((many % 34).astype("u1"), "over 32"),
        "classes_255": ((many % 255).astype("u1"), "over 32"),
        "classes_256": ((many % 256).astype("u1"), "over 32"),
        "instances": (many.astype("i4"), "values"),
        "empty": (BLOBS * 0, "hold 0 only"),
        "full": (np.full(SHAPE, 255, "u1"), ""),
        "complex": (BLOBS.astype("c8"), "complex"),
        "shape": (BLOBS[:-1], "shape"),
        "transposed": (np.ascontiguousarray(BLOBS.T), "shape"),
        "flat": (BLOBS[..., 5], "shape"),
        "channels": (np.stack([BLOBS == 1, BLOBS == 2], -1).astype("u1")[:, :, :, None, :], "one channel"),
    }
    for name, (mask, cause) in wrong.items():
        yield _sample(name, dataset(folder / name, mask), "refused", cause)
    smooth = np.rint(zoom(zoom((BLOBS * 10).astype(float), 0.5, order=1), 2, order=1)).astype("u1")
    yield _sample("resampled", dataset(folder / "resampled", smooth), "refused", "other_values")
    moved, turned = AFFINE.copy(), np.diag([-2.0, 3, 4, 1])
    moved[0, 3] = 7
    for name, affine in {"moved": moved, "turned": turned, "spacing": np.diag([1.0, 1, 1, 1])}.items():
        yield _sample(name, dataset(folder / name, BLOBS, affine), "refused", "affine differs")
    good = nib.Nifti1Image(BLOBS, AFFINE).to_bytes()
    for name, content in {
        "cut": good[:-100],
        "header_alone": good[:352],
        "zero_bytes": b"",
        "text": b"a mask " * 99,
    }.items():
        yield _sample(name, dataset(folder / name, content))
    png = Image.fromarray(BLOBS[..., 5])
    path = dataset(folder / "picture", b"", suffix="png")
    png.save(path)
    yield _sample("picture", path, "refused", "shape")


def picture_masks(folder: Path) -> Iterator[Sample]:
    """Values, colours, transparency and sizes of masks of pictures."""
    rng = np.random.default_rng(5)
    flat = np.zeros((40, 36), np.uint8)
    flat[5:15, 5:15], flat[20:35, 12:30] = 1, 2
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    indexed = Image.fromarray(flat)
    indexed.putpalette(colours[[0, 2, 1]].tobytes())  # by colour #00ff00 is 1 and the lower value, as 65280 < 16711680
    grey = Image.fromarray(flat * 100)
    opaque = np.where(flat == 2, 0, 255).astype(np.uint8)
    soft = np.asarray(grey.resize((72, 80), Image.Resampling.BILINEAR).resize((36, 40), Image.Resampling.BILINEAR))
    samples: dict[str, tuple[Image.Image, str, Any, str]] = {
        "grey": (grey, "png", flat, ""),
        "bmp": (grey, "bmp", flat, ""),
        "tif": (grey, "tif", flat, ""),
        "bits16": (Image.fromarray(flat.astype(np.uint16) * 300), "png", flat, ""),
        "bits1": (Image.fromarray(flat > 0), "png", np.minimum(flat, 1), ""),
        "palette": (indexed, "png", flat, ""),
        "float": (Image.fromarray(flat.astype(np.float32)), "tif", flat, ""),
        "hidden": (Image.fromarray(np.dstack([flat * 100, opaque])), "png", np.where(flat == 2, 0, flat), ""),
        "fractions": (Image.fromarray(flat / np.float32(2)), "tif", "refused", "hold no label"),
        "jpeg": (Image.fromarray(flat * 50), "jpg", "refused", "values"),
        "soft": (Image.fromarray(soft), "png", "refused", "other_values"),
        "noise": (Image.fromarray(rng.integers(0, 256, flat.shape, dtype=np.uint8)), "png", "refused", "values"),
        "size": (grey.resize((35, 40)), "png", "refused", "shape"),
        "turned": (grey.transpose(Image.Transpose.ROTATE_90), "png", "refused", "shape"),
        "empty": (Image.fromarray(flat * 0), "png", "refused", "hold 0 only"),
    }
    for name, (mask, suffix, expected, cause) in samples.items():
        for below in ("images", "masks"):
            (folder / name / below).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, flat.shape, dtype=np.uint8)).save(folder / name / "images" / "a.png")
        path = folder / name / "masks" / f"a.{suffix}"
        mask.save(path)
        yield _sample(name, path, expected, cause)


def unpaired(folder: Path) -> Iterator[Sample]:
    """Masks that belong to no image, images without a mask, and two masks of one image."""
    alone = dataset(folder / "no_image", BLOBS)
    (alone.parent / "b.nii").write_bytes(alone.read_bytes())
    yield Sample("no_image", alone.parent / "b.nii", cause="has no image", kind="mask")
    without = dataset(folder / "no_mask", BLOBS)
    image = folder / "no_mask" / "images" / "b.nii"
    image.write_bytes((image.parent / "a.nii").read_bytes())
    yield Sample("no_mask", image, cause="has no mask", kind="mask")
    assert without.is_file()
    twice = dataset(folder / "two_masks", BLOBS)
    (twice.parent / "a_seg.nii").write_bytes(twice.read_bytes())
    yield Sample("two_masks", twice, cause="several masks", kind="mask")


def _with_affine(content: bytes) -> bytes:
    rows = {f"srow_{axis}": AFFINE[number] for number, axis in enumerate("xyz")}
    return with_fields(content, **rows)


def _sample(name: str, path: Path, expected: Any = "refused", cause: str = "") -> Sample:
    return Sample(name, path, expected, cause, "mask")


FAMILIES = (masks, picture_masks, unpaired)
