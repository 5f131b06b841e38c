"""What models have seen of the cases that they are evaluated on: scans are known by the hashes of their voxels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.errors import MedsegError
from medseg.inference.loading import LAST
from medseg.io.case import Case, Dataset
from medseg.io.datasets.splits import Split, are_folds, parts_by_hash, read_hashes
from medseg.jobs.training_run import run_of, select
from medseg.training.transfer.sources import seen_before

log = logging.getLogger(__name__)

SPOILING = {"test": ("train", "val"), "val": ("train",), "train": (), "all": ("train", "val")}
"""Of each subset of the models' own data, the subsets of any model that its cases must not be in."""

FOLD = "fold"
"""The column of a report's cases that has the fold in which each was validated."""

DONE_WITH = {"train": "were trained on by", "val": "chose the weights of"}
"""What is done with cases on which scores are too good, by the subset that they are in."""


@dataclass(frozen=True)
class Seen:
    """Of each run of the models the subset of each scan by hash; ``spoiling`` are the subsets that matter.

    Scans that the weights had seen with which a run began count like its own.
    """

    runs: Mapping[Path, Mapping[str, str]]
    spoiling: Sequence[str]

    @classmethod
    def by(cls, models: Sequence[Path], spoiling: Sequence[str]) -> "Seen":
        """Return what the models of these files have seen, as far as their runs are known."""
        runs = {}
        for run in filter(None, map(run_of, models)):
            splits = seen_before(run), parts_by_hash(run / "splits.json")
            pairs = [pair for split in splits for pair in split.items()]
            # what was trained on in either counts, and stands last
            runs[run] = dict(sorted(pairs, key=lambda pair: ("test", "val", "train").index(pair[1])))
        return cls(runs, spoiling)

    def spoilt(self, hashes: Mapping[str, str]) -> dict[str, dict[Path, set[str]]]:
        """Return what was done with cases, whose hashes are given by id: by subset and run the ids of those in it."""
        found: dict[str, dict[Path, set[str]]] = {}
        for subset in self.spoiling:
            for run, parts in self.runs.items():
                if ids := {name for name, code in hashes.items() if parts.get(code) == subset}:
                    found.setdefault(subset, {})[run] = ids
        return found

    def notes(self, hashes: Mapping[str, str]) -> list[str]:
        """Return a line for each thing that was done with cases that are evaluated."""
        lines = []
        for subset, by_run in self.spoilt(hashes).items():
            ids, names = set[str]().union(*by_run.values()), ", ".join(run.name for run in by_run)
            lines.append(
                f"{len(ids)} of {len(hashes)} cases, such as {min(ids)}, {DONE_WITH[subset]} {names}: their scores are"
                " too good"
            )
        return lines


def without_seen(
    cases: Sequence[Case], subset: str, models: Sequence[Path], seen: Seen
) -> tuple[list[Case], list[str]]:
    """Leave out the cases of a subset that some of several models was trained on or, for a test, chosen by.

    Returns:
        The cases that remain, and lines that say how many these are.

    Raises:
        MedsegError: none remains.
    """
    hashes = read_hashes(next(iter(seen.runs)) / "splits.json")  # of the run whose subset it is
    found = seen.spoilt({case.id: hashes[case.id] for case in cases if case.id in hashes})
    ids = {name for by_run in found.values() for some in by_run.values() for name in some}
    left = [case for case in cases if case.id not in ids]
    if not left:
        raise MedsegError(
            f"subset={subset}: each of its {len(cases)} cases was seen in training by one of the {len(models)} models."
            " Evaluate one model alone, folds of a cross-validation with subset=val, or other data (dataset=…)."
        )
    notes = []
    if unknown := [str(model) for model in models if run_of(model) is None]:
        notes.append(f"it is not known which cases {', '.join(unknown)} was trained on")
    if ids:
        notes.append(
            f"{len(left)} of {len(cases)} cases: {len(ids)} were left out, which some model has seen in training"
        )
    return left, notes


def is_cross_validation(models: Sequence[Path]) -> bool:
    """Return whether models were trained in folds of one cross-validation, of which some may be missing."""
    runs = [run_of(model) for model in models]
    return None not in runs and are_folds(parts_by_hash(run / "splits.json") for run in runs if run)


@dataclass(frozen=True)
class OutOfFold:
    """The validation cases of all folds, the number of the model of each, and lines that say how many these are.

    ``strata`` is the column of the cases that has their folds, where these are to be reported apart.
    """

    cases: Sequence[Case]
    number_of: Mapping[str, int]
    notes: Sequence[str]
    strata: Sequence[str]


def out_of_fold(dataset: Dataset, models: Sequence[Path], seen: Seen) -> OutOfFold:
    """Return the validation cases of the folds that models were trained in, or of one model.

    A case that its own model was trained on nevertheless, under another name or before, is left out.

    Raises:
        MedsegError: cases are no longer in the data set.
    """
    number_of: dict[str, int] = {}
    cases, learned = [], set[str]()
    for number, run in enumerate(filter(None, map(run_of, models))):
        split, hashes = Split.load(run / "splits.json"), read_hashes(run / "splits.json")
        learned |= {*split.train, *split.val}
        for case in select(dataset, "val", run / "splits.json"):
            if seen.runs[run].get(hashes.get(case.id, "")) != "train":
                # The width puts fold 10 after fold 9, a text keeps many folds from being divided like ages
                fold = f"fold {number:0{len(str(len(models) - 1))}}"
                cases.append(replace(case, columns={**case.columns, FOLD: fold}))
                number_of[case.id] = number
    is_chosen = any(model.name != LAST.name for model in models)
    weights = "weights chosen on these cases, which flatters" if is_chosen else "last weights, chosen on no cases"
    if len(models) == 1:
        return OutOfFold(cases, number_of, [f"validation cases: {weights}"], [])
    notes = [f"out of fold: each case by the one of {len(models)} models that was not trained on it; {weights}"]
    if left_out := len(learned) - len(cases):
        notes.append(f"{len(cases)} of {len(learned)} cases: {left_out} were left out, which no model has not seen")
    are_large = len(cases) >= 2 * len(models)  # else a fold is little more than a case
    return OutOfFold(cases, number_of, notes, [FOLD] if are_large else [])
