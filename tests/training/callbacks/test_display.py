"""The display's lines: what is shown where there is little room."""

import math
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.callbacks.display import DOT, Display, class_lines, shortened

FEW = {"edema": 0.81234, "core": 0.5, "enhancing": math.nan}
MANY = {f"class {index:02}": index / 20 for index in range(20)}


def joined(scores, width):
    return [DOT.join(parts) for parts in class_lines(scores, width)]


def test_few_classes_stand_on_a_line():
    assert joined(FEW, 80) == ["edema 0.8123 · core 0.5000 · enhancing –"]


def test_a_single_class_is_the_mean_already():
    assert joined({"lesion": 0.5}, 80) == []


def test_of_many_classes_the_worst_and_the_best_are_shown():
    worst, best = joined(MANY, 80)
    assert worst == "worst of 20: class 00 0.0000 · class 01 0.0500 · class 02 0.1000"
    assert best == "best: class 19 0.9500 · class 18 0.9000 · class 17 0.8500 · class 16 0.8000"


def test_no_class_is_shown_twice():
    lines = " ".join(joined({"left atrium": 0.1, "right atrium": 0.2, "myocardium": 0.3}, 55))
    assert [lines.count(name) for name in ("left atrium", "right atrium", "myocardium")] == [1, 1, 1]


def test_classes_that_are_not_learned_have_a_line():
    selection = Selection()
    selection.add(1, 0.4)
    selection.unlearned.names = ["core\n", "rim"]
    names = ScoreNames("dice", ["edema", "core\n", "rim"])
    row = {"epoch": "1", **dict.fromkeys((name.column for name in names), "0.4")}
    shown = Display(Console(width=80), None, selection, None, SimpleNamespace(names=names, rows=[row])).scores()
    assert shown[-1] == [r"not learned: core\u000a", "rim"]


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize(
    "scores",
    [
        MANY,
        {f"{'心' * 30}{index}": 0.5 for index in range(9)},  # letters two columns wide
    ],
)
def test_nothing_is_wider_than_the_terminal(scores, width):
    lines = joined(scores, width)
    assert len(lines) == 2
    assert all(cell_len(line) <= max(width, len("worst of 20: ") + 8) for line in lines)


def test_classes_that_no_case_has_are_not_ranked():
    assert joined(dict.fromkeys(MANY, math.nan), 80) == []
    worst, best = joined(MANY | {"nowhere": math.nan}, 80)
    assert "nowhere" not in worst + best


def test_long_names_are_cut():
    assert shortened("superior vena cava") == "superior vena cava"
    assert shortened("a" * 40) == "a" * 23 + "…"
