"""report.html: its numbers are those of all other files, it needs nothing else, and what it does in a browser."""

import csv
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from browser import Markup, needs_browser, visit
from PIL import Image
from rich.console import Console

from medseg.evaluation.images.views import View, view_of
from medseg.evaluation.metrics.registry import METRICS, Settings
from medseg.evaluation.pages.text_table import print_tables
from medseg.evaluation.report.files import read_report, write_report
from medseg.evaluation.report.html import html_report
from medseg.evaluation.report.tables import number, statistics_table, tables_of, titled
from medseg.evaluation.statistics.cases import SIZES, Row, read_rows
from medseg.evaluation.statistics.summary import Summary, summarise
from medseg.io.case import Scan

HOSTILE = "<img src=x onerror=alert(1)>&amp;</script>"
NAMES = ["liver", "tumour_1 & <b>"]
SITES = ["Bonn", "Ulm", "São Paulo"]


def made_rows(cases: int, names: list[str], seed: int = 0) -> list[Row]:
    """Rows with a value of every metric; some are undefined, some cases lack the last class."""
    rng = np.random.default_rng(seed)
    rows = []
    for case in range(cases):
        head = {"site": SITES[case % 3], "case": f"case {case:03}", "group": f"patient {case // 2}"}
        for name in names:
            size = 0 if name == names[-1] and case % 5 == 0 else int(rng.integers(1, 10**6))
            row: Row = head | {"class": name} | dict(zip(METRICS, rng.beta(5, 1, len(METRICS)).tolist(), strict=True))
            row["dice"] = float("nan") if not size else row["dice"]
            rows.append(row | dict(zip(SIZES, (size, size + 9, size / 1000, size / 1000 + 0.009), strict=True)))
    return rows


def written(folder: Path, rows: list[Row], names: list[str] = NAMES, **told: Any) -> Summary:
    summary = summarise(rows, names, Settings(tuple(METRICS)), subset="test", strata=["site"], **told)
    write_report(folder, rows, summary)
    return summary


def report_of(folder: Path, runs: dict[str, Path]) -> str:
    """The page of the report whose files are in a folder."""
    return html_report(json.loads((folder / "metrics.json").read_text()), read_rows(folder / "cases.csv"), folder, runs)


def made_run(run: Path) -> Path:
    """A training run's files, as far as a report reads them."""
    run.mkdir()
    config = {
        "dataset": {"name": "folder", "root": "/data/abdomen"},
        "model": {"_target_": "medseg.models.UNet"},
        "seed": 0,
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    parts = {"seed": 7, "train": ["a", "b"], "val": ["c"], "test": [HOSTILE]}
    files = {
        "splits": parts,
        "plan": {"plan": {"patch_size": [64, 32, 32]}},
        "training_data": {"liver in ml": [1, 2, 0.5, 4]},
        "environment": {"arguments": ["train", "dataset.root=/a b"], "device": "CPU", "versions": {"torch": "2.10"}},
        "result": {"reason": "max_time reached", "seconds": 12.5},
    }
    for name, content in files.items():
        (run / f"{name}.json").write_text(json.dumps(content))
    rows = ["epoch,step,lr,train_loss,val_dice,val_dice_smoothed,val_dice_liver,grad_norm"]
    rows += ["1,10,0.1,1.5,,,,2.5", "2,20,0.05,-0.5,0.6,0.6,0.6,nan", "3,30,0.01,-0.75,0.8,0.7,0.8,1.5"]
    (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    return run


def draw(folder: Path, names: list[str], size: tuple[int, int] = (1300, 500)) -> None:
    for place, name in enumerate(names):
        path = folder / "overlays" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (40 * place, 90, 200)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written(tmp_path, made_rows(20, NAMES), problems=[f"{HOSTILE}: no mask"])
    draw(tmp_path, ["case 003", "case 007", "case 011"])
    return tmp_path


@pytest.fixture
def html(folder: Path) -> str:
    return report_of(folder, {"training": made_run(folder / "run")})


def markdown_tables(text: str) -> dict[str, list[list[str]]]:
    """The tables of a Markdown file by their headings."""
    plain = re.sub(r"\\(?=[\\`*_|<>\[\]#])", "\0", text)
    found: dict[str, list[list[str]]] = {}
    for line in plain.splitlines():
        if line.startswith("### "):
            rows = found[line[4:].replace("\0", "")] = []
        elif line.startswith("|") and "---" not in line:
            cells = re.split(r"(?<!\0)\|", line)[1:-1]
            rows.append([cell.strip().replace("\0", "") for cell in cells])
    return found


def latex_rows(text: str) -> list[list[str]]:
    plain = text.replace("--", "–").replace(r"$\pm$", "±")
    lines = (line.removesuffix(r" \\") for line in plain.splitlines() if line.endswith(r"\\"))
    return [[re.sub(r"\\([&%$#_{}])", r"\1", cell).strip() for cell in re.split(r"(?<!\\)&", line)] for line in lines]


def test_terminal_json_csv_markdown_latex_and_html_tell_the_same_numbers(folder: Path, html: str) -> None:
    stored = json.loads((folder / "metrics.json").read_text())
    tables = tables_of(stored)
    full = [statistics_table(stored, metric) for metric in METRICS]
    shown, marked = Markup(html).tables, markdown_tables((folder / "report.md").read_text())
    for table in [*tables, *full]:
        cells = [list(table.headers), *map(list, table.rows)]
        assert shown[table.title] == marked[table.title] == cells
    assert latex_rows((folder / "report.tex").read_text()) == shown[tables[0].title]
    for table in tables:
        console = Console(width=300, record=True, file=io.StringIO())
        print_tables([table], console)
        lines = {" ".join(line.split()) for line in console.export_text().splitlines()}
        assert {" ".join(" ".join(row).split()) for row in table.rows} <= lines


def test_the_numbers_are_those_of_the_cases(folder: Path, html: str) -> None:
    stored, found = json.loads((folder / "metrics.json").read_text()), Markup(html)
    with (folder / "cases.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    for metric in METRICS:
        table = {row[0]: row for row in found.tables[titled(metric, "mm")]}
        for name in NAMES:
            values = np.array([float(row[metric]) for row in cells if row["class"] == name and row[metric]])
            of = stored["classes"][name][metric]
            quartiles = np.percentile(values, (50, 25, 75)).tolist()
            exact = [values.mean(), values.std(ddof=1), *quartiles]
            assert [of[key] for key in ("mean", "std", "median", "q1", "q3")] == exact
            mean, std, median, low, high = (number(value, metric) for value in exact)
            assert table[name][1:5] == [mean, std, median, f"{low}–{high}"]
            assert table[name][6:8] == [str(len(values)), str(20 - len(values))]
    assert f"{stored['mean']['dice']:.3f} " in found.text
    low, high = stored["mean_ci95"]
    assert f"95 % interval {low:.3f}–{high:.3f}" in found.text


def test_the_table_of_cases_and_opened_cases_tell_cases_csv(folder: Path, html: str) -> None:
    with (folder / "cases.csv").open(newline="") as file:
        cells = {(row["case"], row["class"]): row for row in csv.DictReader(file)}
    head, *rows = Markup(html).tables["Dice by case"]
    assert head == ["case", "group", "site", "mean", *NAMES]
    assert len(rows) == 20
    text = re.search(r'id="case-data">(.*?)</script>', html)
    assert text
    known = json.loads(text.group(1))
    assert known["columns"][: len(METRICS)] == [titled(name, "mm") for name in METRICS]
    for row, case in zip(rows, known["cases"], strict=True):
        assert row[0] == case["id"]
        own = [cells[row[0], name] for name in NAMES]
        scores = [float(cell["dice"]) for cell in own if cell["dice"]]
        assert row[3] == case["facts"]["mean Dice"] == f"{np.mean(scores):.3f}"
        assert row[4:] == [f"{float(cell['dice']):.3f}" if cell["dice"] else "–" for cell in own]
        for cell, line in zip(own, case["values"], strict=True):
            expected = [number(float(cell[name]) if cell[name] else None, name) for name in METRICS]
            assert line.split("\t")[: len(METRICS)] == expected


def test_the_page_holds_what_a_reviewer_asks_for(html: str) -> None:
    found = Markup(html)
    titles = "Pictures,Summary,By class,By size,Cases,Training,Data,Config,Environment,Definitions"
    links = [link["href"] for link in found.all("a") if "case" not in str(link["href"])]
    assert links[:3] == ["#main", "#summary", "#by-class"]
    assert links[3:] == [f"#{title.lower().replace(' ', '-')}" for title in titles.split(",") if title != "Cases"]
    assert all(metric.definition in found.text for metric in METRICS.values())
    assert all(metric.source in found.text for metric in METRICS.values())
    for word in (
        "abdomen: test cases",
        "model UNet",
        "64 × 32 × 32",
        "liver in ml",
        "Split, seed 7",
        "max_time reached",
    ):
        assert word in found.text
    assert "medseg train 'dataset.root=/a b'" in found.text
    assert f"{HOSTILE}: no mask" in found.text
    plots = [title for title in re.findall(r"<figcaption>([^<]*)", html) if title]
    assert {"Dice", "liver", "Validation Dice", "Training loss", "Learning rate", "Gradient norm"} <= set(plots)


def test_headings_are_in_order_and_everything_drawn_has_words(html: str) -> None:
    found = Markup(html)
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    images = found.all("img")
    assert [str(image["alt"])[:17] for image in images] == ["Overlay of case 0"] * 3
    assert all("Dice: " in str(image["alt"]) and image["width"] == "1000" for image in images)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    plots = [attributes for attributes in found.all("svg") if attributes.get("class") == "plot"]
    assert all(plot["role"] == "img" for plot in plots)
    assert len(re.findall(r'<svg class="plot"[^>]*><title>[^<]+</title><desc>[^<]+</desc>', html)) == len(plots)


def test_nothing_is_loaded_and_names_cannot_break_the_page(tmp_path: Path) -> None:
    rows = made_rows(9, [HOSTILE, "b"])
    for row in rows:
        row["case"] += HOSTILE
        row["site"] = HOSTILE
    written(tmp_path, rows, [HOSTILE, "b"])
    html = report_of(tmp_path, {})
    found = Markup(html)
    assert not found.all("img")
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", html)
    assert not [attributes for tag, attributes in found.tags if tag in ("link", "iframe", "object")]
    assert all(not name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert found.tables["Dice by case"][1][0] == rows[0]["case"]


def test_of_a_single_picture_without_millimetres_nothing_is_missing(tmp_path: Path) -> None:
    rows = [
        {k: v for k, v in row.items() if not k.endswith("_ml")} | {"group": "case 000"}
        for row in made_rows(1, ["cell"])
    ]
    rows[0] |= {"truth_voxels": 5, "dice": 0.5}
    written(tmp_path, rows, ["cell"])
    html = report_of(tmp_path, {})
    assert Markup(html).tables["Dice by case"] == [
        ["case", "site", "mean", "cell"],
        ["case 000", "Bonn", "0.500", "0.500"],
    ]
    assert "true area (px)" in html
    assert "predicted size (px)" in html
    lines = Markup(html).text
    assert "area difference (px)" in lines
    assert "belong to an object" in lines
    assert "metrics.lesions" in lines  # the key keeps its name
    assert not re.search(r"volume|voxel|\bml\b|(?<!metrics\.)lesion", lines)


def test_a_class_absent_everywhere_and_nothing_defined(tmp_path: Path) -> None:
    rows = [row | dict.fromkeys(METRICS, float("nan")) | {"truth_voxels": 0} for row in made_rows(3, ["a", "b"])]
    written(tmp_path, rows, ["a", "b"])
    found = Markup(report_of(tmp_path, {}))
    assert "No case has a defined value." in found.text
    assert found.tables["Dice by case"][1][3:] == ["–", "–", "–"]


@pytest.mark.parametrize(("cases", "classes"), [(1000, 10), (300, 117)])
def test_many_cases_and_classes_stay_below_5_mb(tmp_path: Path, cases: int, classes: int) -> None:
    names = [f"organ {place}" for place in range(classes)]
    rows = made_rows(cases, names)
    summary = summarise(rows, names, Settings(("dice",)), subset="test")
    summary["settings"]["names"] = list(METRICS)
    summary["mean"] = dict.fromkeys(METRICS, summary["mean"]["dice"])
    summary["classes"] = {name: dict.fromkeys(METRICS, of["dice"]) | of for name, of in summary["classes"].items()}
    write_report(tmp_path, rows, summary)
    rng = np.random.default_rng(0)
    for case in range(15):
        path = tmp_path / "overlays" / f"case {case:03}.png"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (60, 150, 3), np.uint8))
        coarse.resize((1500, 600), Image.Resampling.BICUBIC).save(path, compress_level=0)
    html = report_of(tmp_path, {"training": made_run(tmp_path / "run")})
    assert len(html.encode()) < 5e6
    found = Markup(html)
    assert len(found.tables["Dice by case"]) == cases + 1
    assert len(found.all("img")) == 9
    if classes > 30:
        assert found.tables["Dice by case"][0][-2:] == ["lowest", "of class"]
        assert f"{classes - 30} more classes" in found.text


def test_the_answer_comes_first(folder: Path, html: str) -> None:
    stored = json.loads((folder / "metrics.json").read_text())
    lead = html[html.index("<header>") : html.index("</header>") + len("</header>")]
    text = " ".join(Markup(lead).text.split())
    assert f"{stored['mean']['dice']:.3f} mean Dice over 2 classes, 20 cases, 95 % interval" in text
    assert "1 case(s) could not be scored" in text
    worst = min(stored["classes"], key=lambda name: stored["classes"][name]["dice"]["mean"])
    assert f"Worst class {worst} : Dice {stored['classes'][worst]['dice']['mean']:.3f}" in text
    cases = {row[0]: float(row[3]) for row in Markup(html).tables["Dice by case"][1:]}
    assert f"Worst case {min(cases, key=cases.__getitem__)} : mean Dice {min(cases.values()):.3f}" in text


def view(case: str, shape: tuple[int, ...] = (12, 10, 8)) -> View:
    """A volume whose channels are as bright as the number of a slice, each along another axis, with a box in it."""
    image = np.stack([np.broadcast_to(20 * at, shape) for at in np.indices(shape)[::-1]]).astype(np.float32)
    predicted, true = np.zeros((2, *shape), np.uint8)
    predicted[3:8, 3:8, 2:6] = 1
    true[4:9, 3:8, 2:6] = 2
    affine = np.diag([-1.0, -1.0, -2.5, 1.0])  # the axes run to the left, to posterior and to inferior
    return view_of(case, Scan(image, affine), predicted, ["background", *NAMES], true, np.ones(3, bool))


@pytest.fixture
def viewed(folder: Path) -> str:
    """The page of a report with three cases to go through, one of them a picture."""
    colours = np.zeros((3, 30, 40), np.float32)
    colours[0] = 200
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 10:30] = 1
    picture = view_of("case 007", Scan(colours, np.eye(4), "px"), mask, ["background", HOSTILE], mask, np.ones(2, bool))
    rows = read_rows(folder / "cases.csv")
    views = [view("case 003"), picture, view("case 011")]
    return html_report(json.loads((folder / "metrics.json").read_text()), rows, folder, {}, views)


VIEWER = """
const canvas = viewer.querySelector("canvas"), label = () => canvas.getAttribute("aria-label");
const set = (name, value) => {
    const input = viewer.querySelector(`[name="${name}"]`);
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
};
const click = (name, ...values) =>
    viewer.querySelector(`[name="${name}"]` + values.map(value => `[value="${value}"]`)).click();
const key = name => canvas.dispatchEvent(new KeyboardEvent("keydown", { key: name, cancelable: true }));
const wheel = deltaY => !canvas.dispatchEvent(new WheelEvent("wheel", { deltaY, cancelable: true }));
const point = (type, x) => canvas.dispatchEvent(new PointerEvent(type, { clientX: x, pointerId: 1 }));
const number = () => Number(viewer.querySelector("[name=slice]").getAttribute("aria-valuetext").split(" ")[0]);
// The colour at a share of the width and of the height.
const colour = (x, y) => {
    const one = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
    one.drawImage(canvas, Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1, 0, 0, 1, 1);
    return [...one.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
await until(label);
"""


@needs_browser
def test_a_browser_goes_through_the_slices_by_every_means(folder: Path, viewed: str) -> None:
    script = """
    canvas.setPointerCapture = () => {};  // which made-up pointers have none of
    const numbers = [];
    const note = (...done) => numbers.push(number());
    note(key("Home")); note(key("ArrowDown")); note(key("ArrowRight")); note(key("ArrowUp")); note(key("PageDown"));
    note(set("slice", 3)); note(wheel(120)); note(wheel(-120)); note(wheel(10)); note(wheel(35));
    note(point("pointerdown", 100), point("pointermove", 100 + canvas.clientWidth / 4), point("pointerup", 0));
    point("pointermove", 0); note();
    key("Home");
    const scrolls = [wheel(-120), wheel(120)];
    const dark = colour(0.05, 0.05)[0];
    key("End");
    return [numbers, scrolls, dark, colour(0.05, 0.05)[0], label(), canvas.width / canvas.height];
    """
    numbers, scrolls, dark, bright, label, aspect = visit(viewed, folder, STEPS + VIEWER + script)
    assert numbers == [1, 2, 3, 2, 8, 4, 5, 4, 4, 5, 7, 7]
    assert scrolls == [False, True]  # above the first slice the page scrolls
    assert dark + 100 < bright
    assert label == "Axial slice 8 of 8 of case 003; its left side is the patient's right"
    assert aspect == pytest.approx(12 / 10, rel=0.01)


@needs_browser
def test_a_browser_switches_masks_planes_channels_windows_and_cases(folder: Path, viewed: str) -> None:
    script = """
    const seen = {};
    const inner = [3.5 / 12, 4.5 / 10], outer = [8.5 / 12, 4.5 / 10];
    seen.predicted = colour(...inner);
    key("p");
    seen.without = colour(...inner);
    const border = () => colour(4 / 12, 4.5 / 10);
    seen.outline = border();
    click("true");
    seen.none = border();
    seen.checked = ["predicted", "true"].map(name => viewer.querySelector(`[name="${name}"]`).checked);
    const brightness = colour(...outer)[0];
    set("level", 0);
    seen.bright = [brightness, colour(...outer)[0]];
    click("reset");
    seen.reset = colour(...outer)[0] === brightness;
    click("axis", 1);
    seen.coronal = [label(), canvas.width / canvas.height];
    set("channel", 2);
    seen.across = [colour(0.05, 0.5)[0], colour(0.95, 0.5)[0]];
    click("case", 1);
    await until(() => label() === "case 007");
    seen.picture = [canvas.width / canvas.height, colour(0.01, 0.01)];
    seen.legend = [...viewer.querySelectorAll(".legend li")].map(item => item.textContent);
    const hidden = name => !viewer.querySelector(`[name="${name}"]`).getClientRects().length;
    seen.hidden = ["slice", "axis", "channel", "level"].map(hidden);
    seen.pressed = [...viewer.querySelectorAll("[name=case]")].map(button => button.getAttribute("aria-pressed"));
    return seen;
    """
    seen = visit(viewed, folder, STEPS + VIEWER + script)
    assert max(seen["predicted"]) - min(seen["predicted"]) > 30  # grey below a colour
    assert max(seen["without"]) - min(seen["without"]) < 5
    assert seen["outline"] == [255, 255, 255] != seen["none"]
    assert seen["checked"] == [False, False]
    assert seen["bright"][0] < seen["bright"][1]
    assert seen["reset"]
    assert seen["coronal"][0].startswith("Coronal slice 4 of 10 of case 003")
    assert seen["coronal"][1] == pytest.approx(12 / 20, rel=0.01)
    assert seen["across"][0] + 100 < seen["across"][1]
    assert seen["picture"][0] == pytest.approx(40 / 30, rel=0.01)
    red, *others = seen["picture"][1]
    assert red > 180
    assert max(others) < 20
    assert seen["legend"] == [HOSTILE]
    assert seen["hidden"] == [True, True, True, False]
    assert seen["pressed"] == ["false", "true", "false"]


@needs_browser
def test_fingers_find_the_controls_on_a_phone(folder: Path, viewed: str) -> None:
    script = """
    const controls = [...viewer.querySelectorAll("button, select, input[type=range], label.check")];
    const sizes = controls.map(each => each.getBoundingClientRect()).filter(box => box.width);
    const order = [...viewer.querySelectorAll("button, canvas, select, input")].map(each => each.name ?? "canvas");
    const named = [...viewer.querySelectorAll("select, input")].every(each => each.labels[0].textContent.trim());
    const rights = [document.documentElement.scrollWidth, canvas.getBoundingClientRect().right];
    const least = Math.min(...sizes.map(box => Math.min(box.width, box.height)));
    return [Math.max(...rights), least, [...new Set(order)], named, getComputedStyle(canvas).touchAction];
    """
    right, least, order, named, touch = visit(viewed, folder, STEPS + VIEWER + script, width=390)
    assert right <= 390
    assert least >= 44
    assert order == ["case", "canvas", "slice", "axis", "predicted", "true", "channel", "level", "width", "reset"]
    assert named
    assert touch == "pan-y"


STEPS = """
// The browser's clock runs ahead of real time, in which addresses change: so wait by work, too.
const until = async holds => {
    for (let n = 0; n < 100 && !holds(); n++) {
        for (let work = 0; work < 5e6; work++);
        await new Promise(resolve => setTimeout(resolve, 20));
    }
};
const dialog = document.querySelector("dialog"), table = document.querySelector("#cases table");
const cases = () => [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[0].textContent);
const cells = () => [...dialog.querySelectorAll("tbody tr")].map(row => [...row.cells].map(cell => cell.textContent));
const title = () => dialog.querySelector("h2").textContent;
const press = text => [...dialog.querySelectorAll("button")].find(found => found.textContent === text).click();
"""


@needs_browser
def test_a_browser_opens_cases_and_walks_among_them(folder: Path, html: str) -> None:
    script = """
    const link = table.tBodies[0].rows[3].querySelector("a");
    link.focus();
    link.click();
    await until(() => dialog.open);
    const first = [dialog.open, dialog.querySelector("h2").textContent, cells(), dialog.querySelectorAll("img").length];
    const label = document.getElementById(dialog.getAttribute("aria-labelledby")).textContent;
    press("Next");
    await until(() => title() === "case 004");
    const second = [dialog.open, dialog.querySelector("h2").textContent, location.hash];
    press("Close");
    await until(() => location.hash === "" && document.activeElement === link);
    return [first, label, second, dialog.open, location.hash, document.activeElement === link];
    """
    first, label, second, is_open, place, is_back = visit(html, folder, STEPS + script)
    assert first[:2] == [True, "case 003"]
    assert label == "case 003"
    assert first[3] == 1
    with (folder / "cases.csv").open(newline="") as file:
        own = [row for row in csv.DictReader(file) if row["case"] == "case 003"]
    rows = {row[0]: row[1:] for row in first[2]}
    for metric in METRICS:
        expected = [number(float(row[metric]) if row[metric] else None, metric) for row in own]
        assert rows[titled(metric, "mm")] == expected
    assert second == [True, "case 004", "#case-4"]
    assert (is_open, place, is_back) == (False, "", True)


@needs_browser
def test_a_browser_sorts_and_filters_the_cases(folder: Path, html: str) -> None:
    script = """
    const button = [...table.tHead.querySelectorAll("button")].find(found => found.textContent === "mean");
    button.click();
    const up = [cases(), button.closest("th").getAttribute("aria-sort")];
    const input = document.querySelector("#cases .filter input");
    input.value = "paulo case";
    input.dispatchEvent(new Event("input"));
    table.tBodies[0].querySelector("tr:not([hidden]) a").click();
    await until(() => dialog.open);
    const opened = title();
    press("Next");
    await until(() => title() !== opened);
    return [up, cases(), title()];
    """
    (order, direction), filtered, second = visit(html, folder, STEPS + script)
    rows = Markup(html).tables["Dice by case"][1:]
    assert direction == "ascending"
    means = {row[0]: float(row[3]) for row in rows}
    assert [means[name] for name in order] == sorted(means.values())
    assert filtered == [name for name in order if int(name[-3:]) % 3 == 2]
    assert second == filtered[1]  # the next case is the next one of those shown


@needs_browser
def test_an_address_opens_a_case_and_a_phone_need_not_scroll_sideways(folder: Path, html: str) -> None:
    script = "return [dialog.open, title()];"
    assert visit(html, folder, STEPS + script, fragment="#case-2") == [True, "case 002"]
    script = """
    for (const part of document.querySelectorAll("details")) part.open = true;
    const page = [document.documentElement.scrollWidth <= innerWidth, innerWidth];
    location.hash = "#case-3";
    await until(() => dialog.open);
    return [...page, dialog.scrollWidth <= dialog.clientWidth, dialog.getBoundingClientRect().right <= innerWidth];
    """
    assert visit(html, folder, STEPS + script, width=375) == [True, 375, True, True]


CONTRAST = """
const channel = value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = text => text.match(/[\\d.]+/g).slice(0, 3).map(value => channel(value / 255))
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
const sample = document.createElement("p");
document.body.append(sample);
const colour = name => { sample.style.color = `var(--${name})`; return light(getComputedStyle(sample).color); };
const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
const texts = [["text", "page"], ["quiet", "page"], ["accent", "page"], ["text", "panel"], ["bad", "bad-back"]];
const marks = ["dot", "s0", "s1", "s2", "s3", "s4", "s5", "s6"].map(name => [name, "page"]);
const least = pairs => Math.min(...pairs.map(([a, b]) => contrast(colour(a), colour(b))));
return [least(texts), least(marks), matchMedia("(prefers-color-scheme: dark)").matches];
"""


@needs_browser
@pytest.mark.parametrize("is_dark", [False, True])
def test_contrast_is_that_of_wcag_aa(folder: Path, html: str, is_dark: bool) -> None:
    texts, marks, found = visit(html, folder, CONTRAST, is_dark=is_dark)
    assert found == is_dark
    assert texts >= 4.5
    assert marks >= 3


@needs_browser
def test_a_notebook_shows_the_page_in_a_frame_in_which_cases_open(tmp_path):
    written(tmp_path, made_rows(4, NAMES), problems=[HOSTILE])
    (tmp_path / "report.html").write_text(report_of(tmp_path, {}), "utf-8")
    frame = read_report(tmp_path, HOSTILE)._repr_html_()
    assert frame is not None
    assert [tag for tag, _ in Markup(frame).tags] == ["iframe"]
    seen = frame.replace('sandbox="allow-scripts"', "")  # for this test to look in
    script = """
        const page = document.querySelector("iframe").contentDocument;
        const link = page.querySelector('th a[href="#case-2"]'), dialog = page.querySelector("dialog"), opened = [];
        const once = (target, name) => new Promise(done => target.addEventListener(name, done, { once: true }));
        for (let time = 0; time < 2; time += 1) {
          const isFollowed = once(page.defaultView, "hashchange"), isClosed = once(dialog, "close");
          link.click();
          await isFollowed;
          opened.push(dialog.open);
          dialog.close();
          await isClosed;
        }
        return [opened, page.location.href, page.querySelector("h1").textContent];
    """
    opened, address, title = visit(f"<!doctype html><title>notebook</title>{seen}", tmp_path, script)
    assert (opened, address, title) == ([True, True], "about:srcdoc", "Report: test cases")
