"""nnU-Net's ``postprocessing.json``: of which classes only the largest component is kept."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.inference.nnunet.plans import read_json
from medseg.io.labels import LabelMap

log = logging.getLogger(__name__)

FILE = "postprocessing.json"
PICKLE = "postprocessing.pkl"
KNOWN = "remove_all_but_largest_component_from_segmentation"


def largest_of(folder: Path, folds: Sequence[str], label_map: LabelMap) -> list[list[int]]:
    """Return groups of class indices; of each group, one after the other, only the largest component stays.

    Args:
        folder: the trained model's.
        folds: as in ``crossval_results_folds_0_1_2_3_4``, where nnU-Net keeps what it found out for these folds.
        label_map: the classes.

    Raises:
        MedsegError: the file names another function than nnU-Net's, or values that are no classes.
    """
    file = find(folder, folds)
    if file is None:
        return []
    content = read_json(file)
    index_of = {value: index for index, value in enumerate(label_map.values)}
    groups = []
    steps = zip(content.get("postprocessing_fns", []), content.get("postprocessing_kwargs", []), strict=True)
    for name, arguments in steps:
        values = sorted(set(numbers(arguments.get("labels_or_regions", []))))
        if name != KNOWN or arguments.get("background_label", 0) != 0 or not set(values) <= index_of.keys():
            raise MedsegError(
                f"{file}: {name} of {arguments} is not known; known is {KNOWN} of labels among {sorted(index_of)}, with"
                " background_label 0. Correct the file, or take it away to go without."
            )
        groups.append([index_of[value] for value in values])
    return groups


def find(folder: Path, folds: Sequence[str]) -> Path | None:
    """Return the file that is meant for these folds; log it where there is none that can be read."""
    for parent in (folder / f"crossval_results_folds_{'_'.join(folds)}", folder):
        if (parent / FILE).is_file():
            return parent / FILE
        if (parent / PICKLE).is_file():
            log.warning(
                "%s: not applied, for a pickle can run any code. nnU-Net writes %s beside it: copy it here.",
                parent / PICKLE,
                FILE,
            )
            return None
    if others := [*folder.glob(f"crossval_results_folds_*/{FILE}")]:
        log.warning("%s: not applied, for it was chosen with other folds than %s.", others[0], " ".join(folds))
    return None


def numbers(value: Any) -> Iterator[int]:
    """Yield the numbers of a label, a region, or a list of either."""
    for item in value if isinstance(value, list | tuple) else [value]:
        yield from numbers(item) if isinstance(item, list | tuple) else [int(item)]
