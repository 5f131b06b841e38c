"""``medseg compare`` on reports as ``train`` and ``eval`` leave them."""

import csv
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from browser import needs_browser, visit

from medseg.cli import command_line
from medseg.cli import sweep as sweeps
from medseg.errors import MedsegError
from medseg.evaluation.metrics.registry import Settings
from medseg.evaluation.report.files import read_report, write_report
from medseg.evaluation.statistics.cases import as_csv, read_rows
from medseg.evaluation.statistics.summary import summarise
from medseg.jobs.evaluate import compare
from medseg.sweeps.record import record
from medseg.system.files import write_json

CLASSES = ("core [T1]", "œdème & <b>")
SETTINGS = Settings(("dice", "iou", "hd95"))


def rows_of(level: float, seed: int = 0, cases: int = 24) -> list[dict]:
    """Two cases a patient; the truth of every run is the same, the quality round a level."""
    truth, rng = np.random.default_rng(99), np.random.default_rng(seed)
    rows = []
    for case in range(cases):
        for name in CLASSES:
            size = int(truth.integers(50, 200))
            dice = float(np.clip(level + rng.normal(0, 0.03), 0, 1))
            measured = {"dice": dice, "iou": dice / (2 - dice), "hd95": float(rng.uniform(1, 2) / level)}
            sizes = {
                "truth_voxels": size,
                "predicted_voxels": size,
                "truth_ml": size / 1000,
                "predicted_ml": size / 1000,
            }
            ids = {"site": "Bonn, West", "case": f'c"{case}', "group": f"p{case // 2}", "class": name}
            rows.append(ids | measured | sizes)
    return rows


def report(folder: Path, rows: list[dict]) -> Path:
    write_report(folder, rows, summarise(rows, CLASSES, SETTINGS, subset="test"))
    return folder


def training(folder: Path, rows: list[dict]) -> Path:
    """A run directory as a training leaves it."""
    report(folder / "test", rows)
    write_json(folder / "splits.json", {})
    (folder / "config.yaml").write_text("dataset: {name: brains}\n")
    return folder


@pytest.fixture
def compared(composed, tmp_path):
    """Return ``compared(*runs, names=…)``: what the job returns, its folder being ``out``."""

    def go(*runs: Path, names=("full", "brats")):
        config = composed("compare", "runs=[]") | {"metrics": {"names": list(names)}, "run_dir": str(tmp_path / "out")}
        return compare.run(config | {"runs": [str(run) for run in runs] if len(runs) > 1 else str(runs[0])})

    return go


def found_in(folder: Path) -> dict:
    return json.loads((folder / "comparison.json").read_text())


def test_a_training_and_an_evaluation(compared, tmp_path, capsys):
    a, b = training(tmp_path / "runs" / "Müller (1)", rows_of(0.7)), report(tmp_path / "b", rows_of(0.8, 1))
    result = compared(a, b)
    assert (result["status"], result["score"]) == ("done", found_in(tmp_path / "out")["ranking"]["runs"][0]["mean"])
    stored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result == {**stored, "run_dir": str(tmp_path / "out")}
    found = found_in(tmp_path / "out")
    assert [run["name"] for run in found["runs"]] == ["Müller (1)", "b"]
    assert (found["n_cases"], found["n_patients"], found["notes"]) == (24, 12, [])
    assert len(found["comparisons"]) == 3 * 3
    mean = next(one for one in found["comparisons"] if one["metric"] == "dice" and one["class"] is None)
    dice = [[row["dice"] for row in rows] for rows in (rows_of(0.7), rows_of(0.8, 1))]
    assert mean["difference"] == pytest.approx(np.mean(dice[0]) - np.mean(dice[1]))
    assert mean["verdict"] == "worse"
    assert re.search(r"mean .* worse", capsys.readouterr().out)


def test_json_csv_markdown_page_and_terminal_agree(compared, tmp_path, capsys):
    compared(training(tmp_path / "a", rows_of(0.7)), training(tmp_path / "b", rows_of(0.72, 1)))
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    page = (tmp_path / "out" / "comparison.html").read_text()
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    for one, row in zip(found_in(tmp_path / "out")["comparisons"], rows, strict=True):
        assert row["class"] == (one["class"] or "")
        assert [float(row[name]) for name in ("mean_a", "mean_b")] == one["means"]
        assert [float(row[name]) for name in ("low", "high")] == one["interval"]
        assert [float(row[name]) for name in ("difference", "p", "p_holm")] == [
            one[name] for name in ("difference", "p", "p_holm")
        ]
        digits = 2 if one["metric"] == "hd95" else 3
        cells = [f"{mean:.{digits}f}" for mean in one["means"]] + [f"{one['difference']:+.{digits}f}"]
        cells += ["…".join(f"{end:+.{digits}f}" for end in one["interval"])]
        assert f"| {' | '.join(cells)} |" in markdown
        assert "".join(f"<td>{cell}</td>" for cell in cells) in page
        if one["metric"] == "dice" or one["class"] is None:
            assert " ".join(cells) in shown
    assert "œdème &amp; &lt;b&gt;" in page
    assert "<b>" not in page


def test_the_page_loads_nothing(compared, tmp_path):
    compared(training(tmp_path / "a", rows_of(0.7)), training(tmp_path / "b", rows_of(0.72, 1)))
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert "default-src 'none'" in page


@needs_browser
def test_a_browser_sorts_and_filters_the_comparisons(compared, tmp_path):
    levels = {f"{letter}{'-' * 60}": level for letter, level in (("a", 0.7), ("b", 0.8), ("c", 0.9))}
    runs = [training(tmp_path / name, rows_of(level, seed)) for seed, (name, level) in enumerate(levels.items())]
    compared(*runs)
    script = """
    const part = document.querySelector("#comparisons details"), table = part.querySelector("table");
    part.open = true;
    const names = () => [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[0].textContent);
    const button = [...table.tHead.querySelectorAll("button")].find(found => found.textContent === "first − second");
    button.click();
    const up = names(), input = part.querySelector(".filter input");
    input.value = "c";
    input.dispatchEvent(new Event("input"));
    const isApart = ([name, note]) => name.getBoundingClientRect().right < note.getBoundingClientRect().left;
    return [part.querySelector("summary").textContent, up, names(), part.querySelector("output").value,
        [...document.querySelectorAll(".strip")].map(strip => isApart(strip.children)),
        document.documentElement.scrollWidth <= innerWidth];
    """
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    title, up, filtered, shown, apart, fits = visit(page, tmp_path, script, width=390)
    found = [one for one in found_in(tmp_path / "out")["comparisons"] if one["metric"] == "dice"]
    own = {f"{one['a']} : {one['b']}": one["difference"] for one in found if title == f"Dice of {one['class']}"}
    assert up == sorted(own, key=own.get)
    assert filtered == [name for name in up if "c" in name]
    assert (len(up), shown, apart, fits) == (3, "2 of 3 shown", [True] * 3, True)


def test_a_sweep_is_compared_by_what_its_jobs_differ_in(compared, tmp_path, caplog, capsys):
    sweep = tmp_path / "sweep"
    for job, level in enumerate((0.7, 0.8, 0.9)):
        training(sweep / str(job), rows_of(level, job))
        record(sweep / str(job), {"status": "done", "score": level}, [f"model.depth={job}", "seed=1"])
    record(sweep / "3", {"status": "failed", "reason": "too large"}, ["model.depth=9", "seed=1"])
    assert sweeps.report(sweep) == 3
    assert f"for significance tests: medseg compare runs={sweep}" in capsys.readouterr().out
    with caplog.at_level(logging.WARNING):
        compared(sweep)
    assert "no report of 3, left out" in caplog.text
    found = found_in(tmp_path / "out")
    assert [run["name"] for run in found["runs"]] == ["model.depth=0", "model.depth=1", "model.depth=2"]
    assert [one["run"] for one in found["ranking"]["runs"]] == ["model.depth=2", "model.depth=1", "model.depth=0"]
    assert found["ranking"]["tau"] == 1.0
    assert len(found["comparisons"]) == 3 * 3 * 3


def test_ten_jobs_and_more_in_order(tmp_path):
    for job in (2, 10, 1):
        report(tmp_path / str(job), rows_of(0.7))
    assert [folder.name for folder in compare.report_folders(tmp_path)] == ["1", "2", "10"]


def test_an_evaluation_of_several_with_one_called_test(tmp_path):
    for name in ("a", "test"):
        report(tmp_path / "eval" / name, rows_of(0.7))
    assert compare.report_folders(tmp_path / "eval") == [tmp_path / "eval" / "a", tmp_path / "eval" / "test"]
    assert compare.names_of(compare.report_folders(tmp_path / "eval")) == ["a", "test"]


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [training(tmp_path / part / "run", rows_of(0.7)) / "test" for part in ("x", "y")]
    assert compare.names_of(runs) == ["x/run", "y/run"]


def test_the_folder_is_named_after_the_data_set(composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [str(training(tmp_path / name, rows_of(0.7))) for name in "ab"]
    compare.run(composed("compare", "runs=[]") | {"runs": runs})
    assert len(list(Path("outputs/compare/brains").glob("*/comparison.html"))) == 1


def test_chosen_metrics_alone_are_compared(compared, tmp_path):
    compared(report(tmp_path / "a", rows_of(0.7)), report(tmp_path / "b", rows_of(0.8, 1)), names=["hd95"])
    assert {one["metric"] for one in found_in(tmp_path / "out")["comparisons"]} == {"dice", "hd95"}


def test_few_patients_are_said_to_be_few(compared, tmp_path, capsys):
    compared(report(tmp_path / "a", rows_of(0.7, cases=8)), report(tmp_path / "b", rows_of(0.9, 1, cases=8)))
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "Below 6 patients no test is made" in shown
    assert "Below 8 patients there are no intervals" in shown
    assert "too few patients" in shown


def test_so_many_comparisons_that_none_can_show_a_difference(compared, tmp_path, capsys):
    compared(report(tmp_path / "a", rows_of(0.7, cases=14)), report(tmp_path / "b", rows_of(0.9, 1, cases=14)))
    assert "With 7 patients and 9 comparisons" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_what_cannot_be_compared_is_refused_before_a_folder_is_made(compared, tmp_path):
    a = report(tmp_path / "a", rows_of(0.7))
    with pytest.raises(MedsegError, match="1 report found, but two or more"):
        compared(a, a)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedsegError, match="no report in it"):
        compared(a, tmp_path / "empty")
    with pytest.raises(MedsegError, match="no report has nsd"):
        compared(a, report(tmp_path / "b", rows_of(0.8)), names=["nsd"])
    other = [row | {"truth_voxels": row["truth_voxels"] + 1} for row in rows_of(0.8)]
    with pytest.raises(MedsegError, match=r"24 case\(s\) have another ground truth"):
        compared(a, report(tmp_path / "c", other))
    assert not (tmp_path / "out").exists()


def test_an_evaluation_whose_candidates_have_no_case_in_common_goes_on(tmp_path, caplog):
    report(tmp_path / "a", rows_of(0.7)[:4])
    report(tmp_path / "b", rows_of(0.7)[4:8])
    compare.compare_reports(["a", "b"], tmp_path)
    assert "no comparison: the runs have no case in common" in caplog.text
    assert not (tmp_path / "comparison.json").exists()


def test_rows_are_read_back_as_they_were(tmp_path):
    rows = rows_of(0.7)
    rows[0]["hd95"] = float("nan")
    (tmp_path / "cases.csv").write_text(as_csv(rows))
    found = read_rows(tmp_path / "cases.csv")
    np.testing.assert_equal(found, rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no row"),
        ("case,group\na,b\n", "has no column class, dice"),
        ("case,group,class,dice,truth_voxels,predicted_voxels\na,a,x,0;5,1,1\n", "cannot be read"),
    ],
)
def test_a_broken_report_is_a_worded_error(tmp_path, text, message):
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(MedsegError, match=message):
        read_report(tmp_path, "a")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(MedsegError, match=r"cannot be read as JSON .* medseg eval"):
        read_report(tmp_path, "a")


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    training(tmp_path / "a (1)", rows_of(0.7))
    training(tmp_path / "b", rows_of(0.8, 1))
    assert command_line.main(["compare", "runs=[a (1),b]", "run_dir=out", "metrics.names=dice"]) == 0
    assert (tmp_path / "out" / "comparison.html").is_file()
    assert "ranking by Dice" in capsys.readouterr().out
    assert command_line.main(["compare", "runs=[a (1),c]"]) == 1
    assert "c: no such file or folder" in capsys.readouterr().err
    assert command_line.main(["compare"]) == 1
    assert "runs: missing" in capsys.readouterr().err
