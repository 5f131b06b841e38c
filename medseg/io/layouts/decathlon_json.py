"""``dataset=decathlon``: data sets of the Medical Segmentation Decathlon (Antonelli et al. 2022).

``dataset.json`` is read here for nnU-Net's layout, too, which describes its data sets by it.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.errors import MedsegError
from medseg.io.case import Case, Dataset, FileValues, LabelFile
from medseg.io.layouts.channels import common_name, complete, endings_of, modalities_of


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
    check(content, root)
    entries = [entry for entry in content["training"] if not is_hidden(entry)]
    kept, problems = complete(case_of(root, entry) for entry in entries)
    channels = in_order(content.get("modality") or content.get("channel_names"))
    return Dataset(
        kept,
        labels_of(content["labels"], root),
        channels=channels,
        endings=endings_of(kept) if any(len(case.images) > 1 for case in kept) else None,
        modality=modalities_of(channels),
        problems=problems,
        unlabelled=unlabelled(root, content.get("test")),
    )


def unlabelled(root: Path, listed: Any) -> tuple[Case, ...]:
    """Return the cases of the list 'test' as far as they are there: many take the labelled part alone."""
    entries = listed if isinstance(listed, list) else []
    entries = [entry["image"] if isinstance(entry, dict) and "image" in entry else entry for entry in entries]
    files = [
        tuple(inside(root, image) for image in (entry if isinstance(entry, list) and entry else [entry]))
        for entry in entries
        if not is_hidden({"image": entry})
    ]
    return complete(Case(common_name(images), common_name(images), images) for images in files)[0]


def check(content: Mapping[str, Any], root: Path) -> None:
    """Refuse a ``dataset.json`` without cases or labels."""
    kinds = {"training": list, "labels": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind) or not content[key]]
    if "training" in wrong and {"file_ending", "channel_names"} & content.keys():
        raise MedsegError(f"{root / FILE} lists no cases, but is written as nnU-Net does: use dataset=nnunet.")
    if wrong:
        raise MedsegError(
            f"{root / FILE} needs a list 'training' and a mapping 'labels'; amiss is {' and '.join(wrong)}."
        )


def is_hidden(entry: Any) -> bool:
    """Tell macOS's companions of files (``._scan.nii.gz``), which some archives list too."""
    image = entry.get("image") if isinstance(entry, dict) else None
    return isinstance(image, str) and PurePosixPath(image).name.startswith("._")


def case_of(root: Path, entry: Any) -> Case:
    """Return the case of an entry of 'training'."""
    if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
        raise MedsegError(f"{root / FILE}: {entry!r} in 'training' is no {{'image': FILE, 'label': FILE}}.")
    images = entry["image"] if isinstance(entry["image"], list) and entry["image"] else [entry["image"]]
    files = tuple(inside(root, image) for image in images)
    name = common_name(files)
    return Case(name, name, files, (LabelFile(inside(root, entry["label"])),))


def inside(root: Path, file: Any) -> Path:
    """Return a file that ``dataset.json`` names; MedsegError where it lies elsewhere."""
    if not isinstance(file, str):
        raise MedsegError(f"{root / FILE}: {file!r} is no file name.")
    relative = PurePosixPath(file)
    if relative.is_absolute() or ".." in relative.parts:
        raise MedsegError(f"{root / FILE}: {file!r} leaves the folder. Give paths relative to dataset.json.")
    return root / relative


def labels_of(labels: Mapping[str, Any], root: Path) -> dict[str, FileValues]:
    """Bring ``{"1": "tumour"}`` or ``{"tumour": 1}`` to names by value, background first."""
    if all(key.lstrip("-").isdigit() for key in labels):
        labels = {str(name): int(value) for value, name in labels.items()}
    values = {name: whole(value) for name, value in labels.items()}
    if wrong := [f"{name}: {labels[name]!r}" for name, value in values.items() if value is None]:
        hint = " Regions are read by dataset=nnunet." if any(isinstance(v, list) for v in labels.values()) else ""
        raise MedsegError(f"{root / FILE}: labels must be whole numbers: {', '.join(wrong)}.{hint}")
    known = {name: value for name, value in values.items() if value is not None}
    return dict(sorted(known.items(), key=lambda item: (item[0] != "background", item[1] != 0, item[1])))


# ---- dataset.json of the Decathlon and of nnU-Net


FILE = "dataset.json"


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
    """List the values of ``{"0": "FLAIR", "1": "T1"}`` by their number; a plain name is one channel.

    >>> in_order({"1": "T1", "0": "FLAIR"}), in_order("CT"), in_order(None)
    (('FLAIR', 'T1'), ('CT',), None)
    """
    if isinstance(names, Mapping):
        numbered = all(str(key).isdigit() for key in names)
        return tuple(str(names[key]) for key in (sorted(names, key=int) if numbered else names)) or None
    return (names,) if isinstance(names, str) else None


def whole(value: Any) -> int | None:
    """Return a value that is a whole number, also one in quotes; None for anything else.

    >>> whole(3), whole("3"), whole("3.5"), whole(True), whole([3])
    (3, 3, None, None, None)
    """
    if isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    return value if type(value) is int else None
