"""Scans unlike the training data, against ranges worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from medseg.inference.out_of_distribution import (
    Measured,
    of_image,
    of_scan,
    of_voxels,
    range_of,
    reasons,
    shared_reasons,
    training_ranges,
)
from medseg.io.case import Scan
from medseg.io.labels import LabelMap
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint, quantiles

CLASSES = LabelMap({"background": 0, "organ": 1, "lesion": 2})
SHAPE, SPACING = (20, 24, 16), (1.0, 1.0, 3.0)


def body(seed: int, organ: int = 500, lesion: int = 30) -> tuple[Scan, CaseFingerprint]:
    """A scan like all others of this file: air around a body, with intensities as in a CT."""
    random = np.random.default_rng(seed)
    image = np.full((1, *SHAPE), -1000, np.float32)
    image[:, 4:16, 4:20] = random.normal(50, 40, (1, 12, 16, 16))
    scan = Scan(image, np.diag([*SPACING, 1.0]))
    case = CaseFingerprint(
        shape=SHAPE,
        spacing=SPACING,
        unit="mm",
        channels=1,
        voxel_hash="",
        voxels=np.array([0, organ, lesion]),
        intensities=np.empty((1, 0), np.float32),
        thumbnail=None,  # type: ignore[arg-type]
        quantiles=quantiles(scan),
        voxel_volume=3.0,
    )
    return scan, case


def ranges_of(normalize: str = "ct", cases: int = 8, **sizes: int) -> dict[str, list[float]]:
    found = {str(seed): body(seed, 500 + 10 * seed, 30 * (seed % 2))[1] for seed in range(cases)}
    return training_ranges(Fingerprint(found), CLASSES, [normalize])


def test_a_range_reaches_as_far_beyond_as_the_cases_are_apart() -> None:
    apart = [Measured(float(value), 0.5) for value in range(11)]
    assert range_of(apart) == pytest.approx([0, 10, -8, 18])  # from 1 to 9 are eight tenths
    assert range_of([Measured(2.0, 0.5)] * 4) == pytest.approx([2, 2, 1.5, 2.5])
    assert range_of([Measured(2.0)] * 4) == pytest.approx([2, 2, 2 / 1.5, 3])
    assert range_of([Measured(value) for value in (1.0, 10.0)]) == pytest.approx([1, 10, 10**-0.8, 10**1.8])


def test_a_class_that_some_cases_lack_may_be_absent_and_others_not() -> None:
    assert range_of([Measured(0.0), Measured(4.0), Measured(4.0)]) == pytest.approx([0, 4, 0, 6])
    assert range_of([Measured(0.0)] * 3) == []
    ranges = ranges_of()
    found = of_voxels({"organ": 0, "lesion": 0}, "mm", 3, 3.0)
    assert reasons(ranges, found) == {"organ in ml": "organ in ml is 0, in training 1.5 to 1.71"}


def test_a_scan_like_the_others_is_not_flagged() -> None:
    scan, _ = body(99)
    assert shared_reasons([ranges_of()], of_scan(scan) | of_voxels({"organ": 520, "lesion": 20}, "mm", 3, 3.0)) == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda scan: replace(scan, affine=scan.affine @ np.diag([2, 1, 1, 1.0])), "left-right spacing in mm is 2, in"),
        (lambda scan: replace(scan, affine=scan.affine @ np.diag([1, 1, 2, 1.0])), "head-foot extent in mm is 96, in"),
        (lambda scan: replace(scan, image=-scan.image - 950), "median of channel 1 lies from dark"),
        (lambda scan: replace(scan, image=scan.image + 1000), "the bright intensity of channel 1"),
        (lambda scan: replace(scan, image=scan.image[:, 5:8]), "left-right extent in mm is 3, in"),
    ],
)
def test_what_is_other_is_said(change, says: str) -> None:
    scan, _ = body(99)
    assert says in shared_reasons([ranges_of()], of_scan(change(scan)))


def test_the_order_of_the_files_axes_does_not_matter() -> None:
    scan, _ = body(99)
    turned = Scan(scan.image.transpose(0, 3, 1, 2), scan.affine[:, [2, 0, 1, 3]] @ np.diag([1, -1, 1, 1.0]))
    assert shared_reasons([ranges_of()], of_scan(turned)) == ""


def test_what_normalisation_makes_equal_is_not_compared() -> None:
    scan, _ = body(99)
    scaled = replace(scan, image=scan.image * 10 + 12345)
    assert shared_reasons([ranges_of("ct")], of_scan(scaled)) != ""
    assert shared_reasons([ranges_of("zscore")], of_scan(scaled)) == ""


def test_channels_without_a_file_are_not_compared() -> None:
    scan, _ = body(99)
    two = replace(scan, image=np.concatenate([scan.image, np.zeros_like(scan.image)]))
    assert not any("channel 2" in name for name in of_scan(two, [1]))
    assert any("channel 2" in name for name in of_scan(two))


def test_too_few_cases_say_nothing() -> None:
    assert ranges_of(cases=4) == {}
    assert ranges_of(cases=5)


def test_an_ensemble_is_surprised_where_all_its_models_are() -> None:
    first, second = {"a": [0, 1, 0, 1.0], "b": [0, 1, 0, 1.0]}, {"a": [0, 1, 0, 1.0], "b": [0, 3, 0, 3.0]}
    found = {"a": Measured(2), "b": Measured(2)}
    assert shared_reasons([first, second], found) == "a is 2, in training 0 to 1"


def test_pictures_are_measured_in_pixels() -> None:
    levels = np.array([[0, 10, 20, 110, 255]] * 3, np.float32)
    found = of_image((30, 40), (1, 1), "px", levels, ["zscore"] * 3) | of_voxels({"cell": 7}, "px", 2, 1.0)
    assert found["the first extent in px"].value == 30
    assert found["where the median of channel 3 lies from dark (0) to bright (1)"].value == pytest.approx(0.1)
    assert found["cell in px"].value == 7
    assert len(found) == 6
