"""``sweep.html``: what it shows of a sweep, and how it answers in a browser."""

import csv
import io
import json
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from browser import Markup, needs_browser, visit

from medseg.sweeps.record import write_record
from medseg.sweeps.report import summary
from medseg.sweeps.report.summary import show_sweep


@pytest.fixture
def html(grid: Path) -> str:
    show_sweep(grid)
    return (grid / "sweep.html").read_text()


def test_the_page_has_the_ranking_the_best_and_its_test_and_what_failed(html: str) -> None:
    found = Markup(html)
    [caption, *_] = found.tables
    assert caption == "Ranked by mean Dice over 2 validation cases of x; higher is better"
    header, *rows = found.tables[caption]
    assert header == ["job", "validation", "test", "optimizer.lr", "model.depth", "status", "seconds"]
    assert rows[0] == ["3", "0.9000", "0.8500", "0.001", "3", "done", "13"]
    assert [row[0] for row in rows] == ["3", "2", "1", "0", "4"]
    assert found.tables["Jobs that have not ended"][1][:3] == ["5", "optimizer.lr=1 model.depth=3", "waiting"]
    assert found.tables["Jobs that are not done"][1][2:] == ["failed", "killed by <SIGKILL>"]
    text = " ".join(found.text.split())
    assert "6 jobs: 4 done, 1 failed, 1 waiting" in text
    assert "0.850 over 26 cases, 95 % interval 0.800–0.900" in text
    assert "medseg predict checkpoint=" in text
    links = {link["href"] for link in found.all("a")}
    assert {"3/test/report.html", "4/train.log"} < links
    assert not any(str(link).startswith("http") for link in links)


def test_a_job_that_has_not_learned_a_class_is_marked_everywhere(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = grid / "2" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unlearned": ["core <b>", "rim"]}))
    write_record(grid)
    show_sweep(grid)
    table = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.split()}
    assert "! 0.8000" in table["2"]
    assert "!" not in table["1"] + table["3"]
    assert table["!"] == "! job 2: not learned: core <b>, rim"
    found = next(iter(Markup((grid / "sweep.html").read_text()).tables.values()))
    assert found[0][:4] == ["job", "validation", "test", "not learned"]
    assert {row[0]: row[3] for row in found[1:]} == {"0": "", "1": "", "2": "core <b>, rim", "3": "", "4": ""}
    rows = csv.DictReader(io.StringIO((grid / "sweep.csv").read_text()))
    assert {row["job"]: row["unlearned"] for row in rows} == {"0": "", "1": "", "2": "core <b>; rim", "3": "", "4": ""}


def test_importance_is_that_of_the_scores(html: str) -> None:
    rows = Markup(html).tables["Importance"][1:]
    assert [row[0] for row in rows] == ["optimizer.lr", "model.depth"]
    assert rows[0][1] == "70 %"  # between 0.04 of 0.05 in all, less 0.01 / 2 of chance
    assert "of 4 scores" in html


def test_a_search_tells_its_own_importances(grid: Path) -> None:
    (grid / "search.json").write_text(json.dumps({"importances": {"model.depth": 0.25, "optimizer.lr": 0.75}}))
    show_sweep(grid)
    rows = Markup((grid / "sweep.html").read_text()).tables["Importance"][1:]
    assert rows == [["optimizer.lr", "75 %"], ["model.depth", "25 %"]]


def test_each_scored_job_has_a_line_in_both_plots(html: str) -> None:
    links = [link["href"] for link in Markup(html).all("a") if link.get("tabindex") == "-1"]
    assert sorted(links) == sorted(2 * [f"#job-{job}" for job in range(4)])
    assert html.count("job 3: optimizer.lr=0.001 model.depth=3, 0.9000</title>") == 2


def test_jobs_of_other_cases_have_a_part_each(sweep: Any) -> None:
    folder = sweep({"split.seed=0": 0.5, "split.seed=1": 0.6})
    result = json.loads((folder / "1" / "result.json").read_text())
    result["validated"] |= {"cases": "other", "n_cases": 1}
    (folder / "1" / "result.json").write_text(json.dumps(result))
    show_sweep(folder)
    found = Markup((folder / "sweep.html").read_text())
    assert sum(caption.startswith("Ranked by") for caption in found.tables) == 2
    assert "have no common order" in found.text


def test_a_cross_validation_begins_with_its_results_and_ranks_no_fold(
    folds: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "print_tables", lambda tables, terminal: None)  # of reports that are not whole
    monkeypatch.setattr(summary, "tables_of", lambda report: [])
    show_sweep(folds)
    found = Markup((folds / "sweep.html").read_text())
    text = " ".join(found.text.split())
    pooled = "All cases out of fold: Dice 0.735 over 3 cases, 95 % interval 0.635–0.835; report"
    tested = "Test of the ensemble: Dice 0.815 over 3 cases, 95 % interval 0.715–0.915; report"
    assert text.index(pooled) < text.index(tested) < text.index("the folds are an ensemble") < text.index("3 folds, 3")
    assert "not used" not in text
    assert {"cross_validation/report.html", "test/report.html"} < {link["href"] for link in found.all("a")}
    [caption, *others] = found.tables
    assert caption == "mean Dice over 3 folds, 3 validation cases of x; higher is better"
    assert [row[0] for row in found.tables[caption][1:]] == ["0", "1", "2"]
    assert others == ["Over the folds"]
    assert "Parallel coordinates" not in text
    line = f"test of the ensemble: Dice 0.815 over 3 cases, 95 % interval 0.715–0.915; {folds / 'test' / 'report.html'}"
    assert line in capsys.readouterr().out.splitlines()


def test_that_the_test_part_was_not_used_is_said_of_folds_without_a_test(
    folds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "print_tables", lambda tables, terminal: None)
    monkeypatch.setattr(summary, "tables_of", lambda report: [])
    rmtree(folds / "test")
    show_sweep(folds)
    text = " ".join(Markup((folds / "sweep.html").read_text()).text.split())
    assert "Test of the ensemble" not in text
    assert "The test part was not used." in text


def test_a_sweep_without_any_result_has_a_page(sweep: Any) -> None:
    folder = sweep({"seed=0": "", "seed=1": ""})
    show_sweep(folder)
    assert len(Markup((folder / "sweep.html").read_text()).tables["Jobs that have not ended"]) == 3


def test_100_jobs_are_a_small_page(sweep: Any) -> None:
    folder = sweep({f"optimizer.lr={1e-4 * 1.05**n:.6f} model.depth={2 + n % 4}": 0.5 + n / 300 for n in range(100)})
    for job in range(100):
        rows = "\n".join(f"{epoch},{0.5 + epoch / 4000}" for epoch in range(1, 1001))
        (folder / str(job) / "metrics.csv").write_text(f"epoch,val_dice\n{rows}")
    show_sweep(folder)
    assert (folder / "sweep.html").stat().st_size < 300_000


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_pointing_at_a_job_names_it_everywhere(html: str, tmp_path: Path, width: int) -> None:
    script = """
    const said = () => [...document.querySelectorAll("output.named")].map(each => each.value);
    const marked = () => document.querySelectorAll(".marked").length;
    const line = document.querySelector('.plot a[href="#job-1"] polyline'), found = [said()[0], marked()];
    line.scrollIntoView({ block: "center", behavior: "instant" });
    const [depth, score] = line.getAttribute("points").split(" ").slice(1).map(text => text.split(",").map(Number));
    const [x, y] = [0, 1].map(axis => (depth[axis] + 9 * score[axis]) / 10);  // 4 px below a place near its end
    const place = new DOMPoint(x, y).matrixTransform(line.getScreenCTM());
    const at = { bubbles: true, cancelable: true, clientX: place.x, clientY: place.y + 4 };
    const target = document.elementFromPoint(at.clientX, at.clientY);
    target.dispatchEvent(new PointerEvent("pointermove", at));
    found.push(said(), marked());
    document.querySelector("h1").dispatchEvent(new PointerEvent("pointermove", { bubbles: true }));
    found.push(marked());
    line.dispatchEvent(new MouseEvent("click", at));
    document.querySelector("h1").dispatchEvent(new PointerEvent("pointermove", { bubbles: true }));
    found.push(marked(), location.hash);
    document.querySelector("#job-2 a").focus();
    found.push(said()[1], document.documentElement.scrollWidth <= innerWidth);
    return found;
    """
    hint, none, said, marked, left, held, place, focused, fits = visit(html, tmp_path, script, width=width)
    assert hint.startswith("Point at")
    assert none == 0
    assert said == 2 * ["job 1: optimizer.lr=0.1 model.depth=3, 0.7000"]
    assert marked == 3  # two lines and a row
    assert (left, held, place) == (0, 3, "")
    assert focused == "job 2: optimizer.lr=0.001 model.depth=2, 0.8000"
    assert fits
