"""``dataset=folder``: images and masks paired by name, however they lie below two folders."""

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError, nearest
from medseg.io.case import Case, Dataset, LabelFile, MissingMasks
from medseg.io.files.read import find_images, find_masks, stem
from medseg.io.labels import class_values
from medseg.io.layouts.channels import (
    MASK_ENDINGS,
    by_ending,
    cases_from_files,
    modalities_of,
    relative_id,
    shared_names,
)

log = logging.getLogger(__name__)

MOST_ENDINGS = 8
"""Of names that a setting to pair them is suggested for."""


def folder(
    root: str | Path,
    images: str = "images",
    masks: str | None = "masks",
    channels: Sequence[str] | None = None,
    mask_endings: Sequence[str] | None = None,
    class_masks: Mapping[str, str] | None = None,
    missing_masks: MissingMasks = "error",
) -> Dataset:
    """Pair images and masks below two folders by their relative names without suffix.

    A mask's name may also end in ``_mask``, ``_seg``, ``_label`` or ``_segmentation``, and must where both are in one
    folder. Endings ``"/ct"`` and ``"ct/"`` mean a file of this name in a folder a case, and a folder for itself.

    Args:
        root: the folder of the data.
        images: the folder of the images below it; may be ".".
        masks: likewise of the masks; None: there are none, and all cases are unlabelled.
        channels: endings of image names, one a channel (``["_flair", "_t1"]``), where each has a file of its own.
        mask_endings: endings of mask names where these are others, or where a case has several label maps
            (``["_organs", "_lesions"]``): of overlapping ones the last counts.
        class_masks: the ending of each class's mask (``{"liver": "_liver"}``) where each class has a file of its own.
            Classes have the values 1, 2, ...; where masks overlap, the later class counts.
        missing_masks: what a missing one of several masks means: "error"; "empty", the class does not occur; or
            "unannotated", the class was not looked for in this case.

    Raises:
        MedsegError: a folder is missing or holds no images, or arguments exclude each other. What does not pair up is
            in the data set's ``problems``.
    """
    patterns = check_endings(mask_endings, class_masks, missing_masks)
    endings = tuple((ending,) for ending in channels) if channels else None
    names = tuple(ending.strip("_-. /") for ending in channels) if channels else None
    image_root = subfolder(Path(root), "images", images)
    if masks is None:
        cases, problems = cases_from_files(image_root, find_images(image_root), endings)
        return Dataset(
            (),
            channels=names,
            endings=endings,
            modality=modalities_of(names),
            problems=tuple(problems),
            unlabelled=tuple(cases),
        )
    mask_root = subfolder(Path(root), "masks", masks)
    image_files, mask_files = image_and_mask_files(image_root, mask_root, patterns)
    cases, problems = cases_from_files(image_root, image_files, endings)
    known = {case.id for case in cases}
    masks_of: dict[Any, dict[int, list[Path]]]  # by id, None for masks of no case, and by the index of their ending
    if patterns:
        masks_of, others = by_ending(mask_root, mask_files, [(pattern,) for pattern in patterns])
        if others:
            log.info("%d files below %s are no masks of %s", len(others), mask_root, ", ".join(patterns))
        used = {index for files in masks_of.values() for index in files}
        if unused := [pattern for index, pattern in enumerate(patterns) if index not in used]:
            # whatever missing masks mean, an ending that no file has is misspelt, or the class is not there
            raise MedsegError(
                f"dataset.{'class_masks' if class_masks else 'mask_endings'}: no mask's name ends in"
                f" {' or '.join(unused)}. There are, for example,"
                f" {', '.join(path.name for path in mask_files[:5]) or 'no other files'}. Correct the ending, or leave"
                " it out."
            )
    else:
        masks_of = {name: {0: paths} for name, paths in masks_by_id(mask_files, mask_root, known).items()}
    labelled = []
    for case in cases:
        try:
            labelled.append(with_masks(case, masks_of.get(case.id, {}), patterns, class_masks, missing_masks))
        except MedsegError as error:
            problems.append(str(error))
    if not labelled and not patterns:
        problems[:0] = unpaired_names(known, {relative_id(path, mask_root) for path in mask_files})
    orphans = [path for name in masks_of.keys() - known for paths in masks_of[name].values() for path in paths]
    with_mask = {case.id for case in labelled}
    return Dataset(
        tuple(labelled),
        class_values(class_masks) if class_masks else None,
        channels=names,
        endings=endings,
        modality=modalities_of(names),
        problems=(*problems, *(f"{path} has no image" for path in sorted(orphans))),
        unlabelled=tuple(case for case in cases if case.id not in with_mask),
    )


def check_endings(
    mask_endings: Sequence[str] | None, class_masks: Mapping[str, str] | None, missing_masks: MissingMasks
) -> list[str]:
    """Return the endings of masks that the user names, none where the usual ones are meant."""
    if mask_endings and class_masks:
        raise MedsegError("dataset.mask_endings and dataset.class_masks exclude each other: give one.")
    wrong = [f"{name}: {ending!r}" for name, ending in (class_masks or {}).items() if not isinstance(ending, str)]
    if wrong:
        raise MedsegError(f"dataset.class_masks: {', '.join(wrong)} is no ending of file names. Quote numbers.")
    patterns = [*(class_masks or {}).values(), *(mask_endings or [])]
    if twice := sorted({pattern for pattern in patterns if patterns.count(pattern) > 1}):
        raise MedsegError(f"dataset.{'class_masks' if class_masks else 'mask_endings'}: {twice[0]!r} is given twice.")
    if missing_masks == "unannotated" and not class_masks:
        raise MedsegError("dataset.missing_masks=unannotated needs dataset.class_masks: which classes are in a file?")
    return patterns


def subfolder(root: Path, key: str, name: str) -> Path:
    """Return ``root / name``, or say which folders there are."""
    if not root.is_dir():
        raise MedsegError(f"dataset.root={root}: there is no such folder.")
    if not (root / name).is_dir():
        there = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        raise MedsegError(
            f"dataset.{key}={name}: {root} has no such folder, it has {', '.join(there) or 'none'}."
            f"{nearest(name, there)}"
        )
    return root / name


def image_and_mask_files(image_root: Path, mask_root: Path, patterns: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Find both, also where one folder is within the other (images=. masks=masks) or both are one."""
    images, masks = find_images(image_root), find_masks(mask_root)
    if image_root == mask_root and patterns:
        others = set(by_ending(mask_root, masks, [(pattern,) for pattern in patterns])[1])
        masks = [path for path in masks if path not in others]
    elif image_root == mask_root:
        scans = set(images)
        masks = [path for path in masks if stem(path).endswith(MASK_ENDINGS) or path not in scans]
    inner, outer = (masks, images) if mask_root.is_relative_to(image_root) else (images, masks)
    rest = sorted(set(outer) - set(inner))
    return (rest, masks) if outer is images else (images, rest)


def masks_by_id(files: Iterable[Path], root: Path, ids: set[str]) -> dict[str | None, list[Path]]:
    """Map ids to mask files, None to those that fit no id."""
    masks: dict[str | None, list[Path]] = defaultdict(list)
    for path in files:
        name = relative_id(path, root)
        names = [name, *(name.removesuffix(ending) for ending in MASK_ENDINGS)]
        masks[next((name for name in names if name in ids), None)].append(path)
    return masks


def unpaired_names(images: Collection[str], masks: Collection[str]) -> list[str]:
    """Return a line with the setting that pairs images and masks of which none have the same name.

    It is known where all names of the one are names of the other and an ending, of which there are few.

    >>> unpaired_names({"p1", "p2"}, {"p1_labels", "p2_labels"})
    ['the masks are called like the images with _labels at the end: give dataset.mask_endings=[_labels]']
    >>> unpaired_names({"p1_flair", "p1_t1"}, {"p1"})
    ['the images are called like the masks with _flair or _t1 at the end: give dataset.channels=[_flair,_t1]']
    >>> print(*unpaired_names({"p1"}, {"p1 (seg)"}))
    the masks are called like the images with  (seg) at the end: give dataset.mask_endings='[" (seg)"]'
    >>> unpaired_names({"p1"}, {"p2"})
    []
    """
    for which, others, key in (("masks", "images", "mask_endings"), ("images", "masks", "channels")):
        names, beginnings = (masks, images) if which == "masks" else (images, masks)
        endings = {name: ending_after(name, beginnings) for name in names}
        if (few := sorted({*endings.values()})) and all(few) and len(few) <= MOST_ENDINGS:
            listed = f"[{','.join(few)}]"
            if not re.fullmatch(r"[\w.,/\[\]-]+", listed):  # signs of the shell's, or of the command line's own
                listed = "'[" + ",".join(f'"{ending}"' for ending in few) + "]'"
            setting = f"give dataset.{key}={listed}"
            if which == "masks" and len(few) > 1:
                of_class = ", ".join(f"{ending.strip('_-. /')}: {ending}" for ending in few)
                setting += f", or, of masks of a class each, dataset.class_masks='{{{of_class}}}'"
            return [f"the {which} are called like the {others} with {' or '.join(few)} at the end: {setting}"]
    return []


def ending_after(name: str, beginnings: Collection[str]) -> str:
    """Return what follows in a name after the longest of ``beginnings``, up to a separator; "" where it has none."""
    cuts = reversed([match.start() for match in re.finditer(r"[_\-. /]", name)])
    return next((name[cut:] for cut in cuts if name[:cut] in beginnings), "")


def with_masks(
    case: Case,
    files: Mapping[int, Sequence[Path]],
    patterns: Sequence[str],
    class_masks: Mapping[str, str] | None,
    missing_masks: MissingMasks,
) -> Case:
    """Give a case its label maps in the order of ``patterns``, its masks by class, or without patterns its only mask.

    Raises:
        MedsegError: a mask is missing that may not be, or there are two of one ending.
    """
    if not patterns:
        paths = files.get(0, [])
        if len(paths) > 1:
            raise MedsegError(f"{case.id} has several masks: {', '.join(map(str, paths))}")
        if not paths:
            raise MedsegError(f"{case.images[0]} has no mask")
        return replace(case, labels=(LabelFile(paths[0]),))
    if shared := shared_names({case.id: files}):
        raise MedsegError(shared[0])
    masks = {pattern: files[index][0] if index in files else None for index, pattern in enumerate(patterns)}
    if class_masks:
        of_class = {name: masks[pattern] for name, pattern in class_masks.items()}
        return with_class_masks(case, of_class, missing_masks, whose=class_masks)
    missing = [ending for ending, path in masks.items() if path is None]
    if len(missing) == len(masks) or (missing and missing_masks == "error"):
        raise MedsegError(f"{case.id} has no mask ending in {' and none in '.join(missing)}")
    return replace(case, labels=tuple(LabelFile(path) for path in masks.values() if path is not None))


def with_class_masks(
    case: Case, masks: Mapping[str, Path | None], missing_masks: MissingMasks, *, whose: Mapping[str, str]
) -> Case:
    """Give a case the masks of its classes, in their order, so that the last counts where they overlap.

    ``missing_masks`` says what a class without a mask means: a mistake, a class that does not occur in this case, or
    one that nobody looked for; classes that the case says nobody looked for need none. ``whose`` names where each mask
    was looked for: its column or ending.

    Raises:
        MedsegError: a mask is missing, or all are.
    """
    there = [name for name, path in masks.items() if path is not None]
    needed = [name for name in masks if case.annotated is None or name in case.annotated]
    missing = [f"{name} ({whose[name]})" for name in needed if name not in there]
    if not there or (missing and missing_masks == "error"):
        hint = "" if not there else ". Is this right? Then say dataset.missing_masks=empty|unannotated"
        raise MedsegError(f"{case.id} has no mask of {', '.join(missing)}{hint}")
    files = tuple(LabelFile(path, value) for value, path in enumerate(masks.values(), 1) if path is not None)
    is_partial = bool(missing) and missing_masks == "unannotated"
    annotated = tuple(name for name in needed if name in there) if is_partial else case.annotated
    return replace(case, labels=files, annotated=annotated)
