"""Names of cases, classes and data sets, whatever they are: nothing is written elsewhere, no terminal is steered."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import yaml
from thresholding import TARGET, blob, write_checkpoint

from medseg.errors import MedsegError
from medseg.io.csv_files import read_csv
from medseg.io.files.read import stem
from medseg.jobs.evaluate import evaluate
from medseg.jobs.predict import predict
from medseg.jobs.predict.scans import find_scans
from medseg.jobs.train import train

HERE = Path(__file__).parent
NAMES = [
    b"caf\xe9",  # Latin-1
    b"n" * 248,  # 255 bytes with its suffix, all that a file system takes
    "肝臓é".encode() * 30,
    b"esc\x1b[31mred\x9b",
    b"line\nbreak",
    b"=cmd|' C calc'!A0",
    b"-rf",
    b"@sub (1)",
    b"'quoted",
    b"CON",
    b"[bold]x",
    b"back\\u001b",
    b".nii",  # not hidden below, where it gets a letter before it
]


def command(*settings: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    return subprocess.run([sys.executable, "-m", "medseg", *settings], env=environment, capture_output=True)


def written(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def assert_readable(*texts: bytes) -> None:
    """UTF-8 without a control character but line feeds and tabs."""
    for text in texts:
        assert all(letter in "\n\t\r" or letter.isprintable() or letter == "\xa0" for letter in text.decode())


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    image = nib.Nifti1Image(blob((10, 12, 14)).astype(np.int16), np.diag([1, 2, 1.5, 1]))
    for number, name in enumerate(NAMES):
        start = b"" if name[:1] != b"." else b"x"
        place = folder / "sub" if number % 2 else folder
        nib.save(image, place / os.fsdecode(start + name + b".nii.gz"))
    return folder


def test_scans_may_have_any_name(scans, tmp_path):
    """Through the command line: every mask, every row, and the second time nothing to be done."""
    write_checkpoint(tmp_path / "c.ckpt", dims=3)
    places = [f"checkpoint={tmp_path / 'c.ckpt'}", f"input={scans}", f"output={tmp_path / 'masks'}"]
    wanted = ["overlays=html", "uncertainty=true", "meshes=true", "save_probabilities=true", "worst=20"]
    settings = ["predict", *places, "device=cpu", f"trust=[{TARGET}]", *wanted]
    done = command(*settings)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert_readable(done.stdout, done.stderr)
    masks = tmp_path / "masks"
    scan_names = {path.relative_to(scans) for path in written(scans)}
    assert {path.relative_to(masks) for path in written(masks)} >= scan_names
    for name in scan_names:
        assert np.asarray(nib.load(masks / name).dataobj).any()
        assert (masks / "overlays" / name).with_name(f"{stem(name)}.png").is_file()
        assert (masks / "uncertainty" / name).is_file()
    tables = [masks / "predictions.csv", masks / "uncertainty.csv", masks / "to_correct" / "cases.csv"]
    for path, column in zip(tables, ("case", "case", "id"), strict=True):
        assert {row[column] for row in read_csv(path)} == {str(name.with_name(stem(name))) for name in scan_names}
        assert not any(line.startswith((b"=", b"-", b"@")) for line in path.read_bytes().splitlines())
    assert_readable(*(path.read_bytes() for path in [*tables, masks / "contact_sheet.html"]))
    before = {path: path.stat().st_mtime_ns for path in written(masks) if path.name.endswith(".nii.gz")}
    assert command(*settings).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_name_that_itk_cannot_take_is_one_scans_failure(tmp_path):
    """Names whose bytes are not UTF-8, of formats that ITK writes: it would abort on such a folder, not on a file."""
    folder = tmp_path / "scans" / os.fsdecode(b"f\xe9")
    folder.mkdir(parents=True)
    image = SimpleITK.GetImageFromArray(blob((10, 12, 14)).astype(np.int16))
    for suffix in (".nrrd", ".mha"):
        SimpleITK.WriteImage(image, str(tmp_path / f"scan{suffix}"))
        shutil.copy(tmp_path / f"scan{suffix}", folder / f"in_folder_{suffix[1:]}{suffix}")
        shutil.copy(tmp_path / f"scan{suffix}", tmp_path / "scans" / (os.fsdecode(b"\xe9") + suffix[1:] + suffix))
    write_checkpoint(tmp_path / "c.ckpt", dims=3)
    places = [f"checkpoint={tmp_path / 'c.ckpt'}", f"input={tmp_path / 'scans'}", f"output={tmp_path / 'masks'}"]
    done = command("predict", *places, "device=cpu", f"trust=[{TARGET}]")
    assert done.returncode == 3, done.stderr
    rows = read_csv(tmp_path / "masks" / "predictions.csv")
    assert [row["status"] for row in rows if "in_folder" in row["case"]] == ["failed", "failed"]
    assert [row["status"] for row in rows if "in_folder" not in row["case"]] == ["done", "done"]
    assert all("not UTF-8" in row["error"] for row in rows if row["status"] == "failed")


def test_masks_lie_where_their_scans_do(scans, tmp_path):
    jobs, _ = find_scans(scans, tmp_path / "masks", None)
    assert len(jobs) == len(NAMES)
    for job in jobs:
        assert job.mask.relative_to(tmp_path / "masks") == job.images[0].relative_to(scans)


def table_of(folder: Path, ids: list[str]) -> Path:
    """A data set of single slices, a case for each id, with a table."""
    rng = np.random.default_rng(0)
    lines = ["id,image,label"]
    folder.mkdir()
    for number, name in enumerate(ids):
        label = np.zeros((32, 32), np.uint8)
        for value in (1, 2, 3):
            row, column = rng.integers(0, 24, 2)
            label[row : row + 8, column : column + 8] = value
        image = (label * 80 + rng.normal(size=label.shape)).astype(np.float32)
        for kind, array in (("image", image), ("label", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{kind}{number}.nii.gz")
        lines.append(f'"{name}",image{number}.nii.gz,label{number}.nii.gz')
    (folder / "cases.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


CLASSES = {"background": 0, "=cmd|x": 1, "a/b\x1b[31m": 2, "A:B": 3}


@pytest.fixture
def config(composed, tmp_path, monkeypatch):
    """A training of seconds in an empty folder, on the data set ``data``."""
    monkeypatch.chdir(tmp_path)
    config = composed(
        *("train", "dataset=table", "dataset.root=data", "model.depth=1", "model.base_channels=4"),
        *("trainer.max_time=null", "trainer.max_epochs=1", "trainer.steps_per_epoch=1", "trainer.accelerator=cpu"),
        *("plan.batch_size=2", "split.test=0.4", "metrics.names=[dice]"),
    )
    config["dataset"]["labels"] = CLASSES
    return config


IDS = ["../../up", "/abs/x", "..", "a/./b", "C:/x", "C:x", "x" * 300, "é" * 200, "line\nbreak", "esc\x1b[2J", "nul\0"]


@pytest.mark.parametrize("name", [name for name in IDS if "\0" not in name])
def test_ids_that_cannot_be_names_are_refused_before_anything_is_trained(config, tmp_path, name):
    table_of(tmp_path / "data", ["p1", "p2", "p3", name, "p5"])
    before = written(tmp_path)
    with pytest.raises(MedsegError, match=r"cases\.csv, row 4: id .* cannot name a case"):
        train.run(config)
    assert {path for path in written(tmp_path) - before if "cache" not in path.parts} == set()


def test_ids_and_classes_that_differ_little_keep_their_files(config, composed, tmp_path):
    """Ids that are paths, reserved names or alike but for case; classes that become one name; a name that leads out."""
    ids = ["site/p1", "site:p1", "P", "p", "CON", "=1+1", "@x", "-5", "Ä" * 100, "it's", "q"]
    table_of(tmp_path / "data", ids)
    config["dataset"]["name"] = "../../X"
    config["run_dir"] = None
    config["split"]["test"] = 0.8
    before = written(tmp_path)
    train.run(config)
    outputs = written(tmp_path) - before
    (run,) = (tmp_path / "outputs" / "train").glob("*/*")
    assert all(path.is_relative_to(tmp_path / "outputs") for path in outputs if "tensorboard" not in path.parts)
    cases = {row["case"]: row for row in read_csv(run / "test" / "cases.csv")}
    tested = json.loads((run / "splits.json").read_text("utf-8"))["test"]
    assert sorted(cases) == tested
    assert {row["class"] for row in read_csv(run / "test" / "cases.csv")} == {*CLASSES} - {"background"}
    overlays = list((run / "test" / "overlays").iterdir())
    assert len(overlays) == 3
    assert (run / "test" / "report.html").read_text("utf-8").count("<figure data-case") == 3
    texts = [path for path in outputs if path.suffix in (".csv", ".md", ".tex", ".json", ".log", ".html", ".yaml")]
    assert len(texts) >= 10
    assert_readable(*(path.read_bytes() for path in texts))
    settings = composed("predict", "device=cpu", "save_probabilities=true")
    predict.run(settings | {"checkpoint": str(run), "input": "data/image0.nii.gz", "output": "masks"})
    assert len(written(tmp_path / "masks" / "probabilities" / "image0")) == len(CLASSES)
    header = (tmp_path / "masks" / "predictions.csv").read_text("utf-8").splitlines()[0]
    assert header.startswith("case,status,seconds,'=cmd|x_ml,a/b\\u001b[31m_ml,A:B_ml")
    # What a run's own config says of the data set's name leads nowhere, either.
    saved = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    assert saved["dataset"]["labels"] == CLASSES
    saved["dataset"]["name"] = str(tmp_path / "elsewhere")
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    evaluate.run(composed("eval", "device=cpu", "metrics.names=[dice]") | {"checkpoint": str(run)})
    (report,) = (tmp_path / "outputs" / "eval").glob("*/*/report.html")
    assert not (tmp_path / "elsewhere").exists()
    assert (report.parent / "cases.csv").read_bytes() == (run / "test" / "cases.csv").read_bytes()
