"""The report: its rows and statistics, and that files and terminal tell the same numbers."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from medseg.errors import MedsegError
from medseg.evaluation.metrics.overlap import dice, iou
from medseg.evaluation.metrics.registry import Settings
from medseg.evaluation.pages.text_table import print_tables
from medseg.evaluation.report.files import write_report
from medseg.evaluation.report.tables import overview
from medseg.evaluation.statistics.cases import case_rows
from medseg.evaluation.statistics.summary import summarise
from medseg.io.case import Case
from medseg.io.labels import LabelMap

SETTINGS = Settings(("dice", "iou"))
LABELS = LabelMap({"background": 0, "oedema": 1, "core [T1]": 2})
STATISTICS = ["mean", "std", "median", "q1", "q3", "ci95", "n", "n_undefined", "n_missed"]
NAMES = ["oedema", "core [T1]"]


def made(case: Case, counts: np.ndarray, labels: LabelMap, voxel_volume: float, unit: str) -> list[dict]:
    """Rows with Dice and IoU of counts."""
    measured = [{"dice": float(dice(found)), "iou": float(iou(found))} for found in counts]
    return case_rows(case, counts, measured, labels, voxel_volume, unit)


def summary_of(rows: list[dict], names: list[str], subset: str = "test") -> dict:
    return summarise(rows, names, SETTINGS, subset=subset)


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
        rows += made(Case(f"case{case:02}", f"patient{case // 2}", ()), found, LABELS, 2.5, unit)
    return rows


def shown(summary: dict, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_tables([overview(summary)], console)
    return console.export_text()


def test_rows_of_a_case_by_hand() -> None:
    found = np.array([[30, 40, 60], [0, 0, 0]])
    oedema, core = made(Case("a", "p", ()), found, LABELS, 2.5, "mm")
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
    assert not {"truth_ml", "predicted_ml"} & made(Case("a", "p", ()), found, LABELS, 1.0, "px")[0].keys()


def test_regions_are_reported_in_place_of_classes_and_what_was_not_annotated_is_null() -> None:
    labels = LabelMap(
        {"background": 0, "edema": 2, "core": 1}, {"whole": ["edema", "core"], "core": ["core"]}, ["edema", "core"]
    )
    case = Case("a", "p", (), annotated=("core",), columns={"site": "Bonn"})
    whole, core = made(case, np.array([[3, 4, 5], [1, 2, 2]]), labels, 1.0, "px")
    assert (whole["class"], core["class"], core["dice"], core["site"]) == ("whole", "core", 0.5, "Bonn")
    assert np.isnan([whole[name] for name in ("dice", "iou", "truth_voxels")]).all()
    assert whole["predicted_voxels"] == 4
    summary = summary_of([whole, core], list(labels.reported), "test")
    assert summary["classes"]["whole"]["empty_truth"]["n"] == 0  # unknown is not empty
    assert (summary["classes"]["whole"]["dice"]["mean"], summary["mean"]["dice"]) == (None, 0.5)


def test_further_columns_of_a_table_are_kept(tmp_path: Path) -> None:
    rows = made(Case("a", "p", (), columns={"site": "Bonn"}), np.array([[1, 2, 2]] * 2), LABELS, 1.0, "px")
    write_report(tmp_path, rows, summary_of(rows, NAMES, "test"))
    cells = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert [cell["site"] for cell in cells] == ["Bonn", "Bonn"]


def test_summary_has_the_promised_form() -> None:
    rows = rows_of(20)
    summary = summary_of(rows, NAMES, "test")
    keys = [
        "format",
        "subset",
        "unit",
        "settings",
        "n_cases",
        "classes",
        "mean",
        "mean_ci95",
        "strata",
        "over_strata",
        "problems",
        "notes",
        "warnings",
    ]
    assert list(summary) == keys
    assert (summary["format"], summary["subset"], summary["n_cases"]) == (2, "test", 20)
    assert list(summary["classes"]) == NAMES  # background is not among them
    core = summary["classes"]["core [T1]"]
    assert list(core["dice"]) == list(core["iou"]) == STATISTICS
    assert (core["dice"]["n"], core["dice"]["n_undefined"]) == (17, 3)
    assert core["empty_truth"] == {"n": 5, "false_positives": 2, "ml": pytest.approx(2 * 7 * 2.5 / 1000)}
    defined = [row["dice"] for row in rows if row["class"] == "core [T1]" and not np.isnan(row["dice"])]
    assert core["dice"]["mean"] == pytest.approx(np.mean(defined))
    assert defined.count(0.0) == 2  # a false finding counts as 0
    means = [summary["classes"][name]["dice"]["mean"] for name in NAMES]
    assert summary["mean"]["dice"] == pytest.approx(np.mean(means))


def test_summary_in_pixels_and_of_no_cases() -> None:
    empty = summary_of(rows_of(8, "px"), NAMES, "val")["classes"]["core [T1]"]["empty_truth"]
    assert empty == {"n": 2, "false_positives": 1, "voxels": 7}
    nothing = summary_of([], NAMES, "test")
    assert nothing["n_cases"] == 0
    assert nothing["mean"] == {"dice": None, "iou": None}


@pytest.mark.parametrize("unit", ["mm", "px"])
def test_json_csv_and_terminal_agree(tmp_path: Path, unit: str) -> None:
    rows = rows_of(20, unit)
    summary = summary_of(rows, NAMES, "test")
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
    low, high = stored["mean_ci95"]
    dice, iou = (f"{stored['mean'][name]:.3f}" for name in ("dice", "iou"))
    assert mean.split()[1:] == [dice, f"{low:.3f}–{high:.3f}", iou]


def test_undefined_is_null_in_json_and_an_empty_cell(tmp_path: Path) -> None:
    rows = made(Case("a", "p", ()), np.array([[0, 0, 0], [1, 2, 2]]), LABELS, 1.0, "px")
    write_report(tmp_path, rows, summary_of(rows, NAMES, "test"))
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    expected = "case,group,class,dice,iou,truth_voxels,predicted_voxels\na,p,oedema,,,0,0\na,p,core [T1],0.5,"
    assert (tmp_path / "cases.csv").read_text().startswith(expected)
    text = shown(summary_of(rows, NAMES, "test"))
    assert "oedema: absent in 1, falsely found in 0 (0 px)" in text


@pytest.mark.parametrize(("patients", "is_said"), [(7, True), (8, False)])
def test_why_there_is_no_interval_is_said_below_the_table(patients: int, is_said: bool) -> None:
    text = " ".join(shown(summary_of(rows_of(2 * patients), NAMES, "test")).split())
    assert ("–: intervals are over patients, and given from 8 patients on" in text) == is_said


def test_table_fits_a_terminal_of_80_columns() -> None:
    names = ["left ventricular outflow tract and its valve", "b"]
    labels = LabelMap({"background": 0, names[0]: 1, "b": 2})
    found = np.array([[8, 10, 10], [7, 9, 11]])
    rows = [
        row
        for i in range(1000)
        for row in made(Case(f"{i}", f"{i}", ()), found - np.array([i % 3, 0, 0]), labels, 1.0, "mm")
    ]
    text = shown(summary_of(rows, names, "test"))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    assert "1000" in text


def test_a_folder_that_cannot_be_made_is_a_worded_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MedsegError, match="cannot write"):
        write_report(tmp_path / "file", [], summary_of([], NAMES, "test"))


def test_missed_distances_of_lesions_are_those_with_a_lesion_to_find() -> None:
    """BraTS's rule leaves small lesions out: where no other is there, nothing was missed."""
    nan, settings = float("nan"), Settings(("dice", "lesion_dice", "lesion_hd95"), lesions="brats")
    of = {
        "too small": (9, 0, nan, nan),
        "missed": (90, 0, 0.0, nan),
        "wrong": (0, 90, 0.0, nan),
        "apart": (90, 90, 0.0, nan),
    }
    of |= {"nothing": (0, 0, nan, nan), "found": (90, 90, 0.8, 2.0), "unknown": (nan, 90, nan, nan)}
    rows = [
        {"case": case, "group": case, "class": "core", "truth_voxels": true, "predicted_voxels": predicted}
        | {"dice": nan, "lesion_dice": dice, "lesion_hd95": distance}
        for case, (true, predicted, dice, distance) in of.items()
    ]
    found = summarise(rows, ["core"], settings, subset="test")["classes"]["core"]
    assert [found[name]["n_missed"] for name in settings.names] == [0, 0, 3]
    assert found["lesion_hd95"]["n_undefined"] == 6
