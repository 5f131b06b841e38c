"""Every validation score has a name of its own, whatever the classes are called."""

import itertools

import pytest

from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.evaluation.report.figures import learning_curves


def test_usual_classes_are_called_by_their_names():
    names = ScoreNames("dice", ["edema", "left lung"])
    assert [name.column for name in names] == ["val_dice", "val_dice_smoothed", "val_dice_edema", "val_dice_left lung"]
    assert [name.tag for name in names] == ["val/dice", "val/dice_smoothed", "val/dice_edema", "val/dice_left lung"]


@pytest.mark.parametrize(
    "classes", [*itertools.permutations(["smoothed", "smoothed_2", "smoothed_2_2", "mean", "dice"])]
)
def test_no_two_scores_share_a_name(classes):
    names = ScoreNames("dice", classes)
    assert list(names.classes) == list(classes)
    assert len({name.column for name in names}) == len({name.tag for name in names}) == len(classes) + 2


def test_the_report_draws_each_class_under_its_name(tmp_path):
    names = ScoreNames("dice", ["smoothed", "a/b", "never scored"])
    columns = [name.column for name in names][:-1]
    path = tmp_path / "metrics.csv"
    path.write_text("\n".join([",".join(["epoch", *columns]), "1,0.5,0.5,0.25,0.75", "2,0.6,0.55,0.3,0.9"]) + "\n")
    [plot] = learning_curves(path, list(names.classes))
    assert [name for _, name in plot.legend] == ["mean", "mean, smoothed", "smoothed", "a/b"]
