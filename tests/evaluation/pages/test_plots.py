"""Plots: where things lie, by hand and by NumPy, and that they are XML with words for those who do not see them."""

from xml.etree import ElementTree

import numpy as np
import pytest

from medseg.evaluation.pages.page import environment
from medseg.evaluation.pages.plots import (
    Axis,
    LinePlot,
    ParallelPlot,
    Plot,
    Point,
    ScatterPlot,
    Series,
    Strip,
    StripPlot,
    coordinate,
    linear,
    logarithmic,
    some,
)

WORDS = {"caption": "c", "title": "t", "description": "d"}


def html(kind: str, plot: Plot) -> str:
    template = f"{{% import 'evaluation/pages/plots.html' as plots %}}{{{{ plots.{kind}(plot) }}}}"
    return environment().from_string(template).render(plot=plot)


def drawn(kind: str, plot: Plot) -> ElementTree.Element:
    """The SVG of a plot, without its caption and legend."""
    text = html(kind, plot)
    return ElementTree.fromstring(text[text.index('<svg class="plot"') :].removesuffix("</figure>\n"))


def percent(text: str | None) -> float:
    return float(str(text).rstrip("%"))


@pytest.mark.parametrize(
    ("values", "bounds", "expected"),
    [
        ([0.71, 0.93], (0, 1), (0.7, 1.0, [0.7, 0.8, 0.9, 1.0])),
        ([3, 97], (), (0, 100, [0, 50, 100])),
        ([0.0, 1.0], (0, 1), (0, 1, [0, 0.5, 1])),
        ([-12.0, 25.0], (), (-20, 30, [-20, -10, 0, 10, 20, 30])),
        ([], (), (0, 1, [0, 0.5, 1])),
    ],
)
def test_axes_end_at_round_numbers(values: list, bounds: tuple, expected: tuple) -> None:
    axis = linear("x", values, *bounds)
    assert (axis.low, axis.high) == pytest.approx(expected[:2])
    assert list(axis.ticks) == pytest.approx(expected[2])


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-9])
def test_an_axis_of_one_value_has_a_width(value: float) -> None:
    axis = linear("x", [value, value])
    assert axis.low <= value < axis.high
    assert 0 <= axis.percent(value) <= 100


@pytest.mark.parametrize("values", [[0.002, 350.0], [1.0, 1.9], [5.0], [1e-6, 1e9]])
def test_logarithmic_axes_hold_the_values_and_few_marks(values: list) -> None:
    axis = logarithmic("ml", values)
    assert all(0 < axis.percent(value) < 100 for value in values)
    assert 1 <= len(axis.ticks) <= 15
    assert Axis("", 1, 100, [], True).percent(10) == 50


def test_a_strip_shows_quartiles_and_every_case() -> None:
    values = np.random.default_rng(0).uniform(0.5, 1, 40).tolist()
    points = [Point(value, 0, f"<case {place}>", f"#case-{place}") for place, value in enumerate(values)]
    axis = Axis("Dice", 0.0, 1.0, [0, 0.5, 1])
    strips = [Strip("liver & <spleen>", "median", values, points), Strip("empty", "–", [], [])]
    svg = drawn("strips", StripPlot(**WORDS, x=axis, strips=strips))
    box, low, high = svg.find("rect"), *np.percentile(values, (25, 75))
    assert box is not None
    assert percent(box.get("x")) == pytest.approx(100 * low, abs=0.01)
    assert percent(box.get("width")) == pytest.approx(100 * (high - low), abs=0.02)
    median = next(line for line in svg.iter("line") if line.get("class") == "median")
    assert percent(median.get("x1")) == pytest.approx(100 * np.median(values), abs=0.01)
    dots = list(svg.iter("circle"))
    assert [percent(dot.get("cx")) for dot in dots] == pytest.approx([100 * value for value in values], abs=0.01)
    assert [dot.findtext("title") for dot in dots] == [point.name for point in points]
    assert [link.get("href") for link in svg.iter("a")] == [point.link for point in points]
    assert (svg.get("role"), svg.findtext("title"), svg.findtext("desc")) == ("img", "t", "d")


def test_whiskers_end_at_values_and_leave_outliers_out() -> None:
    values = [0.0, 5.0, 5.5, 6.0, 6.5, 7.0]
    svg = drawn("strips", StripPlot(**WORDS, x=Axis("x", 0, 10, []), strips=[Strip("a", "", values, [])]))
    whisker = next(line for line in svg.iter("line") if line.get("class") == "whisker")
    assert (percent(whisker.get("x1")), percent(whisker.get("x2"))) == (50, 70)


def test_points_of_a_scatter_plot_run_up_and_to_the_right() -> None:
    axis = Axis("v", 0, 10, [0, 5, 10])
    svg = drawn("scatter", ScatterPlot(**WORDS, x=axis, y=axis, points=[Point(1, 2), Point(9, 10)]))
    assert [(percent(dot.get("cx")), percent(dot.get("cy"))) for dot in svg.iter("circle")] == [(10, 80), (90, 0)]


def test_lines_can_be_told_apart_or_are_alike() -> None:
    axis = Axis("epoch", 0, 10, [0, 10])
    few = [Series(name, [Point(0, 0), Point(10, 10)]) for name in "abc"]
    plot = LinePlot(**WORDS, x=axis, y=axis, series=few)
    assert [line.get("class") for line in drawn("lines", plot).iter("polyline")] == ["s1", "s2", "s3"]
    assert [line.get("points") for line in drawn("lines", plot).iter("polyline")] == ["0,100 100,0"] * 3
    assert html("lines", plot).count("<li>") == 3
    many = [few[0], *(Series(f"class {place}", few[0].points, is_minor=True) for place in range(30))]
    plot = LinePlot(**WORDS, x=axis, y=axis, series=many)
    classes = [line.get("class") for line in drawn("lines", plot).iter("polyline")]
    assert classes == ["s0"] * 30 + ["s1"]  # the mean on top
    assert "30 single classes" in html("lines", plot)
    single = LinePlot(**WORDS, x=axis, y=axis, series=[Series("a", [Point(5, 5)])])
    assert next(drawn("lines", single).iter("circle")).get("cx") == "50.0%"


def test_every_line_of_many_is_in_the_legend() -> None:
    axis = Axis("epoch", 0, 10, [0, 10])
    plot = LinePlot(**WORDS, x=axis, y=axis, series=[Series(name, [Point(0, 0)]) for name in "abcdefgh"])
    assert [name for _, name in plot.legend] == [*"abcdefgh"]


def test_of_many_points_the_ends_stay() -> None:
    points = [Point(float(value)) for value in np.random.default_rng(1).permutation(1000)]
    kept = some(points, 50)
    assert len(kept) == 50
    assert (kept[0].x, kept[-1].x) == (0, 999)
    assert some(points[:7], 50) == points[:7]


@pytest.mark.parametrize(
    ("values", "ticks", "positions", "is_choice"),
    [
        (["2", "4", "2"], [(0, "2"), (100, "4")], [0, 100, 0], False),
        (["1e-4", "1e-2", "1e-3"], [(50, "0.001")], [50], False),
        (["ce", "dice", "ce"], [(25, "ce"), (75, "dice")], [25, 75, 25], True),
        (["1", "–", "3"], [(0, "–"), (12, "1"), (100, "3")], [12, 0, 100], False),
        (["[1,2]", "3"], [(25, "[1,2]"), (75, "3")], [25, 75], True),
    ],
)
def test_coordinates_are_ranges_of_numbers_or_choices(
    values: list[str], ticks: list, positions: list, is_choice: bool
) -> None:
    axis = coordinate("key", values)
    assert set(ticks) <= set(axis.ticks)
    assert list(axis.positions[-len(positions) :]) == positions
    assert axis.is_choice == is_choice


def test_many_numbers_are_marked_at_round_ones() -> None:
    assert [label for _, label in coordinate("key", [str(n / 10) for n in range(30)]).ticks] == ["0", "1", "2", "3"]
    assert coordinate("seed", ["1", "0"], is_choice=True).positions == [25, 75]


def test_parallel_coordinates_are_drawn_with_the_best_in_front() -> None:
    axes = [coordinate("a", ["1", "2", "3"]), coordinate("<b>", ["x", "y", "x"])]
    plot = ParallelPlot(
        **WORDS, coordinates=axes, names=["n0", "n1", "n2"], links=["#0", "#1", "#2"], weights=[0.0, 1.0, 0.5]
    )
    svg = drawn("parallel", plot)
    lines = svg.findall(".//a")
    assert [line.get("href") for line in lines] == ["#0", "#2", "#1"]
    assert [line.find("polyline").get("class") for line in lines] == ["s0", "s0", "s1"]  # type: ignore[union-attr]
    assert lines[-1].find("polyline").get("points") == "50,34 75,110"  # type: ignore[union-attr]
    assert "".join(svg.itertext()).count("<b>") == 1
