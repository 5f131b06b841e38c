"""Options of single classes: merging, checking, and what they do to masks."""

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.inference.class_options import by_number, cuts, inference_over, postprocess_over
from medseg.inference.postprocess import postprocess
from medseg.io.labels import LabelMap

CLASSES = LabelMap({"background": 0, "liver": 7, "tumour": 3})
NESTED = LabelMap(CLASSES.labels, {"organ": ["liver", "tumour"], "tumour": ["tumour"]})
DISJOINT = LabelMap(CLASSES.labels, {"tumour": ["tumour"], "liver": ["liver"]})
ALL_OFF = {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0}
SAVED = {**ALL_OFF, "classes": {"liver": {"largest": True, "fill_holes": True}, "tumour": {"min_ml": 0.1}}}


def test_nothing_given_leaves_what_is_saved():
    assert postprocess_over(dict.fromkeys(SAVED), SAVED) == SAVED
    saved = {"threshold": None, "thresholds": {"organ": 0.4}}
    assert inference_over(dict.fromkeys(saved), saved) == saved


def test_an_option_for_all_replaces_those_of_classes():
    found = postprocess_over({"largest": False, "min_ml": None, "classes": None}, SAVED)
    assert found["classes"] == {"liver": {"fill_holes": True}, "tumour": {"min_ml": 0.1}}
    assert postprocess_over({"classes": {"liver": {"largest": False}}}, SAVED)["classes"] == {
        "liver": {"largest": False}
    }
    found = inference_over({"threshold": 0.5}, {"threshold": None, "thresholds": {"organ": 0.4}})
    assert found == {"threshold": 0.5, "thresholds": {}}


@pytest.mark.parametrize(
    ("label_map", "numbers"),
    [
        (CLASSES, {"liver": 1, "tumour": 2}),
        (NESTED, {"organ": 1, "tumour": 2}),
        (DISJOINT, {"tumour": 2, "liver": 1}),
    ],
)
def test_classes_are_numbered_as_they_are_cleaned(label_map, numbers):
    for name, number in numbers.items():
        found = by_number({"classes": {name: {"largest": True}}}, label_map)
        assert found == {"classes": {number: {"largest": True}}}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"livr": {"largest": True}}, r"classes\.livr: no class or region.*'liver'.*There are liver, tumour"),
        ({"liver": True}, r"classes\.liver=True: must be a mapping"),
        ({"liver": {"largest": 3}}, r"classes\.liver\.largest=3: must be true or false"),
        ({"tumour": {"min_ml": -1.0}}, r"classes\.tumour\.min_ml=-1\.0: must be a number in \[0, inf\)"),
        ({"tumour": {"smooth_mm": 1.0}}, r"smooth_mm: unknown key.*Options of a class are largest"),
    ],
)
def test_wrong_options_of_classes_are_named(classes, message):
    with pytest.raises(MedsegError, match=message):
        by_number({"classes": classes}, CLASSES)


@pytest.mark.parametrize(
    ("label_map", "thresholds", "message"),
    [
        (CLASSES, {"liver": 0.4}, r"thresholds\.liver: .*no regions"),
        (NESTED, {"liver": 0.4}, r"thresholds\.liver: no class or region.*There are organ, tumour"),
        (NESTED, {"organ": 1.5}, r"thresholds\.organ=1\.5: must be a number in \(0, 1\)"),
    ],
)
def test_wrong_thresholds_are_named(label_map, thresholds, message):
    with pytest.raises(MedsegError, match=message):
        cuts({"threshold": None, "thresholds": thresholds}, label_map, 0.5)


def test_thresholds_of_regions():
    assert cuts({"threshold": None}, CLASSES, 0.5) == ()
    assert cuts({"threshold": None, "thresholds": {"tumour": 0.3}}, NESTED, 0.5) == (0.5, 0.3)
    assert cuts({"threshold": 0.6, "thresholds": {"tumour": 0.3}}, NESTED, 0.5) == (0.6, 0.3)


def drawn(*rows: str) -> np.ndarray:
    return np.array([[int(letter) for letter in row.replace(".", "0")] for row in rows], np.uint8)


def test_each_class_is_cleaned_in_its_own_way():
    indices = drawn("111.1.222..2", "1.1...2.2...", "111.3.222..3")
    expected = drawn("111...222..2", "111...2.2...", "111.3.222..3")
    found = postprocess(indices, (1.0, 1.0), "px", classes={1: {"largest": True, "fill_holes": True}})
    np.testing.assert_array_equal(found, expected)
    found = postprocess(indices, (1.0, 1.0), "px", largest=True, classes={1: {"largest": False}, 3: {"largest": False}})
    np.testing.assert_array_equal(found, drawn("111.1.222...", "1.1...2.2...", "111.3.222..3"))
    found = postprocess(indices, (1.0, 1.0), "px", min_voxels=2, classes={3: {"min_voxels": 0}})
    np.testing.assert_array_equal(found, drawn("111...222...", "1.1...2.2...", "111.3.222..3"))


def test_classes_that_do_not_occur_are_no_trouble():
    indices = drawn("11.", "...")
    np.testing.assert_array_equal(postprocess(indices, (1.0, 1.0), "px", classes={9: {"largest": True}}), indices)


def test_millilitres_of_a_class_need_a_volume():
    with pytest.raises(MedsegError, match=r"postprocess\.min_ml=0\.5"):
        postprocess(drawn("1"), (1.0, 1.0), "px", classes={1: {"min_ml": 0.5}})
