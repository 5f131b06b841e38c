"""Masks that are not what they seem are named with the setting that reads them; real structures are not."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.io.case import Dataset, LabelFile
from medseg.io.datasets.dataset import label_map
from medseg.io.labels import LabelMap
from medseg.io.layouts.image_folder import folder
from medseg.preprocessing.quality.check_dataset import check_dataset, examine
from medseg.preprocessing.quality.warnings import data_warnings

CASES = 4


def body(number):
    """Return two discs of the classes 1 and 2 (48, 56)."""
    rows, columns = np.mgrid[:48, :56]
    first = (rows - 14 - number) ** 2 + (columns - 16) ** 2 < 90
    second = (rows - 33) ** 2 + (columns - 38 + number) ** 2 < 70
    return first + 2 * second.astype(np.uint8)


def balls(number, radii, values):
    """Return nested balls (30, 30, 20), the innermost first."""
    grid = np.indices((30, 30, 20)) - np.reshape([14 + number, 15, 10], (3, 1, 1, 1))
    distance = np.sqrt((grid**2).sum(axis=0))
    return np.select([distance < radius for radius in radii], values, 0).astype(np.uint8)


@pytest.fixture
def data(tmp_path):
    """Return ``data(save_mask)``: a folder of images with the masks that ``save_mask(number, path)`` writes."""

    def write(save_mask, suffix=".png", image_options=None):
        for number in range(CASES):
            for name in ("images", "masks"):
                (tmp_path / name).mkdir(exist_ok=True)
            generator = np.random.default_rng(number)
            if suffix == ".nii.gz":
                image = nib.Nifti1Image(generator.normal(size=(30, 30, 20)).astype(np.float32), np.eye(4))
                nib.save(image, tmp_path / f"images/c{number}.nii.gz")
            else:
                pixels = generator.integers(0, 60, (48, 56)) + 80 * body(number)
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(tmp_path / f"images/c{number}.jpg", **(image_options or {}))
            save_mask(number, tmp_path / f"masks/c{number}{suffix}")
        return folder(tmp_path)

    return write


def told(dataset: Dataset, labels=None, **reading):
    """Return level, kind and text of what is said of a data set that is read so."""
    cases = tuple(replace(case, **reading) for case in dataset.cases)
    classes = LabelMap(labels) if labels else label_map(replace(dataset, cases=cases))
    usable, findings = examine(cases, classes)
    return [(found.level, found.kind, found.text) for found in findings + data_warnings(usable, classes)]


def grey(levels):
    return lambda number: np.array(levels, dtype=np.uint8)[body(number)]


def as_jpeg(number, path, quality=100, levels=(0, 255, 255)):
    Image.fromarray(grey(levels)(number)).save(path, quality=quality)


def as_jpeg_made_png(number, path):
    as_jpeg(number, path.with_suffix(".tmp.jpg"), quality=95)
    Image.open(path.with_suffix(".tmp.jpg")).save(path)
    path.with_suffix(".tmp.jpg").unlink()


def with_smooth_edges(number, path):
    large = np.kron(body(number) > 0, np.ones((4, 4), np.uint8)) * np.uint8(255)
    Image.fromarray(large).rotate(7).resize((56, 48), Image.Resampling.BOX).save(path)


def with_smooth_colours(number, path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], dtype=float)[body(number)]
    Image.fromarray(ndimage.uniform_filter(colours, (2, 2, 1)).astype(np.uint8)).save(path)


@pytest.mark.parametrize(
    ("save_mask", "suffix", "kind"),
    [
        (as_jpeg, ".jpg", "lossy mask"),
        (as_jpeg_made_png, ".png", "rim of a mask"),
        (with_smooth_edges, ".png", "rim of a mask"),
    ],
)
def test_values_that_are_no_classes_are_refused_and_then_read_as_meant(data, save_mask, suffix, kind):
    dataset = data(save_mask, suffix)
    (finding,) = told(dataset)
    assert finding[:2] == ("error", kind)
    assert "dataset.labels='{background: 0, foreground: 255}', and dataset.other_values=nearest" in finding[2]
    with pytest.raises(MedsegError, match=r"dataset\.other_values=nearest"):
        check_dataset(dataset.cases, label_map(dataset))
    assert told(dataset, {"background": 0, "foreground": 255}, other_values="nearest") == []
    assert told(dataset, {"background": 0, "foreground": 255}, other_values="ignore") == []


def test_mixtures_of_colours_are_refused(data):
    (finding,) = told(data(with_smooth_colours))
    assert finding[:2] == ("error", "rim of a mask")
    assert '{background: 0, class_0000ff: "#0000ff", class_ff0000: "#ff0000"}' in finding[2]


def test_over_32_values_are_refused_with_the_setting_that_reads_them(data):
    with pytest.raises(MedsegError, match=r"over 32 values.*dataset\.other_values=nearest"):
        told(data(lambda number, path: as_jpeg(number, path, quality=50), ".jpg"))


def test_lossy_masks_of_declared_classes_are_a_warning(data):
    dataset = data(
        lambda number, path: Image.fromarray(np.full((48, 56), 255 * (number % 2), np.uint8)).save(path), ".jpg"
    )
    (finding,) = [found for found in told(dataset, {"background": 0, "a": 255}) if found[1] != "empty mask"]
    assert finding[:2] == ("warning", "lossy mask")


def test_resampled_labels_are_refused_and_then_read_as_meant(data):
    def resampled(number, path):
        smooth = ndimage.zoom(balls(number, (4, 7), (4, 1)).astype(float), 1.5, order=1)[:30, :30, :20]
        nib.save(nib.Nifti1Image(np.rint(smooth).astype(np.uint8), np.eye(4)), path)

    dataset = data(resampled, ".nii.gz")
    (finding,) = told(dataset)
    assert finding[:2] == ("error", "rim of a mask")
    assert "occur: class_2, class_3." in finding[2]
    assert "dataset.labels='{background: 0, class_1: 1, class_4: 4}'" in finding[2]
    declared = told(dataset, {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4})
    assert [(level, kind) for level, kind, _ in declared] == [("warning", "rim of a mask")]
    assert told(dataset, {"background": 0, "class_1": 1, "class_4": 4}, other_values="nearest") == []


@pytest.mark.parametrize(
    ("radii", "values"),
    [((4, 6, 9), (4, 1, 2)), ((4, 5, 9), (4, 1, 2)), ((6, 7.6), (3, 2)), ((3, 6, 9), (1, 3, 2))],
    ids=["tumour in oedema", "thin core", "heart's wall of two voxels", "organs"],
)
def test_nested_structures_are_no_rims(data, radii, values):
    def save_mask(number, path):
        nib.save(nib.Nifti1Image(balls(number, radii, values), np.eye(4)), path)

    assert told(data(save_mask, ".nii.gz")) == []


def test_grey_values_of_classes_are_no_noise(data):
    assert told(data(lambda number, path: Image.fromarray(grey((0, 120, 128))(number)).save(path))) == []


def test_hidden_colours_are_named_and_whole_ones_are_not(data):
    def rgba(number, path, alpha=(0, 255, 255)):
        colours = np.array([[255, 0, 0], [255, 0, 0], [0, 255, 0]], dtype=np.uint8)[body(number)]
        Image.fromarray(np.dstack([colours, grey(alpha)(number)])).save(path)

    (finding,) = told(data(rgba))
    assert finding[:2] == ("warning", "transparent mask")
    assert told(data(lambda number, path: rgba(number, path, (255, 255, 255)))) == []


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_pictures_are_named(data, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation

    def save_mask(number, path):
        Image.fromarray(grey((0, 255, 255))(number)).save(path, exif=exif)

    dataset = data(save_mask, image_options={"exif": exif})
    (finding,) = told(dataset)
    assert finding[:2] == ("warning", "orientation")
    assert "dataset.orientation=ignore" in finding[2]
    assert told(dataset, orientation="ignore") == []


def test_soft_masks_of_one_class_are_named(data):
    dataset = data(with_smooth_edges)
    cases = tuple(replace(case, labels=(LabelFile(case.labels[0].path, 1),)) for case in dataset.cases)
    labels = {"background": 0, "a": 1}
    (finding,) = told(replace(dataset, cases=cases), labels)
    assert finding[:2] == ("warning", "mask values")
    assert told(replace(dataset, cases=cases), labels, other_values="nearest") == []
