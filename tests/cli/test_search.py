"""A search from the command line, with a stub in the job's place."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from medseg.cli import command_line, overrides
from medseg.config.schema import CONF
from medseg.errors import MedsegError

optuna = pytest.importorskip("optuna", reason="optuna is not installed")


@pytest.fixture
def trainings(jobs):
    """Stub trainings, the better the nearer their learning rate is to 1e-3."""

    def outcome(config):
        folder = Path(config["run_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        split = {"format": 1, "train": ["t"], "val": ["v"], "test": [], "hashes": {"t": "1", "v": "2"}}
        (folder / "splits.json").write_text(json.dumps(split))
        score = 0.9 - abs(config["optimizer"]["lr"] - 1e-3)
        test_score = 0.7 if config["sweep"]["test"] == "all" else None
        return {"status": "done", "reason": "", "score": score, "test_score": test_score, "seconds": 1.0}

    jobs.outcome = outcome
    return jobs


def record(folder="sweep"):
    return json.loads(Path(folder, "sweep.json").read_text())


def test_one_line_searches_and_another_goes_on_with_it(trainings, capsys):
    outcome = trainings.outcome

    def failing(config):
        if len(trainings.configs) == 2:
            raise MedsegError("too deep for the patch")
        if len(trainings.configs) == 4:
            raise KeyboardInterrupt
        return outcome(config)

    trainings.outcome = failing
    line = ["train", "search=[learning_rate,depth]", "search.trials=5", "sweep.test=none", "run_dir=sweep"]
    assert command_line.main(line) == 130
    [*_, advice] = capsys.readouterr().out.splitlines()
    assert advice == "to go on: medseg train resume=sweep"
    assert command_line.main(shlex.split(advice)[4:]) == 3
    configs = trainings.configs
    assert (configs[0]["optimizer"]["lr"], configs[0]["model"]["depth"]) == (0.003, None)
    assert [config["run_dir"] for config in configs] == [f"sweep/{number}" for number in (0, 1, 2, 3, 3, 4)]
    assert configs[3]["optimizer"] == configs[4]["optimizer"]
    assert all(1e-4 <= config["optimizer"]["lr"] <= 3e-2 for config in configs)
    out = capsys.readouterr().out
    best = max((config for config in configs[2:]), key=lambda config: -abs(config["optimizer"]["lr"] - 1e-3))
    assert f"best: job {best['run_dir'].removeprefix('sweep/')}, checkpoint=" in out
    assert "job 1: too deep for the patch" in out
    states = [trial["state"] for trial in json.loads(Path("sweep/search.json").read_text())["trials"]]
    assert states == ["complete", "fail", "complete", "complete", "complete"]
    assert record()["has_ended"]


def test_what_the_line_gives_is_not_searched(trainings):
    line = ["train", "search=usual", "search.trials=3", "optimizer.lr=1e-3", "model.depth=range(2,4)", "loss=ce,dice"]
    assert command_line.main([*line, "augment=none", "run_dir=sweep", "sweep.test=none"]) == 0
    assert {config["optimizer"]["lr"] for config in trainings.configs} == {1e-3}
    assert {config["model"]["depth"] for config in trainings.configs} <= {2, 3}
    assert [key.partition("=")[0] for key in record()["jobs"]["0"]] == [
        *("optimizer.lr", "augment", "run_dir", "sweep.test"),
        *("model.depth", "loss", "model.base_channels"),
    ]


def test_the_best_few_are_repeated_and_the_best_mean_is_tested(trainings, capsys):
    outcome = trainings.outcome

    def lucky(config):  # with its first seed
        result = outcome(config)
        return result | {"score": result["score"] - 0.5 * (config["seed"] > 7)}

    trainings.outcome = lucky
    space = ["hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(1e-4,1e-2))", "seed=7"]
    line = ["train", "-m", *space, "search.trials=4", "search.repeats=1", "run_dir=sweep", "sweep.test=best"]
    assert command_line.main(line) == 0
    assert [config["seed"] for config in trainings.configs] == [7, 7, 7, 7, 8, 8, 8, 7]
    assert {config["split"]["seed"] for config in trainings.configs} == {7}
    [best], [ranking] = record()["best"], record()["rankings"]
    assert trainings.configs[7]["run_dir"] == f"sweep/{best}"
    assert capsys.readouterr().out.count("2 seeds") == 3
    single = min(range(4), key=lambda number: -abs(trainings.configs[number]["optimizer"]["lr"] - 1e-3))
    assert ranking["jobs"][-1]["job"] == single  # behind the means, though higher than these


def test_the_usual_search_has_all_recipes_and_begins_with_the_defaults(trainings):
    recipes = [yaml.safe_load(path.read_text()) for path in (CONF / "search").glob("*.yaml")]
    keys = {key for recipe in recipes for key in recipe.get("space", ())}
    assert command_line.main(["train", "run_dir=default"]) == 0
    assert command_line.main(["train", "search=usual", "search.trials=2", "sweep.test=none", "run_dir=sweep"]) == 0
    assert keys < {override.partition("=")[0] for override in record()["jobs"]["1"]}
    default, first, second = trainings.configs
    kept = {"seed", "dataset", "model", "loss", "augment", "optimizer", "trainer", "plan"}
    assert {key: default[key] for key in kept} == {key: first[key] for key in kept}
    assert {key: default[key] for key in kept} != {key: second[key] for key in kept}


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        ("train", ["model.depth=3"], "there is nothing to search. Give values, as in model.depth=2,3,4"),
        ("train", ["model.depth=2,3", "hydra/launcher=basic"], "it runs jobs by medseg's own launchers"),
        ("train", ["search=depth", "split.folds=2", "split.fold=all"], "Give split.fold one value"),
        ("train", ["search=widht"], "search=widht: no such option. Did you mean 'width'?"),
        ("train", ["search=width", "search.trials=0"], "search.trials=0: must be"),
        ("train", ["model=unetr", "search=depth"], "model.depth: unknown key"),
        ("pretrain", ["optimizer.lr=1e-3,1e-2"], "it searches by the validation Dice of medseg train alone"),
    ],
)
def test_what_a_search_cannot_do_is_said_without_a_traceback(jobs, command, settings, message, capsys):
    assert command_line.main([command, "-m", "hydra/sweeper=optuna", *settings]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert jobs.configs == []
    assert not Path("outputs").exists()


def test_without_optuna_the_extra_is_named(jobs, capsys, monkeypatch):
    monkeypatch.setitem(overrides.EXTRAS, overrides.SEARCH, ("no_such_module", "search"))
    assert command_line.main(["train", "search=usual"]) == 1
    assert 'no_such_module is not installed: pip install "medseg[search]"' in capsys.readouterr().err
