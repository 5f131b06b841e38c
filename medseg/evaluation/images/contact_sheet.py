"""One page for a folder of predictions: every case with its picture, its sizes and what is to be said of it."""

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from PIL import Image

from medseg.io.segments.terminology import Colour

Row = Mapping[str, Any]

TEMPLATE = Path(__file__).with_name("contact_sheet.html")
THUMBNAIL = (640, 480)
"""Largest width and height of an embedded picture, in pixels."""
QUALITY = 80
MOST = 6
"""Classes of a case that are shown at once, the largest; the others are folded away."""
FLAGS = {"failed": "failed", "empty": "nothing found", "unlike": "unlike the training data"}


def contact_sheet(
    rows: Sequence[Row],
    pictures: Mapping[str, Path],
    colours: Mapping[str, Colour],
    folder: Path,
    title: str = "Predictions",
) -> str:
    """Return an HTML page that needs no other file and no network.

    Cases are filtered and sorted in the browser, by name, uncertainty or the size of a class; without scripts, all are
    shown in the order of the rows. Pictures are embedded small, and link to the file in full.

    Args:
        rows: those of ``predictions.csv``, with text or numbers: case, status, error, ``NAME_ml`` and ``NAME_mm2`` or
            ``NAME_voxels``; uncertainty and unlike, the reasons, where there are such columns.
        pictures: the overlay of each case that has one (see ``overlays.overlay``).
        colours: the classes, or regions, with their colours in the overlays (see ``overlays.colours``).
        folder: where the page will lie, for the links.
        title: the page's heading.
    """
    orders = orders_of(rows, colours)
    flags = [flags_of(row, colours) for row in rows]
    shown = [flag for flag in FLAGS if any(flag in flags_of_case for flags_of_case in flags)]
    cards = (
        card(row, flags_of_case, pictures.get(row["case"]), colours, orders, folder)
        for row, flags_of_case in zip(rows, flags, strict=True)
    )
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        summary=summary(flags),
        shown="".join(f'<option value="{flag}">{FLAGS[flag]}</option>' for flag in shown),
        orders="".join(f'<option value="{index}">{escape(name)}</option>' for index, name in enumerate(orders)),
        cards="\n".join(cards),
    )


def orders_of(rows: Sequence[Row], colours: Mapping[str, Colour]) -> dict[str, str]:
    """Return what cases can be sorted by, with the column that holds it; each class by its volume, or its voxels."""
    columns = {column for row in rows for column, value in row.items() if value not in (None, "")}
    units = "ml" if any(f"{name}_ml" in columns for name in colours) else "voxels"
    uncertainty = {"uncertainty": "uncertainty"} if "uncertainty" in columns else {}
    return {"case": "case", **uncertainty, **{f"{name} ({units})": f"{name}_{units}" for name in colours}}


def flags_of(row: Row, colours: Mapping[str, Colour]) -> list[str]:
    """Return which of ``FLAGS`` hold for a case."""
    if row["status"] == "failed":
        return ["failed"]
    empty = [] if any(number(row.get(f"{name}_voxels")) for name in colours) else ["empty"]
    return empty + (["unlike"] if row.get("unlike") else [])


def summary(flags: Sequence[Sequence[str]]) -> str:
    """Return how many cases there are, and how many of each kind.

    >>> summary([["failed"], [], ["empty", "unlike"]])
    '3 cases · 1 failed · 1 nothing found · 1 unlike the training data'
    """
    counts = {flag: sum(flag in flags_of_case for flags_of_case in flags) for flag in FLAGS}
    parts = [f"{count} {FLAGS[flag]}" for flag, count in counts.items() if count]
    return " · ".join([f"{len(flags)} case{'s' * (len(flags) != 1)}", *parts])


def card(
    row: Row,
    flags: Sequence[str],
    picture: Path | None,
    colours: Mapping[str, Colour],
    orders: Mapping[str, str],
    folder: Path,
) -> str:
    """Return the part of the page that tells of one case."""
    present = [name for name in colours if number(row.get(f"{name}_voxels"))]
    first = present
    if len(colours) > MOST:  # the largest
        first = sorted(present, key=lambda name: -(number(row.get(f"{name}_voxels")) or 0.0))
    name = str(row["case"] or "not a case")
    html = [f"<h2>{escape(name)}</h2>"]
    uncertainty = number(row.get("uncertainty"))
    if uncertainty is not None:
        html.append(f'<p class="quiet">uncertainty {uncertainty:.3f}</p>')
    for flag in flags:
        reason = {"failed": row.get("error"), "unlike": row.get("unlike")}.get(flag)
        text = f"{FLAGS[flag]}: {reason}" if reason else FLAGS[flag]
        html.append(f'<p class="flag {flag}">{escape(text[0].upper() + text[1:])}</p>')
    html.append(table(row, first[:MOST], colours))
    if more := first[MOST:]:
        html.append(f"<details><summary>{len(more)} more</summary>{table(row, more, colours)}</details>")
    absent = [name for name in colours if name not in present] if "failed" not in flags else []
    if absent and present:
        few = ", ".join(absent[:MOST]) + (f" and {len(absent) - MOST} more" if len(absent) > MOST else "")
        html.append(f'<p class="quiet">not found: {escape(few)}</p>')
    remarks = [str(row.get(column) or "") for column in ("error", "unlike")]
    text = " ".join([name, str(row["status"]), *remarks, *(FLAGS[flag] for flag in flags)]).lower()
    values = [row["case"] if column == "case" else number(row.get(column)) for column in orders.values()]
    data = {"text": text, "flags": " ".join(flags), "values": json.dumps(values)}
    attributes = " ".join(f'data-{key}="{escape(value)}"' for key, value in data.items())
    image = thumbnail(picture, name, row, first, folder)
    return f"<article {attributes}>{image}<div>{''.join(html)}</div></article>"


def thumbnail(picture: Path | None, name: str, row: Row, present: Sequence[str], folder: Path) -> str:
    """Return the embedded picture of a case, which links to the whole one; nothing where there is none."""
    if picture is None or not picture.is_file():
        return ""
    with Image.open(picture) as image:
        small = image.convert("RGB")
    small.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    sizes = ", ".join(f"{each} {size_of(row, each)}" for each in present[:MOST]) or "nothing found"
    link = quote(os.fsencode(picture.relative_to(folder) if picture.is_relative_to(folder) else picture))
    return (
        f'<a href="{escape(link)}"><img src="data:image/jpeg;base64,{data}" width="{small.width}" '
        f'height="{small.height}" alt="{escape(f"Overlay of {name}: {sizes}")}"></a>'
    )


def table(row: Row, names: Sequence[str], colours: Mapping[str, Colour]) -> str:
    """Return the sizes of classes as a table; nothing of none."""
    if not names:
        return ""
    has_surface = any(number(row.get(f"{name}_mm2")) is not None for name in names)
    volume = "volume" if number(row.get(f"{names[0]}_ml")) is not None else "size"
    head = f'<th scope="col">class</th><th scope="col">{volume}</th>'
    head += '<th scope="col">surface</th>' if has_surface else ""
    lines = []
    for name in names:
        line = f'<th scope="row"><i style="background:rgb{colours[name]}"></i>{escape(name)}</th>'
        line += f"<td>{size_of(row, name)}</td>"
        if has_surface:  # in cm²
            mm2 = number(row.get(f"{name}_mm2"))
            cm2 = "" if mm2 is None else f"{mm2 / 100:,.2f} cm²" if mm2 < 1000 else f"{mm2 / 100:,.1f} cm²"
            line += f"<td>{cm2}</td>"
        lines.append(f"<tr>{line}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def size_of(row: Row, name: str) -> str:
    """Return a class's volume in ml, or its pixels."""
    ml = number(row.get(f"{name}_ml"))
    if ml is None:
        return f"{number(row.get(f'{name}_voxels')) or 0:,.0f} px"
    return f"{ml:,.3f} ml" if ml < 1 else f"{ml:,.1f} ml"


def number(value: Any) -> float | None:
    """Return a cell's number; None of an empty one."""
    return None if value in (None, "") else float(value)
