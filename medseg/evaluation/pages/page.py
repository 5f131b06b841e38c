"""HTML pages that need no other file and no network, made of Jinja templates that escape whatever text they show.

A template lies beside the module that gathers its values, and is called by its path in medseg. It extends
``evaluation/pages/page.html``, and fills its content with the macros of ``macros.html`` and ``plots.html``.
"""

import base64
import hashlib
import io
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

import medseg
from medseg.evaluation.pages.text_table import NONE
from medseg.io.damage import reading

ROOT = Path(medseg.__file__).parent
NUMBER = re.compile(r"(?:[-−+<≤]?\s?[\d.,]*\d(?:e[-+]?\d+)?|–)(?:\s?(?:%|±.*|[–…].*|\(.*))?|")
"""A cell that is a number or a dash for none, also with a deviation, a range or a remark; or empty."""
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """An image file as part of a page; sizes are in pixels."""

    content: bytes
    format: str
    width: int
    height: int

    @classmethod
    def of(cls, content: bytes) -> "Picture":
        """Take an image file as it is."""
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG", "WEBP"]) as image:
            return cls(content, str(image.format).lower(), image.width, image.height)

    @classmethod
    def shrunk(cls, path: Path, size: tuple[int, int], image_format: str = "webp") -> "Picture":
        """Read a PNG file, and compress it at no more than this width and height; MedsegError if it is none."""
        with reading(path, "PNG file"), Image.open(path, formats=["PNG"]) as image:
            small = image.convert("RGB")
        small.thumbnail(size)
        content = io.BytesIO()
        small.save(content, image_format, quality=QUALITY)
        return cls(content.getvalue(), image_format, small.width, small.height)

    @property
    def source(self) -> str:
        """The image as an address."""
        return f"data:image/{self.format};base64,{base64.b64encode(self.content).decode()}"


def render(template: str, **values: Any) -> str:
    """Return the page that a template makes of some values; its sections list themselves in ``sections``."""
    return environment().get_template(template).render(values, sections=[])


@lru_cache
def environment() -> Environment:
    """Return what all templates share."""
    shared = Environment(
        loader=FileSystemLoader(ROOT),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.do"],
    )
    shared.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    # scripts and styles are our own: nothing in them is escaped
    shared.globals["file"] = lambda path: Markup((ROOT / path).read_text(encoding="utf-8"))
    shared.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    shared.filters["anchor"] = lambda title: re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    shared.tests["numeric"] = lambda cells: all(cell == NONE or NUMBER.fullmatch(cell) for cell in cells)
    return shared
