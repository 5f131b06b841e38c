"""Settings in Python: what they become, and that they are checked with the command line's own words."""

import doctest
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from medseg.cli import command_line, keywords
from medseg.cli.keywords import config_of
from medseg.cli.sources import RESUMED
from medseg.config.check import resolve
from medseg.config.schema import CONF
from medseg.errors import MedsegError


@pytest.mark.parametrize("function", [keywords.flattened, keywords.word])
def test_examples(function):
    (test,) = doctest.DocTestFinder().find(function, globs=vars(keywords))
    assert not doctest.DocTestRunner().run(test).failed


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["model.dept=4", "trainer.max_epochs=ten"], {"model": {"dept": 4}, "trainer.max_epochs": "ten"}),
        (["dataset=foldr", "loss=cee"], {"dataset": "foldr", "loss": "cee"}),
        (["dataset=folder", "dataset.root=nowhere"], {"dataset": "folder", "dataset.root": "nowhere"}),
        (["split=0.2"], {"split": 0.2}),
        (["optimizer.amsgrad=true"], {"optimizer": {"amsgrad": True}}),
        (["logger=[csv,wandbb]"], {"logger": ["csv", "wandbb"]}),
        (["resume=auto"], {"resume": "auto"}),
    ],
)
def test_messages_are_those_of_the_command_line(arguments, settings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["train", *arguments]) == 1
    with pytest.raises(MedsegError) as error:
        config_of("train", settings)
    assert capsys.readouterr().err == f"medseg: {error.value}\n"


def test_the_config_is_that_of_the_same_command_line(jobs):
    line = ["dataset.dims=2", "optimizer=sgd", "logger=[csv,tensorboard]", "plan.patch_size=[32,48]", "seed=3"]
    assert command_line.main(["train", *line, "trainer.max_time=00:00:10:00", "run_dir=it's, $"]) == 0
    settings = {
        "dataset": {"dims": 2},
        "optimizer": "sgd",
        "logger": ("csv", "tensorboard"),
        "plan.patch_size": [32, 48],
        "seed": 3,
        "trainer": {"max_time": "00:00:10:00"},
        "run_dir": "it's, $",
    }
    config, argv = config_of("train", settings)
    assert resolve(config) == jobs.configs[0]
    assert command_line.main(argv) == 0  # which a report shows
    assert jobs.configs[1] == jobs.configs[0]


@pytest.mark.parametrize("name", ["nucleus", "Läsion, größer: {a}", "患者 ${x}", "it's 'a' \\", "true"])
def test_classes_may_have_any_name(name, tmp_path):
    labels = {"background": 0, name: [1, 2]}
    config, argv = config_of("train", {"dataset": "folder", "dataset.root": tmp_path, "dataset.labels": labels})
    assert resolve(config)["dataset"]["labels"] == labels
    assert config["explicit_keys"] == ["dataset.root", "dataset.labels"]
    assert len(argv) == 4


def test_names_of_any_alphabet_can_be_given_on_the_command_line_in_quotes(jobs):
    assert command_line.main(["train", "dataset=folder", "dataset.root=x", "dataset.labels='{背景: 0, 患者: 1}'"]) == 0
    assert jobs.configs[0]["dataset"]["labels"] == {"背景": 0, "患者": 1}


def test_hydra_is_left_as_it_was(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        config_of("train", {"model": "unet", "model.depth": 3})
        with pytest.raises(MedsegError):
            config_of("train", {"resume": tmp_path})
        assert GlobalHydra.instance().hydra is before
        assert compose("train").seed == 0
    assert not GlobalHydra.instance().is_initialized()
    assert f"{RESUMED}.yaml" not in ConfigStore.instance().repo


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search": "usual"}, "search=usual: several trainings are started from the command line"),
        ({"split": {"fold": "all"}}, "split.fold='all': several trainings"),
        ({"hydra/launcher": "local"}, "hydra/launcher"),
        ({"seed": object()}, "a setting is a number, a text, a path"),
    ],
)
def test_what_python_does_not_take_is_named(settings, message):
    with pytest.raises(MedsegError, match=message):
        config_of("train", settings)


def test_a_network_of_ones_own_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: my_module.MyNet\n", "utf-8")
    config, argv = config_of("train", {"model": "mine"}, tmp_path)
    assert (config["model"], config["trust"]) == ({"_target_": "my_module.MyNet"}, ["my_module.MyNet"])
    assert sys.path[-1] == str(tmp_path)
    assert argv == ["train", "model=mine", "--config-dir", str(tmp_path)]
