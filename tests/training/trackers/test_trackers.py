"""Settings and scores on TensorBoard's HPARAMS page, read back with the page's own backend; trackers that fail."""

import json

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as GetExperiment
from tensorboard.plugins.hparams.list_session_groups import Handler as ListSessionGroups

from medseg.errors import MedsegError
from medseg.training.trackers import TensorBoard
from medseg.training.trackers.hyperparameters import hyperparameters
from medseg.training.trackers.tracker import Trackers, known_id, make_trackers, sweep_of

SETTINGS = {
    "command": "train",
    "run_dir": "/home/me/run",
    "seed": 3,
    "dataset": {"name": "heart", "root": "/home/me/data"},
    "plan": {"patch_size": [64, 64, 32], "file": None},
    "model": {"_target_": "medseg.models.UNet", "depth": 4, "residual": False, "patch_size": [64, 64, 32]},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.003},
    "augment": {"spatial": None, "intensity": [{"_target_": "medseg.augmentation.Noise", "probability": 0.2}]},
    "trainer": {"max_time": "00:01:00:00"},
}


def page(folder):
    """The page over a folder of runs: its columns, and its rows by run."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    backend = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
    hparams = backend.hparams_from_data_provider(RequestContext(), "", 1000)
    request = api_pb2.GetExperimentRequest()
    experiment = GetExperiment(RequestContext(), backend, "", request).run()
    assert hparams is not None
    rows = ListSessionGroups(
        RequestContext(),
        backend,
        "",
        api_pb2.ListSessionGroupsRequest(
            start_index=0,
            slice_size=100,
            allowed_statuses=[api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_RUNNING],
            col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
        ),
    ).run()
    return experiment, {session.name: (group, session) for group in rows.session_groups for session in group.sessions}


def test_what_a_user_varies_is_kept_flat():
    assert hyperparameters(SETTINGS) == {
        "dataset": "heart",
        "seed": 3,
        "plan.patch_size": "[64, 64, 32]",
        "model": "UNet",
        "model.depth": 4,
        "model.residual": False,
        "optimizer": "AdamW",
        "optimizer.lr": 0.003,
        "augment.intensity.0": "Noise",
        "augment.intensity.0.probability": 0.2,
        "trainer.max_time": "00:01:00:00",
    }


def run(folder, settings, score, *, ends=True):
    trackers = Trackers({"tensorboard": TensorBoard(str(folder))})
    trackers.begin(settings)
    for step, value in ((1, 0.1), (2, score)):
        trackers.log_metrics({"best/val_dice": value}, step=step)
    trackers.finalize("success")  # as the Trainer does after fitting
    if ends:
        trackers.end({"best/test_dice": score - 0.05}, step=2, run_dir=folder)


def test_runs_of_different_networks_stand_side_by_side(tmp_path):
    other = SETTINGS | {"model": {"_target_": "monai.networks.nets.SegResNet", "init_filters": 8}}
    run(tmp_path / "0", SETTINGS, 0.7)
    run(tmp_path / "1", other, 0.8, ends=False)
    experiment, rows = page(tmp_path)
    infos = {info.name: info for info in experiment.hparam_infos}
    assert infos["model"].differs
    assert not infos["optimizer.lr"].differs
    assert {"model.depth", "model.init_filters"} <= infos.keys()  # of either network
    assert {info.name.tag for info in experiment.metric_infos} == {"best/val_dice", "best/test_dice"}
    first, second = (rows[name] for name in ("0", "1"))
    assert first[0].hparams["optimizer.lr"].number_value == 0.003
    assert first[0].hparams["plan.patch_size"].string_value == "[64, 64, 32]"
    assert second[0].hparams["model"].string_value == "SegResNet"
    assert {m.name.tag: m.value for m in first[1].metric_values} == pytest.approx(
        {"best/val_dice": 0.7, "best/test_dice": 0.65}
    )
    assert {m.name.tag: m.value for m in second[1].metric_values} == pytest.approx({"best/val_dice": 0.8})
    assert first[1].status == api_pb2.STATUS_SUCCESS
    assert second[1].status != api_pb2.STATUS_SUCCESS


def test_another_logger_gets_them_in_its_own_way(tmp_path):
    trackers = Trackers({"csv": CSVLogger(tmp_path, name="", version="")})
    trackers.begin(SETTINGS)
    trackers.image("cases/a", np.zeros((4, 4, 3), np.uint8), step=1)  # which it does not take
    trackers.end({"best/test_dice": 0.5}, step=2, run_dir=tmp_path)
    assert "optimizer.lr: 0.003" in (tmp_path / "hparams.yaml").read_text()
    assert "0.5" in (tmp_path / "metrics.csv").read_text()


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(tmp_path, caplog, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    trackers = Trackers({"tensorboard": TensorBoard(str(tmp_path / "a")), "csv": CSVLogger(tmp_path / "b", "", "")})
    trackers.begin(SETTINGS)
    assert trackers.take_images
    broken = trackers.loggers["tensorboard"]
    with monkeypatch.context() as patch:
        patch.setattr(broken, "log_metrics", full)
        trackers.log_metrics({"val/dice": 0.5}, step=1)
    broken.finalize("success")
    assert "logger=tensorboard failed: [Errno 28] No space left on device. The training goes on" in caplog.text
    assert not trackers.take_images
    trackers.end({"best/test_dice": 0.25}, step=2, run_dir=tmp_path)
    assert all(score in (tmp_path / "b" / "metrics.csv").read_text() for score in ("0.5", "0.25"))


def test_several_loggers_are_built_by_name(tmp_path):
    nodes = {
        "tensorboard": {"_target_": "medseg.training.trackers.TensorBoard", "save_dir": str(tmp_path)},
        "csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path)},
    }
    assert {name: type(logger) for name, logger in make_trackers(nodes, ()).loggers.items()} == {
        "tensorboard": TensorBoard,
        "csv": CSVLogger,
    }
    assert not make_trackers({}, ()).take_images


def test_an_id_is_made_once(tmp_path):
    assert known_id(tmp_path, "a", lambda: "one") == "one"
    assert known_id(tmp_path, "b", lambda: "two") == "two"
    assert known_id(tmp_path, "a", lambda: "three") == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["trackers.json"]


@pytest.mark.parametrize("wrong", ["../../elsewhere", "", 3, "a" * 65])
def test_an_id_in_a_file_is_a_plain_word(tmp_path, wrong):
    (tmp_path / "trackers.json").write_text(json.dumps({"a": wrong}))
    with pytest.raises(MedsegError, match="no id of a"):
        known_id(tmp_path, "a", lambda: "one")


def test_a_job_belongs_to_its_sweep(tmp_path):
    assert sweep_of(tmp_path / "0") is None
    (tmp_path / "sweep.json").write_text("{}")
    assert sweep_of(tmp_path / "0") == tmp_path
