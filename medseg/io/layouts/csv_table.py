"""``dataset=table``: a CSV table that names each case's files."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from medseg.errors import MedsegError, nearest
from medseg.io.case import Case, Dataset, LabelFile, MissingMasks
from medseg.io.files.read import exists
from medseg.io.labels import class_values
from medseg.io.layouts.channels import common_name, complete, endings_of, modalities_of
from medseg.io.layouts.image_folder import with_class_masks
from medseg.io.tables import Row, class_names, read_table
from medseg.system.printable import on_a_line

log = logging.getLogger(__name__)

OWN = ("id", "group", "annotated")
LONGEST = 255
"""Bytes between two slashes of an id, as file systems have it."""
SHOWN = 60
"""Characters of an id that cannot be used that its message shows."""


@dataclass(frozen=True)
class Columns:
    """Which columns name images, in the channels' order, label maps, the last on top, and masks by class."""

    images: Sequence[str]
    labels: Sequence[str]
    classes: Mapping[str, str]

    @property
    def annotation(self) -> tuple[str, ...]:
        """Every column of label files."""
        return (*self.labels, *self.classes.values())

    @property
    def channels(self) -> tuple[str, ...] | None:
        """The channels' names: what follows ``image_``; None for a single column ``image``."""
        names = tuple(re.sub(r"^image[_:]\s*", "", column) for column in self.images)
        return None if names == ("image",) else names


def table(
    root: str | Path,
    table: str = "cases.csv",
    image_columns: Sequence[str] | None = None,
    label_columns: Sequence[str] | None = None,
    class_columns: Mapping[str, str] | None = None,
    missing_masks: MissingMasks = "error",
) -> Dataset:
    """Read a table with a row a case.

    Columns beside those of files may be ``id`` (or else the images' name is it), ``group`` (the patient), ``split``
    (train, val or test in every row), and ``annotated`` (class names parted by ";", empty for all). All others, such as
    the site, are kept with the case. Rows without annotation are the unlabelled cases.

    Args:
        root: the folder that paths in the table are relative to, the table's own being tried next.
        table: the table, relative to ``root`` or in full.
        image_columns: columns of the images, a channel each; None: ``image``, or those that begin with ``image_``.
        label_columns: columns of the label maps, the last on top; None: ``label`` or ``mask``, or those that
            begin with ``label_`` or ``mask_``.
        class_columns: the column of each class's mask (``{"liver": "liver_mask"}``) instead. Classes have the values
            1, 2, ...; where masks overlap, the later class counts.
        missing_masks: what an empty cell in a class's column means: "error"; "empty", the class does not occur; or
            "unannotated", the class was not looked for in this case.

    Raises:
        MedsegError: the table cannot be used. What shuts single rows out is in the data set's ``problems``.
    """
    path = Path(root) / table
    rows = read_table(path, "dataset.table")
    if not rows:
        raise MedsegError(f"dataset.table={path} has no rows.")
    columns = choose(list(rows[0]), image_columns, label_columns, class_columns, path)
    if empty := [name for name in columns.classes.values() if not any(row[name] for row in rows)]:
        raise MedsegError(f"dataset.class_columns: no row of {path} has a file in {', '.join(empty)}. Leave it out.")
    cases, unlabelled, problems, folders = [], [], [], (Path(root), path.parent)
    for number, row in enumerate(rows, 1):
        is_labelled = any(row[name] for name in columns.annotation)
        try:
            case = scan_of(row, columns, folders)
            if not is_labelled:
                unlabelled.append(case)
            elif columns.classes:
                masks = {
                    name: located(row[key], folders) if row[key] else None for name, key in columns.classes.items()
                }
                cases.append(with_class_masks(case, masks, missing_masks, whose=columns.classes))
            else:
                labels = tuple(LabelFile(located(row[key], folders)) for key in columns.labels if row[key])
                cases.append(replace(case, labels=labels))
        except MedsegError as error:
            if is_labelled:  # what is not needed for training may be incomplete
                problems.append(f"{path.name}, row {number}: {error}")
    if without := sum(not any(row[name] for name in columns.annotation) for row in rows):
        log.info("%s: %d of %d rows have no annotation", path, without, len(rows))
    usable, incomplete = complete(cases)
    known = {case.id for case in usable}
    return Dataset(
        usable,
        class_values(columns.classes) if columns.classes else None,
        channels=columns.channels,
        endings=endings_of(usable),
        modality=modalities_of(columns.channels),
        problems=(*problems, *incomplete),
        unlabelled=complete(case for case in unlabelled if case.id not in known)[0],
    )


def choose(
    there: Sequence[str],
    image_columns: Sequence[str] | None,
    label_columns: Sequence[str] | None,
    class_columns: Mapping[str, str] | None,
    path: Path,
) -> Columns:
    """Find the columns of files, as the user names them or by their usual names."""
    if label_columns and class_columns:
        raise MedsegError("dataset.label_columns and dataset.class_columns exclude each other: give one.")
    in_class = [*(class_columns or {}).values()]
    requested = {"image_columns": image_columns, "label_columns": label_columns, "class_columns": in_class}
    for key, names in requested.items():
        if unknown := [str(name) for name in names or () if name not in there]:
            raise MedsegError(
                f"dataset.{key}: {path} has no column {unknown[0]!r}, it has {', '.join(there)}."
                f"{nearest(unknown[0], there)}"
            )
    images = image_columns or usual(there, ["image"])
    labels = label_columns or ([] if class_columns else usual(there, ["label", "mask"]))
    for key, columns in {"image": images, "label": labels or class_columns}.items():
        if not columns:
            raise MedsegError(
                f"dataset.table={path} has no column {key!r}, it has {', '.join(there)}. Name dataset.{key}_columns."
            )
    return Columns(images, labels, class_columns or {})


def usual(there: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the column of one of these names, or else all that begin with one and ``_`` or ``:``."""
    beginnings = tuple(f"{name}{separator}" for name in names for separator in "_:")
    exact = [name for name in there if name in names]
    return exact[:1] or [name for name in there if name.startswith(beginnings)]


def scan_of(row: Row, columns: Columns, folders: Sequence[Path]) -> Case:
    """Return the case of a row without its annotation; MedsegError where the row lacks what it needs."""
    if empty := [name for name in columns.images if not row[name]]:
        raise MedsegError(f"no file in {', '.join(empty)}")
    images = tuple(located(row[name], folders) for name in columns.images)
    name = row.get("id") or common_name(images)
    check_id(name)
    if not row.get("group", name):
        raise MedsegError(f"{name} has no group, though the table has the column: its patient would be unknown")
    annotated = class_names(row.get("annotated", ""))
    further = {key: cell for key, cell in row.items() if key not in (*OWN, *columns.images, *columns.annotation)}
    return Case(name, row.get("group", name), images, annotated=annotated, columns=further)


def check_id(name: str) -> None:
    """Reject an id that no case's files can have as their name; MedsegError."""
    parts = name.split("/")
    if on_a_line(name) != name:
        reason = "it holds control characters; is a quotation mark of the table left open?"
    elif Path(name).is_absolute() or PureWindowsPath(name).drive or not {"", ".", ".."}.isdisjoint(parts):
        reason = "it is a path that leads elsewhere"
    elif longest := max((len(os.fsencode(part)) for part in parts if len(os.fsencode(part)) > LONGEST), default=0):
        reason = f"it has {longest} bytes, {LONGEST} are allowed"
    else:
        return
    shown = on_a_line(name if len(name) <= SHOWN else f"{name[:SHOWN]}…")
    raise MedsegError(f"id {shown!r} cannot name a case: {reason}. Give a short name such as patient_01.")


def located(cell: str, folders: Sequence[Path]) -> Path:
    """Return the file or series that a cell names, from the first folder that has it."""
    paths = [folder / cell for folder in folders]
    return next((path for path in paths if exists(path)), paths[0])
