"""Training runs of a few seconds on the phantom, and what they leave on disk."""

import csv
import json
import math
import re
from functools import partial

import pytest
import torch
import yaml

from medseg.errors import MedsegError
from medseg.inference.loading import read_models
from medseg.jobs.train import train

FILES = ("config.yaml", "splits.json", "plan.json", "environment.json", "train.log", "result.json", "metrics.csv")
REPORT = ("test/metrics.json", "test/cases.csv", "test/report.html", "checkpoints/best.ckpt", "checkpoints/last.ckpt")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_that_its_directory_promises(trained):
    missing = [name for name in FILES + REPORT if not (trained / name).is_file()]
    assert not missing
    assert list((trained / "tensorboard").glob("events*"))
    assert list((trained / "test" / "overlays").rglob("*.png"))
    assert not list(trained.rglob(".*"))  # no temporary file stays behind


def test_the_checkpoint_tells_what_the_training_data_were_like(trained):
    content = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)["medseg"]
    assert content["training_data"] == json.loads((trained / "training_data.json").read_text())
    lowest, highest, least, most = content["training_data"]["core in " + ("ml" if "3d" in trained.name else "px")]
    assert 0 <= least <= lowest <= highest <= most


def test_result_and_report_agree(trained):
    result = json.loads((trained / "result.json").read_text())
    report = json.loads((trained / "test" / "metrics.json").read_text())
    assert result["status"] == "done"
    assert result["reason"] == "max_epochs reached"
    assert result["test_score"] == report["mean"]["dice"]
    assert result["score"] == result["selection"]["best"]["dice"] != result["test_score"]
    assert report["n_cases"] == len(json.loads((trained / "splits.json").read_text())["test"])


def test_the_report_tells_of_data_training_and_test(trained):
    page = (trained / "test" / "report.html").read_text()
    report = json.loads((trained / "test" / "metrics.json").read_text())
    assert f"<strong>{report['mean']['dice']:.3f}</strong>" in page
    for title in (
        "By class",
        "By size",
        "Pictures",
        "Cases",
        "Training",
        "Data",
        "Config",
        "Environment",
        "Definitions",
    ):
        assert f'-title">{title}</h2>' in page
    assert page.count('src="data:image/webp;base64,') == len(list((trained / "test" / "overlays").rglob("*.png")))
    assert "core in " in page  # of the fingerprint
    assert "config.yaml of the training" in page


def test_an_epoch_is_a_row(trained):
    rows = rows_of(trained / "metrics.csv")
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    assert [int(row["step"]) for row in rows] == [3, 6]
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)
    assert all(0 <= float(row["val_dice"]) <= 1 for row in rows)


def test_the_checkpoint_is_plain_and_knows_no_path(trained):
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    content = checkpoint["medseg"]
    assert content["format"] == 3
    assert list(content["classes"]) == ["background", "edema", "core", "enhancing"]
    assert str(trained.parent) not in json.dumps(content)
    assert "optimizer_states" not in checkpoint
    everything = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert str(trained.parent) not in str(
        {key: everything[key] for key in ("medseg", "callbacks", "hyper_parameters") if key in everything}
    )


def test_the_best_checkpoint_holds_the_averaged_weights_and_the_last_both(trained):
    best, last = (
        torch.load(trained / "checkpoints" / f"{n}.ckpt", weights_only=True)["state_dict"] for n in ("best", "last")
    )
    averaged = {name.removeprefix("average."): value for name, value in last.items() if name.startswith("average.")}
    trained_last = {name.removeprefix("network."): value for name, value in last.items() if name.startswith("network.")}
    assert {name.removeprefix("network.") for name in best} == averaged.keys() == trained_last.keys()
    assert any(not torch.equal(averaged[name], trained_last[name]) for name in averaged)
    chosen = json.loads((trained / "result.json").read_text())["selection"]
    if chosen["best"]["epoch"] == chosen["last"]["epoch"]:
        assert all(torch.equal(best[f"network.{name}"], averaged[name]) for name in averaged)


def test_the_last_checkpoint_predicts_with_the_averaged_weights(trained):
    from medseg.inference.checkpoint import read_checkpoint

    last = trained / "checkpoints" / "last.ckpt"
    averaged = torch.load(last, weights_only=True)["state_dict"]
    for name, value in read_checkpoint(last).weights.items():
        assert torch.equal(value, averaged[f"average.{name}"])


def test_the_choice_of_the_checkpoint_is_reported(trained):
    chosen = json.loads((trained / "result.json").read_text())["selection"]
    scores = [float(row["val_dice"]) for row in rows_of(trained / "metrics.csv")]
    assert chosen["last"]["dice"] == pytest.approx(scores[-1], abs=1e-6)
    assert chosen["last"]["smoothed"] == pytest.approx(sum(scores) / len(scores), abs=1e-6)


def test_a_saved_plan_is_used_as_it_is(small, trained, tmp_path):
    plan = json.loads((trained / "plan.json").read_text())
    plan["plan"]["batch_size"] = 3
    del plan["plan"]["coarse_channels"]  # as in plans of before
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    config = small(
        plan["model"]["spatial_dims"],
        "trainer.max_epochs=1",
        "plan.batch_size=null",
        "preprocessing.normalize=[zscore]",
    )
    config["plan"]["file"] = str(tmp_path / "plan.json")
    train.run(config | {"run_dir": str(tmp_path / "run")})
    used = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert used == {**plan, "plan": {**plan["plan"], "coarse_channels": 0}}
    [model] = read_models(tmp_path / "run")
    assert model.patch_size == plan["plan"]["patch_size"]


@pytest.mark.parametrize(
    ("override", "says"),
    [("dataset.n_channels=2", "in_channels is 1, the data have 2"), ("preprocessing.normalize=[unit]", "normalize is")],
)
def test_a_saved_plan_that_does_not_fit_is_refused(small, trained, tmp_path, override, says):
    plan = json.loads((trained / "plan.json").read_text())
    config = small(plan["model"]["spatial_dims"], override)
    config["plan"]["file"] = str(trained / "plan.json")
    config["dataset"]["root"] = str(tmp_path / "phantom")
    with pytest.raises(MedsegError, match=rf"(?s)plan\.file=.*does not fit.*{says}"):
        train.run(config | {"run_dir": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "says"), [("{", "cannot be read"), ("{}", "no plan"), (None, "cannot be read")])
def test_a_file_that_is_no_plan_is_refused(small, tmp_path, text, says):
    config = small(2)
    config["plan"]["file"] = str(tmp_path / "plan.json")
    if text is not None:
        (tmp_path / "plan.json").write_text(text)
    with pytest.raises(MedsegError, match=rf"plan\.json: .*{says}") as caught:
        train.run(config | {"run_dir": str(tmp_path / "run")})
    assert "plan.file=" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("measured", "says"), [(None, "measured: must be a mapping"), ({"step": "x"}, r"measured\.step: must be a number")]
)
def test_a_plan_whose_measurements_are_none_is_refused(small, trained, tmp_path, measured, says):
    plan = json.loads((trained / "plan.json").read_text()) | {"measured": measured}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    config = small(2)
    config["plan"]["file"] = str(tmp_path / "plan.json")
    with pytest.raises(MedsegError, match=rf"(?s)plan\.json: no plan that can be used.*{says}"):
        train.run(config | {"run_dir": str(tmp_path / "run")})


def test_groups_are_not_parted(trained):
    splits = json.loads((trained / "splits.json").read_text())
    parts = [set(splits[part]) for part in ("train", "val", "test")]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts)) == 10


def test_a_fixed_plan_gives_the_same_digits_twice(small, trained, tmp_path):
    dims = json.loads((trained / "plan.json").read_text())["model"]["spatial_dims"]
    again = tmp_path / "again"
    train.run(small(dims) | {"run_dir": str(again)})
    columns = ("train_loss", "val_dice")
    first, second = ([[row[c] for c in columns] for row in rows_of(run / "metrics.csv")] for run in (trained, again))
    assert first == second


def test_a_run_is_resumed_where_it_stopped_and_by_its_own_split(small, tmp_path):
    run_dir = tmp_path / "run"
    train.run(small(2) | {"run_dir": str(run_dir)})
    splits = (run_dir / "splits.json").read_text()
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    saved["trainer"]["max_epochs"] = 4
    saved["seed"] = 1  # would draw another split
    train.run(saved | {"resume": str(run_dir), "run_dir": str(run_dir)})
    rows = rows_of(run_dir / "metrics.csv")
    assert [int(row["step"]) for row in rows] == [3, 6, 9, 12]
    assert (run_dir / "splits.json").read_text() == splits
    tested = {row["case"] for row in rows_of(run_dir / "test" / "cases.csv")}
    assert tested == set(json.loads(splits)["test"])


def test_a_run_that_was_cut_off_is_not_resumed_from_nothing(small, trained, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "checkpoints" / "last.ckpt").unlink()
    config = yaml.safe_load((copy / "config.yaml").read_text())
    with pytest.raises(MedsegError, match=r"last\.ckpt is not there"):
        train.run(config | {"resume": str(copy), "run_dir": str(copy)})


def test_patience_counts_validations_and_accumulation_counts_steps(small, tmp_path):
    overrides = ("trainer.max_epochs=6", "trainer.validation_interval=2", "trainer.patience=1", "trainer.accumulate=2")
    run_dir = tmp_path / "run"
    # With a rate of (nearly) zero no validation gains on the one before.
    result = train.run(small(2, "optimizer.lr=1e-12", *overrides) | {"run_dir": str(run_dir)})
    rows = rows_of(run_dir / "metrics.csv")
    assert result["reason"] == "no further gain"
    assert [bool(row["val_dice"]) for row in rows] == [False, True, False, True]
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]  # two steps from three batches


def test_a_curve_that_promises_too_little_ends_a_run_sooner_and_for_good(small, tmp_path, caplog):
    caplog.set_level("INFO", "medseg")
    run_dir = tmp_path / "run"
    lasting = ("trainer.max_epochs=30", "trainer.validation_interval=1", "split.test=0", "scheduler=poly")
    one_class = "dataset.labels={background: 0, tumour: [1, 2, 3]}"
    config = small(2, *lasting, one_class, "trainer.min_gain=0.99") | {"run_dir": str(run_dir)}
    assert train.run(config)["reason"] == "no further gain"
    rows = rows_of(run_dir / "metrics.csv")
    settled = re.search(r"the end comes at step (\d+): for all (\d+)", caplog.text)
    assert int(rows[-1]["step"]) == int(settled[1]) < int(settled[2]) / 2
    assert float(rows[-1]["lr"]) < float(rows[0]["lr"]) / 5  # the schedule has come to its end
    assert rows[-1]["val_dice"]
    assert train.run(config | {"resume": str(run_dir)})["reason"] == "no further gain"
    assert rows_of(run_dir / "metrics.csv") == rows
    config["trainer"]["min_gain"] = None
    assert train.run(config | {"resume": str(run_dir)})["reason"] == "max_epochs reached"
    assert int(rows_of(run_dir / "metrics.csv")[-1]["epoch"]) == 30


def test_max_time_ends_a_run_with_a_validation(small, tmp_path, clock):
    overrides = ("trainer.max_time='00:00:00:06'", "trainer.max_epochs=100000", "trainer.steps_per_epoch=10")
    overrides += ("scheduler=poly",)
    run_dir = tmp_path / "run"
    result = train.run(small(2, *overrides) | {"run_dir": str(run_dir)})
    rows = rows_of(run_dir / "metrics.csv")
    assert result["reason"] == "max_time reached"
    assert rows[-1]["val_dice"]
    assert float(rows[-1]["lr"]) < 0.5 * 3e-3  # the schedule follows the time, far as the steps are from their end
    assert 5 < float(rows[-1]["seconds"]) < 7


@pytest.fixture(scope="session")  # a worker may leave this file for others and come back
def usual_loss(small, workplace):
    """The training loss of the first epoch where no option is set."""
    train.run(small(2, "trainer.max_epochs=1", "split.test=0") | {"run_dir": str(workplace / "usual")})
    return rows_of(workplace / "usual" / "metrics.csv")[0]["train_loss"]


def uses_sgd_and_a_cosine_and_no_logger(run, last):
    (group,) = last["optimizer_states"][0]["param_groups"]  # its head learns as the rest does
    assert group["nesterov"]
    first, second = (float(row["lr"]) for row in rows_of(run / "metrics.csv"))  # at the last step of each epoch, of six
    cosine = (1 + math.cos(math.pi * 5 / 6)) / (1 + math.cos(math.pi * 2 / 6))
    assert second / first == pytest.approx(cosine, rel=0.1)  # the default scheduler's would be three times as much
    assert not (run / "tensorboard").exists()


def has_a_constant_rate_and_several_outputs(run, last):
    assert len({row["lr"] for row in rows_of(run / "metrics.csv")}) == 1
    assert len({key.split(".")[2] for key in last["state_dict"] if key.startswith("network.heads.")}) > 1


def steps_once_in_two_batches_in_float32(run, last):
    assert [int(row["step"]) for row in rows_of(run / "metrics.csv")] == [2, 4]
    assert "32-true" in (run / "train.log").read_text()
    assert any(".shortcut." in key for key in last["state_dict"])


def has_batch_norms(run, last):
    assert any(key.endswith("running_mean") for key in last["state_dict"])


def keeps_no_average_and_mirrors_all_axes(run, last):
    assert not any(key.startswith("average.") for key in last["state_dict"])
    assert json.loads((run / "plan.json").read_text())["plan"]["mirror_axes"] == [0, 1]


def without_a_test(run, last):
    assert json.loads((run / "splits.json").read_text())["test"] == []
    assert not (run / "test").exists()


def only_differs(run, last):
    """Nothing but the loss tells of this option."""


@pytest.mark.parametrize(
    ("overrides", "check"),
    [
        (
            ("augment=none", "loss=ce", "optimizer=sgd", "scheduler=cosine", "logger=none"),
            uses_sgd_and_a_cosine_and_no_logger,
        ),
        (
            ("augment=light", "loss=dice", "optimizer=adam", "scheduler=constant", "model.deep_supervision=true"),
            has_a_constant_rate_and_several_outputs,
        ),
        (
            ("model.residual=true", "model.downsampling=strided", "trainer.accumulate=2", "trainer.precision=fp32"),
            steps_once_in_two_batches_in_float32,
        ),
        (("model.norm=batch", "trainer.channels_last=true"), has_batch_norms),
        (("trainer.averaging=null", "plan.mirror=all", "trainer.memory_gb=4"), keeps_no_average_and_mirrors_all_axes),
        (("split.test=0", "trainer.patience=1", "trainer.workers=1", "seed=1"), without_a_test),
        (
            ("augment.transforms=[{_target_: monai.transforms.RandGaussianNoised, keys: [image], prob: 1.0, std: 9}]",),
            only_differs,
        ),
    ],
)
def test_other_choices_train_too(small, overrides, check, usual_loss, tmp_path, caplog):
    caplog.set_level("INFO", "medseg")
    run = tmp_path / "run"
    result = train.run(small(2, *overrides) | {"run_dir": str(run)})
    assert result["status"] == "done"
    rows = rows_of(run / "metrics.csv")
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)
    assert rows[0]["train_loss"] != usual_loss
    check(run, torch.load(run / "checkpoints" / "last.ckpt", weights_only=True))


@pytest.mark.parametrize("class_prior", [True, False])
def test_a_head_begins_at_the_class_frequencies(small, tmp_path, class_prior):
    still = ["optimizer.lr=1e-12", "trainer.max_epochs=1", "split.test=0", f"trainer.class_prior={class_prior}".lower()]
    train.run(small(2, *still) | {"run_dir": str(tmp_path)})
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for part in ("network", "average"):
        bias = state[f"{part}.heads.0.bias"]
        if class_prior:
            p = bias.exp()
            assert p[0] > 0.8
            assert p.sum() == pytest.approx(1, abs=0.02)
            assert len(set(p.tolist())) > 2
        else:
            assert bias.abs().max() < 1e-6


def test_a_head_learns_faster_and_the_table_has_the_rate_as_it_is_set(small, tmp_path, caplog):
    caplog.set_level("INFO", "medseg")
    train.run(small(2, "trainer.head_factor=4", "split.test=0") | {"run_dir": str(tmp_path)})
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    (body, head) = state["optimizer_states"][0]["param_groups"]
    assert (body["name"], head["name"], len(head["params"])) == ("body", "head", 2)
    assert head["lr"] == pytest.approx(4 * body["lr"])
    assert "body: learning rate" not in caplog.text  # these are of interest in a fine-tuning
    assert float(rows_of(tmp_path / "metrics.csv")[-1]["lr"]) == pytest.approx(body["lr"])


def test_a_full_run_directory_is_left_alone(small, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(MedsegError, match="not empty"):
        train.run(small(2) | {"run_dir": str(tmp_path)})
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_bad_data_leaves_nothing_behind(small, tmp_path):
    config = small(2) | {"run_dir": str(tmp_path / "run")}
    config["dataset"]["labels"] = {"background": 0, "lesion": 1}
    with pytest.raises(MedsegError, match="2, 3"):
        train.run(config)
    assert not (tmp_path / "run").exists()


def test_a_network_that_the_config_wants_compiled_is_and_its_validation_is_not(small, tmp_path, monkeypatch):
    graphs = []

    def backend(graph, examples):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.compiler.reset()
    overrides = ("trainer.compile=true", "trainer.precision=fp32", "trainer.averaging=null")
    assert train.run(small(2, *overrides) | {"run_dir": str(tmp_path / "run")})["status"] == "done"
    assert len(graphs) == 2  # the probe's and the training's
    log = (tmp_path / "run" / "train.log").read_text()
    assert "not compiled" not in log


def test_what_the_config_wants_compiled_and_cannot_be_ends_before_anything_is_written(small, tmp_path, monkeypatch):
    def no_compiler(graph, examples):
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=no_compiler))
    with pytest.raises(MedsegError, match=r"trainer\.compile=true: .*\(Failed to find C compiler\.\)"):
        train.run(small(2, "trainer.compile=true") | {"run_dir": str(tmp_path / "run")})
    assert not (tmp_path / "run" / "plan.json").exists()


def test_what_gives_another_result_on_every_run_is_refused_by_deterministic(small, tmp_path, monkeypatch):
    from medseg.training.segmentation import SegmentationModule

    loss_of = SegmentationModule.loss_of

    def random_order(*arguments):
        torch.zeros(1).put_(torch.tensor([0]), torch.ones(1))  # which PyTorch refuses on every device
        return loss_of(*arguments)

    monkeypatch.setattr(SegmentationModule, "loss_of", random_order)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # Lightning sets it
    try:
        with pytest.raises(
            MedsegError, match=r"trainer.deterministic=true: put_, a part of UNet or of the loss.*=false"
        ):
            train.run(small(2, "trainer.deterministic=true", "logger=none") | {"run_dir": str(tmp_path / "run")})
    finally:
        torch.use_deterministic_algorithms(False)
