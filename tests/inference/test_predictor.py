"""The Predictor from Python: files, lists of files, arrays and tensors, and what it says of what it cannot take."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from untrained_model import write_model

import medseg
from medseg.errors import MedsegError
from medseg.inference.predictor import Predictor

ROOT = Path(__file__).parents[2]
SHAPE = (9, 8, 7)
AFFINE = np.array([[-0.9, 0, 0.1, 4], [0, 1.1, 0, -20], [0.05, 0, 2.5, 7], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def image() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    return Predictor.load(write_model(tmp_path_factory.mktemp("model") / "m.ckpt", dims=3, channels=2), device="cpu")


@pytest.fixture
def files(tmp_path, image) -> list[Path]:
    """A file a channel."""
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path, channel in zip(paths, image, strict=True):
        nib.save(nib.Nifti1Image(channel, AFFINE), path)
    return paths


@pytest.mark.parametrize("kind", [str, Path])
def test_a_list_is_a_file_a_channel(predictor, files, image, tmp_path, kind):
    mask = predictor([kind(path) for path in files])
    other = predictor(image, affine=AFFINE)
    np.testing.assert_array_equal(mask.indices, other.indices)
    np.testing.assert_allclose(mask.scan.affine, other.scan.affine, atol=1e-6)
    assert 0 < mask.indices.sum() < mask.indices.size
    swapped = predictor(tuple(kind(path) for path in files[::-1]))
    np.testing.assert_array_equal(swapped.indices, predictor(image[::-1], affine=AFFINE).indices)
    other.save(str(tmp_path / "mask.nii.gz"))
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), mask.values)
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda image: image.astype(np.float64),
        lambda image: np.asfortranarray(image),
        lambda image: torch.from_numpy(image),
        lambda image: torch.from_numpy(image).double().requires_grad_(),
        lambda image: np.ascontiguousarray(image[..., ::-1])[..., ::-1],
    ],
)
def test_arrays_and_tensors_of_any_layout_are_one_scan(predictor, image, make):
    given = make(image)
    before = np.array(image)
    expected = predictor(image, spacing=(0.9, 1.1, 2.5)).indices
    np.testing.assert_array_equal(predictor(given, spacing=(0.9, 1.1, 2.5)).indices, expected)
    np.testing.assert_array_equal(image, before)


def test_spacing_is_mm_along_the_patients_axes(predictor, image):
    mask = predictor(torch.from_numpy(image).to(torch.bfloat16), spacing=[0.5, 1, 2])
    np.testing.assert_array_equal(mask.scan.affine, np.diag([0.5, 1, 2, 1]))
    assert mask.ml["nucleus"] == pytest.approx(mask.voxels["nucleus"] / 1000)


def test_an_array_of_one_channel_needs_no_axis_for_it(tmp_path):
    predictor = Predictor.load(write_model(tmp_path / "m.ckpt", dims=2, channels=1), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    masks = [predictor(scan) for scan in (tmp_path / "a.png", pixels, pixels[None], torch.from_numpy(pixels))]
    for mask in masks:
        np.testing.assert_array_equal(mask.indices, masks[0].indices)
        assert mask.scan.unit == "px"
        assert mask.ml is None
    assert predictor(pixels, spacing=(0.5, 0.5)).scan.unit == "mm"
    masks[1].save(tmp_path / "b.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), masks[0].values)


@pytest.mark.parametrize(
    ("scan", "options", "message"),
    [
        (np.zeros((3, *SHAPE)), {"spacing": (1, 1, 1)}, "3 channel.*takes 3D images with 2 channel"),
        (np.zeros(SHAPE), {"spacing": (1, 1, 1)}, "1 channel.*takes 3D images with 2 channel"),
        (np.zeros((8, 8)), {"spacing": (1, 1, 1)}, r"shape \(8, 8\).*3D scans.*\(channels, \*spatial\)"),
        (np.zeros((2, 0, 8, 8)), {"spacing": (1, 1, 1)}, "shape"),
        (np.zeros((2, *SHAPE)), {}, "spacing in mm"),
        (np.zeros((2, *SHAPE)), {"spacing": (1, 1)}, "3 axes"),
        (np.zeros((2, *SHAPE)), {"spacing": (1, 1, 0)}, "above 0"),
        (np.zeros((2, *SHAPE)), {"spacing": (1, 1, np.nan)}, "above 0"),
        (np.zeros((2, *SHAPE)), {"spacing": (1, 1, 1e-304)}, "from 1e-09 to 1e"),
        (np.zeros((2, *SHAPE)), {"spacing": (1, 1, np.inf)}, "from 1e-09 to 1e"),
        (np.zeros((2, *SHAPE)), {"affine": np.diag([1e-304, 1e-304, 1e-304, 1])}, "voxels of 1e-09"),
        (np.zeros((2, *SHAPE)), {"affine": np.diag([1e99, 1e99, 1e99, 1])}, "voxels of 1e-09"),
        (np.zeros((2, *SHAPE)), {"spacing": (1, 1, 1), "affine": np.eye(4)}, "exclude each other"),
        (np.zeros((2, *SHAPE)), {"affine": np.eye(3)}, "4x4"),
        (np.zeros((2, *SHAPE)), {"affine": np.zeros((4, 4))}, "4x4"),
        (np.full((2, *SHAPE), np.nan), {"spacing": (1, 1, 1)}, "1008 values are NaN or infinite"),
        (np.full((2, *SHAPE), 1e300), {"spacing": (1, 1, 1)}, "1008 values are NaN or infinite"),
        (np.zeros((2, *SHAPE), complex), {"spacing": (1, 1, 1)}, "real numbers"),
        (np.array(["a", "b"]), {}, "real numbers"),
        ([], {}, "list of files"),
        ([np.zeros(SHAPE), np.zeros(SHAPE)], {}, r"list of ndarray.*Stack arrays"),
        (None, {}, "NoneType"),
        (7, {}, "int"),
        ("a.nii.gz", {"spacing": (1, 1, 1)}, "for arrays"),
    ],
)
def test_what_is_no_scan_is_named(predictor, scan, options, message):
    with pytest.raises(MedsegError, match=message):
        predictor(scan, **options)


def test_too_few_files_are_named(predictor, files):
    with pytest.raises(MedsegError, match=r"1 channel.*takes 3D images with 2 channel"):
        predictor(files[:1])
    with pytest.raises(MedsegError, match="no such file"):
        predictor([files[0], "nowhere.nii.gz"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.png", "a 2D image has two axes"), ("x.tif", "two axes"), ("x.bmp", "two axes"), ("x.jpg", "Call it x.png")],
)
def test_a_volume_is_saved_as_no_picture(predictor, image, tmp_path, name, message):
    with pytest.raises(MedsegError, match=message):
        predictor(image, affine=AFFINE).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_mask_is_not_saved_with_loss(tmp_path):
    predictor = Predictor.load(write_model(tmp_path / "m.ckpt", dims=2, channels=1), device="cpu")
    mask = predictor(np.random.default_rng(0).normal(size=(20, 30)))
    with pytest.raises(MedsegError, match=r"Call it mask\.png"):
        mask.save(tmp_path / "mask.jpeg")


def test_scans_and_masks_describe_themselves_without_their_voxels(predictor, image):
    mask = predictor(image, affine=AFFINE)
    assert repr(mask) == f"Mask(shape=(9, 8, 7), voxels={mask.voxels}, unit='mm')"
    assert repr(mask.scan).startswith("Scan(channels=2, shape=(9, 8, 7), spacing=(")
    assert len(repr(mask.scan)) < 100


def test_the_package_lists_the_predictor_before_it_is_imported():
    code = "import sys, medseg; assert 'Predictor' in dir(medseg); assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert medseg.Predictor is Predictor
