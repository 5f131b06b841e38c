"""Training the first stage of two: a cross-validation of coarse models over the cases that the second one learns from.

Each model is a run of its own, in a folder of the run, so that it is resumed, looked at and used as any other.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from medseg.config.check import escape, read_settings
from medseg.config.settings import TrainSettings
from medseg.errors import MedsegError, listing
from medseg.inference.checkpoint import Checkpoint, read_checkpoint
from medseg.inference.first_stage import SecondStage, second_stage
from medseg.inference.loading import LAST, built
from medseg.inference.trained_model import Model
from medseg.io.datasets.dataset import by_id
from medseg.io.datasets.splits import Split
from medseg.io.labels import IGNORE
from medseg.jobs.rundir import FIRST_STAGE, found_in
from medseg.jobs.train.fit import Fitted
from medseg.jobs.train.session import train_in_run_directory
from medseg.jobs.train.setup import Run, in_run_directory
from medseg.models.slices import patch_in_volume
from medseg.preprocessing.cache import load
from medseg.preprocessing.geometry import Geometry
from medseg.system.distributed.ranks import Ranks
from medseg.training.callbacks.checkpoints import Selection

log = logging.getLogger(__name__)

WELL_FOUND = 0.95
"""Share of a case's labelled voxels within its region, below which it is named in the log."""

Fit = Callable[[Run[Any], Selection, Callable[[], None]], Fitted]


def check(settings: TrainSettings, n_processes: int) -> None:
    """Raise where a training of two stages is asked for what it cannot have.

    Raises:
        MedsegError: with all of it.
    """
    if not settings.first_stage.use:
        return
    cannot_be = {
        "finetune.checkpoint": settings.finetune.checkpoint,
        "model.pretrained": settings.model.get("pretrained"),
        "plan.file": settings.plan.file,
        "preprocessing.resize": settings.preprocessing.resize,
        "trainer.devices, trainer.num_nodes": n_processes if n_processes > 1 else None,
    }
    if wrong := [f"{name}={value}" for name, value in cannot_be.items() if value]:
        raise MedsegError(
            f"first_stage.use={settings.first_stage.use}: a training of two stages begins with weights of its own,"
            f" plans both stages, and runs in one process. Leave these out:\n{listing(wrong)}"
        )


def train_first_stage(run: Run[TrainSettings], fit: Fit, begin: Callable[[], None]) -> Sequence[Checkpoint]:
    """Train the coarse models as far as that is not done, and return them as they are at their ends.

    Those of a second stage that has begun are in its state: its network has learned from no others.

    Args:
        run: of the second stage.
        fit: trains a run; see ``train_in_run_directory``.
        begin: is called when the first step of one of them is done.

    Raises:
        MedsegError: a training fails, or what there is of one is not whole.
    """
    if run.last.is_file():
        return read_checkpoint(run.last).first_stage
    settings, stage = run.settings, run.settings.first_stage
    # cases that came with corrections would else train in every fold, and none would be left for them
    cases = tuple(replace(case, added=False) for case in by_id(run.dataset.cases, run.split.train))
    dataset = replace(run.dataset, cases=cases, problems=(), unlabelled=())
    limits = settings.trainer.limited(stage.share / stage.folds)
    config = {
        **run.config,
        "first_stage": {**run.config["first_stage"], "use": None},
        "split": {**run.config["split"], "file": None, "test": 0.0, "folds": stage.folds, "labelled": None},
        "preprocessing": {**run.config["preprocessing"], "spacing": stage.spacing},
        "plan": {**run.config["plan"], "coarse_channels": None},
        "trainer": {
            **run.config["trainer"],
            "max_epochs": limits.max_epochs,
            "max_time": limits.max_time and duration(limits.max_time),
        },
        "logger": {},
    }

    def fit_coarse(coarse: Run[Any], selection: Selection, begin_coarse: Callable[[], None]) -> Fitted:
        def begin_both() -> None:
            begin_coarse()
            begin()

        return fit(coarse, selection, begin_both)

    def train(named: dict[str, Any]) -> dict[str, Any]:
        alone = Ranks(devices=[run.ranks.device])
        own = read_settings(TrainSettings, named)
        return train_in_run_directory(named, own, dataset, run.label_map, alone, fit_coarse, Selection(), finish)

    folders = [run.directory / FIRST_STAGE / str(fold) for fold in range(stage.folds)]
    for fold, folder in enumerate(folders):
        if (found := found_in(folder, "train")) != "ended":
            log.info(
                "first stage: coarse model %d of %d, spacing %s, in %s", fold + 1, stage.folds, stage.spacing, folder
            )
            if found == "other":
                raise MedsegError(
                    f"{folder}: this coarse model is not whole: files of it are gone. Restore them, or remove the"
                    " folder, to have it trained anew."
                )
            path = escape(str(folder))
            resume = path if found == "resumable" else None
            split = {**config["split"], "fold": fold}
            in_run_directory({**config, "split": split, "run_dir": path, "resume": resume}, train)
    return [read_checkpoint(folder / LAST) for folder in folders]


def finish(run: Run[TrainSettings], result: dict[str, Any]) -> dict[str, float]:
    """Leave a coarse model as it is: what its case's results are worth, the second stage's test tells."""
    result |= {"status": "done", "test_score": None}
    return {}


def duration(seconds: int) -> str:
    """Write a duration as settings have it.

    >>> duration(90_061)
    '01:01:01:01'
    """
    days, rest = divmod(seconds, 24 * 3600)
    return f"{days:02}:{timedelta(seconds=rest)!s:0>8}"


def preparations(run: Run[TrainSettings], coarse: Sequence[Checkpoint]) -> list[tuple[tuple[str, ...], SecondStage]]:
    """Return how the cases that the second stage learns from are preprocessed: ids of cases, and for these what does.

    Cases that train get the result of the coarse model that was not trained on them, those that validate the mean.

    Raises:
        MedsegError: the coarse models are of other cases, or it is not known of which.
    """
    models = [built(checkpoint, run.settings.trust) for checkpoint in coarse]
    for model in models:
        model.network.to(run.ranks.device).eval()

    def use(chosen: Sequence[Model]) -> SecondStage:
        patch = patch_in_volume(run.plan)
        return second_stage(run.resolved["preprocessing"], chosen, run.settings.first_stage, patch)

    files = [run.directory / FIRST_STAGE / str(fold) / "splits.json" for fold in range(len(models))]
    if gone := [str(file) for file in files if not file.is_file()]:
        raise MedsegError(
            "first stage: which cases its models were trained on is no longer known, and no case may get the result of"
            f" a model that was. Restore these files to go on; best.ckpt still predicts.\n{listing(gone)}"
        )
    folds = [Split.load(file) for file in files]
    if sorted(name for fold in folds for name in fold.val) != sorted(run.split.train):
        raise MedsegError(f"{run.directory / FIRST_STAGE}: its models were trained on other cases. Start anew.")
    out_of_fold = [(fold.val, use([model])) for fold, model in zip(folds, models, strict=True)]
    return [*out_of_fold, (run.split.val, use(models))]


def log_regions(files: dict[str, Path]) -> None:
    """Log how much of the labelled voxels of cases lies in the regions that were found; ``files`` by the cases' ids."""
    shares = {}
    for name, file in files.items():
        case = load(file)
        reference = case["truth"][None]
        inside = Geometry.from_dict(case["geometry"]).cut(reference)
        counts = [int(((values > 0) & (values != IGNORE)).sum()) for values in (inside, reference)]
        if counts[1]:
            shares[name] = counts[0] / counts[1]
    if not shares:
        return
    mean = sum(shares.values()) / len(shares)
    log.info("first stage: its regions hold %.1f %% of the labelled voxels of a case in the mean", 100 * mean)
    if missed := [f"{name}: {share:.0%}" for name, share in shares.items() if share < WELL_FOUND]:
        log.warning(
            "first stage: regions of %d of %d cases miss labelled voxels, which the second stage can neither learn nor"
            " find; a larger first_stage.margin or first_stage.share may help\n%s",
            *(len(missed), len(shares), listing(missed)),
        )
