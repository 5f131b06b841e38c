"""What MLflow's own client reads of a run; skipped where MLflow is not installed (``medseg[mlflow]``)."""

import numpy as np
import pytest

from medseg.training.trackers import MLFlow
from medseg.training.trackers.tracker import Trackers

pytest.importorskip("mlflow", reason="needs pip install 'medseg[mlflow]'")
pytest.importorskip("sqlalchemy", reason="needs pip install 'medseg[mlflow]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

SETTINGS = {"dataset": {"name": "heart"}, "seed": 3, "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.01}}


def trackers(run_dir, folder):
    run_dir.mkdir(parents=True, exist_ok=True)
    return Trackers({"mlflow": MLFlow(str(run_dir), "heart", str(folder))})


def test_a_run_its_resumption_and_its_sweep(tmp_path):
    sweep, store = tmp_path / "sweep", tmp_path / "store"
    sweep.mkdir()
    (sweep / "sweep.json").write_text("{}")
    first = trackers(sweep / "0", store)
    first.connect()
    first.begin(SETTINGS)
    first.log_metrics({"val/dice_left kidney (cyst)": 0.5, "train/loss": float("nan")}, step=1)
    first.image("worst case", np.zeros((8, 8, 3), np.uint8), step=1)
    first.text("worst case", "a: Dice 0.5", step=1)
    first.finalize("failed")
    client, run = first.loggers["mlflow"].client, first.loggers["mlflow"].run
    assert client.get_run(run).info.status == "FAILED"

    again = trackers(sweep / "0", store)
    again.begin(SETTINGS | {"seed": 4})
    assert client.get_run(run).info.status == "RUNNING"
    (sweep / "0" / "test").mkdir()
    for name in ("config.yaml", "plan.json", "test/report.html"):
        (sweep / "0" / name).write_text("x")
    again.end({"best/test_dice": 0.25}, step=2, run_dir=sweep / "0")
    assert again.loggers["mlflow"].run == run
    other = trackers(sweep / "1", store)
    other.log_metrics({"train/loss": 1.0}, step=1)

    ended, parent = client.get_run(run), client.get_run(run).data.tags["mlflow.parentRunId"]
    assert ended.info.status == "FINISHED"
    assert ended.data.params == {"dataset": "heart", "seed": "3", "optimizer": "AdamW", "optimizer.lr": "0.01"}
    assert ended.data.tags["seed"] == "4"
    assert ended.data.tags["worst case"] == "a: Dice 0.5"
    assert ended.data.tags["checkpoint"] == str(sweep / "0" / "checkpoints" / "best.ckpt")
    assert (ended.data.metrics["val/dice_left kidney _cyst_"], ended.data.metrics["best/test_dice"]) == (0.5, 0.25)
    assert {file.path for file in client.list_artifacts(run)} == {"config.yaml", "plan.json", "images", "test"}
    assert client.get_run(other.loggers["mlflow"].run).data.tags["mlflow.parentRunId"] == parent
    assert client.get_run(parent).info.run_name == "sweep"
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "store"}
