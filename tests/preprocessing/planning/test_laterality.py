"""Which class names tell left from right."""

import pytest

from medseg.preprocessing.planning.laterality import is_sided


@pytest.mark.parametrize(
    "names",
    [
        ["kidney_left", "kidney_right"],
        ["left kidney"],
        ["LeftLung", "RightLung"],
        ["Left-Hippocampus", "Right-Hippocampus"],
        ["femur_l", "femur_r"],
        ["lh.cortex", "rh.cortex"],
        ["左肾", "右肾"],
    ],
)
def test_sided(names):
    assert is_sided(names)


@pytest.mark.parametrize("names", [["liver", "spleen"], ["bright", "upright lesion"], ["left" + "over"], ["cleft"]])
def test_not_sided(names):
    assert not is_sided(names)
