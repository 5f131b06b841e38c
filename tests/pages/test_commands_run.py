"""The commands of the pages run, one after the other as a reader gives them, on the small data that they name.

``make docs-check``: too slow for ``make test``, which composes them (``test_commands.py``). Trainings are of a few
steps: ``FAST`` counts more than what a command gives of the same keys. Sweeps are cut to two jobs or folds, searches
to two trials. What is left out, and why, is in ``NOT_RUN``.
"""

import re
import shutil
from pathlib import Path

import page_data
import pytest
from written_code import PAGES, ROOT, blocks, words_of

from medseg.cli import command_line

FAST = {
    "trainer.max_epochs": "1",
    "trainer.steps_per_epoch": "2",
    "trainer.accelerator": "cpu",
    "trainer.precision": "fp32",
}
"""Settings of a training of seconds."""

NOT_RUN = {
    r"my_conf|NAME": "needs a config of the reader's: tests/models/test_own_network.py",
    r"submitit_slurm": "needs a cluster: tests/slurm",
    r"trainer\.devices|--nproc": "several devices: tests/jobs/test_ranks.py",
    r"model\.pretrained": "downloads weights: tests/models/pretrained",
    r"nnUNetTrainer": "needs a model that nnU-Net trained: tests/inference/nnunet",
    r"experiment=(cascade|roi)": "scans that a patch does not hold: tests/jobs/test_first_stage.py",
    r"experiment=(few_shot|five_folds|nnunet)": "minutes: tests/jobs/test_few_shot.py, tests/jobs/test_experiments.py",
    r"resume=RUN trainer|resume=auto": "would train for long: tests/jobs/test_resume_auto.py",
    r"tune=undo": "needs a choice made on 20 cases: tests/jobs/test_tune.py",
    r"select=best": "needs several cross-validations: tests/jobs/test_cross_validation.py",
}
"""Commands that do not run here, by what they have in them."""

PLACEHOLDERS = {
    "RUN_A": "runs/heart",
    "RUN_B": "runs/other",
    "RUN": "runs/heart",
    "SWEEP_A": "sweeps/folds",
    "SWEEP_B": "sweeps/folds",
    "SWEEP": "sweeps/folds",
}
"""Directories that stand for a reader's."""

HEART = ["dataset=folder", "dataset.root=data/heart"]
TRAININGS = {
    "runs/heart": HEART,
    "runs/other": [*HEART, "seed=1", "split.seed=0"],
    "runs/cells": ["dataset=folder", "dataset.root=data/cells"],
    "runs/ct": ["dataset=folder", "dataset.root=data/ct", "dataset.modality=ct"],
    "sweeps/folds": [*HEART, "split.folds=2", "split.fold=all", "sweep.test=none"],
}
"""What makes the directories that pages take for granted."""

PAGES_WITH_COMMANDS = [
    pytest.param(page, id=page.name)
    for page in PAGES
    if any(command.startswith("medseg ") for block in blocks(page, "bash") for command in block.commands())
    and "development" not in page.parts
]


def fast(words: list[str]) -> list[str]:
    """Return a training, or a sweep of two, that takes seconds."""
    if words[0] not in ("train", "pretrain") or any(word.startswith("resume=") for word in words) or "--cfg" in words:
        return words
    kept = [re.sub(r"^split\.folds=\d+", "split.folds=2", word) for word in words if word.partition("=")[0] not in FAST]
    swept = [word for word in kept if SWEPT.fullmatch(word)]
    kept = [cut(word, 2 if word == swept[0] else 1) if word in swept else word for word in kept]
    if any(word.startswith("search=") or "sweeper=optuna" in word for word in words):
        kept.append("search.trials=2")
    return [*kept, *(f"{key}={value}" for key, value in FAST.items())]


SWEPT = re.compile(r"[\w.]+=[\w.]+(,[\w.]+)+")


def cut(word: str, values: int) -> str:
    """Return a setting that sweeps over values with the first of them."""
    key, _, given = word.partition("=")
    return f"{key}={','.join(given.split(',')[:values])}"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data sets of the pages, and trainings that pages take for granted, made when the first asks for them."""
    folder = tmp_path_factory.mktemp("pages")
    page_data.write_all(folder / "data")
    return folder


def train(directory: str, folder: Path) -> None:
    """Make one of the trainings, unless it is there."""
    if not (folder / directory).exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert command_line.main(fast(["train", *TRAININGS[directory], f"run_dir={directory}"])) == 0


def with_directories(command: str) -> str:
    """Return a command with directories in the place of names that stand for a reader's."""
    return re.sub(rf"\b({'|'.join(PLACEHOLDERS)})\b", lambda match: PLACEHOLDERS[match[1]], command)


def runs_here(command: str) -> bool:
    """Whether a command is medseg's, complete, and none of those that are left out."""
    complete = not any(word in ("…", "...") or word.endswith("…") for word in words_of(command))
    return command.startswith("medseg ") and complete and not any(re.search(each, command) for each in NOT_RUN)


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS)
def test_the_commands_of_a_page_run(page, folder, tmp_path, monkeypatch, capfd):
    written = [block for block in blocks(page, "bash") if not block.code.startswith("#!")]
    commands = [with_directories(line) for block in written for line in block.commands() if runs_here(line)]
    made = re.findall(r"run_dir=(\S+)", "\n".join(commands))
    here = tmp_path / "here"
    shutil.copytree(folder / "data", here / "data")
    for directory in TRAININGS.keys() - {*made}:
        if any(directory in command for command in commands):
            train(directory, folder)
            shutil.copytree(folder / directory, here / directory)
    monkeypatch.chdir(here)
    for command in commands:
        status = command_line.main(fast(words_of(command)[1:]))
        assert status == 0, f"{command}\n{''.join(capfd.readouterr())[-3000:]}"


def test_every_reason_to_leave_a_command_out_is_needed_and_names_tests():
    commands = [command for page in PAGES for block in blocks(page, "bash") for command in block.commands()]
    assert not [each for each in NOT_RUN if not any(re.search(each, command) for command in commands)]
    tests = re.findall(r"tests/[\w/.]+", " ".join(NOT_RUN.values()))
    assert not [path for path in tests if not (ROOT / path).exists()]
