"""Attempts to run code, read the environment or write elsewhere by any file that medseg reads: each leaves a mark."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from small_run import PREDICT, TRAIN

from medseg.cli import command_line

SECRET = "hospital-token-4711"


class Mark:
    """A pickle of this makes the folder when it is loaded carelessly."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


class Attack:
    """A copy of the run to be poisoned, what is put in, and what must not come of it."""

    def __init__(self, place, mark, capsys):
        self.place, self.run, self.mark, self.capsys = place, place / "run", mark, capsys
        self.payload = place / "payload.pkl"
        self.payload.write_bytes(pickle.dumps(Mark(mark)))
        self.code = {"_target_": "os.mkdir", "path": str(mark)}
        self.writer = {"_target_": "medseg.io.layouts.phantom", "root": str(mark)}
        self.writer |= {"dims": 2, "channels": 1, "cases": 4, "size": 16, "seed": 0}
        alias = "torch.nn.modules.module.torch.load"
        self.alias = {"_target_": alias, "f": str(self.payload), "weights_only": False}

    def config(self, change):
        self._yaml(self.run / "config.yaml", change)

    def plan(self, change):
        path = self.run / "plan.json"
        content = json.loads(path.read_text("utf-8"))
        change(content)
        path.write_text(json.dumps(content), "utf-8")

    def checkpoint(self, change):
        path = self.run / "checkpoints" / "best.ckpt"
        content = torch.load(path, weights_only=True)
        change(content["medseg"]["config"])
        torch.save(content, path)

    def attempt(self, *arguments):
        """Run a command line; return its exit status and what it said, after looking for the mark."""
        self.capsys.readouterr()
        status = command_line.main(list(arguments))
        said = self.capsys.readouterr()
        text = said.out + said.err
        assert not self.mark.exists(), "the file's code ran, or it had a folder made"
        assert status in (0, 1), text
        assert "Traceback" not in text
        assert SECRET not in text
        return status, said.err

    def refused(self, *arguments, saying=""):
        """Run a command line that must end with one message of medseg's."""
        status, said = self.attempt(*arguments)
        assert status == 1, said
        assert said.count("medseg: ") == 1
        assert saying in said, said

    @staticmethod
    def _yaml(path, change):
        content = yaml.safe_load(path.read_text("utf-8"))
        change(content)
        path.write_text(yaml.safe_dump(content), "utf-8")


@pytest.fixture
def attack(trained, tmp_path, monkeypatch, capsys):
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MEDSEG_TEST_SECRET", SECRET)
    return Attack(tmp_path / "work", tmp_path / "mark", capsys)


def put(keys, value):
    """Return a change that puts a value at a dotted path."""

    def change(node):
        *path, last = keys.split(".")
        for key in path:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[int(last) if isinstance(node, list) else last] = value

    return change


FINETUNE = (*TRAIN, "finetune.checkpoint=run", "run_dir=other")
IN_MODEL = {
    "itself": ("model", "code"),
    "alias": ("model", "alias"),
    "writer": ("model", "writer"),
    "norm": ("model.norm", "code"),
    "norm, writer": ("model.norm", "writer"),
    "activation": ("model.activation", "alias"),
    "dropout": ("model.dropout", "code"),
    "blocks": ("model.blocks", ["code"]),
    "unknown key": ("model.extra", "code"),
    "unknown key, deep": ("model.extra", {"a": [{"b": "code"}]}),
    "strides": ("model.strides", [["code", 2]]),
    "shipped loss": ("model.norm", {"_target_": "medseg.training.losses.FocalLoss", "gamma": "code"}),
}


def filled(attack, shape):
    """Return a shape with the attack's payloads in place of their names."""
    if isinstance(shape, str):
        return getattr(attack, shape, shape)
    if isinstance(shape, list):
        return [filled(attack, child) for child in shape]
    return {key: filled(attack, child) for key, child in shape.items()} if isinstance(shape, dict) else shape


def marked(attack, value):
    """Return plain containers with the path of the mark in place of MARK."""
    return json.loads(json.dumps(value).replace("MARK", str(attack.mark)))


@pytest.mark.parametrize("name", IN_MODEL)
def test_predict_builds_nothing_that_a_checkpoint_hides(attack, name):
    keys, shape = IN_MODEL[name]
    attack.checkpoint(put(keys, filled(attack, shape)))
    attack.refused(*PREDICT)


@pytest.mark.parametrize("name", IN_MODEL)
def test_fine_tuning_builds_nothing_that_a_checkpoint_hides(attack, name):
    keys, shape = IN_MODEL[name]
    attack.checkpoint(put(keys, filled(attack, shape)))
    attack.attempt(*FINETUNE)


@pytest.mark.parametrize("shape", ["code", "writer", "alias"])
def test_an_open_network_takes_no_object_from_a_checkpoint(attack, shape):
    """medseg's wrappers of MONAI hand on arguments that no table knows."""
    network = {"_target_": "medseg.models.monai.attention_unet", "spatial_dims": 2, "in_channels": 1}
    network |= {"out_channels": 4, "depth": 1, "base_channels": 2, "max_channels": 8, "strides": [[2, 2]]}
    attack.checkpoint(put("model", {**network, "dropout": filled(attack, shape)}))
    attack.refused(*PREDICT, saying="model.dropout")
    attack.refused(*FINETUNE[:3], "model=attention_unet", *FINETUNE[6:])


@pytest.mark.parametrize(
    "command",
    [
        ("export", "checkpoint=run", "output=x.onnx"),
        ("eval", "checkpoint=run", "device=cpu"),
        ("eval", "checkpoint=run", "tune=postprocess", "device=cpu"),
        ("predict", "checkpoint=[run,run]", *PREDICT[2:]),
    ],
)
@pytest.mark.parametrize("shape", ["code", "writer"])
def test_other_commands_refuse_a_poisoned_checkpoint(attack, command, shape):
    attack.checkpoint(put("model.norm", filled(attack, shape)))
    attack.refused(*command, saying="model.norm")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("preprocessing.normalize", ["${oc.env:MEDSEG_TEST_SECRET}"]),
        ("preprocessing.denoise", "${oc.env:MEDSEG_TEST_SECRET}"),
        ("plan.strides", "${oc.env:MEDSEG_TEST_SECRET}"),
        ("plan.kernel_sizes", ["${oc.decode:'[1, 2]'}"]),
        ("model.norm", "${oc.env:MEDSEG_TEST_SECRET}"),
    ],
)
def test_a_checkpoint_reads_no_environment(attack, keys, value):
    attack.checkpoint(put(keys, value))
    attack.refused(*FINETUNE)


MLFLOW, WANDB = "medseg.training.trackers.MLFlow", "medseg.training.trackers.WandB"
IN_PLAN = {
    "model.max_channels": "code",
    "model.channels": ["code"],
    "model.extra": "alias",
    "model.norm": "writer",
    "preprocessing.normalize": ["code"],
    "preprocessing.extra": "code",
    "plan.strides": [["code"]],
    "plan.extra": "code",
    "trainer.compile": "code",
    "augment": {"spatial": "code", "intensity": ["code"]},
    "logger": "code",
    "loss": "alias",
    "dataset": {"layout": "code"},
    "trust": ["os.mkdir"],
    "hydra": {"callbacks": {"x": "code"}},
    "run_dir": "/tmp/elsewhere",
    "model": ["code"],
    "measured": {"a": "code"},
}


@pytest.mark.parametrize("keys", IN_PLAN)
def test_a_plan_is_plain_data(attack, keys):
    attack.plan(put(keys, filled(attack, IN_PLAN[keys])))
    attack.refused(*TRAIN, "augment=none", "plan.file=run/plan.json", "run_dir=other", saying=keys.split(".")[0])
    assert not Path("other").exists()


@pytest.mark.parametrize("keys", ["model.max_channels", "logger", "augment", "plan.strides"])
def test_the_plan_of_a_resumed_run_is_plain_data(attack, keys):
    attack.plan(put(keys, filled(attack, IN_PLAN[keys])))
    attack.refused("train", "resume=run", "trainer.max_epochs=2", saying="plan.json")


def test_the_plan_of_a_run_to_begin_from_is_plain_data(attack):
    attack.plan(put("model.max_channels", attack.code))
    chosen = ("model.", "plan.", "trainer.max_time=")  # with values of one's own the plan is made anew
    attack.refused(*(word for word in FINETUNE if not word.startswith(chosen)), saying="plan.json")


IN_RUN = {
    "model": "code",
    "model.norm": "code",
    "model.extra": "writer",
    "loss": "alias",
    "loss.dice": "code",
    "loss.weights": {"dice": "code"},
    "optimizer": "code",
    "optimizer.lr": "alias",
    "scheduler": "code",
    "augment.spatial": "code",
    "augment.spatial.scale": ["code", "writer"],
    "augment.intensity": ["alias"],
    "augment.transforms": ["code"],
    "logger": "code",
    "dataset.layout": "code",
    "dataset.layout.root": "code",
    "dataset.labels": {"a": "code"},
    "trainer.patience": "code",
    "finetune.checkpoint": "code",
    "callbacks": {"x": "code"},
    "weights": {"published": {"a": "code"}},
}


@pytest.mark.parametrize("keys", IN_RUN)
def test_the_config_of_a_resumed_run_names_no_code(attack, keys):
    attack.config(put(keys, filled(attack, IN_RUN[keys])))
    attack.refused("train", "resume=run", "trainer.max_epochs=2", saying="run/config.yaml names code")


def test_a_file_trusts_nothing(attack):
    attack.config(put("trust", ["os.mkdir"]))
    attack.config(put("model", attack.code))
    attack.refused("train", "resume=run", "trainer.max_epochs=2", saying="trust=[os.mkdir]")


@pytest.mark.parametrize(
    "hydra",
    [
        {"callbacks": {"x": "alias"}},
        {"callbacks": {"x": "code"}},
        {"launcher": "alias"},
        {"sweeper": "code"},
        {"job_logging": {"version": 1, "handlers": {"x": {"class": "logging.FileHandler", "filename": "MARK"}}}},
        {"hydra_logging": {"version": 1, "handlers": {"x": {"()": "os.mkdir", "path": "MARK"}}}},
        {"searchpath": ["file:///tmp", "pkg://os"]},
        {"run": {"dir": "MARK"}},
        {"output_subdir": "MARK"},
        {"job": {"env_set": {"MEDSEG_TEST_SECRET": "gone"}, "chdir": True}},
    ],
)
def test_hydra_never_reads_the_config_of_a_run(attack, hydra):
    attack.config(put("hydra", marked(attack, filled(attack, hydra))))
    status, said = attack.attempt("train", "resume=run", "trainer.max_epochs=1")
    assert status == 0, said
    assert os.environ["MEDSEG_TEST_SECRET"] == SECRET


@pytest.mark.parametrize("defaults", [["_self_", {"hydra/launcher": "joblib"}], [{"model": "swin_unetr"}], "x", [3]])
def test_the_config_of_a_run_takes_in_no_other(attack, defaults):
    attack.config(put("defaults", defaults))
    status, said = attack.attempt("train", "resume=run", "trainer.max_epochs=1", "--cfg", "job")
    assert status == 0, said


RESOLVED = {
    "dataset.root": "${oc.env:MEDSEG_TEST_SECRET}",
    "dataset.name": "${oc.decode:'1'}",
    "dataset.group": "x${oc.env:MEDSEG_TEST_SECRET}y",
    "seed": "${oc.create:'{a: 1}'}",
    "split.file": "${${split.seed}}",
    "cache_dir": "${hydra:runtime.cwd}",
    "model.norm": "${oc.select:seed}",
}


@pytest.mark.parametrize("keys", RESOLVED)
def test_the_config_of_a_resumed_run_calls_no_resolver(attack, keys):
    attack.config(put(keys, RESOLVED[keys]))
    attack.refused("train", "resume=run", "trainer.max_epochs=2", saying=keys)


@pytest.mark.parametrize(
    "values",
    [
        {"dataset.group": "${dataset.group_file}", "dataset.group_file": "${dataset.group}"},
        {"dataset.labels": {"a": "${dataset.regions}"}, "dataset.regions": {"b": ["${seed}", "${seed}"]}},
        {"dataset.labels": "${dataset}"},
        {"dataset.group": "${seed}${seed}"},
    ],
)
def test_references_of_a_file_neither_circle_nor_grow(attack, values):
    for keys, value in values.items():
        attack.config(put(keys, value))
    attack.refused("train", "resume=run", "trainer.max_epochs=2", saying="dataset.")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("logger", {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "save_dir": "MARK"}),
        ("logger", {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "save_dir": "${run_dir}/../../mark"}),
        (
            "logger",
            {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "save_dir": "${run_dir}/x", "name": "MARK"},
        ),
        ("logger", {"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "MARK"}}),
        ("logger", {"mlflow": {"_target_": MLFLOW, "run_dir": "MARK", "experiment": "a", "folder": "outputs/mlflow"}}),
        ("logger", {"mlflow": {"_target_": MLFLOW, "run_dir": "${run_dir}", "experiment": "a", "folder": "MARK"}}),
        ("logger", {"mlflow": {"_target_": MLFLOW, "run_dir": "${run_dir}", "folder": "a", "server": "http://host"}}),
        ("logger", {"wandb": {"_target_": WANDB, "run_dir": "${run_dir}", "project": "a", "online": True}}),
        ("cache_dir", "MARK"),
        ("cache_dir", "../mark"),
        ("command", "cache"),
        ("command", ["train"]),
    ],
)
def test_a_resumed_run_writes_into_itself_alone_and_sends_nothing(attack, keys, value):
    attack.config(put(keys, marked(attack, value)))
    attack.refused("train", "resume=run", "trainer.max_epochs=2", saying=keys)


@pytest.mark.parametrize("command", [("eval", "checkpoint=run", "device=cpu"), ("train", "resume=run")])
def test_no_file_has_a_data_set_written(attack, command):
    attack.config(put("dataset.root", str(attack.mark)))
    attack.refused(*command, saying="synthetic data set")


IN_DATASET = {
    "dataset.layout": "code",
    "dataset.layout.root": "alias",
    "dataset.layout.extra": "code",
    "dataset.extra": "writer",
    "dataset.labels": {"a": ["code"]},
    "dataset": "code",
}


@pytest.mark.parametrize("keys", IN_DATASET)
def test_eval_builds_nothing_that_a_run_s_config_hides(attack, keys):
    attack.config(put(keys, filled(attack, IN_DATASET[keys])))
    attack.refused("eval", "checkpoint=run", "device=cpu", saying="names code")


@pytest.mark.parametrize("value", ["code", "${oc.env:MEDSEG_TEST_SECRET}"])
def test_eval_takes_nothing_but_the_data_set_of_a_run_s_config(attack, value):
    for keys in ("model", "optimizer", "logger.save_dir", "hydra.callbacks"):
        attack.config(put(keys, filled(attack, value)))
    assert attack.attempt("eval", "checkpoint=run", "device=cpu")[0] == 0


@pytest.mark.parametrize("keys", ["dataset.root", "dataset.name", "dataset.group"])
def test_eval_calls_no_resolver_of_a_run_s_config(attack, keys):
    attack.config(put(keys, RESOLVED[keys]))
    attack.refused("eval", "checkpoint=run", "device=cpu", saying=keys)


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_pickles_in_a_run_are_not_loaded(attack, name):
    torch.save({"medseg": Mark(attack.mark), "state_dict": Mark(attack.mark)}, attack.run / "checkpoints" / name)
    command = PREDICT if name == "best.ckpt" else ("train", "resume=run", "trainer.max_epochs=2")
    attack.refused(*command, saying=name)


def test_pickles_as_weights_to_begin_with_are_not_loaded(attack):
    attack.refused(*TRAIN, f"finetune.checkpoint={attack.payload}", "run_dir=other", saying="payload.pkl")


def test_a_yaml_tag_constructs_nothing(attack):
    path = attack.run / "config.yaml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("seed: 0", f"seed: !!python/object/apply:os.mkdir ['{attack.mark}']", 1), "utf-8")
    attack.refused("train", "resume=run", saying="config.yaml: cannot be read as YAML")
    attack.refused("eval", "checkpoint=run", "device=cpu", saying="config.yaml: cannot be read as YAML")


def test_the_user_s_own_code_trains_resumes_evaluates_and_predicts(attack, monkeypatch):
    """What the user names is built: by --config-dir, or by trust; the refusal says so."""
    folder = attack.place / "mine" / "model"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text("_target_: mine_to_trust.Tiny\nin_channels: ${plan.in_channels}\nact: null\n")
    (attack.place / "mine" / "mine_to_trust.py").write_text(
        "from torch import nn\nclass Tiny(nn.Conv2d):\n"
        "    def __init__(self, in_channels, act):\n        super().__init__(in_channels, 4, 1)\n"
        "        self.act = act\n"
    )
    monkeypatch.syspath_prepend(str(attack.place / "mine"))
    short = [setting for setting in TRAIN[1:] if not setting.startswith("model.")]
    nested = "model.act={_target_: torch.nn.ReLU}"
    train = ("train", "--config-dir", "mine", *short, "model=tiny", nested, "augment=none", "run_dir=own")
    assert attack.attempt(*train)[0] == 0
    both, resume = "trust=[mine_to_trust.Tiny,torch.nn.ReLU]", ("train", "resume=own", "trainer.max_epochs=2")
    attack.refused(*resume, saying=both)
    attack.refused(*resume, "--config-dir", "mine", saying="trust=[torch.nn.ReLU]")
    assert attack.attempt(*resume, both)[0] == 0
    predict = ("predict", "checkpoint=own", *PREDICT[2:])
    attack.refused(*predict, saying="trust=[")
    assert attack.attempt(*predict, both)[0] == 0
    assert attack.attempt("eval", "checkpoint=own", "device=cpu", both)[0] == 0
    started = ("train", "--config-dir", "mine", *short, "model=tiny", nested, "finetune.checkpoint=own", "run_dir=next")
    assert attack.attempt(*started)[0] == 0


CSV = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "${run_dir}"}


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("cache_dir", "${dataset.name}"),
        ("cache_dir", "${split.file}"),
        ("logger", {"csv": {**CSV, "name": "${dataset.name}"}}),
        ("logger", {"csv": {**CSV, "name": "${...split.file}"}}),
    ],
)
def test_a_resumed_run_writes_nowhere_that_a_reference_leads_to(attack, keys, value):
    attack.config(put(keys, value))
    attack.config(put("dataset.name", str(attack.mark)))
    attack.config(put("split.file", "${dataset.name}"))
    attack.refused("train", "resume=run", "trainer.max_epochs=2", saying=keys)
