"""What an evaluation is about: models, ensembles of them, or folders of masks that were made elsewhere."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.inference.predictor import Predictor
from medseg.io.case import Case, LabelFile, Scan
from medseg.io.datasets.annotations import read_labels
from medseg.io.datasets.external_masks import predicted_masks
from medseg.io.labels import IGNORE, LabelMap
from medseg.system.file_names import file_name, unique

Segment = Callable[[Case, Scan], NDArray[np.uint8]]
"""A case and its scan to class indices (*spatial) on the scan's grid; MedsegError where there are none."""

OPTIONS = ("trust", "device", "precision", "inference", "postprocess")


@dataclass(frozen=True)
class Candidate:
    """One that segments: a model, an ensemble, or whoever made a folder of masks.

    ``trained_in`` is the run directory of the training that its report tells of, None where there is none to tell of.
    """

    name: str
    segment: Segment
    trained_in: Path | None = None


def load_predictors(settings: dict[str, Any]) -> list[tuple[str | Sequence[str], Predictor]]:
    """Load the checkpoints that the settings name, each with its path: as one ensemble, or each by itself."""
    given = settings["checkpoint"]
    if given is None:
        return []
    options = {name: settings[name] for name in OPTIONS}
    alone = [given] if isinstance(given, str) or settings["ensemble"] else given
    return [(path, Predictor.load(path, **options)) for path in alone]


def from_predictor(name: str, predictor: Predictor, trained_in: Path | None = None) -> Candidate:
    """A candidate that predicts."""
    return Candidate(name, lambda case, scan: predictor(scan).indices, trained_in)


def from_folder(root: str, cases: Sequence[Case], label_map: LabelMap) -> Candidate:
    """A candidate whose masks lie in a folder, under the names of the cases and in the data set's own values."""
    found = predicted_masks(Path(root), cases)

    def segment(case: Case, scan: Scan) -> NDArray[np.uint8]:
        if case.id not in found:
            raise MedsegError(f"no mask of this case in {root}.")
        indices = read_labels(replace(case, labels=(LabelFile(found[case.id]),)), label_map, scan)
        if (indices == IGNORE).any():
            raise MedsegError(f"{found[case.id]}: a prediction cannot hold the value of unknown voxels.")
        return indices

    return Candidate(name_of(root), segment)


def name_of(path: str | Sequence[str]) -> str:
    """Return the name of a run or a folder, or of an ensemble of them."""
    return Path(path).resolve().name if isinstance(path, str) else f"ensemble of {len(path)}"


def with_own_names(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Number candidates of the same name: their names become those of folders, one report each."""
    times, seen = Counter(candidate.name for candidate in candidates), Counter[str]()
    taken: set[str] = set()
    named = []
    for candidate in candidates:
        seen[candidate.name] += 1
        number = f"-{seen[candidate.name]}" if times[candidate.name] > 1 else ""
        named.append(replace(candidate, name=unique(file_name(candidate.name + number), taken)))
    return named
