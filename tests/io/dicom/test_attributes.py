"""What DICOM files say of patient and study: valid values are copied, certain ones mended, all others left empty."""

import warnings
from io import BytesIO

import pytest

from medseg.io.dicom.attributes import patient_and_study

pydicom = pytest.importorskip("pydicom")
GERMAN, CHINESE = "Müller^Jörg", "张^三"

CASES = [
    *(("PatientBirthDate", text, "19600102") for text in ("19600102", "19600102 ", "1960-01-02", "1960.01.02")),
    *(("PatientBirthDate", text, "19600102") for text in ("1960/1/2", "1960 01 02", "02-JAN-1960", "19600102120000")),
    *(("PatientBirthDate", text, "19600102") for text in ("1960-01-02T12:00:00", "19600102\0", "1960-01-02 12:00")),
    *(("PatientBirthDate", text, "19601231") for text in ("31/12/1960", "12/31/1960", "31.12.1960", "12-31-1960")),
    ("PatientBirthDate", "02/02/1960", "19600202"),
    ("PatientBirthDate", "20000229", "20000229"),
    *(("PatientBirthDate", text, "") for text in ("", "1960", "196001", "01/02/1960", "00000000", "0000", "19600230")),
    *(("PatientBirthDate", text, "") for text in ("19600101-19601231", "60-01-02", "unknown", "00010101", "044Y")),
    *(("PatientBirthDate", text, "") for text in ("1960-01/02", "19600102\\19600103", "١٩٦٠٠١٠٢x", "13/13/1960")),
    *(("StudyTime", text, text) for text in ("12", "1200", "120030", "120030.5", "235960", "000000.123456")),
    *(
        ("StudyTime", text, "1230")
        for text in ("12:30", "1230 ", "12:30Z", "2020-01-01 12:30", "12:30 PM", "1230+0100")
    ),
    *(("StudyTime", text, "123015.123456") for text in ("123015.1234567", "12:30:15.1234567", "12:30:15,123456")),
    *(("StudyTime", text, "003015") for text in ("12:30:15 AM", "0:30:15", "20200101003015")),
    *(
        ("StudyTime", text, "")
        for text in ("", "24", "2400", "126000", "123", "12305", "noon", "13:00 PM", "12:3", "٣٠:١٢")
    ),
    *(("PatientSex", text, "M") for text in ("M", "M ", "m", "male", "MALE ", "männlich", "Homme", "M\\M")),
    *(("PatientSex", text, "F") for text in ("F", "f ", "Female", "woman", "weiblich", "W", "mujer")),
    *(("PatientSex", text, "O") for text in ("O", "other", "divers")),
    *(("PatientSex", text, "") for text in ("", "2", "1", "U", "unknown", "M\\F", "MF", "?")),
    *(("PatientID", text, text) for text in ("7", "A-7_b", "7" * 64, "ü7")),
    *(("PatientID", text, "") for text in ("", "7" * 65, "7\\8", "7\n8", "7\x018")),
    ("PatientID", " 7  ", "7"),
    *(("StudyID", text, text) for text in ("1", "S" * 16)),
    ("StudyID", "S" * 17, ""),
    ("AccessionNumber", "A" * 17, ""),
    *(
        ("PatientName", text, text)
        for text in ("A^B", "A", "A^B^C^D^E", "A^B=三^张=c", "x" * 64, "x" * 64 + "=" + "y" * 64)
    ),
    ("PatientName", "A^B^C^D^E^F^^G", "A^B^C^D^E F G"),
    ("PatientName", "A^B=C=D=E=F", "A^B=C=D"),
    *(("PatientName", text, "") for text in ("x" * 65, "A\\B", "A\tB", "A=" + "y" * 65)),
    ("ReferringPhysicianName", GERMAN, GERMAN),
]


def with_value(keyword, value, charset=("ISO_IR 192",)):
    """A data set read from a file as an anonymiser or an old scanner would write it: nothing is checked on the way."""
    dataset, text = pydicom.Dataset(), value if isinstance(value, bytes) else value.encode()
    tag = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword))
    vr = pydicom.datadict.dictionary_VR(tag)
    dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(text), text, 0, False, True)
    if charset:
        dataset.SpecificCharacterSet = list(charset)
    file = BytesIO()
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    file.seek(0)
    return pydicom.dcmread(file, force=True)


@pytest.mark.parametrize(("keyword", "value", "expected"), CASES)
def test_each_form_is_copied_mended_or_left_empty(keyword, value, expected, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    values, mended, emptied = patient_and_study(with_value(keyword, value))
    assert values[keyword] == expected
    assert set(values.values()) <= {"", expected}  # what is missing is empty
    assert emptied == [keyword] * (value != "" and expected == "")
    assert mended == [keyword] * (expected not in ("", *value.split("\\")) and value.strip(" \0") != expected)
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.RAISE)
    setattr(pydicom.Dataset(), keyword, expected)  # pydicom raises where the value breaks the standard


@pytest.mark.parametrize(
    ("value", "charset", "expected"),
    [
        (GERMAN.encode("latin-1"), (), GERMAN),
        (GERMAN.encode("latin-1"), ("ISO_IR 100",), GERMAN),
        (GERMAN.encode("latin-1"), ("ISO_IR 999",), GERMAN),
        (GERMAN.encode("latin-1"), ("ISO_IR 192",), ""),  # not what it says it is
        (GERMAN.encode(), (), GERMAN),
        ("Größmann".encode("latin-1"), (), "Größmann"),
        (CHINESE.encode(), (), CHINESE),
        (CHINESE.encode("gb18030"), ("GB18030",), CHINESE),
        (CHINESE.encode("gb18030"), (), ""),
        (b"Zhang^San=" + CHINESE.encode("gb18030"), (), ""),
        ("Иванов".encode("iso8859-5"), (), ""),
        ("Иванов".encode("iso8859-5"), ("ISO_IR 144",), "Иванов"),
        (b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", ("", "ISO 2022 IR 87"), "Yamada^Tarou=山田^太郎"),
    ],
)
def test_names_in_declared_undeclared_and_wrong_character_sets(value, charset, expected, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values, _, emptied = patient_and_study(with_value("PatientName", value, charset))
    assert values["PatientName"] == expected
    assert emptied == ["PatientName"] * (expected == "")
