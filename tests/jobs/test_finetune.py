"""Trainings of a few steps that begin with a run of another data set, on the phantom."""

import json
import logging
import shutil

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medseg.cli import command_line
from medseg.errors import MedsegError
from medseg.jobs.train import train
from medseg.training.callbacks import checkpoints
from medseg.training.callbacks.checkpoints import Checkpoints

SHORT = ("trainer.max_epochs=1", "trainer.steps_per_epoch=2")


@pytest.fixture(scope="session")  # a worker may leave this file for others and come back
def source(small, workplace):
    """A run of four classes and two channels in 3D, of a spacing and with options that are not the usual ones."""
    folder = workplace / "two channels"
    config = small(
        3, *SHORT, "dataset.n_channels=2", "preprocessing.spacing=[1.5,1.5,1.5]", "model.deep_supervision=true"
    )
    config["dataset"] |= {"root": str(workplace / "phantom of two channels"), "seed": 5}
    train.run(config | {"run_dir": str(folder)})
    return folder


def begun(small, source, tmp_path, *overrides, **dataset):
    """The config of a run of one channel and three classes that begins with ``source``."""
    config = small(3, *SHORT, *(f"finetune.{each}" if "." not in each else each for each in overrides))
    config["finetune"]["checkpoint"] = str(source)
    labels = {"background": 0, "edema": 1, "tumour": [2, 3]}
    config["dataset"] |= {"labels": labels, **dataset}
    return config | {"run_dir": str(tmp_path / "run")}


def weights_of(folder, name="best"):
    state = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}


def test_four_classes_and_two_channels_start_three_classes_and_one(small, source, tmp_path, caplog):
    config = begun(small, source, tmp_path, "optimizer.lr=1e-12", "optimizer.weight_decay=0.0")
    config["model"] |= {"depth": None, "base_channels": None}
    with caplog.at_level(logging.INFO):
        assert train.run(config)["status"] == "done"
    theirs, ours = weights_of(source), weights_of(tmp_path / "run")
    first = "encoder.0.0.0.weight"
    torch.testing.assert_close(ours[first], theirs[first].sum(1, keepdim=True))
    torch.testing.assert_close(ours["heads.0.weight"][:2], theirs["heads.0.weight"][:2])  # background and edema
    for name in theirs.keys() - {first} - {name for name in theirs if name.startswith("heads.")}:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["preprocessing"]["spacing"] == [1.5, 1.5, 1.5]
    assert (plan["plan"]["in_channels"], plan["plan"]["out_channels"]) == (1, 3)
    settings = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["medseg"]["config"]["model"]
    assert (settings["depth"], settings["base_channels"], settings["deep_supervision"]) == (2, 4, True)
    report = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert 0.95 < report["share"] < 1
    assert report["adapted"][first].startswith("2 channels to 1")
    assert "of background, edema alone" in report["adapted"]["heads.0.weight"]
    assert f"{100 * report['share']:.2f} % of the parameters" in caplog.text
    assert "heads.0.weight: of background, edema alone" in caplog.text


def test_another_depth_and_preprocessing_of_ones_own(small, source, tmp_path, caplog):
    config = begun(small, source, tmp_path, "model.depth=3", "preprocessing=own")
    with caplog.at_level(logging.INFO):
        train.run(config)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["preprocessing"]["spacing"] != [1.5, 1.5, 1.5]
    assert "encoder.3" in caplog.text  # which the source does not have
    report = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert {each["key"].split(".")[1] for each in report["not_taken"] if each["key"].startswith("encoder")} == {"3"}


def test_another_network_without_a_weight_in_common_is_refused_before_anything_is_written(small, source, tmp_path):
    config = begun(small, source, tmp_path)
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    config["finetune"]["checkpoint"] = str(tmp_path / "other.pth")
    with pytest.raises(MedsegError, match=r"(?s)none of its 1 weights fits .*Give the network"):
        train.run(config)
    assert not (tmp_path / "run").exists()


def test_the_sources_network_is_taken_where_none_is_named(small, workplace, tmp_path):
    named = ("model=segresnet", "model.depth=2", "model.base_channels=8")
    config = small(2, *SHORT)
    resnet = small(2, *SHORT, *named)
    train.run({**resnet, "run_dir": str(tmp_path / "first")})
    config["model"] |= {"depth": None, "base_channels": None}
    config["finetune"]["checkpoint"] = str(tmp_path / "first")
    config["dataset"]["labels"] = {"background": 0, "lesion": [1, 2, 3]}
    train.run(config | {"run_dir": str(tmp_path / "run")})
    model = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]
    assert (model["_target_"], model["depth"]) == ("medseg.models.monai.segresnet", 2)
    assert model["out_channels"] == "${plan.out_channels}"
    assert json.loads((tmp_path / "run" / "finetune.json").read_text())["share"] > 0.99


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_frozen_levels_stay_to_the_bit_and_out_of_the_optimizer(small, tmp_path, norm, caplog):
    config = small(2, *SHORT, f"model.norm={norm}")
    train.run(config | {"run_dir": str(tmp_path / "first")})
    config["finetune"] |= {"checkpoint": str(tmp_path / "first"), "freeze_encoder": True, "layer_decay": 0.5}
    with caplog.at_level(logging.INFO):
        train.run(config | {"run_dir": str(tmp_path / "run")})
    before = weights_of(tmp_path / "first")
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    for kind in ("network", "average"):
        state = {name: value for name, value in last["state_dict"].items() if name.startswith(f"{kind}.encoder.")}
        assert state
        for name, value in state.items():
            assert torch.equal(value, before[name.removeprefix(f"{kind}.")]), name
    assert any(not torch.equal(value, before[name]) for name, value in weights_of(tmp_path / "run").items())
    (optimizer,) = last["optimizer_states"]
    learning = [name for name in before if not name.startswith("encoder.") and "running" not in name]
    assert len(optimizer["state"]) == len([name for name in learning if "num_batches" not in name])
    names = [group["name"] for group in optimizer["param_groups"]]
    assert names == ["decoder.1", "decoder.0", "head"]
    assert "frozen: encoder.0, encoder.1, encoder.2, " in caplog.text
    assert "decoder.1: learning rate 0.00075" in caplog.text
    rates = {name: scalar(tmp_path / "run" / "tensorboard", f"train/lr/{name}") for name in names}
    assert rates["head"] == pytest.approx(2 * rates["decoder.0"]) == pytest.approx(4 * rates["decoder.1"])


def scalar(folder, tag):
    """Return the last value of a tag in whichever file of the folder has it."""
    for path in folder.rglob("events*"):
        events = EventAccumulator(str(path)).Reload()
        if tag in events.Tags()["scalars"]:
            return events.Scalars(tag)[-1].value
    raise KeyError(tag)


def test_a_run_resumed_before_or_after_the_unfreezing_ends_the_same(small, tmp_path, monkeypatch):
    config = small(2, "trainer.max_epochs=1", "trainer.steps_per_epoch=2", "model.norm=batch")
    train.run(config | {"run_dir": str(tmp_path / "first")})
    config["trainer"]["max_epochs"] = 4
    config["finetune"] |= {"checkpoint": str(tmp_path / "first"), "freeze_levels": 1, "unfreeze_epoch": 2}
    config["finetune"] |= {"l2_sp": 0.1, "layer_decay": 0.8}
    saved = Checkpoints.on_train_epoch_end

    def save_and_keep(self, trainer, module):
        saved(self, trainer, module)
        trainer.strategy.checkpoint_io.wait()
        shutil.copy(self.folder / "last.ckpt", tmp_path / f"epoch {trainer.current_epoch + 1}.ckpt")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "INTERVAL", 0.0)  # a state of each epoch, whatever the time
        patch.setattr(Checkpoints, "on_train_epoch_end", save_and_keep)
        train.run(config | {"run_dir": str(tmp_path / "whole")})
    expected = weights_of(tmp_path / "whole", "last")
    first = "encoder.0.0.0.weight"
    kept = [
        torch.load(tmp_path / f"epoch {epoch}.ckpt", weights_only=True)["state_dict"][f"network.{first}"]
        for epoch in (1, 2, 3)
    ]
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[1], kept[2])
    shutil.rmtree(tmp_path / "first")  # a resumed run does without
    for epoch in (1, 2, 3):
        run = tmp_path / f"resumed {epoch}"
        shutil.copytree(tmp_path / "whole", run)
        shutil.copy(tmp_path / f"epoch {epoch}.ckpt", run / "checkpoints" / "last.ckpt")
        saved_config = yaml.safe_load((run / "config.yaml").read_text())
        train.run(saved_config | {"resume": str(run), "run_dir": str(run)})
        for name, value in weights_of(run, "last").items():
            assert torch.equal(value, expected[name]), (epoch, name)


def test_cases_that_the_weights_have_seen_stay_out_of_the_test(small, tmp_path, caplog):
    """The same scans, of which one is gone, with other classes: each stays in its part."""
    config = small(2, *SHORT)
    train.run(config | {"run_dir": str(tmp_path / "first")})
    before = json.loads((tmp_path / "first" / "splits.json").read_text())
    config["finetune"]["checkpoint"] = str(tmp_path / "first")
    config["dataset"]["labels"] = {"background": 0, "lesion": [1, 2, 3]}
    config["seed"] = 1  # would draw another split
    train.run(config | {"run_dir": str(tmp_path / "run")})
    after = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert {part: after[part] for part in ("train", "val", "test")} == {
        part: before[part] for part in ("train", "val", "test")
    }
    (tmp_path / "split.json").write_text(
        json.dumps({"format": 1, "train": before["test"], "val": before["val"], "test": before["train"]})
    )
    config["split"]["file"] = str(tmp_path / "split.json")
    with caplog.at_level(logging.WARNING):
        train.run(config | {"run_dir": str(tmp_path / "leaking")})
    assert f"{len(before['train'])} cases of the test subset were used to train" in caplog.text
    assert all(f"{name} (train)" in caplog.text for name in before["train"])
    chained = json.loads((tmp_path / "leaking" / "finetune.json").read_text())["seen"]
    assert chained == {before["hashes"][name]: part for part in ("train", "val", "test") for name in before[part]}


def test_options_of_fine_tuning_need_weights_to_begin_with(small, tmp_path):
    config = small(2, "finetune.freeze_levels=1") | {"run_dir": str(tmp_path / "run")}
    with pytest.raises(MedsegError, match=r"finetune\.freeze_levels=1 .* Give finetune\.checkpoint"):
        train.run(config)
    assert not (tmp_path / "run").exists()


def test_a_resumed_training_tunes_as_before_without_its_report_on_weights(small, tmp_path):
    config = small(2, *SHORT) | {"run_dir": str(tmp_path / "run")}
    train.run(config | {"run_dir": str(tmp_path / "first")})
    config["finetune"] |= {"checkpoint": str(tmp_path / "first"), "layer_decay": 0.5}
    train.run(config)
    (tmp_path / "run" / "finetune.json").unlink()
    config["trainer"] |= {"max_epochs": 3}
    assert train.run(config | {"resume": str(tmp_path / "run")})["status"] == "done"
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert [group["name"] for group in last["optimizer_states"][0]["param_groups"]][-2:] == ["decoder.0", "head"]


def test_what_the_command_line_gives_wins_though_it_is_the_default_also_when_resumed(workplace, tmp_path, monkeypatch):
    """On the same data, where all that is left open is taken from the plan of the weights' run."""
    monkeypatch.chdir(tmp_path)
    data = [f"dataset.root={workplace / 'phantom'}", "dataset.dims=2", "dataset.cases=10", "dataset.size=64"]
    short = ["trainer.max_time=null", "trainer.max_epochs=1", "trainer.steps_per_epoch=1", "logger=none"]
    command = ["train", *data, f"cache_dir={workplace / 'cache'}", *short, "plan.batch_size=2"]
    own = ["model.depth=2", "model.base_channels=4", "model.norm=batch", "model.blocks=1", "preprocessing.crop=false"]
    assert command_line.main([*command, *own, "run_dir=first"]) == 0
    given = ["model.norm=instance", "preprocessing.crop=true"]
    assert command_line.main([*command, "finetune.checkpoint=first", *given, "run_dir=run"]) == 0
    assert command_line.main(["train", "resume=run", "trainer.max_epochs=2"]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert {key: config["model"][key] for key in ("norm", "blocks", "depth", "base_channels")} == {
        "norm": "instance",
        "blocks": 1,
        "depth": 2,
        "base_channels": 4,
    }
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["preprocessing"]["crop"] is True
    assert {"model.norm", "preprocessing.crop", "finetune.checkpoint"} <= set(config["explicit_keys"])
    names = {name for name in weights_of(tmp_path / "run") if "running_mean" in name}
    assert not names  # of batch norms
