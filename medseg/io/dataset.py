"""From the ``dataset`` node of a config to cases and classes."""

from dataclasses import replace
from typing import Any

from medseg.build import build
from medseg.errors import MedsegError
from medseg.io.case import Case, Dataset
from medseg.io.groups import assign_groups
from medseg.io.labels import LabelMap


def open_dataset(config: dict[str, Any]) -> Dataset:
    """Find the cases of a data set and their groups; what the config says of it goes before what the files say.

    Raises:
        MedsegError: nothing is found, ids repeat, or the groups are not right.
    """
    dataset: Dataset = build(config["layout"])
    if not dataset.cases:
        raise MedsegError(f"dataset.root={config['root']}: no cases found.")
    cases = assign_groups(dataset.cases, pattern=config["group"], file=config["group_file"])
    modality = config["modality"]
    return replace(
        dataset,
        cases=tuple(cases),
        labels=config["labels"] or dataset.labels,
        modality=(modality,) if isinstance(modality, str) else tuple(modality or dataset.modality or ()) or None,
    )


def label_map(dataset: Dataset) -> LabelMap:
    """Return the classes of a data set, read off its masks where nothing names them."""
    if dataset.labels is not None:
        return LabelMap(dataset.labels)
    return LabelMap.from_masks([case.label for case in dataset.cases if case.label is not None])


def by_id(cases: tuple[Case, ...], ids: tuple[str, ...]) -> list[Case]:
    """Pick cases by id, in the order of ``ids``."""
    known = {case.id: case for case in cases}
    return [known[name] for name in ids]
