"""A sweep over labelled groups ends in a learning curve."""

import json
import re
from pathlib import Path

import pytest
import yaml

from medseg.cli.sweep import report
from medseg.jobs.evaluate import few_shot
from medseg.jobs.evaluate.few_shot import learning_curve
from medseg.sweeps.record import record


def job(folder: Path, number: int, labelled: int, seed: int, start: str, dice: float) -> None:
    """What a training of a sweep leaves that the curve is made of; nine patients of one score."""
    run = folder / str(number)
    (run / "test").mkdir(parents=True)
    overrides = [f"split.labelled={labelled}", f"seed={seed}", f"finetune.checkpoint={start}", "dataset.dims=2"]
    (run / "result.json").write_text(json.dumps({"status": "done", "test_score": dice, "overrides": overrides}))
    (run / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "split": {"labelled": labelled}}))
    (run / "test" / "metrics.json").write_text(json.dumps({"settings": {}}))
    rows = [f"c{p},p{p},organ,{dice + 0.01 * (p - 4)},5,5" for p in range(9)]
    header = "case,group,class,dice,truth_voxels,predicted_voxels"
    (run / "test" / "cases.csv").write_text("\n".join([header, *rows]))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    number = 0
    for start, gain in (("null", 0.0), ("run", 0.05)):
        for labelled in (5, 10):
            for seed in (0, 1):
                job(tmp_path, number, labelled, seed, start, 0.5 + gain + 0.02 * labelled + 0.01 * seed)
                number += 1
    (tmp_path / str(number)).mkdir()  # a job that failed
    (tmp_path / str(number) / "result.json").write_text(json.dumps({"score": None, "overrides": []}))
    return tmp_path


def test_json_markdown_page_and_terminal_tell_the_curve(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert learning_curve(sweep)
    points = json.loads((sweep / "learning_curve.json").read_text())["points"]
    assert [(point["arm"], point["labelled"]) for point in points] == [
        ("finetune.checkpoint=null", 5),
        ("finetune.checkpoint=null", 10),
        ("finetune.checkpoint=run", 5),
        ("finetune.checkpoint=run", 10),
    ]
    assert [point["mean"] for point in points] == pytest.approx([0.605, 0.705, 0.655, 0.755])
    assert points[0]["seeds"].keys() == {"0", "1"}
    assert all(point["ci95"][0] < point["mean"] < point["ci95"][1] for point in points)
    shown = (
        capsys.readouterr().out,
        (sweep / "learning_curve.md").read_text(),
        (sweep / "learning_curve.html").read_text(),
    )
    for text in shown:
        assert all(f"{point['mean']:.3f}" in text for point in points)
    page = shown[2]
    assert page.count("<svg") >= 1
    assert not re.search(r"""(src|href)=["']http""", page)


def test_one_number_of_groups_is_no_curve(tmp_path: Path) -> None:
    job(tmp_path, 0, 5, 0, "null", 0.5)
    job(tmp_path, 1, 5, 1, "null", 0.5)
    assert not learning_curve(tmp_path)
    assert not list(tmp_path.glob("learning_curve*"))


def test_a_sweep_over_labelled_groups_is_known_by_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_drawn(*overrides: list[str]) -> bool:
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        for number, own in enumerate(overrides):
            record(folder / str(number), {"status": "done", "score": 0.5, "seconds": 1.0}, own)
        folders.clear()
        report(folder)
        return folders == [folder]

    folders: list[Path] = []
    monkeypatch.setattr(few_shot, "learning_curve", folders.append)
    assert is_drawn(["split.labelled=5"], ["split.labelled=10", "seed=1"])
    assert not is_drawn(["split.labelled=5"], ["split.labelled=5", "seed=1"])
    assert not is_drawn([])
