"""Annotation in one mask a class: which classes a case has masks of, and what a missing one means."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from medseg.errors import MedsegError
from medseg.io.case import Case, FileValues, LabelFile

MissingMasks = Literal["error", "empty", "unannotated"]


def class_values(names: Iterable[str]) -> dict[str, FileValues]:
    """Give classes the values 1, 2, ... in their order, after the background's 0."""
    return {name: value for value, name in enumerate(["background", *names])}


def with_class_masks(
    case: Case, masks: Mapping[str, Path | None], missing_masks: MissingMasks, *, whose: Mapping[str, str]
) -> Case:
    """Give a case the masks of its classes, painted in their order, the last on top.

    ``missing_masks`` says what a class without a mask means: a mistake, a class that does not occur in this case, or
    one that nobody looked for; classes that the case says nobody looked for need none. ``whose`` names where each mask
    was looked for.

    Raises:
        MedsegError: a mask is missing, or all are.
    """
    there = [name for name, path in masks.items() if path is not None]
    wanted = [name for name in masks if case.annotated is None or name in case.annotated]
    missing = [f"{name} ({whose[name]})" for name in wanted if name not in there]
    if not there or (missing and missing_masks == "error"):
        hint = "" if not there else ". Is this right? Then say dataset.missing_masks=empty|unannotated"
        raise MedsegError(f"{case.id} has no mask of {', '.join(missing)}{hint}")
    files = tuple(LabelFile(path, value) for value, path in enumerate(masks.values(), 1) if path is not None)
    partial = bool(missing) and missing_masks == "unannotated"
    annotated = tuple(name for name in wanted if name in there) if partial else case.annotated
    return replace(case, labels=files, annotated=annotated)
