"""What is evaluated: models, ensembles of them, or folders of masks that were made elsewhere."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.config.settings import EvalSettings
from medseg.errors import MedsegError
from medseg.inference.predictor import Predictor
from medseg.io.case import Case, Dataset, LabelFile, Scan
from medseg.io.datasets.annotations import read_labels
from medseg.io.datasets.external_masks import predicted_masks
from medseg.io.labels import IGNORE, IGNORE_NAME, LabelMap
from medseg.jobs.evaluate.seen import Seen
from medseg.jobs.training_run import checkpoint_files
from medseg.system.file_names import file_name, unique

Loaded = tuple[Sequence[Path], Predictor]
"""The paths of an ensemble's members, or of one model, and what predicts by them."""

Segment = Callable[[Case, Scan], NDArray[np.uint8]]
"""A case and its scan to class indices (*spatial) on the scan's grid; MedsegError where there are none."""


@dataclass(frozen=True)
class Candidate:
    """A model, an ensemble, or a folder of masks.

    ``models`` are its checkpoint files, of which the first one's training is what its report describes, ``seen`` what
    they have seen.
    """

    name: str
    segment: Segment
    models: Sequence[Path] = ()
    seen: Seen | None = None


def load_predictors(settings: EvalSettings, paths: Sequence[Path], *, together: bool) -> list[Loaded]:
    """Load checkpoints, each with its paths: as one ensemble, or each by itself."""
    ensembles = [paths] if paths and together else [(path,) for path in paths]
    options: dict[str, Any] = {"device": settings.device, "precision": settings.precision, "trust": settings.trust}
    options |= {"inference": settings.inference, "postprocess": settings.postprocess}
    return [(members, Predictor.load(members, **options)) for members in ensembles]


def from_predictor(name: str, predictor: Predictor, models: Sequence[Path] = (), seen: Seen | None = None) -> Candidate:
    """Return a candidate that predicts."""
    return Candidate(name, lambda case, scan: predictor(scan).indices, models, seen)


def from_folds(loaded: Sequence[Loaded], number_of: Mapping[str, int]) -> Candidate:
    """Return a candidate that predicts each case by the model whose number is given by the case's id."""
    return Candidate(
        f"{len(loaded)} folds",
        lambda case, scan: loaded[number_of[case.id]][1](scan).indices,
        [file for paths, _ in loaded for file in checkpoint_files(paths)],
    )


def from_folder(root: Path, cases: Sequence[Case], label_map: LabelMap) -> Candidate:
    """Return a candidate whose masks lie in a folder, under the cases' names and in the data set's own values."""
    masks = predicted_masks(root, cases)

    def segment(case: Case, scan: Scan) -> NDArray[np.uint8]:
        if case.id not in masks:
            raise MedsegError(f"no mask of this case in {root}.")
        indices = read_labels(replace(case, labels=(LabelFile(masks[case.id]),)), label_map, scan)
        if (indices == IGNORE).any():
            raise MedsegError(f"{masks[case.id]}: a prediction cannot hold the value of unknown voxels.")
        return indices

    return Candidate(name_of([root]), segment)


def classes_of(dataset: Dataset, trained: LabelMap) -> LabelMap:
    """Return how this data set's masks name the model's classes: by its own values where it names the same classes."""
    labels = dataset.labels
    if labels is None:
        return trained
    if set(labels) - {IGNORE_NAME} != set(trained.names):
        raise MedsegError(
            f"the data set has the classes {list(labels)}, the model {trained.names}: give dataset.labels."
        )
    ignored = [name for name in labels if name == IGNORE_NAME]
    return replace(trained, labels={name: labels[name] for name in (*trained.names, *ignored)})


def name_of(paths: Sequence[Path]) -> str:
    """Return the name of a run or a folder, or of an ensemble of them."""
    return paths[0].resolve().name if len(paths) == 1 else f"ensemble of {len(paths)}"


def with_own_names(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Number candidates of the same name: their names become those of folders, one report each."""
    times, numbers = Counter(candidate.name for candidate in candidates), Counter[str]()
    taken: set[str] = set()
    named = []
    for candidate in candidates:
        numbers[candidate.name] += 1
        number = f"-{numbers[candidate.name]}" if times[candidate.name] > 1 else ""
        named.append(replace(candidate, name=unique(file_name(candidate.name + number), taken)))
    return named
