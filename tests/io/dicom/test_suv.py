"""PET in SUV by body weight, worked out by hand: F-18 decays to a half in 6586.2 s."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from scan_files import read_scan

from medseg.errors import MedsegError

HALF_LIFE = 6586.2


def tracer(**values):
    item = Dataset()
    content = {
        "RadionuclideTotalDose": 350e6,
        "RadionuclideHalfLife": HALF_LIFE,
        "RadiopharmaceuticalStartTime": "100000",
    }
    for keyword, value in (content | values).items():
        if value is not None:
            setattr(item, keyword, value)
    return [item]


PET = {
    "Modality": "PT",
    "Units": "BQML",
    "PatientWeight": 70.0,
    "DecayCorrection": "START",
    "SeriesDate": "20200301",
    "SeriesTime": "110000",
    "AcquisitionDate": "20200301",
    "AcquisitionTime": ("110000", "110300", "110600"),
    "RescaleSlope": (0.5, 0.25, 2.0),
    "RescaleIntercept": 0,
    "RadiopharmaceuticalInformationSequence": tracer(),
}
STORED = np.arange(36, dtype=np.int16).reshape(3, 3, 4) * np.int16(100)
ACTIVITY = STORED * np.reshape([0.5, 0.25, 2.0], (3, 1, 1))


@pytest.mark.parametrize(
    ("tags", "dose"),
    [
        ({}, 350e6 * 0.5 ** (3600 / HALF_LIFE)),
        ({"DecayCorrection": "ADMIN"}, 350e6),
        ({"SeriesTime": "150000.000000"}, 350e6 * 0.5 ** (3600 / HALF_LIFE)),
        (
            {"RadiopharmaceuticalInformationSequence": tracer(RadiopharmaceuticalStartTime="230000.5")},
            350e6 * 0.5 ** (43199.5 / HALF_LIFE),
        ),
        (
            {"RadiopharmaceuticalInformationSequence": tracer(RadiopharmaceuticalStartDateTime="20200301103000")},
            350e6 * 0.5 ** (1800 / HALF_LIFE),
        ),
    ],
    ids=["start", "admin", "made later by processing", "over midnight", "date and time"],
)
def test_activity_by_weight_and_decayed_dose(tmp_path, dicom_series, tags, dose):
    dicom_series("pet", STORED, **PET | tags)
    np.testing.assert_allclose(read_scan([tmp_path / "pet"]).image[0], ACTIVITY.T * 70_000 / dose, rtol=1e-5)


def test_values_in_suv_stay(tmp_path, dicom_series):
    dicom_series("pet", STORED, **PET | {"Units": "GML", "PatientWeight": None})
    np.testing.assert_array_equal(read_scan([tmp_path / "pet"]).image[0], ACTIVITY.T)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PatientWeight": None}, "PatientWeight is missing or 0"),
        ({"Units": "CNTS"}, "its units are CNTS, not BQML"),
        ({"DecayCorrection": "NONE"}, "its DecayCorrection is NONE, not START or ADMIN"),
        ({"RadiopharmaceuticalInformationSequence": None}, "RadionuclideTotalDose is missing"),
        ({"RadiopharmaceuticalInformationSequence": tracer(RadiopharmaceuticalStartTime=None)}, "StartTime is missing"),
        ({"SeriesTime": "noon"}, "a date or number in it cannot be read"),
    ],
)
def test_what_is_missing_is_named(tmp_path, dicom_series, tags, reason):
    dicom_series("pet", STORED, **PET | tags)
    with pytest.raises(MedsegError, match=rf"pet: PET is read in SUV \(body weight\), but .*{reason}"):
        read_scan([tmp_path / "pet"])
