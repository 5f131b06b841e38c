"""From probabilities of classes and regions to a label map, against masks made by hand; options of single classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medseg.config.settings import InferenceSettings, PostprocessSettings
from medseg.errors import MedsegError
from medseg.inference.postprocess import postprocess
from medseg.inference.probabilities import Scorer
from medseg.inference.segmenter import Regions, Segmenter, inference_over, make_segmenter, postprocess_over
from medseg.io.labels import LabelMap
from medseg.preprocessing.geometry import whole

BRATS_2018 = LabelMap(
    {"background": 0, "necrosis": 1, "edema": 2, "enhancing": 4},
    {
        "WT": ["necrosis", "edema", "enhancing"],
        "TC": ["necrosis", "enhancing"],
        "ET": ["enhancing"],
    },
)
DISJOINT = LabelMap({"background": 0, "a": 7, "b": 3}, {"a": ["a"], "b": ["b"]})


def paint(label_map, *masks):
    regions = Regions.of(label_map)
    return label_map.decode(regions.paint([np.array(mask, bool) for mask in masks])).tolist()


def test_nested_regions_become_the_files_own_values():
    assert paint(BRATS_2018, [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]) == [0, 2, 1, 4]


def test_what_lies_outside_a_region_is_outside_its_parts():
    assert paint(BRATS_2018, [0, 1, 1], [1, 0, 1], [1, 1, 1]) == [0, 2, 4]


def test_an_order_of_painting_settles_what_regions_leave_open():
    labels = {"background": 0, "necrosis": 1, "edema": 2, "other": 3, "enhancing": 4}
    regions = {"WT": ["necrosis", "edema", "other", "enhancing"], "TC": ["necrosis", "other", "enhancing"]}
    label_map = LabelMap(labels, regions, ["edema", "necrosis"])
    assert paint(label_map, [0, 1, 1], [0, 0, 1]) == [0, 2, 1]


def test_no_regions():
    assert Regions.of(LabelMap({"background": 0, "a": 1})) is None
    assert Regions.of(DISJOINT).are_disjoint
    assert not Regions.of(BRATS_2018).are_disjoint


def logit(probabilities):
    return torch.tensor(probabilities, dtype=torch.float32).logit()


def segment(label_map, probabilities, **options):
    """Segment an image of one row whose "network" gives these probabilities (R, n)."""
    count = len(probabilities[0])
    segmenter = Segmenter(regions=Regions.of(label_map), **options)
    geometry = whole(np.eye(4), (1, count))
    scorer = Scorer(patch_size=[1, count], n_outputs=len(probabilities), regions=True)
    slabs = scorer([lambda patches: [logit(probabilities)[None, :, None]]], torch.zeros(1, 1, count), geometry)
    indices = segmenter(slabs, (1, count), spacing=(1.0, 1.0), unit="px")
    return label_map.decode(indices).ravel().tolist()


def test_each_region_has_a_threshold_of_its_own():
    probabilities = [[0.4, 0.6, 0.9, 0.9], [0.1, 0.4, 0.6, 0.9], [0.1, 0.1, 0.4, 0.8]]
    assert segment(BRATS_2018, probabilities) == [0, 2, 1, 4]
    assert segment(BRATS_2018, probabilities, threshold=0.7) == [0, 0, 2, 4]


def test_of_regions_that_exclude_each_other_the_likelier_wins():
    assert segment(DISJOINT, [[0.6, 0.9, 0.2], [0.9, 0.6, 0.3]]) == [3, 7, 0]


def test_post_processing_of_a_region_carries_over_to_its_parts():
    whole_tumour = [0.9, 0.9, 0.9, 0.1, 0.9]
    enhancing = [0.1, 0.1, 0.9, 0.1, 0.9]
    probabilities = [whole_tumour, enhancing, enhancing]
    assert segment(BRATS_2018, probabilities) == [2, 2, 4, 0, 4]
    assert segment(BRATS_2018, probabilities, postprocess={"largest": True}) == [2, 2, 4, 0, 0]


@pytest.mark.parametrize(
    ("regions", "order", "says"),
    [
        ({"WT": ["necrosis", "edemo"]}, None, "edemo.*Did you mean 'edema'"),
        ({"WT": []}, None, "WT has no classes"),
        ({"WT": ["necrosis", "edema"], "ET": ["enhancing"]}, None, "edema, necrosis would be painted.*region_order"),
        ({"ET": ["enhancing"]}, ["enhancing", "edema"], "a class for each of the 1 regions"),
        ({"ET": ["enhancing"]}, ["core"], "'core' is no foreground class"),
        ({"ET": ["background"]}, None, "'background' is no foreground class"),
    ],
)
def test_regions_that_cannot_be_used(regions, order, says):
    from medseg.errors import MedsegError

    with pytest.raises(MedsegError, match=says):
        LabelMap(BRATS_2018.labels, regions, order)


CLASSES = LabelMap({"background": 0, "liver": 7, "tumour": 3})
NESTED = LabelMap(CLASSES.labels, {"organ": ["liver", "tumour"], "tumour": ["tumour"]})
DISJOINT_REGIONS = LabelMap(CLASSES.labels, {"tumour": ["tumour"], "liver": ["liver"]})
ALL_OFF = {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0}
OFF = PostprocessSettings(**ALL_OFF)
SAVED = replace(OFF, classes={"liver": {"largest": True, "fill_holes": True}, "tumour": {"min_ml": 0.1}})
LIKELIEST = InferenceSettings(overlap=0.5, tta=False, threshold=None, batch_size=1)


def test_nothing_given_leaves_what_is_saved():
    assert postprocess_over(dict.fromkeys(vars(SAVED)), SAVED) == SAVED
    saved = replace(LIKELIEST, thresholds={"organ": 0.4})
    assert inference_over(dict.fromkeys(vars(saved)), saved) == saved


def test_an_option_for_all_replaces_those_of_classes():
    found = postprocess_over({"largest": False, "min_ml": None, "classes": None}, SAVED)
    assert found.classes == {"liver": {"fill_holes": True}, "tumour": {"min_ml": 0.1}}
    assert postprocess_over({"classes": {"liver": {"largest": False}}}, SAVED).classes == {"liver": {"largest": False}}
    found = inference_over({"threshold": 0.5}, replace(LIKELIEST, thresholds={"organ": 0.4}))
    assert found == replace(LIKELIEST, threshold=0.5)


@pytest.mark.parametrize(
    ("label_map", "numbers"),
    [
        (CLASSES, {"liver": 1, "tumour": 2}),
        (NESTED, {"organ": 1, "tumour": 2}),
        (DISJOINT_REGIONS, {"tumour": 2, "liver": 1}),
    ],
)
def test_classes_are_numbered_as_they_are_cleaned(label_map, numbers):
    for name, number in numbers.items():
        segmenter = make_segmenter(LIKELIEST, replace(OFF, classes={name: {"largest": True}}), label_map)
        assert segmenter.postprocess == {**ALL_OFF, "classes": {number: {"largest": True}}}


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
        make_segmenter(LIKELIEST, replace(OFF, classes=classes), CLASSES)


def thresholds_of(inference, label_map):
    return make_segmenter(replace(LIKELIEST, **inference), OFF, label_map).thresholds


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
        thresholds_of({"threshold": None, "thresholds": thresholds}, label_map)


def test_thresholds_of_regions():
    assert thresholds_of({"threshold": None}, CLASSES) == ()
    assert thresholds_of({"threshold": None, "thresholds": {"tumour": 0.3}}, NESTED) == (0.5, 0.3)
    assert thresholds_of({"threshold": 0.6, "thresholds": {"tumour": 0.3}}, NESTED) == (0.6, 0.3)


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
