"""The phantom: what its heads and lesions are, and what its data sets hold on disk."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.io.layouts.synthetic import CORE, EDEMA, ENHANCING, LABELS, make_phantom, write_phantom

PARTS = (EDEMA, CORE, ENHANCING)
VOLUMES = {"dims": 3, "channels": 1, "size": 48, "seed": 0}
PICTURES = {"dims": 2, "channels": 1, "size": 96, "seed": 0}
SMALL = {"size": 20, "seed": 3, "cases": 3}


@pytest.fixture(scope="module", params=[VOLUMES, PICTURES], ids=["3d", "2d"])
def phantoms(request):
    """Eight volumes or pictures of one channel."""
    return [make_phantom(index, **request.param) for index in range(8)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- one case


@pytest.mark.parametrize("arguments", [VOLUMES | {"size": 24}, PICTURES | {"channels": 3}], ids=["3d", "2d"])
def test_arguments_alone_decide_the_result(arguments):
    np.random.seed(1)
    scan, label = make_phantom(4, **arguments)
    np.random.seed(2)
    again, label_again = make_phantom(4, **arguments)
    np.testing.assert_array_equal(scan.image, again.image)
    np.testing.assert_array_equal(scan.affine, again.affine)
    np.testing.assert_array_equal(label, label_again)
    for other in ({"index": 5}, {"index": 4, "seed": 1}):
        changed, _ = make_phantom(**(arguments | {"index": 4} | other))
        assert changed.shape != scan.shape or not np.array_equal(changed.image, scan.image)


def test_types_and_shapes(phantoms):
    for scan, label in phantoms:
        assert scan.image.dtype == np.float32
        assert label.dtype == np.uint8
        assert scan.image.shape == (1, *label.shape)
        assert np.array_equal(scan.image, np.rint(scan.image))
        assert scan.image.min() >= 0


def test_a_picture_has_eight_bits_and_pixels():
    scan, label = make_phantom(0, dims=2, channels=5, size=64, seed=0)
    assert scan.image.shape == (5, 64, 64)
    assert scan.image.max() <= 255
    assert scan.unit == "px"
    np.testing.assert_array_equal(scan.affine, np.eye(4))
    assert label.shape == (64, 64)


def test_every_part_is_there(phantoms):
    for _, label in phantoms:
        assert np.bincount(label.ravel(), minlength=4)[1:].min() >= 48
        assert label.max() < len(LABELS)


def test_parts_are_nested(phantoms):
    for _, label in phantoms:
        tumour = np.isin(label, (CORE, ENHANCING))
        assert ndimage.label(label > 0)[1] >= 1
        assert (ndimage.binary_fill_holes(label == ENHANCING) == tumour).all()  # the rim closes round the core
        around_core = ndimage.binary_dilation(label == CORE) & (label != CORE)
        assert (label[around_core] == ENHANCING).all()
        largest = np.bincount(ndimage.label(label > 0)[0].ravel())[1:].max()
        assert largest > 0.95 * (label > 0).sum()


def test_the_rim_is_thick_enough_to_learn(phantoms):
    thinnest = []
    for _, label in phantoms:
        way_out = ndimage.distance_transform_edt(np.isin(label, (CORE, ENHANCING)))
        thinnest.append(way_out[label == CORE].min())  # voxels from the core to the edema
    assert min(thinnest) > 2
    assert np.mean(thinnest) > 3


def test_background_has_the_intensities_of_every_part(phantoms):
    for scan, label in phantoms:
        image = ndimage.gaussian_filter(scan.image[0], 0.7)
        for part in PARTS:
            low, high = np.quantile(image[label == part], (0.2, 0.8))
            alike = (image > low) & (image < high)
            assert (alike & (label == 0)).sum() > 0.2 * (label == part).sum()


def best_interval_dice(values: np.ndarray, truth: np.ndarray, bins: int = 150) -> float:
    """Dice of the best of all intervals whose ends are quantiles of the values."""
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    found = np.searchsorted(edges, values, side="right")
    size = np.concatenate([[0], np.bincount(found, minlength=bins).cumsum()])
    hits = np.concatenate([[0], np.bincount(found, truth, minlength=bins).cumsum()])
    chosen, hit = size - size[:, None], hits - hits[:, None]
    return float((2 * hit / np.maximum(chosen + truth.sum(), 1)).max())


def test_best_interval_finds_a_class_that_a_threshold_can_find():
    rng = np.random.default_rng(0)
    truth = rng.random(5000) < 0.1
    assert best_interval_dice(rng.random(5000) + 2 * truth, truth) > 0.95


def test_no_intensity_interval_segments_a_part(phantoms):
    values = np.concatenate([(s.image - s.image.mean()).ravel() / s.image.std() for s, _ in phantoms])
    truth = np.concatenate([label.ravel() for _, label in phantoms])
    assert max(best_interval_dice(values, truth == part) for part in PARTS) < 0.5


def test_each_channel_has_a_contrast_of_its_own():
    scan, label = make_phantom(1, dims=2, channels=6, size=96, seed=0)
    brain = scan.image[:, 30:70, 30:70].reshape(6, -1)
    between = np.corrcoef(brain)[np.triu_indices(6, 1)]
    assert np.abs(between).max() < 0.97
    means = np.stack([scan.image[:, label == part].mean(axis=1) for part in PARTS])  # (part, channel)
    noise = np.stack([scan.image[:, label == part].std(axis=1) for part in PARTS]).mean(axis=0)
    contrast = np.abs(means[0] - means[2]) / noise  # edema against enhancing, in flair, t1gd, t1, t2
    assert contrast[1] > 3 > 1.5 > contrast[2]  # only the contrast agent tells them apart


def test_one_channel_shows_all_parts(phantoms):
    for scan, label in phantoms:
        means = [scan.image[0][label == part].mean() for part in (CORE, EDEMA, ENHANCING)]
        assert means[1] > 1.6 * means[0]
        assert means[2] > 1.15 * means[1]


# ---- geometry


def test_spacing_and_orientation_vary():
    scans = [make_phantom(index, **(VOLUMES | {"size": 16}))[0] for index in range(24)]
    spacings = np.array([scan.spacing for scan in scans])
    assert spacings.min() >= 0.8
    assert spacings.max() <= 1.5
    assert spacings.mean(axis=1).std() > 0.05
    assert (np.ptp(spacings, axis=1) > 0).all()
    assert len({nib.aff2axcodes(scan.affine) for scan in scans}) > 12


def sample(scan, points: np.ndarray) -> np.ndarray:
    """Intensities of the first channel at (N, 3) world points in mm."""
    voxels = nib.affines.apply_affine(np.linalg.inv(scan.affine), points)
    return ndimage.map_coordinates(scan.image[0], voxels.T, order=1)


def test_a_patient_has_the_same_anatomy_in_world_space():
    grid = np.stack(np.meshgrid(*[np.arange(-20, 21, 2.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    same, other = [], []
    for patient in range(2):
        first, _ = make_phantom(2 * patient, **VOLUMES)
        second, _ = make_phantom(2 * patient + 1, **VOLUMES)
        stranger, _ = make_phantom(2 * patient + 2, **VOLUMES)
        assert nib.aff2axcodes(first.affine) != nib.aff2axcodes(second.affine)
        assert not np.array_equal(first.affine, second.affine)
        shell = grid[np.linalg.norm(grid, axis=1) > 19]  # skin, skull and sulci, where no lesion is
        mirrored = shell * (1, -1, 1)
        same.append(np.corrcoef(sample(first, shell), sample(second, shell))[0, 1])
        other.append(np.corrcoef(sample(first, shell), sample(stranger, shell))[0, 1])
        assert np.corrcoef(sample(first, shell), sample(second, mirrored))[0, 1] < same[-1] - 0.05
    assert min(same) > 0.9
    assert np.mean(same) > np.mean(other)


def test_front_and_top_are_where_the_affine_says():
    for index in range(4):
        scan, label = make_phantom(index, **VOLUMES)
        world = nib.affines.apply_affine(scan.affine, np.argwhere(ndimage.gaussian_filter(scan.image[0], 1) > 150))
        front, back = (np.abs(world[side * world[:, 1] > 14][:, 0]).max() for side in (1, -1))
        assert front < back  # the head narrows towards the front
        corner = nib.affines.apply_affine(scan.affine, [np.zeros(3), np.array(label.shape) - 1])
        np.testing.assert_allclose(corner.mean(axis=0), 0, atol=1e-9)  # the world's origin is the centre of the view


def test_shape_and_spacing_make_the_field_of_view():
    scan, _ = make_phantom(3, **VOLUMES)
    np.testing.assert_allclose(np.array(scan.shape) * scan.spacing, 48 * 1.1, atol=0.75)


@pytest.mark.parametrize("wrong", [{"dims": 4}, {"channels": 0}, {"size": 15}, {"seed": -1}, {"index": -1}])
def test_arguments_out_of_range_are_named(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(MedsegError, match=f"{name}={value}"):
        make_phantom(**({"index": 0, **VOLUMES} | wrong))


# ---- data sets on disk


@pytest.mark.parametrize("channels", [1, 2])
def test_decathlon(tmp_path, channels):
    root = write_phantom(tmp_path / "new" / "set", dims=3, channels=channels, **SMALL)
    about = json.loads((root / "dataset.json").read_text())
    assert about["labels"] == {"0": "background", "1": "edema", "2": "core", "3": "enhancing"}
    assert about["modality"] == {str(channel): "MRI" for channel in range(channels)}
    assert (about["numTraining"], about["numTest"]) == (3, 2)
    assert len(about["training"]) == 3
    assert sorted(path.name for path in (root / "imagesTs").iterdir()) == [Path(test).name for test in about["test"]]
    for index, pair in enumerate(about["training"]):
        scan, label = make_phantom(index, dims=3, channels=channels, size=20, seed=3)
        image, mask = nib.load(root / pair["image"]), nib.load(root / pair["label"])
        expected = scan.image[0] if channels == 1 else np.moveaxis(scan.image, 0, -1)
        np.testing.assert_array_equal(image.get_fdata(), expected)
        np.testing.assert_array_equal(np.asarray(mask.dataobj), label)
        np.testing.assert_allclose(image.affine, scan.affine, atol=1e-5)
        np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-5)
        assert image.header.get_xyzt_units()[0] == "mm"


def test_itk_reads_the_same_geometry(tmp_path):
    root = write_phantom(tmp_path / "set", dims=3, channels=1, **SMALL)
    scan, _ = make_phantom(1, dims=3, channels=1, size=20, seed=3)
    image = sitk.ReadImage(str(root / "imagesTr" / "phantom_001.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, scan.image[0])
    np.testing.assert_allclose(image.GetSpacing(), scan.spacing, rtol=1e-5)
    far = np.array(scan.shape) - 1
    point = image.TransformIndexToPhysicalPoint([int(i) for i in far]) * np.array([-1, -1, 1])  # LPS -> RAS
    np.testing.assert_allclose(point, nib.affines.apply_affine(scan.affine, far), atol=1e-3)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_folder_of_pictures(tmp_path, channels, mode):
    root = write_phantom(tmp_path / "set", dims=2, channels=channels, **SMALL)
    images, masks = (sorted((root / name).iterdir()) for name in ("images", "masks"))
    assert [path.name for path in images] == [path.name for path in masks] == [f"case_00{i}.png" for i in range(3)]
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        scan, label = make_phantom(index, dims=2, channels=channels, size=20, seed=3)
        with Image.open(image) as picture:
            assert picture.mode == mode
            pixels = np.asarray(picture).reshape(20, 20, channels)
        np.testing.assert_array_equal(pixels, np.moveaxis(scan.image, 0, -1))
        with Image.open(mask) as picture:
            np.testing.assert_array_equal(np.asarray(picture), label)


@pytest.mark.parametrize(("dims", "channels"), [(2, 2), (2, 4)])
def test_folder_of_nifti(tmp_path, dims, channels):
    root = write_phantom(tmp_path / "set", dims=dims, channels=channels, **SMALL)
    scan, label = make_phantom(0, dims=dims, channels=channels, size=20, seed=3)
    image, mask = (nib.load(root / name / "case_000.nii.gz") for name in ("images", "masks"))
    stored = image.get_fdata().reshape(*image.shape[:3], channels)
    np.testing.assert_array_equal(np.moveaxis(stored, -1, 0).reshape(scan.image.shape), scan.image)
    assert mask.shape == image.shape[:3]
    np.testing.assert_array_equal(np.asarray(mask.dataobj).reshape(label.shape), label)


@pytest.mark.parametrize(("dims", "name"), [(3, "phantom"), (2, "case")])
def test_groups_name_the_patients(tmp_path, dims, name):
    root = write_phantom(tmp_path / "set", dims=dims, channels=1, **SMALL)
    with (root / "groups.csv").open(newline="") as file:
        groups = {row["id"]: row["group"] for row in csv.DictReader(file)}
    assert groups[f"{name}_000"] == groups[f"{name}_001"] != groups[f"{name}_002"]
    if dims == 3:  # the unlabelled cases are of patients that training never sees
        test = {path.name.removesuffix(".nii.gz") for path in (root / "imagesTs").iterdir()}
        assert test < groups.keys()
        assert not {groups[case] for case in test} & {groups[case] for case in groups.keys() - test}


def test_a_written_set_is_left_alone(tmp_path):
    arguments = {"dims": 2, "channels": 1, **SMALL}
    root = write_phantom(tmp_path / "set", **arguments)
    (root / "images" / "case_000.png").write_bytes(b"mark")
    assert write_phantom(root, **arguments) == root
    assert (root / "images" / "case_000.png").read_bytes() == b"mark"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    assert (write_phantom(tmp_path / "set", dims=2, channels=1, **SMALL) / "groups.csv").is_file()


def test_other_data_is_never_overwritten(tmp_path):
    arguments = {"dims": 2, "channels": 1, **SMALL}
    root = write_phantom(tmp_path / "set", **arguments)
    before = contents(root)
    with pytest.raises(MedsegError, match="seed=3, not 4"):
        write_phantom(root, **(arguments | {"seed": 4}))
    assert contents(root) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(MedsegError, match="something else"):
        write_phantom(tmp_path / "mine", **arguments)
    assert contents(tmp_path / "mine") == {"thesis.txt": b"years"}


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(MedsegError, match="No space left"):
        write_phantom(tmp_path / "set", dims=2, channels=1, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_writers_at_once_make_one_whole_set(tmp_path):
    arguments = {"dims": 2, "channels": 1, **SMALL}
    with ThreadPoolExecutor(4) as pool:
        roots = list(pool.map(lambda _: write_phantom(tmp_path / "set", **arguments), range(4)))
    assert set(roots) == {tmp_path / "set"}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert contents(tmp_path / "set") == contents(write_phantom(tmp_path / "alone", **arguments))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dims": 4}, "dims=4 must be 2"),
        ({"cases": 0}, "cases=0"),
        ({"channels": 0}, "channels=0"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path, wrong, words):
    with pytest.raises(MedsegError, match=words.replace(".", r"\.")):
        write_phantom(tmp_path / "set", **({"dims": 2, "channels": 1, **SMALL} | wrong))
    assert list(tmp_path.iterdir()) == []
