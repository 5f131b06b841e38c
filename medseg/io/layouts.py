"""Layouts: functions from a root folder to a Dataset. Nothing past them knows how files are named."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.errors import MedsegError, listing, nearest
from medseg.io.case import Case, Dataset, FileValue
from medseg.io.channels import cases_from_files, relative_id
from medseg.io.files import find_images, stem
from medseg.io.groups import assign_groups

MODALITIES = {
    "mri": ("mri", "mr", "t1", "t2", "flair", "adc", "dwi", "swi", "pd"),
    "ct": ("ct", "cbct", "cta"),
    "xray": ("xray", "x-ray", "xr", "cr", "dx"),
    "ultrasound": ("ultrasound", "us"),
    "microscopy": ("microscopy",),
}
"""Names of channels as data sets write them, by modality; those of MRI's sequences may go on (``t1gd``)."""

MASK_ENDINGS = ("_mask", "_seg", "_label", "_segmentation")


def decathlon(root: str | Path) -> Dataset:
    """Read ``dataset.json`` of the Medical Segmentation Decathlon (Antonelli et al. 2022): its labelled cases.

    Labels may also be written as nnU-Net does, ``{"background": 0}``. Ids are file names without suffix.

    Raises:
        MedsegError: ``dataset.json`` is missing or lacks what is needed, or files that it names are missing.
    """
    root = Path(root)
    content = _read_json(root / "dataset.json")
    cases = [_decathlon_case(root, entry) for entry in content["training"]]
    problems = [f"{path} is missing" for case in cases for path in (*case.images, case.label) if not _is_file(path)]
    times = Counter(case.id for case in cases)
    problems += [f"{name} is listed {count} times" for name, count in times.items() if count > 1]
    if problems:
        raise MedsegError(f"{root / 'dataset.json'} does not fit the files beside it:\n{listing(problems)}")
    channels = _in_order(content.get("modality") or content.get("channel_names"))
    return Dataset(tuple(cases), _labels(content["labels"], root), channels, _modality(channels))


def folder(
    root: str | Path, images: str = "images", masks: str = "masks", channels: Sequence[str] | None = None
) -> Dataset:
    """Pair images and masks below two folders by their relative names without suffix.

    A mask's name may also end in ``_mask``, ``_seg``, ``_label`` or ``_segmentation``, and must where both are in one
    folder. ``channels`` are the endings of image names, one a channel (``["_flair", "_t1"]``), where each channel has a
    file of its own.

    Raises:
        MedsegError: a folder is missing, or listing every image without a mask, mask without an image and files whose
            names differ in their suffix only.
    """
    image_root, mask_root = _subfolder(Path(root), "images", images), _subfolder(Path(root), "masks", masks)
    image_files, mask_files = _image_and_mask_files(image_root, mask_root)
    cases, problems = cases_from_files(image_root, image_files, channels)
    labels = _masks_by_id(mask_files, mask_root, {case.id for case in cases})
    problems += [f"{path} has no image" for path in labels.pop(None, [])]
    problems += [f"{case.images[0]} has no mask" for case in cases if case.id not in labels]
    problems += [
        f"{name} has several masks: {', '.join(map(str, found))}" for name, found in labels.items() if found[1:]
    ]
    if problems:
        raise MedsegError(
            f"{root}: dataset.images={images} and dataset.masks={masks} do not pair up by name:\n"
            f"{listing(problems)}\nRename, add or remove these files."
        )
    names = tuple(ending.lstrip("_-. ") for ending in channels) if channels else None
    paired = tuple(replace(case, label=labels[case.id][0]) for case in cases)
    return Dataset(paired, channels=names, modality=_modality(names))


def phantom(*, root: str | Path, dims: int, channels: int, cases: int, size: int, seed: int) -> Dataset:
    """Write the made-up data set of these arguments below ``root``, unless it is there, and read it.

    Raises:
        MedsegError: an argument is out of its range, or ``root`` cannot be written.
    """
    from medseg.io.phantom import LABELS, write_phantom

    place = Path(root) / f"{dims}d-{channels}-channels-{cases}-cases-size-{size}-seed-{seed}"
    layout = "decathlon" if dims == 3 else "folder"
    write_phantom(place, layout=layout, dims=dims, channels=channels, cases=cases, size=size, seed=seed)
    found = decathlon(place) if dims == 3 else folder(place)
    patients = assign_groups(found.cases, file=str(place / "groups.csv"))
    return replace(found, cases=patients, labels=dict(LABELS), modality=("mri",) * channels)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        there = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        raise MedsegError(
            f"{path} is missing, dataset=decathlon needs it. Beside it there is {', '.join(there[:10]) or 'nothing'}."
            " For folders of images and masks use dataset=folder."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise MedsegError(f"{path} is not readable JSON: {error}") from error
    content = content if isinstance(content, dict) else {}
    kinds = {"training": list, "labels": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind) or not content[key]]
    if wrong:
        raise MedsegError(f"{path} needs a list 'training' and a mapping 'labels'; amiss is {' and '.join(wrong)}.")
    return content


def _decathlon_case(root: Path, entry: Any) -> Case:
    if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
        raise MedsegError(f"{root / 'dataset.json'}: {entry!r} in 'training' is no {{'image': FILE, 'label': FILE}}.")
    image = _inside(root, entry["image"])
    name = stem(image)
    return Case(name, name, (image,), _inside(root, entry["label"]))


def _inside(root: Path, file: Any) -> Path:
    if not isinstance(file, str):
        raise MedsegError(f"{root / 'dataset.json'}: {file!r} is no file name.")
    relative = PurePosixPath(file)
    if relative.is_absolute() or ".." in relative.parts:
        raise MedsegError(f"{root / 'dataset.json'}: {file!r} leaves the folder. Give paths relative to dataset.json.")
    return root / relative


def _is_file(path: Path | None) -> bool:
    return path is not None and path.is_file()


def _labels(labels: dict[str, Any], root: Path) -> dict[str, FileValue]:
    """Bring ``{"1": "tumour"}`` or ``{"tumour": 1}`` to names by value, background first."""
    if all(key.lstrip("-").isdigit() for key in labels):
        labels = {str(name): int(value) for value, name in labels.items()}
    wrong = [f"{name}: {value!r}" for name, value in labels.items() if type(value) is not int]
    if wrong:
        raise MedsegError(
            f"{root / 'dataset.json'}: labels must be whole numbers (regions are not read): {', '.join(wrong)}."
        )
    return dict(sorted(labels.items(), key=lambda item: (item[0] != "background", item[1] != 0, item[1])))


def _in_order(names: Any) -> tuple[str, ...] | None:
    """List the values of ``{"0": "FLAIR", "1": "T1"}`` by their number; a plain name is one channel."""
    if isinstance(names, dict) and all(key.isdigit() for key in names):
        return tuple(str(names[key]) for key in sorted(names, key=int)) or None
    return (names,) if isinstance(names, str) else None


def _modality(channels: Sequence[str] | None) -> tuple[str, ...] | None:
    found = [_modality_of(name.lower()) for name in channels or ()]
    known = tuple(name for name in found if name)
    return known if known and len(known) == len(found) else None


def _modality_of(channel: str) -> str | None:
    exact = (modality for modality, names in MODALITIES.items() if channel in names)
    sequence = "mri" if channel.startswith(("t1", "t2", "flair")) else None
    return next(exact, sequence)


def _subfolder(root: Path, key: str, name: str) -> Path:
    if not root.is_dir():
        raise MedsegError(f"dataset.root={root}: there is no such folder.")
    if not (root / name).is_dir():
        there = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        raise MedsegError(
            f"dataset.{key}={name}: {root} has no such folder, it has {', '.join(there) or 'none'}."
            f"{nearest(name, there)}"
        )
    return root / name


def _image_and_mask_files(image_root: Path, mask_root: Path) -> tuple[list[Path], list[Path]]:
    """Find both, also where one folder is within the other (images=. masks=masks) or both are one."""
    images, masks = find_images(image_root), find_images(mask_root)
    if image_root == mask_root:
        masks = [path for path in images if stem(path).endswith(MASK_ENDINGS)]
    inner, outer = (masks, images) if mask_root.is_relative_to(image_root) else (images, masks)
    kept = sorted(set(outer) - set(inner))
    return (kept, masks) if outer is images else (images, kept)


def _masks_by_id(files: Iterable[Path], root: Path, ids: set[str]) -> dict[str | None, list[Path]]:
    """Map ids to mask files, None to those that fit no id."""
    masks: dict[str | None, list[Path]] = defaultdict(list)
    for path in files:
        name = relative_id(path, root)
        names = [name, *(name.removesuffix(ending) for ending in MASK_ENDINGS)]
        masks[next((name for name in names if name in ids), None)].append(path)
    return masks
