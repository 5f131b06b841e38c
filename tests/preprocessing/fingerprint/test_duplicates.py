"""Intensity steps and same scans, on numbers made for it and on real scans whose patients are known."""

import csv

import nibabel as nib
import numpy as np
import pytest
from scan_files import read_scan

from medseg.io.case import Scan
from medseg.io.datasets.splits import Split
from medseg.io.files.read import find_images, stem
from medseg.preprocessing.fingerprint.duplicates import (
    EQUAL,
    Acquisition,
    SameScan,
    acquisition,
    by_acquisition,
    intensity_step,
    is_placed,
    is_round,
    levels_of,
    probable_same_scans,
    same_scans,
    warn_of_split_scans,
)

IDENTITY = np.eye(4)
OBLIQUE = np.array([[0.9, 0.1, 0, -81.2173], [-0.1, 0.9, 0, 33.1177], [0, 0, 3, -52.9031], [0, 0, 0, 1]])


def taken(step, affine=IDENTITY, header=("dcm2niix",), telling=True):
    return Acquisition((step,), tuple(affine[:3].ravel()), header, telling)


def scan_of(values, affine=IDENTITY, unit="mm"):
    return Scan(np.asarray(values, dtype=np.float32), affine, unit)


@pytest.mark.parametrize("step", [1.0, 0.1075201, 5.95897, 3112.58862, 1 / 4095])
@pytest.mark.parametrize("offset", [0.0, -17.25])
def test_the_step_of_scaled_whole_numbers_is_found_again(step, offset):
    whole = np.random.default_rng(0).gamma(2, 120, size=(20, 21, 22)).astype(np.int16)
    image = (whole * np.float32(step) + np.float32(offset * step)).astype(np.float32)
    assert intensity_step(levels_of(image)) == pytest.approx(step, rel=1e-6)


def test_a_step_is_found_that_no_two_neighbouring_values_differ_by():
    whole = np.cumsum(np.resize([46, 47, 46, 46, 47], 200))
    assert intensity_step(np.float64(np.float32(whole * 0.104695))) == pytest.approx(0.104695, rel=1e-6)


def test_values_without_a_step():
    smooth = np.random.default_rng(0).normal(size=(20, 21, 22)).astype(np.float32)
    assert np.isnan(intensity_step(levels_of(smooth)))
    assert np.isnan(intensity_step(np.array([0.0, 5.95897, 11.91794])))  # too few to tell


@pytest.mark.parametrize("number", [1, 0.5, 0.1, 2.5, 1 / 255, 1 / 4095, 1 / 65535, 100, 0.0625])
def test_round_numbers(number):
    assert is_round(number)


@pytest.mark.parametrize("number", [5.95897, 0.1075201, 3112.58862, 7.3577])
def test_numbers_that_are_not_round(number):
    assert not is_round(number)


def test_an_image_scaled_to_a_range_of_whole_numbers_tells_nothing():
    whole = np.random.default_rng(0).gamma(2, 120, size=(1, 20, 21, 22)).astype(np.int16)
    whole[0, 0, 0, 0] = 0
    assert not acquisition(scan_of(whole * (255 / whole.max()))).telling
    assert not acquisition(scan_of(whole / whole.max())).telling
    assert not acquisition(scan_of(whole)).telling
    assert acquisition(scan_of(whole * 5.95897)).telling


def test_pictures_have_no_acquisition():
    assert acquisition(scan_of(np.arange(256).reshape(1, 16, 16), unit="px")) is None


def test_positions_of_atlases_and_converters_tell_nothing():
    shape = (40, 50, 20)
    centred = np.diag([0.7, 0.7, 3.1, 1])
    centred[:3, 3] = -(np.array(shape) - 1) / 2 * [0.7, 0.7, 3.1]
    atlas = np.array([[-1, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1.0]])
    assert not any(is_placed(affine, shape) for affine in (IDENTITY, centred, atlas))
    assert is_placed(OBLIQUE, shape)


def test_equal_acquisitions_are_named_unless_many_share_them():
    names = [f"c{number:02d}" for number in range(40)]
    steps = dict(zip(names, np.linspace(5, 9, 40), strict=True))
    steps["c07"] = steps["c21"] * (1 + 2e-8)
    steps |= dict.fromkeys(names[30:35], 6.6661)
    (found,) = probable_same_scans({name: taken(step) for name, step in steps.items()})
    assert found.cases == ("c07", "c21")


@pytest.mark.parametrize(
    "other", [taken(5.958971 * 1.0001), taken(5.95897, np.diag([1, 1, 2, 1])), taken(5.95897, header=("other",))]
)
def test_all_of_an_acquisition_must_agree(other):
    rest = {name: taken(step) for name, step in (("c", 6.1234), ("d", 7.1234))}
    assert probable_same_scans({"a": taken(5.95897), "b": other, **rest}) == []
    assert len(probable_same_scans({"a": taken(5.95897), "b": taken(5.95897), **rest})) == 1


def test_channels_without_a_step_agree():
    both = Acquisition((float("nan"), 5.95897), tuple(IDENTITY[:3].ravel()), (), True)
    third = Acquisition((float("nan"), 6.95897), tuple(IDENTITY[:3].ravel()), (), True)
    (found,) = probable_same_scans({"a": both, "b": both, "c": third})
    assert found.cases == ("a", "b")


def test_pairs_by_number_follow_pairs_by_acquisition():
    pairs = {f"p_{2 * k + side:03d}": taken(5 + k / 7) for k in range(1, 13) for side in (-1, 0)}
    silent = {f"p_{number:03d}": taken(1.0, telling=False) for number in (31, 32, 34, 35, 41, 43, 44)}
    found = probable_same_scans(pairs | silent)
    assert len(found) == 12 + 2
    assert [same.cases for same in found[12:]] == [("p_031", "p_032"), ("p_043", "p_044")]
    assert "12 sets" in found[-1].reason
    few = {name: case for name, case in pairs.items() if name < "p_009"}
    assert len(probable_same_scans(few | silent)) == 4  # four pairs are too few to tell how cases are numbered


def test_sets_of_three_by_number_follow_sets_by_acquisition():
    sets = {f"p{3 * k + part}": taken(5 + k / 7) for k in range(1, 13) for part in range(3)}
    silent = {f"p{number}": taken(1.0, telling=False) for number in (60, 61, 62, 64, 65, 66, 69, 70)}
    found = probable_same_scans(sets | silent)
    assert [same.cases for same in found[12:]] == [("p60", "p61", "p62")]


def test_a_group_silences_probable_but_not_equal_scans():
    acquisitions = {name: taken(step) for name, step in (("a", 5.1234), ("b", 5.1234), ("c", 6.1), ("d", 6.2))}
    hashes = {"a": "1", "b": "2", "c": "3", "d": "3"}
    own = {name: name for name in hashes}
    assert [same.cases for same in same_scans(hashes, acquisitions, own)] == [("c", "d"), ("a", "b")]
    grouped = dict.fromkeys(hashes, "patient")
    assert same_scans(hashes, acquisitions, grouped) == [SameScan(("c", "d"), EQUAL)]


def test_a_scan_of_equal_voxels_and_acquisition_is_named_once():
    acquisitions = {name: taken(step) for name, step in (("a", 5.1234), ("b", 5.1234), ("c", 6.1))}
    hashes = {"a": "1", "b": "1", "c": "3"}
    assert same_scans(hashes, acquisitions, {name: name for name in hashes}) == [SameScan(("a", "b"), EQUAL)]


def test_only_parted_scans_are_warned_of(caplog):
    split = Split(("a", "b", "e"), ("c",), ("d",))
    warn_of_split_scans([SameScan(("a", "b"), EQUAL), SameScan(("b", "e"), "maybe")], split)
    assert not caplog.text
    warn_of_split_scans([SameScan(("a", "c"), EQUAL), SameScan(("b", "d"), "maybe")], split)
    assert "a (train) = c (val)" in caplog.text
    assert "probably the same scan" in caplog.text
    assert "b (train) = d (test): maybe" in caplog.text


def acquisitions_of(folder):
    return {stem(path): acquisition(read_scan([path])) for path in find_images(folder)}


@pytest.fixture(scope="module")
def hippocampus(real_data):
    folder = real_data / "hippocampus"
    with (folder / "groups.csv").open() as file:
        groups = {row["id"]: row["group"] for row in csv.DictReader(file)}
    return acquisitions_of(folder / "imagesTr"), groups


def test_the_two_sides_of_each_hippocampus_scan_are_named_and_nothing_else(hippocampus):
    acquisitions, groups = hippocampus
    scans = {group: [name for name in groups if groups[name] == group] for group in groups.values()}
    true = {tuple(names) for names in scans.values() if len(names) == 2}
    found = probable_same_scans(acquisitions)
    assert len(true) == 68
    assert {same.cases for same in found} == true
    # 17 of the pairs are stored as whole numbers: these are known by their numbering only
    assert sum("numbered" in same.reason for same in found) == 17


def test_hippocampi_with_groups_are_silent(hippocampus):
    acquisitions, groups = hippocampus
    assert same_scans({name: name for name in groups}, acquisitions, groups) == []


@pytest.mark.parametrize("folder", ["nuclei/images", "cardiac_slices/Images"])
def test_pictures_are_silent(real_data, folder):
    assert probable_same_scans(acquisitions_of(real_data / folder)) == []


def test_blocks_of_one_scan_in_an_atlas_are_told_by_their_step_alone(real_data):
    scan = read_scan([real_data / "ms_lesions/patient07/FLAIR.nii.gz"])
    stored = nib.load(real_data / "ms_lesions/patient07/FLAIR.nii.gz").dataobj
    first, second = (acquisition(scan_of(scan.image[:, side], scan.affine)) for side in (slice(90), slice(90, None)))
    assert first.steps[0] == pytest.approx(stored.slope, rel=1e-6)
    others = {f"other {step}": taken(step, scan.affine, ()) for step in (0.2, 0.3, 0.4)}
    (found,) = probable_same_scans({"a": first, "b": second, **others})
    assert found.cases == ("a", "b")
    whole = scan.image / np.float32(stored.slope)
    silent = {str(place): acquisition(scan_of(np.round(whole[:, :, place:]), scan.affine)) for place in range(3)}
    assert probable_same_scans(silent) == []


@pytest.mark.parametrize("dims", [2, 3])
def test_phantoms_are_silent(tmp_path, dims):
    from medseg.io.layouts import phantom

    cases = phantom(root=tmp_path, dims=dims, channels=2, cases=12, size=24, seed=0).cases
    assert probable_same_scans({case.id: acquisition(read_scan(case.images)) for case in cases}) == []


def test_acquisitions_are_grouped_as_by_comparing_all_pairs():
    rng = np.random.default_rng(0)
    kinds = [(rng.choice([0.3, 5.95897, np.nan], 2), rng.integers(0, 2, 12).astype(float)) for _ in range(4)]
    taken = {}
    for number in range(150):  # some on either side of what counts as equal
        steps, affine = kinds[number % 4]
        steps = steps * (1 + rng.choice([0, 1e-7, 9e-7, 1.2e-6, -1e-6]))
        affine = affine + rng.choice([0, 0, 0, 9e-5, 1.1e-4, -5e-5], 12)
        taken[f"case_{number}"] = Acquisition(tuple(steps), tuple(affine), "header", telling=True)
    left, expected = list(taken), []
    while left:
        first = taken[left[0]]
        same = [
            name
            for name in left
            if np.allclose(taken[name].affine, first.affine, rtol=0, atol=1e-4)
            and np.allclose(taken[name].steps, first.steps, rtol=1e-6, atol=0, equal_nan=True)
        ]
        expected.append(same)
        left = [name for name in left if name not in same]
    assert by_acquisition(taken) == expected
