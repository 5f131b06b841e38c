"""The report: its rows and statistics, and that files and terminal tell the same numbers."""

import csv
import io
import json
import statistics as reference
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import bootstrap

from medseg.errors import MedsegError
from medseg.evaluation.report import case_rows, confidence_interval, statistics, summarise, table, write_report
from medseg.io.case import Case
from medseg.io.labels import LabelMap

LABELS = LabelMap({"background": 0, "oedema": 1, "core [T1]": 2})
NAMES = ["oedema", "core [T1]"]


def rows_of(cases: int = 12, unit: str = "mm", seed: int = 0) -> list[dict]:
    """Two cases a group; every fourth case lacks the core, and half of those got a false one."""
    rng = np.random.default_rng(seed)
    rows = []
    for case in range(cases):
        true = rng.integers(50, 200, 2)
        predicted = true + rng.integers(-40, 40, 2)
        found = np.stack([np.minimum(true, predicted) * 9 // 10, predicted, true], axis=1)
        if case % 4 == 0:
            found[1] = [0, 7 if case % 8 else 0, 0]
        rows += case_rows(Case(f"case{case:02}", f"patient{case // 2}", ()), found, LABELS, 2.5, unit)
    return rows


def shown(summary: dict, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(summary))
    return console.export_text()


def test_rows_of_a_case_by_hand() -> None:
    found = np.array([[30, 40, 60], [0, 0, 0]])
    oedema, core = case_rows(Case("a", "p", ()), found, LABELS, 2.5, "mm")
    assert oedema == {
        "case": "a",
        "group": "p",
        "class": "oedema",
        "dice": 0.6,
        "iou": pytest.approx(30 / 70),
        "truth_voxels": 60,
        "predicted_voxels": 40,
        "truth_ml": 0.15,
        "predicted_ml": 0.1,
    }
    assert np.isnan(core["dice"])
    assert np.isnan(core["iou"])
    assert not {"truth_ml", "predicted_ml"} & case_rows(Case("a", "p", ()), found, LABELS, 1.0, "px")[0].keys()


def test_regions_are_reported_in_place_of_classes_and_what_was_not_annotated_is_null() -> None:
    labels = LabelMap(
        {"background": 0, "edema": 2, "core": 1}, {"whole": ["edema", "core"], "core": ["core"]}, ["edema", "core"]
    )
    case = Case("a", "p", (), annotated=("core",), columns={"site": "Bonn"})
    whole, core = case_rows(case, np.array([[3, 4, 5], [1, 2, 2]]), labels, 1.0, "px")
    assert (whole["class"], core["class"], core["dice"], core["site"]) == ("whole", "core", 0.5, "Bonn")
    assert np.isnan([whole[name] for name in ("dice", "iou", "truth_voxels")]).all()
    assert whole["predicted_voxels"] == 4
    summary = summarise([whole, core], list(labels.reported), "test")
    assert summary["classes"]["whole"]["empty_truth"]["n"] == 0  # unknown is not empty
    assert (summary["classes"]["whole"]["dice"]["mean"], summary["mean"]["dice"]) == (None, 0.5)


def test_further_columns_of_a_table_are_kept(tmp_path: Path) -> None:
    rows = case_rows(Case("a", "p", (), columns={"site": "Bonn"}), np.array([[1, 2, 2]] * 2), LABELS, 1.0, "px")
    write_report(tmp_path, rows, summarise(rows, NAMES, "test"))
    cells = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert [cell["site"] for cell in cells] == ["Bonn", "Bonn"]


def test_statistics_against_the_standard_library() -> None:
    values = [0.9, float("nan"), 0.4, 0.75, 0.8]
    found = statistics(np.array(values), np.array(list("aabbc")))
    kept = [value for value in values if value == value]
    assert found["mean"] == pytest.approx(reference.fmean(kept))
    assert found["std"] == pytest.approx(reference.stdev(kept))
    assert found["median"] == pytest.approx(reference.median(kept))
    assert (found["n"], found["n_undefined"], found["ci95"]) == (4, 1, None)


def test_statistics_of_one_value_and_of_none() -> None:
    one = statistics(np.array([0.5]), np.array(["a"]))
    assert (one["mean"], one["std"], one["median"], one["n"]) == (0.5, None, 0.5, 1)
    none = statistics(np.array([np.nan]), np.array(["a"]))
    assert none == {"mean": None, "std": None, "median": None, "ci95": None, "n": 0, "n_undefined": 1}


def test_interval_is_bca_of_the_mean_and_repeats() -> None:
    values = np.random.default_rng(0).beta(8, 2, 60)
    groups = np.arange(60)
    found = confidence_interval(values, groups)
    expected = bootstrap((values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(9)).confidence_interval
    assert found == pytest.approx([expected.low, expected.high], abs=0.003)
    assert found == confidence_interval(values, groups)
    assert found[0] < values.mean() < found[1]


def test_interval_draws_whole_groups() -> None:
    values = np.random.default_rng(1).random(20)
    few = confidence_interval(values, np.arange(20))
    copied = confidence_interval(np.repeat(values, 50), np.repeat(np.arange(20), 50))  # 1000 cases, still 20 patients
    assert copied == pytest.approx(few)


def test_interval_weighs_groups_by_their_cases() -> None:
    rng = np.random.default_rng(2)
    members = [rng.beta(2, 2, size) for size in (30, 1, 2, 1, 9, 1, 3, 12, 1, 5)]
    groups = np.repeat(np.arange(len(members)), [len(member) for member in members])
    expected = bootstrap(
        (np.arange(len(members)),),
        lambda drawn: np.concatenate([members[int(group)] for group in drawn]).mean(),
        vectorized=False,
        n_resamples=5000,
        rng=np.random.default_rng(3),
    ).confidence_interval
    found = confidence_interval(np.concatenate(members), groups)
    assert found == pytest.approx([expected.low, expected.high], abs=0.01)


def test_interval_needs_eight_groups_and_survives_equal_values() -> None:
    assert confidence_interval(np.arange(30) / 30, np.arange(30) % 7) is None
    assert confidence_interval(np.full(9, 0.7), np.arange(9)) == pytest.approx([0.7, 0.7])
    assert confidence_interval(np.array([]), np.array([])) is None


def test_summary_has_the_promised_form() -> None:
    rows = rows_of(20)
    summary = summarise(rows, NAMES, "test")
    assert list(summary) == ["format", "subset", "n_cases", "classes", "mean"]
    assert (summary["format"], summary["subset"], summary["n_cases"]) == (1, "test", 20)
    assert list(summary["classes"]) == NAMES  # background is not among them
    core = summary["classes"]["core [T1]"]
    assert list(core["dice"]) == list(core["iou"]) == ["mean", "std", "median", "ci95", "n", "n_undefined"]
    assert (core["dice"]["n"], core["dice"]["n_undefined"]) == (17, 3)
    assert core["empty_truth"] == {"n": 5, "false_positives": 2, "ml": pytest.approx(2 * 7 * 2.5 / 1000)}
    defined = [row["dice"] for row in rows if row["class"] == "core [T1]" and not np.isnan(row["dice"])]
    assert core["dice"]["mean"] == pytest.approx(np.mean(defined))
    assert defined.count(0.0) == 2  # a false finding counts as 0
    means = [summary["classes"][name]["dice"]["mean"] for name in NAMES]
    assert summary["mean"]["dice"] == pytest.approx(np.mean(means))


def test_summary_in_pixels_and_of_no_cases() -> None:
    empty = summarise(rows_of(8, "px"), NAMES, "val")["classes"]["core [T1]"]["empty_truth"]
    assert empty == {"n": 2, "false_positives": 1, "voxels": 7}
    nothing = summarise([], NAMES, "test")
    assert nothing["n_cases"] == 0
    assert nothing["mean"] == {"dice": None, "iou": None}


@pytest.mark.parametrize("unit", ["mm", "px"])
def test_json_csv_and_terminal_agree(tmp_path: Path, unit: str) -> None:
    rows = rows_of(20, unit)
    summary = summarise(rows, NAMES, "test")
    write_report(tmp_path / "new/test", rows, summary)
    stored = json.loads((tmp_path / "new/test/metrics.json").read_text())
    assert stored == summary
    with (tmp_path / "new/test/cases.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [cell["case"] for cell in cells] == [row["case"] for row in rows]
    lines = shown(summary).splitlines()
    for name in NAMES:
        for score in ("dice", "iou"):
            column = [float(cell[score]) for cell in cells if cell["class"] == name and cell[score]]
            assert np.mean(column) == stored["classes"][name][score]["mean"]
        found = stored["classes"][name]["dice"]
        line = next(line for line in lines if name in line)
        low, high = found["ci95"]
        expected = [f"{found[key]:.3f}" for key in ("mean", "std", "median")]
        expected += [f"{low:.3f}–{high:.3f}", f"{stored['classes'][name]['iou']['mean']:.3f}"]
        expected += [str(found["n"]), str(found["n_undefined"])]
        assert line.replace(name, "").replace("±", "").split() == expected
    mean = next(line for line in lines if line.strip().startswith("mean"))
    assert mean.split()[1:] == [f"{stored['mean']['dice']:.3f}", f"{stored['mean']['iou']:.3f}"]


def test_undefined_is_null_in_json_and_an_empty_cell(tmp_path: Path) -> None:
    rows = case_rows(Case("a", "p", ()), np.array([[0, 0, 0], [1, 2, 2]]), LABELS, 1.0, "px")
    write_report(tmp_path, rows, summarise(rows, NAMES, "test"))
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    expected = "case,group,class,dice,iou,truth_voxels,predicted_voxels\na,p,oedema,,,0,0\na,p,core [T1],0.5,"
    assert (tmp_path / "cases.csv").read_text().startswith(expected)
    text = shown(summarise(rows, NAMES, "test"))
    assert "oedema: absent in 1, falsely found in 0 (0 voxels)" in text


def test_table_fits_a_terminal_of_80_columns() -> None:
    names = ["left ventricular outflow tract and its valve", "b"]
    labels = LabelMap({"background": 0, names[0]: 1, "b": 2})
    found = np.array([[8, 10, 10], [7, 9, 11]])
    rows = [
        row
        for i in range(1000)
        for row in case_rows(Case(f"{i}", f"{i}", ()), found - np.array([i % 3, 0, 0]), labels, 1.0, "mm")
    ]
    text = shown(summarise(rows, names, "test"))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    assert "1000" in text


def test_a_folder_that_cannot_be_made_is_a_worded_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MedsegError, match="cannot write"):
        write_report(tmp_path / "file", [], summarise([], NAMES, "test"))
