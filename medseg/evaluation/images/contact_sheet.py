"""One page for a folder of predictions: every case with its picture, its sizes and what is to be said of it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from medseg.evaluation.pages.page import Picture, render
from medseg.evaluation.pages.text_table import counted, few
from medseg.io.segments.terminology import Colour

Row = Mapping[str, Any]

THUMBNAIL = (640, 480)
"""Largest width and height of an embedded picture, in pixels."""
MOST = 6
"""Classes of a case that are shown at once, the largest; the others are folded away."""
FLAGS = {"failed": "failed", "empty": "nothing found", "unlike": "unlike the training data"}


@dataclass(frozen=True)
class ClassSize:
    """How large a class is in a case, in words; ``surface`` is "" where it is not known."""

    name: str
    colour: Colour
    voxels: float
    size: str
    is_volume: bool
    surface: str


@dataclass(frozen=True)
class Card:
    """What the page shows of a case.

    ``remarks`` has a text for each of ``FLAGS`` that holds. ``text`` is what is searched, ``values`` what cases are
    sorted by, as JSON.
    """

    name: str
    uncertainty: float | None
    remarks: Mapping[str, str]
    first: Sequence[ClassSize]
    more: Sequence[ClassSize]
    absent: str
    text: str
    values: str
    picture: Picture | None
    link: str

    @property
    def sizes(self) -> str:
        """The sizes that are shown at once, in a line."""
        return ", ".join(f"{each.name} {each.size}" for each in self.first) or "nothing found"


def contact_sheet(
    rows: Sequence[Row],
    overlays: Mapping[str, Path],
    colours: Mapping[str, Colour],
    folder: Path,
    title: str = "Predictions",
) -> str:
    """Return an HTML page that needs no other file and no network.

    Cases are filtered and sorted in the browser, by name, uncertainty or the size of a class; without scripts, all are
    shown in the order of the rows. Overlays are embedded small, and link to the file in full.

    Args:
        rows: those of ``predictions.csv``, with text or numbers: case, status, error, ``NAME_ml`` and ``NAME_mm2`` or
            ``NAME_voxels``; uncertainty and unlike, the reasons, where there are such columns.
        overlays: the image of each case that has one (see ``overlays.overlay``).
        colours: the classes, or regions, with their colours in the overlays (see ``overlays.colours``).
        folder: where the page will lie, for the links.
        title: the page's heading.
    """
    # what cases can be sorted by, with the column that holds it; each class by its volume, or its voxels
    columns = {column for row in rows for column, value in row.items() if value not in (None, "")}
    unit = "ml" if any(f"{name}_ml" in columns for name in colours) else "voxels"
    uncertainty = {"uncertainty": "uncertainty"} if "uncertainty" in columns else {}
    orders = {"case": "case", **uncertainty, **{f"{name} ({unit})": f"{name}_{unit}" for name in colours}}
    cards = [card(row, overlays.get(row["case"]), colours, list(orders.values()), folder) for row in rows]
    counts = {flag: sum(flag in each.remarks for each in cards) for flag in FLAGS}
    kinds = [f"{count} {FLAGS[flag]}" for flag, count in counts.items() if count]
    return render(
        "evaluation/images/contact_sheet.html",
        title=title,
        summary=" · ".join([counted(len(rows), "case"), *kinds]),
        flags={flag: FLAGS[flag] for flag, count in counts.items() if count},
        orders=list(orders),
        cards=cards,
    )


def card(row: Row, overlay: Path | None, colours: Mapping[str, Colour], orders: Sequence[str], folder: Path) -> Card:
    """Return what the page shows of one case; ``orders`` are the columns that cases are sorted by."""
    sizes = [class_size(row, name, colour) for name, colour in colours.items()]
    present = [each for each in sizes if each.voxels]
    absent = [each.name for each in sizes if not each.voxels]
    if len(colours) > MOST:
        present.sort(key=lambda each: -each.voxels)
    if row["status"] == "failed":
        reasons = {"failed": row.get("error")}
    else:
        reasons = ({} if present else {"empty": ""}) | ({"unlike": row["unlike"]} if row.get("unlike") else {})
    remarks = {flag: FLAGS[flag].capitalize() + (f": {reason}" if reason else "") for flag, reason in reasons.items()}
    name = str(row["case"] or "not a case")
    searched = [
        name,
        row["status"],
        row.get("error") or "",
        row.get("unlike") or "",
        *(FLAGS[flag] for flag in reasons),
    ]
    image, link = None, ""
    if overlay is not None and overlay.is_file():
        image = Picture.shrunk(overlay, THUMBNAIL, "jpeg")
        link = quote(os.fsencode(overlay.relative_to(folder) if overlay.is_relative_to(folder) else overlay))
    return Card(
        name=name,
        uncertainty=number(row.get("uncertainty")),
        remarks=remarks,
        first=present[:MOST],
        more=present[MOST:],
        absent=few(absent, MOST) if present and "failed" not in remarks else "",
        text=" ".join(map(str, searched)).lower(),
        values=json.dumps([row["case"] if column == "case" else number(row.get(column)) for column in orders]),
        picture=image,
        link=link,
    )


def class_size(row: Row, name: str, colour: Colour) -> ClassSize:
    """Return how large a class is: its volume in ml or its pixels, and its surface in cm² where that is known."""
    voxels, ml, mm2 = (number(row.get(f"{name}_{unit}")) for unit in ("voxels", "ml", "mm2"))
    size = f"{voxels or 0:,.0f} px" if ml is None else f"{ml:,.3f} ml" if ml < 1 else f"{ml:,.1f} ml"
    surface = "" if mm2 is None else f"{mm2 / 100:,.2f} cm²" if mm2 < 1000 else f"{mm2 / 100:,.1f} cm²"
    return ClassSize(name, colour, voxels or 0.0, size, ml is not None, surface)


def number(value: Any) -> float | None:
    """Return a cell's number; None of an empty one."""
    return None if value in (None, "") else float(value)
