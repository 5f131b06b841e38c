"""Classes that training never sees, or sees in one patient only, are named; others are not."""

import numpy as np
import pytest

from medseg.io.datasets.splits import Split
from medseg.io.labels import UNLABELLED, LabelMap
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint
from medseg.preprocessing.quality.classes_by_subset import classes_by_part

LABELS = {"background": 0, "organ": 1, "tumour": 2, "cyst": 3}
SPLIT = Split(("a", "b", "c"), ("d",), ("e", "f"))


def fingerprint(having, groups=None):
    """Return cases a to f, which all have the organ; ``having`` tells where the tumour and the cyst are."""
    cases = {}
    for name in "abcdef":
        voxels = np.array([100, 5, *(name in having.get(label, "") for label in ("tumour", "cyst"))])
        none = np.empty((1, 0), np.float32)
        group = (groups or {}).get(name, name)
        cases[name] = CaseFingerprint((4, 4), (1.0, 1.0), "px", 1, name, voxels, none, np.zeros((1, 1)), group=group)
    return Fingerprint(cases)


def texts(*arguments):
    return [finding.text for finding in classes_by_part(*arguments)]


@pytest.mark.parametrize(
    ("tumour", "groups", "says"),
    [
        ("def", {}, "no training case has it, .*train 0 of 3, val 1 of 1, test 2 of 2"),
        ("e", {}, "no training case has it, .*train 0 of 3, val 0 of 1, test 1 of 2"),
        ("ade", {}, "only one training case has it, a .*train 1 of 3, val 1 of 1, test 1 of 2"),
        ("abd", {"a": "p", "b": "p"}, "all training cases with it are of one patient, p .*train 2 of 3"),
    ],
)
def test_a_class_that_cannot_be_learned_well(tumour, groups, says):
    import re

    [text] = texts(fingerprint({"tumour": tumour, "cyst": "abcdef"}, groups), LabelMap(LABELS), SPLIT)
    assert text.startswith("tumour: ")
    assert re.search(says, text)


@pytest.mark.parametrize(
    ("tumour", "groups", "split"),
    [
        ("ab", {}, SPLIT),
        ("abcdef", {}, SPLIT),
        ("", {}, SPLIT),  # named elsewhere
        ("ab", dict.fromkeys("abc", "p"), SPLIT),  # there is but one patient to learn from
        ("e", {}, None),
    ],
)
def test_nothing_is_said_of_others(tumour, groups, split):
    assert texts(fingerprint({"tumour": tumour, "cyst": "abcdef"}, groups), LabelMap(LABELS), split) == []


def test_regions_count_as_one_and_scans_without_masks_not_at_all():
    usable = fingerprint({"tumour": "e", "cyst": "abcd"})
    regions = {"lesion": ["tumour", "cyst"], "tumour": ["tumour"]}
    [text] = texts(usable, LabelMap(LABELS, regions), SPLIT)
    assert text.startswith("tumour: no training case")
    assert texts(usable, UNLABELLED, SPLIT) == []
