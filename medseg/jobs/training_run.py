"""The run that a checkpoint was trained in: its directory, its data set, and the subsets of its split."""

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from medseg.config.check import problems, resolve
from medseg.config.schema import CONF
from medseg.config.untrusted import config_of_run, read_yaml
from medseg.errors import MedsegError, listing
from medseg.evaluation.pages.text_table import few
from medseg.evaluation.report.run_info import read_part
from medseg.inference.loading import files_of
from medseg.inference.nnunet.folder import is_nnunet
from medseg.io.case import Case, Dataset
from medseg.io.datasets.dataset import by_id
from medseg.io.datasets.splits import Split, read_folds

log = logging.getLogger(__name__)


def select(
    dataset: Dataset,
    subset: str,
    split_file: str | Path | None,
    fold: int | None = None,
    models: Sequence[Path] = (),
) -> list[Case]:
    """Return the cases of a subset ("train", "val", "test") of the split, or of "all".

    The split is that of ``split_file``, else the one that came with the data. Of a file of several folds ``fold``
    counts, else the fold that the ``models``, checkpoint files, were trained with.

    Raises:
        MedsegError: there is no split, or the subset has no case or unknown ones, or the fold is not known.
    """
    if subset == "all":
        return list(dataset.cases)
    split_file = split_file or dataset.split_file
    if split_file is None and (of_part := [case for case in dataset.cases if case.columns.get("split") == subset]):
        return of_part
    if split_file is None:
        raise MedsegError(f"subset={subset}: there is no split for this data set. Give split.file=FILE or subset=all.")
    ids = getattr(split_of_models(Path(split_file), subset, fold, models), subset)
    missing = sorted(set(ids) - {case.id for case in dataset.cases})
    if missing:
        raise MedsegError(f"{split_file}: {len(missing)} case(s) are not in the data set:\n{listing(missing)}")
    if not ids:
        raise MedsegError(f"subset={subset}: this part of the split has no case.")
    return by_id(dataset.cases, ids)


def split_of_models(path: Path, subset: str, fold: int | None, models: Sequence[Path]) -> Split:
    """Return the split of a file; of several folds the one asked for, else the one that the models were trained with.

    Raises:
        MedsegError: there is no such fold, or the folds differ and it is not known which the models were trained with.
    """
    folds = read_folds(path)
    if fold is not None and len(folds) > 1 and fold >= len(folds):
        raise MedsegError(f"split.fold={fold}: {path} holds {len(folds)} folds, counted from 0.")
    if len({getattr(split, subset) for split in folds}) == 1:
        return folds[0]
    trained = {str(model): fold_of(model, folds) for model in models}
    if fold is not None:
        if others := [f"{model}: fold {known}" for model, known in trained.items() if known not in (None, fold)]:
            log.warning("split.fold=%d, but models were trained with other folds:\n%s", fold, listing(others))
        return folds[fold]
    known = set(trained.values())
    if len(known) == 1 and (only := known.pop()) is not None:
        log.info("subset=%s of fold %d of %s, with which the model was trained", subset, only, path)
        return folds[only]
    which = [f"{model}: {'not known' if number is None else f'fold {number}'}" for model, number in trained.items()]
    raise MedsegError(
        f"subset={subset}: {path} holds {len(folds)} folds. Say by split.fold which is meant. A case should be scored"
        f" by models only that were not trained on it.\n{listing(which)}".rstrip()
    )


def fold_of(model: Path, folds: Sequence[Split]) -> int | None:
    """Return the fold that a checkpoint was trained with, None where that is not known.

    nnU-Net's tell by their folder's name, medseg's by the split of their run, whose validation cases are the fold's.
    """
    if is_nnunet(model):
        number = re.fullmatch(r"fold_(\d+)", model.resolve().parent.name)
        return int(number[1]) if number and int(number[1]) < len(folds) else None
    if (run := run_of(model)) is None:
        return None
    own = Split.load(run / "splits.json")
    fitting = (
        number
        for number, split in enumerate(folds)
        if set(own.val) <= set(split.val) and not set(own.train) & set(split.val)
    )
    return next(fitting, None)


def checkpoint_files(checkpoints: Sequence[Path]) -> list[Path]:
    """Return the files of all checkpoints that are given, alone or as members of ensembles."""
    return [file for path in checkpoints for file in files_of(path)]


def run_of(file: Path) -> Path | None:
    """Return the run directory that a checkpoint file lies in, if it still lies in one."""
    folder = file.resolve().parent.parent
    return folder if (folder / "splits.json").is_file() and (folder / "config.yaml").is_file() else None


def training_run(checkpoints: Sequence[Path]) -> Path | None:
    """Return the run directory that a checkpoint, or an ensemble's first, lies in, if it still lies in one."""
    files = checkpoint_files(checkpoints)
    return run_of(files[0]) if files else None


def not_learned(models: Sequence[Path]) -> list[str]:
    """Return a line for each class that models, checkpoint files, have not learned, as far as their runs tell."""
    runs_of: dict[str, list[str]] = {}
    runs = dict.fromkeys(filter(None, map(run_of, models)))
    for run in runs:
        names = read_part(run / "result.json").get("unlearned", [])
        for name in names if isinstance(names, list) else []:
            runs_of.setdefault(str(name), []).append(run.name)
    return [
        f"{name}: not learned in training, the validation Dice stayed near 0"
        + (f" (in {len(its)} of {len(models)} models: {few(its)})" if len(models) > 1 else "")
        for name, its in runs_of.items()
    ]


def saved_dataset(node: dict[str, Any], trained_in: Path | None, trust: Collection[str] = ()) -> dict[str, Any]:
    """Return the ``dataset`` node of the training run, overridden by what this command line sets.

    Raises:
        MedsegError: the run is not known, or its config is damaged, or one that a file may not hold.
    """
    if trained_in is None:
        raise MedsegError(
            "the checkpoint does not lie in its run directory, so its data set is unknown: name one, "
            "as in dataset=folder dataset.root=DIR."
        )
    defaults = read_yaml(CONF / "common" / "dataset.yaml")  # of keys that an older run lacks
    overrides = {key: value for key, value in node.items() if value is not None}
    saved = config_of_run(trained_in, trust, {f"dataset.{key}" for key in overrides}, part="dataset")
    own = saved.get("dataset")
    if not isinstance(own, dict) or not isinstance(own.get("layout"), dict):
        raise MedsegError(
            f"{trained_in / 'config.yaml'}: it names no data set. Give one, as dataset=… dataset.root=DIR."
        )
    saved["dataset"] = {**defaults, **own, **overrides}
    if wrong := list(problems({"dataset": saved["dataset"]}).values()):
        raise MedsegError(f"{trained_in / 'config.yaml'}: its data set has wrong values:\n{listing(wrong)}")
    return resolve(saved)["dataset"]
