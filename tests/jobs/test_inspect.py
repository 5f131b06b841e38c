"""``medseg inspect`` from end to end: its files against numbers worked out by hand, its tables, its exit status."""

import html
import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import yaml
from browser import needs_browser, visit
from rich.console import Console

from medseg.cli import command_line
from medseg.errors import MedsegError
from medseg.jobs.inspect import inspect
from medseg.jobs.inspect.tables import show, value_text
from medseg.preprocessing import file_hashes
from medseg.preprocessing.quality.check_dataset import Issue
from medseg.system.files import file_hash

CASES = 6
SHAPE, SPACING = (16, 18, 20), (1.0, 1.0, 2.0)


def save(path, values, spacing=SPACING):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1.0])), path)


@pytest.fixture
def data(tmp_path):
    """A folder of six volumes from 0 to 100; case n has an organ of 10 (n + 1) voxels, only c5 has a lesion."""
    for number in range(CASES):
        image = np.random.default_rng(number).permutation(np.linspace(0, 100, 16 * 18 * 20)).reshape(SHAPE)
        mask = np.zeros(16 * 18 * 20, np.uint8)
        mask[: 10 * (number + 1)] = 1
        mask[-5:] = 2 if number == 5 else 0
        save(tmp_path / f"data/images/c{number}.nii.gz", image.astype(np.float32))
        save(tmp_path / f"data/masks/c{number}.nii.gz", mask.reshape(SHAPE))
    return tmp_path / "data"


@pytest.fixture
def inspected(data, composed, tmp_path):
    """Return ``inspected(*overrides)``: the result, and inspect.json, of that data."""

    def run(*overrides):
        config = composed(
            "inspect",
            "dataset=folder",
            "trainer.accelerator=cpu",
            "dataset.labels={background: 0, organ: 1, lesion: 2}",
            *overrides,
        )
        config["dataset"]["root"] = str(data)
        run_dir = tmp_path / "run"
        result = inspect.run(config | {"run_dir": str(run_dir), "cache_dir": str(tmp_path / "cache")})
        return result, json.loads((run_dir / "inspect.json").read_text())

    return run


def test_the_numbers_of_a_data_set(inspected):
    result, numbers = inspected("dataset.modality=ct")
    assert (result["status"], result["score"]) == ("done", None)
    assert (numbers["format"], numbers["cases"], numbers["usable"], numbers["groups"]) == (1, 6, 6, 6)
    assert numbers["shape"] == {word: list(SHAPE) for word in ("min", "median", "max")}
    assert numbers["spacing"]["median"] == list(SPACING)
    assert {part: size["cases"] for part, size in numbers["split"].items()} == {"train": 4, "val": 1, "test": 1}
    assert [(finding["kind"], finding["cases"]) for finding in numbers["findings"]] == [("class split", ["c5"])]
    (channel,) = numbers["channels"]
    assert channel["modality"] == "ct"
    assert [channel[word] for word in ("min", "low", "median", "high", "max")] == pytest.approx([0, 0.5, 50, 99.5, 100])


def test_sizes_of_classes_are_of_the_cases_that_have_them(inspected):
    classes = inspected()[1]["classes"]
    ml = 2 / 1000  # of a voxel
    assert (classes["organ"]["n_present"], classes["organ"]["n_known"]) == (6, 6)
    assert classes["organ"]["volume"] == pytest.approx({"min": 10 * ml, "median": 35 * ml, "max": 60 * ml})
    assert classes["lesion"]["n_present"] == 1
    assert classes["lesion"]["volume"] == pytest.approx({"min": 5 * ml, "median": 5 * ml, "max": 5 * ml})


def test_regions_are_unions(inspected):
    classes = inspected("dataset.regions={all: [organ, lesion], lesion only: [lesion]}")[1]["classes"]
    assert classes["all"]["is_region"]
    assert classes["all"]["volume"]["max"] == pytest.approx(65 * 2 / 1000)
    assert not classes["organ"]["is_region"]


def test_classes_count_in_the_cases_that_were_annotated_for_them(inspected, data):
    (data / "annotated.csv").write_text("id,annotated\nc0,organ\nc1,organ\n")
    classes = inspected(f"dataset.annotated_file='{data / 'annotated.csv'}'")[1]["classes"]
    assert [classes[name]["n_known"] for name in ("organ", "lesion")] == [6, 4]


def test_the_plan_is_that_of_train(inspected, data, composed, tmp_path):
    from medseg.jobs.train import train

    inspected("model.depth=2", "model.base_channels=4")
    overrides = ("trainer.max_epochs=1", "trainer.steps_per_epoch=1", "trainer.accelerator=cpu")
    labels = "dataset.labels={background: 0, organ: 1, lesion: 2}"
    config = composed("train", "dataset=folder", "model.depth=2", "model.base_channels=4", labels, *overrides)
    config["dataset"]["root"] = str(data)
    train.run(config | {"run_dir": str(tmp_path / "trained"), "cache_dir": str(tmp_path / "cache")})
    plans = [json.loads((tmp_path / folder / "plan.json").read_text()) for folder in ("run", "trained")]
    assert plans[0] == plans[1]


def test_everything_that_is_wrong_is_listed_in_full(inspected, data, capsys):
    (data / "images/c0.nii.gz").write_bytes(b"")
    save(data / "masks/c1.nii.gz", np.full(SHAPE, 9, np.uint8))
    save(data / "images/c2.nii.gz", np.asarray(nib.load(data / "images/c3.nii.gz").dataobj))
    result, numbers = inspected("split.test=0.2")
    assert result["status"] == "some_failed"
    assert result["reason"] == "2 error(s) in the data set"
    found = [(finding["level"], finding["cases"]) for finding in numbers["findings"]]
    assert found[:2] == [("error", ["c0"]), ("error", ["c1"])]
    assert ("warning", ["c2", "c3"]) in found
    assert numbers["usable"] == 4
    shown = capsys.readouterr().out
    assert all(finding["text"] in shown for finding in numbers["findings"])


def test_a_plan_and_a_split_that_cannot_be_are_errors(inspected):
    result, numbers = inspected("plan.patch_size=[7,7,7]")
    assert result["status"] == "some_failed"
    assert "plan.patch_size" in numbers["findings"][0]["text"]


def test_a_split_that_cannot_be_is_an_error(inspected, tmp_path):
    numbers = inspected("split.test=0.9", "split.val=0.05")[1]
    assert "a part of the split has no case" in numbers["findings"][0]["text"]
    assert numbers["split"] is None
    assert json.loads((tmp_path / "run/plan.json").read_text()) is None


class Page(HTMLParser):
    """What a page holds: its links, anchors, images, and the cells of the tables by caption."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.images, self.tables, self.open = [], set(), [], {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found["href"]] if "href" in found else []
        self.anchors |= {found["id"]} if "id" in found else set()
        self.images += [found] if tag == "img" else []
        self.open = tag if tag in ("caption", "td", "th", "tr") else self.open

    def handle_endtag(self, tag):
        self.open = "" if tag == self.open else self.open

    def handle_data(self, data):
        if self.open == "caption":
            self.cells = self.tables.setdefault(data, [])
        elif self.open in ("td", "th"):
            self.cells.append(data)


def test_the_page_tells_the_same_as_the_terminal_and_leads_nowhere_else(inspected, data, tmp_path, capsys):
    (data / "images/c0.nii.gz").write_bytes(b"")
    save(data / "images/c2.nii.gz", np.asarray(nib.load(data / "images/c3.nii.gz").dataobj))
    mask = np.asarray(nib.load(data / "masks/c5.nii.gz").dataobj).copy()
    mask[9, 9, 9] = 1
    save(data / "masks/c5.nii.gz", mask)
    numbers = inspected()[1]
    text, terminal = (tmp_path / "run/inspect.html").read_text(encoding="utf-8"), capsys.readouterr().out
    page = Page(text)
    assert len(text) < 5_000_000
    assert all(link.startswith("#") and link[1:] in page.anchors for link in page.links)
    assert all(image["src"].startswith("data:") and image["alt"] for image in page.images)
    assert {image["alt"] for image in page.images} == {f"c{number} with its mask" for number in range(1, CASES)}
    for finding in numbers["findings"]:
        assert html.escape(finding["text"]) in text
        assert finding["text"] in terminal
    assert "specks" in {finding["kind"] for finding in numbers["findings"]}
    for title in ("channels", "classes", "masks", "intensities over the cases"):
        assert all(cell.split()[0] in terminal for cell in page.tables[title])
    cells = page.tables["all cases"]
    for case in numbers["per_case"]:
        assert cells.count(case["id"]) == 2  # its own group, too
        assert case["id"] == "c0" or all(f"{size:.4g}" in cells for size in case["sizes"].values())


@needs_browser
@pytest.mark.parametrize("is_dark", [False, True])
def test_a_browser_sorts_and_filters_the_cases_and_shows_their_pictures(inspected, data, tmp_path, is_dark):
    (data / "images/c0.nii.gz").write_bytes(b"")
    inspected("split.test=0.2", "split.val=0.2")
    script = """
    const table = document.querySelector("#cases table"), rows = () => [...table.tBodies[0].rows];
    const names = () => rows().filter(row => !row.hidden).map(row => row.cells[0].textContent);
    const button = [...table.tHead.querySelectorAll("button")].find(found => found.textContent === "organ ml");
    button.click();
    const up = names();
    button.click();
    const down = names(), input = document.querySelector("#cases .filter input");
    input.value = "c3";
    input.dispatchEvent(new Event("input"));
    const images = [...document.querySelectorAll("img")];
    await Promise.all(images.map(image => image.decode()));
    const leads = document.querySelector(rows().find(row => !row.hidden).querySelector("a").hash);
    const legend = [...document.querySelectorAll(".legend li")].map(item => [item.textContent,
        getComputedStyle(item.querySelector("rect")).fill]);
    return [legend, up, down, names(), images.every(image => image.naturalWidth > 50), leads.textContent.includes("c3"),
        document.documentElement.scrollWidth <= innerWidth, matchMedia("(prefers-color-scheme: dark)").matches];
    """
    page = (tmp_path / "run/inspect.html").read_text(encoding="utf-8")
    legend, up, down, filtered, *rest = visit(page, tmp_path, script, width=390, is_dark=is_dark)
    assert legend == [["organ", "rgb(230, 159, 0)"], ["lesion", "rgb(86, 180, 233)"]]
    assert up == ["c1", "c2", "c3", "c4", "c5", "c0"]  # by their organs; what cannot be read comes last
    assert down == ["c5", "c4", "c3", "c2", "c1", "c0"]
    assert filtered == ["c3"]
    assert rest == [True, True, True, is_dark]


def test_each_case_is_in_the_file(inspected):
    rows = inspected()[1]["per_case"]
    assert [row["id"] for row in rows] == [f"c{number}" for number in range(CASES)]
    assert {row["part"] for row in rows} == {"train", "val", "test"}
    assert rows[5]["sizes"] == pytest.approx({"organ": 0.12, "lesion": 0.01})
    assert rows[5]["components"] == {"organ": 1, "lesion": 1}
    assert rows[0]["shape"] == list(SHAPE)
    assert rows[0]["intensities"] == [pytest.approx([0, 0.5, 50, 99.5, 100])]


def test_pictures_are_drawn_once(inspected, tmp_path, monkeypatch):
    from medseg.jobs.inspect import images

    inspected(f"cache_dir='{tmp_path / 'cache'}'")
    first = (tmp_path / "run/inspect.html").read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "run")
    monkeypatch.setattr(images, "draw_thumbnail", None)
    inspected(f"cache_dir='{tmp_path / 'cache'}'")
    assert Page((tmp_path / "run/inspect.html").read_text(encoding="utf-8")).images == Page(first).images


def test_files_are_read_again_only_where_that_is_wanted(inspected, tmp_path, monkeypatch):
    monkeypatch.setattr(file_hashes, "TICK", -(10**12))
    read = []
    monkeypatch.setattr(file_hashes, "file_hash", lambda file: read.append(file) or file_hash(file))
    for override, count in (("verify=false", 2 * CASES), ("verify=false", 0), ("verify=true", 2 * CASES)):
        file_hashes.hashes_in.cache_clear()  # as in a new process
        read.clear()
        inspected(f"dataset.{override}")
        shutil.rmtree(tmp_path / "run")
        assert len(read) == count


def test_a_cache_is_foretold_and_one_that_the_disk_cannot_hold_an_error(inspected, tmp_path, monkeypatch, caplog):
    with caplog.at_level("INFO"):
        assert inspected()[0]["status"] == "done"
    assert "a training will preprocess 5 cases, about 0 MB, into " in caplog.text
    shutil.rmtree(tmp_path / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    result, numbers = inspected()
    assert result["status"] == "some_failed"
    [error] = [finding["text"] for finding in numbers["findings"] if finding["level"] == "error"]
    assert "0 MB are free, but 5 preprocessed cases take about 0 MB" in error


def test_no_usable_case_is_a_failure(inspected, data):
    for path in (data / "images").iterdir():
        path.write_bytes(b"")
    result, numbers = inspected()
    assert result["status"] == "failed"
    assert len(numbers["findings"]) == CASES


def test_the_run_directory(inspected, tmp_path):
    inspected("model.depth=3")
    run_dir = tmp_path / "run"
    names = sorted(path.name for path in run_dir.iterdir())
    assert names == ["config.yaml", "inspect.html", "inspect.json", "plan.json", "result.json"]
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert (saved["command"], saved["model"]["depth"], saved["run_dir"]) == ("inspect", 3, str(run_dir))
    assert json.loads((run_dir / "result.json").read_text())["status"] == "done"


def test_cuts_of_one_scan_are_marked_where_the_split_parts_them(inspected, data):
    steps = [5.95897, 6.12345, 5.95897, 6.4321, 6.4321, 7.6543]
    for number, step in enumerate(steps):
        whole = np.random.default_rng(number).gamma(2, 100, size=SHAPE).astype(np.int16)
        save(data / f"images/c{number}.nii.gz", (whole * step).astype(np.float32))
    rows = {"c0": "train", "c1": "train", "c2": "test", "c3": "train", "c4": "train", "c5": "val"}
    (data / "split.csv").write_text("id,part\n" + "".join(f"{name},{part}\n" for name, part in rows.items()))
    findings = inspected(f"split.file='{data / 'split.csv'}'")[1]["findings"]
    parted, within = [finding for finding in findings if finding["kind"] == "same scan"]
    assert parted["cases"] == ["c0", "c2"]
    assert "probably the same scan, in two subsets of the split (train, test)" in parted["text"]
    assert "dataset.group" in parted["text"]
    assert within["cases"] == ["c3", "c4"]
    assert "two subsets" not in within["text"]


def test_tables_fit_80_columns_and_findings_are_not_broken(inspected):
    numbers = inspected()[1]
    numbers["channels"][0] |= {"name": "a channel of a long name", "min": -1234567.8, "max": 0.000123456}
    text = "c0: " + "/a/long/path" * 20
    out = StringIO()
    plan = {"plan": {"strides": [[2, 2, 2]] * 5, "divisor": None}}
    show(Console(file=out, width=80), "a data set", numbers, [Issue("error", text), Issue("warning", "w")], plan)
    lines = out.getvalue().splitlines()
    assert f"  - {text}" in lines
    assert all(len(line) <= 80 for line in lines if text not in line)
    assert not {"\x1b", "…"} & set(out.getvalue())
    assert ["lesion", "2", "1", "of", "6", "0.01", "0.01", "0.01"] in [line.split() for line in lines]


@pytest.mark.parametrize(("value", "text"), [(1, "1"), (True, "true"), (None, "null"), ([0.5, 2.0], "[0.5, 2]")])
def test_values_are_written_as_on_the_command_line(value, text):
    assert value_text(value) == text


@pytest.mark.parametrize(("damage", "status"), [(None, 0), ("one", 3), ("all", 1)])
def test_exit_status(data, tmp_path, monkeypatch, damage, status, capsys):
    for path in (data / "images").iterdir():
        if damage == "all" or (damage, path.name) == ("one", "c0.nii.gz"):
            path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    labels = "dataset.labels={background: 0, organ: 1, lesion: 2}"
    assert (
        command_line.main(["inspect", "dataset=folder", "dataset.root=data", labels, "trainer.accelerator=cpu"])
        == status
    )
    assert len(list((tmp_path / "outputs/inspect/folder").iterdir())) == 1
    assert f"{ {0: 0, 3: 1, 1: CASES}[status] } error" in capsys.readouterr().out


def test_no_data_is_one_message_and_nothing_written(composed, tmp_path):
    config = composed("inspect", "dataset=folder")
    config["dataset"]["root"] = str(tmp_path / "nowhere")
    with pytest.raises(MedsegError, match="nowhere"):
        inspect.run(config | {"run_dir": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


def test_every_key_of_train_may_be_given(composed):
    ours, theirs = composed("inspect"), composed("train")
    assert ours.pop("command") == "inspect"
    assert theirs.pop("command") == "train"
    assert ours == theirs


def test_what_reading_a_case_warns_of_is_a_finding_of_every_inspection(inspected, data, tmp_path, capsys):
    image = nib.load(data / "images/c3.nii.gz")
    turned = np.diag([-1.0, 1, 2, 1])
    nib.save(nib.Nifti1Image(np.asarray(nib.load(data / "masks/c3.nii.gz").dataobj), turned), data / "masks/c3.nii.gz")
    assert image.affine[0, 0] == 1
    for _ in range(2):
        numbers = inspected("dataset.geometry=warn")[1]
        [finding] = [finding for finding in numbers["findings"] if finding["kind"] == "file"]
        assert finding["cases"] == ["c3"]
        assert "headers differ (origin/direction)" in finding["text"]
        assert finding["text"] in capsys.readouterr().out
        shutil.rmtree(tmp_path / "run")


def test_a_class_without_a_training_case_is_named_with_its_part_and_counts(inspected, data):
    rows = {"c0": "train", "c1": "train", "c2": "test", "c3": "train", "c4": "train", "c5": "test"}
    for part in ("test", "val"):
        rows |= {"c5": part, "c4": "val"}
        (data / "split.csv").write_text("id,part\n" + "".join(f"{name},{part}\n" for name, part in rows.items()))
        _, numbers = inspected(f"split.file='{data / 'split.csv'}'", f"run_dir={part}")
        [finding] = [finding for finding in numbers["findings"] if finding["kind"] == "class split"]
        counts = {"test": "train 0 of 3, val 0 of 1, test 1 of 2", "val": "train 0 of 3, val 1 of 2, test 0 of 1"}
        assert finding["text"].startswith(
            f"lesion: no training case has it, so that it cannot be learned (cases with it: {counts[part]})"
        )
        assert (finding["level"], finding["cases"], finding["details"]) == ("warning", ["c5"], [part])
        shutil.rmtree(data.parent / "run")


def test_lightning_is_not_imported():
    code = "import sys, medseg.jobs.inspect.inspect; sys.exit(bool({'lightning', 'monai', 'hydra'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
