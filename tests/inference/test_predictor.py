"""The Predictor from Python: files, lists of files, arrays and tensors, and what it says of what it cannot take."""

import io
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
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


@pytest.mark.parametrize(("dims", "is_mirrored"), [(2, True), (3, False)])
def test_pictures_are_mirrored_unless_the_settings_say_otherwise(tmp_path, dims, is_mirrored):
    path = write_model(tmp_path / "m.ckpt", dims=dims, channels=1, tta=None, mirror_axes=(0, 1))
    scan = np.random.default_rng(0).normal(size=(1, *[8] * dims)).astype(np.float32)
    by_itself, with_mirroring, without = (
        Predictor.load(path, device="cpu", inference=given).probabilities(scan, affine=np.eye(4))
        for given in ({}, {"tta": True}, {"tta": False})
    )
    expected, other = (with_mirroring, without) if is_mirrored else (without, with_mirroring)
    np.testing.assert_array_equal(by_itself, expected)
    assert np.abs(by_itself - other).max() > 1e-4


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
    assert mask.ml["nucleus"] == mask.voxels["nucleus"] / 1000  # as one would write it down


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


@pytest.mark.parametrize("form", ["seg.nrrd", None], ids=["by format", "by suffix"])
def test_a_mask_is_saved_with_the_names_of_its_classes(predictor, image, tmp_path, form):
    mask = predictor(image, affine=AFFINE)
    mask.save(tmp_path / "mask.seg.nrrd", format=form)
    header, names = nrrd.read_header(str(tmp_path / "mask.seg.nrrd")), list(mask.voxels)
    assert [header[f"Segment{number}_Name"] for number in range(len(names))] == names


def test_codes_are_refused_by_a_format_that_holds_none(predictor, image, tmp_path):
    code = {"value": "1", "scheme": "99LOCAL", "meaning": "edema"}
    with pytest.raises(MedsegError, match=r"mask\.nrrd: this format holds no codes of classes"):
        predictor(image, affine=AFFINE).save(tmp_path / "mask.nrrd", codes={"edema": code})


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("mask.nrrd", "seg.nrrd", r"has the suffix \.seg\.nrrd: mask\.seg\.nrrd"),
        ("mask.dcm", "dicomseg", "no format of masks. Did you mean 'dicom_seg'"),
        ("mask.dcm", "dicom_seg", "refers to a DICOM series"),
        ("mask.dcm", None, "Call it mask.nii.gz"),
    ],
)
def test_a_mask_is_saved_under_no_wrong_name_or_format(predictor, image, tmp_path, name, form, message):
    with pytest.raises(MedsegError, match=message):
        predictor(image, affine=AFFINE).save(tmp_path / name, format=form)
    assert not list(tmp_path.iterdir())


def test_scans_and_masks_describe_themselves_without_their_voxels(predictor, image):
    mask = predictor(image, affine=AFFINE)
    assert repr(mask) == f"Mask(shape=(9, 8, 7), voxels={mask.voxels}, unit='mm')"
    assert repr(mask.scan).startswith("Scan(channels=2, shape=(9, 8, 7), spacing=(")
    assert len(repr(mask.scan)) < 100


def oblique(image: NDArray[np.float32]) -> nib.Nifti1Image:
    """The channels as one image of nibabel's, in micrometres."""
    made = nib.Nifti1Image(np.moveaxis(image, 0, -1), np.diag([1e3, 1e3, 1e3, 1]) @ AFFINE)
    made.header.set_xyzt_units("micron")
    return made


def of_sitk(image: NDArray[np.float32]) -> SimpleITK.Image:
    """The channels as components of one image of SimpleITK's, on an oblique grid without shear."""
    made = SimpleITK.GetImageFromArray(np.moveaxis(image, 0, -1).transpose(2, 1, 0, 3), isVector=True)
    made.SetSpacing((0.9, 1.1, 2.5))
    made.SetOrigin((4.0, -20.0, 7.0))
    made.SetDirection(nib.eulerangles.euler2mat(0.2, -0.1, 0.3).ravel().tolist())
    return made


def test_an_image_of_nibabels_is_a_scan_in_mm(predictor, files, image, tmp_path):
    mask = predictor(oblique(image))
    np.testing.assert_array_equal(mask.indices, predictor(files).indices)
    np.testing.assert_allclose(mask.scan.affine, AFFINE, atol=1e-5)
    mask.save(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(medseg.read_scan(tmp_path / "mask.nii.gz").affine, AFFINE, atol=1e-5)


def test_a_volume_of_simpleitks_is_the_scan_of_its_file(predictor, image, tmp_path):
    scan = of_sitk(image)
    SimpleITK.WriteImage(scan, str(tmp_path / "scan.nrrd"))
    mask, of_file = predictor(scan), predictor(tmp_path / "scan.nrrd")
    np.testing.assert_array_equal(mask.indices, of_file.indices)
    np.testing.assert_allclose(mask.scan.affine, of_file.scan.affine, atol=1e-6)
    np.testing.assert_array_equal(mask.scan.image, image)
    with pytest.raises(MedsegError, match=r"SimpleITK image of 2 dimensions: .*GetArrayFromImage"):
        predictor(SimpleITK.GetImageFromArray(image[0, 0]))


@pytest.mark.parametrize("space", ["RAS", "LPS"])
def test_a_metatensor_has_its_own_affine(predictor, image, space):
    stored = AFFINE if space == "RAS" else np.diag([-1, -1, 1, 1]) @ AFFINE
    tensor = MetaTensor(torch.from_numpy(image), affine=torch.from_numpy(stored), meta={"space": space})
    mask = predictor(tensor)
    np.testing.assert_array_equal(mask.indices, predictor(image, affine=AFFINE).indices)
    np.testing.assert_allclose(mask.scan.affine, AFFINE)
    with pytest.raises(MedsegError, match="have their own"):
        predictor(tensor, spacing=(1, 1, 1))


def test_a_metatensor_without_an_affine_is_a_2d_image():
    scan = medseg.read_scan(MetaTensor(torch.zeros(1, 4, 5)))
    assert (scan.unit, scan.shape) == ("px", (4, 5))


def test_probabilities_and_uncertainty_lie_on_the_scans_grid(predictor, image):
    probs = predictor.probabilities(image, affine=AFFINE)
    assert (probs.shape, probs.dtype) == ((2, *SHAPE), np.float32)
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(probs.argmax(0), predictor(image, affine=AFFINE).indices)
    uncertainty = predictor.uncertainty(image, affine=AFFINE)
    expected = -(probs * np.log2(probs)).sum(0)  # of two classes, in bits
    np.testing.assert_allclose(uncertainty, expected, atol=1 / 255)


def test_many_scans_are_segmented_in_order(predictor, image):
    scans = [medseg.Scan(image * factor, AFFINE) for factor in (1, -1, 1)]
    masks = list(predictor.many(iter(scans)))
    for mask, scan in zip(masks, scans, strict=True):
        np.testing.assert_array_equal(mask.indices, predictor(scan).indices)
    assert not np.array_equal(masks[0].indices, masks[1].indices)


def test_a_broken_scan_in_a_folder_stops_no_other(tmp_path):
    predictor = Predictor.load(write_model(tmp_path / "m.ckpt", dims=2, channels=1), device="cpu")
    scans = tmp_path / "scans"
    (scans / "b").mkdir(parents=True)
    (scans / "broken.png").write_bytes(b"\x89PNG, and no more")
    for name in ("a.png", "b/c.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)).save(scans / name)
    found, masks = [], predictor.folder(scans)
    with pytest.raises(MedsegError, match=r"all scans are segmented but 1:\n  - broken: "):
        found.extend(masks)
    assert [name for name, _ in found] == ["a", "b/c"]
    assert found[0][1].indices.shape == (20, 30)
    (scans / "broken.png").unlink()
    assert len(dict(predictor.folder(str(scans)))) == 2


def test_a_notebook_shows_a_mask_over_its_scan(predictor, image):
    picture = Image.open(io.BytesIO(predictor(image, affine=AFFINE)._repr_png_()))
    assert picture.format == "PNG"
    assert 400 < picture.width < 1300
    assert repr(predictor) == "Predictor(3D, 2 channel(s), finds=['nucleus'], models=1, device='cpu')"


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys, medseg; assert 'Predictor' in dir(medseg); assert not {'torch', 'numpy', 'hydra'} & {*sys.modules}"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert medseg.Predictor is Predictor
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        _ = medseg.predict
