"""HTML pages that need no other file and no network: a skeleton, sections, tables, pictures."""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from medseg.evaluation.pages.text_table import NONE, TextTable

STYLE = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("page.js")
NUMBER = re.compile(r"[-−+<≤]?\s?[\d.,]*\d(?:e[-+]?\d+)?(?:\s?(?:%|±.*|[–…].*|\(.*))?|")
"""A cell that is a number, also one with a deviation, a range or a remark; or empty."""
QUALITY = 80
LONG = 25
"""Rows from which on a table scrolls by itself."""


class Section(NamedTuple):
    """A part of a page with a heading; ``name`` is its anchor."""

    title: str
    html: str
    name: str


def section(title: str, *html: str) -> Section:
    """Return a section of some pieces of HTML, its anchor made of the title."""
    return Section(title, "\n".join(html), re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-"))


def page(title: str, sections: Sequence[Section], *, lead: str = "", scripts: Sequence[str] = ()) -> str:
    """Return a whole page: a heading, what ``lead`` (HTML) says under it, a list of the sections, and these.

    ``scripts`` are JavaScript that runs after the page's own. No other script runs, and nothing is loaded: the page's
    content security policy names the scripts by their SHA-256 hashes.
    """
    code = [SCRIPT.read_text(encoding="utf-8"), *scripts]
    links = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in sections)
    parts = (
        f'<section id="{part.name}" aria-labelledby="{part.name}-title">\n'
        f'<h2 id="{part.name}-title">{escape(part.title)}</h2>\n{part.html}\n</section>'
        for part in sections
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy(code)}">',
            f"<title>{escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>",
            '<a class="skip" href="#main">Skip to the content</a>',
            f"<header>\n<h1>{escape(title)}</h1>\n{lead}\n</header>",
            f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if links else "",
            '<main id="main" tabindex="-1">',
            *parts,
            "</main>",
            *(f"<script>{script}</script>" for script in code),
            "</body>\n</html>\n",
        ]
    )


def policy(scripts: Sequence[str]) -> str:
    """Return a content security policy under which a page runs these scripts and loads nothing from anywhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def table(
    content: TextTable,
    *,
    is_sortable: bool = False,
    is_filterable: bool = False,
    links: Sequence[str] = (),
) -> str:
    """Return a table in a box that scrolls where the page is too narrow, or the table long.

    A last row that begins with "mean" stays at the bottom. Columns of numbers are aligned to the right. The page's
    script gives sortable tables buttons in their headers, and filterable ones an input above. ``links`` are addresses
    that the first cell of each row leads to.
    """
    is_text = [
        any(not NUMBER.fullmatch(row[column]) for row in content.rows if row[column] != NONE)
        for column in range(len(content.headers))
    ]
    kinds = [' class="text"' if text or not column else "" for column, text in enumerate(is_text)]
    heads = [f'<th scope="col"{kind}>{escape(head)}</th>' for head, kind in zip(content.headers, kinds, strict=True)]
    has_mean = bool(content.rows) and content.rows[-1][0] == "mean"
    rows = []
    for cells, link in zip(content.rows, links or [""] * len(content.rows), strict=True):
        name = f'<a href="{escape(link)}">{escape(cells[0])}</a>' if link else escape(cells[0])
        values = (f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(cells[1:], kinds[1:], strict=True))
        mean = ' class="mean"' if cells[0] == "mean" else ""
        rows.append(f'<tr{mean}><th scope="row">{name}</th>{"".join(values)}</tr>')
    body, foot = (rows[:-1], rows[-1:]) if has_mean else (rows, [])
    box = "scroll long" if len(rows) > LONG else "scroll"
    flags = " data-sortable" * is_sortable + " data-filterable" * is_filterable
    return "\n".join(
        [
            f'<div class="table"><div class="{box}" tabindex="0" role="region" aria-label="{escape(content.title)}">',
            f"<table{flags}><caption>{escape(content.title)}</caption>",
            f"<thead><tr>{''.join(heads)}</tr></thead>",
            "<tbody>",
            *body,
            "</tbody>",
            *(f"<tfoot>{row}</tfoot>" for row in foot),
            "</table></div>",
            *(f'<p class="note">{escape(note)}</p>' for note in content.notes),
            "</div>",
        ]
    )


def folded(summary: str, *html: str, is_open: bool = False) -> str:
    """Return HTML that is shown when its summary is chosen, and in print."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{escape(summary)}</summary>\n" + "\n".join(html) + "\n</details>"


def preformatted(text: str, label: str) -> str:
    """Return text as it is, in a box that scrolls."""
    return f'<pre class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{escape(text)}</pre>'


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def terms(meanings: Mapping[str, str]) -> str:
    """Return a list of terms, each with what is said of it."""
    items = (f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in meanings.items())
    return f"<dl>{''.join(items)}</dl>"


def picture(path: Path, side: int, description: str) -> str:
    """Return an image embedded as WebP, its longer side at most ``side`` pixels, with a description for all readers."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((side, side))
    content = io.BytesIO()
    small.save(content, "WEBP", quality=QUALITY)
    return embedded(content.getvalue(), description)


def embedded(webp: bytes, description: str) -> str:
    """Return a WebP image as part of the page, with a description for all readers."""
    with Image.open(io.BytesIO(webp)) as image:
        size = f'width="{image.width}" height="{image.height}"'
    source = f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
    return f'<img src="{source}" {size} alt="{escape(description)}">'


def side_by_side(figures: Iterable[str]) -> str:
    """Return figures in as many columns as there is room for."""
    return f'<div class="plots">{"".join(figures)}</div>'
