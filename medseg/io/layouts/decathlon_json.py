"""``dataset=decathlon``: data sets of the Medical Segmentation Decathlon (Antonelli et al. 2022).

``dataset.json`` is read here for nnU-Net's layout, too, which describes its data sets by it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.errors import MedsegError
from medseg.io.case import Case, Dataset, FileValues, LabelFile
from medseg.io.layouts.channels import common_name, complete, endings_of, modalities_of

FILE = "dataset.json"

NUMBER = re.compile("-?[0-9]{1,18}")
"""A whole number in quotes; Python's own tests take signs such as ² for digits."""


def decathlon(root: str | Path) -> Dataset:
    """Read ``dataset.json`` and the labelled cases that it lists; its test cases are the unlabelled ones.

    An image is one file, in four dimensions where there are several channels, or a list of files, one a channel. Labels
    may also be written the other way round, ``{"background": 0}``. Ids are the names of the images without suffix.

    Raises:
        MedsegError: ``dataset.json`` is missing or lacks what is needed. Files that it names and that are missing are
            in the data set's ``problems``.
    """
    root = Path(root)
    content = read_description(root, "decathlon")
    kinds = {"training": list, "labels": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind) or not content[key]]
    if "training" in wrong and {"file_ending", "channel_names"} & content.keys():
        raise MedsegError(f"{root / FILE} lists no cases, but is written as nnU-Net does: use dataset=nnunet.")
    if wrong:
        raise MedsegError(
            f"{root / FILE} needs a list 'training' and a mapping 'labels'; amiss is {' and '.join(wrong)}."
        )
    labelled = []
    for entry in content["training"]:
        if isinstance(entry, dict) and is_hidden(entry.get("image")):
            continue
        if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
            raise MedsegError(f"{root / FILE}: {entry!r} in 'training' is no {{'image': FILE, 'label': FILE}}.")
        case = case_of(entry["image"], root)
        labelled.append(replace(case, labels=(LabelFile(inside(root, entry["label"])),)))
    cases, problems = complete(labelled)
    test = content["test"] if isinstance(content.get("test"), list) else []
    images = [entry["image"] if isinstance(entry, dict) and "image" in entry else entry for entry in test]
    channels = in_order(content.get("modality") or content.get("channel_names"))
    return Dataset(
        cases,
        labels_of(content["labels"], root),
        channels=channels,
        endings=endings_of(cases) if any(len(case.images) > 1 for case in cases) else None,
        modality=modalities_of(channels),
        problems=problems,
        # as far as they are there: many users download the labelled cases only
        unlabelled=complete(case_of(image, root) for image in images if not is_hidden(image))[0],
    )


def is_hidden(image: Any) -> bool:
    """Return whether an entry is macOS's companion of a file (``._scan.nii.gz``), which some archives list too."""
    return isinstance(image, str) and PurePosixPath(image).name.startswith("._")


def case_of(image: Any, root: Path) -> Case:
    """Return the unlabelled case of an image: a file name, or a list of them, one a channel."""
    names = image if isinstance(image, list) and image else [image]
    files = tuple(inside(root, name) for name in names)
    return Case(common_name(files), common_name(files), files)


def inside(root: Path, file: Any) -> Path:
    """Return a file that ``dataset.json`` names; MedsegError where it lies outside of the data set's folder."""
    if not isinstance(file, str):
        raise MedsegError(f"{root / FILE}: {file!r} is no file name.")
    relative = PurePosixPath(file)
    if relative.is_absolute() or ".." in relative.parts:
        raise MedsegError(f"{root / FILE}: {file!r} leaves the folder. Give paths relative to dataset.json.")
    return root / relative


def labels_of(labels: Mapping[str, Any], root: Path) -> dict[str, FileValues]:
    """Bring ``{"1": "tumour"}`` or ``{"tumour": 1}`` to values by name, background first."""
    if all(map(NUMBER.fullmatch, labels)):
        labels = {str(name): int(value) for value, name in labels.items()}
    values = {name: whole(value) for name, value in labels.items()}
    if wrong := [f"{name}: {labels[name]!r}" for name, value in values.items() if value is None]:
        hint = " Regions are read by dataset=nnunet." if any(isinstance(v, list) for v in labels.values()) else ""
        raise MedsegError(f"{root / FILE}: labels must be whole numbers: {', '.join(wrong)}.{hint}")
    known = {name: value for name, value in values.items() if value is not None}
    return dict(sorted(known.items(), key=lambda item: (item[0] != "background", item[1] != 0, item[1])))


# ---- dataset.json of the Decathlon and of nnU-Net


def read_description(root: Path, layout: str) -> dict[str, Any]:
    """Read ``dataset.json`` below ``root``; ``layout`` is the layout that needs it.

    Raises:
        MedsegError: it is not there, is no JSON, or no mapping.
    """
    path = root / FILE
    if not path.is_file():
        there = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
        raise MedsegError(
            f"{path} is missing, dataset={layout} needs it. Beside it there is {', '.join(there[:10]) or 'nothing'}."
            " For folders of images and masks use dataset=folder."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise MedsegError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise MedsegError(f"{path} holds no mapping, but {type(content).__name__}.")
    return content


def in_order(names: Any) -> tuple[str, ...] | None:
    """Return the values of ``{"0": "FLAIR", "1": "T1"}`` in the order of their numbers; a plain name is one channel.

    >>> in_order({"1": "T1", "0": "FLAIR"}), in_order("CT"), in_order(None)
    (('FLAIR', 'T1'), ('CT',), None)
    """
    if isinstance(names, Mapping):
        numbered = all(NUMBER.fullmatch(str(key)) for key in names)
        return tuple(str(names[key]) for key in (sorted(names, key=int) if numbered else names)) or None
    return (names,) if isinstance(names, str) else None


def whole(value: Any) -> int | None:
    """Return a value that is a whole number, also one in quotes; None for anything else.

    >>> whole(3), whole("3"), whole("3.5"), whole(True), whole([3])
    (3, 3, None, None, None)
    """
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return int(value)
    return value if type(value) is int else None
