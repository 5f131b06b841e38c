"""The contact sheet: as HTML of the standard library's parser, and as a browser shows it."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from browser import needs_browser, visit
from PIL import Image

from medseg.evaluation.images.contact_sheet import contact_sheet
from medseg.evaluation.images.overlays import colours
from medseg.io.labels import LabelMap

CLASSES = LabelMap({"background": 0, "liver": 1, "<b>tumour</b>": 2})
VOID = {"meta", "img", "input", "link", "br"}


def row(case: str, liver: float, tumour: float, **further: Any) -> dict[str, Any]:
    sizes = {"liver": liver, "<b>tumour</b>": tumour}
    columns = {f"{name}_ml": ml for name, ml in sizes.items()} | {
        f"{name}_voxels": 1000 * ml for name, ml in sizes.items()
    }
    return {"case": case, "status": "done", "error": "", **columns, "liver_mm2": 12345.6, **further}


ROWS = [
    row("b/scan 10", 1234.5, 0.25, uncertainty=0.1),
    row("a & <c>\"'", 5, 0, uncertainty="0.3", unlike="spacing 9 mm, in training 1 to 2"),
    row("b/scan 9", 0, 0, uncertainty=0.2),
    {"case": "broken", "status": "failed", "error": "a <script>alert(1)</script> file"},
]


class Page(HTMLParser):
    """What is on a page: tags with their attributes and the text of each article; complains of unclosed tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.articles: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "article":
            self.articles.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "article" in self.open:
            self.articles[-1] += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> str:
    pictures = {name["case"]: tmp_path / "overlays" / f"{name['case']} #1?.png" for name in ROWS[:3]}
    for place, path in enumerate(pictures.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1300, 500), (255, 40 * place, 0)).save(path)
    return contact_sheet(ROWS, pictures, colours(CLASSES), tmp_path, "Müller & sons")


def test_cases_are_told_with_sizes_remarks_and_reasons(page: str) -> None:
    found = Page(page).articles
    assert len(found) == 4
    assert "b/scan 10" in found[0]
    assert "1,234.5 ml" in found[0]
    assert "123.5 cm²" in found[0]
    assert "<b>tumour</b> 0.250 ml" in " ".join(found[0].split())
    assert "uncertainty 0.100" in found[0]
    assert "a & <c>\"'" in found[1]
    assert "Unlike the training data: spacing 9 mm, in training 1 to 2" in found[1]
    assert "not found: <b>tumour</b>" in found[1]
    assert "Nothing found" in found[2]
    assert "Failed: a <script>alert(1)</script> file" in found[3]
    assert "4 cases · 1 failed · 1 nothing found · 1 unlike the training data" in page


def test_the_page_needs_nothing_else_and_names_cannot_break_it(page: str) -> None:
    found = Page(page)
    assert len(found.all("script")) == 1
    assert not found.all("b")
    assert not found.all("link")
    assert "http" not in page.replace("http-equiv", "")
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in found.all("img"))
    assert "default-src 'none'" in found.all("meta")[2]["content"]


def test_pictures_are_small_described_and_link_to_the_whole(page: str, tmp_path: Path) -> None:
    found = Page(page)
    image = found.all("img")[0]
    small = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    assert small.size == (640, 246)
    assert small.getpixel((300, 100)) == pytest.approx((255, 0, 0), abs=3)
    assert image["alt"] == "Overlay of b/scan 10: liver 1,234.5 ml, <b>tumour</b> 0.250 ml"
    links = [tmp_path / unquote(link["href"]) for link in found.all("a")]
    assert len(links) == 3
    assert all(link.is_file() for link in links)


def test_values_to_sort_by_are_in_the_order_of_the_choices(page: str) -> None:
    found = Page(page)
    orders = [option["value"] for option in found.all("option") if option["value"].isdigit()]
    assert orders == ["0", "1", "2", "3"]  # case, uncertainty, two classes
    values = [json.loads(article["data-values"]) for article in found.all("article")]
    assert values[1] == ["a & <c>\"'", 0.3, 5, 0]
    assert values[3] == ["broken", None, None, None]


def test_pictures_without_mm_have_pixels(tmp_path: Path) -> None:
    rows = [{"case": "cell", "status": "done", "liver_voxels": "1234", "liver_ml": "", "<b>tumour</b>_voxels": "0"}]
    found = contact_sheet(rows, {}, colours(CLASSES), tmp_path)
    assert "1,234 px" in found
    assert "liver (voxels)" in found
    assert "surface" not in Page(found).articles[0]


def test_many_classes_are_folded_away_and_none_is_lost(tmp_path: Path) -> None:
    many = LabelMap({"background": 0, **{f"organ {index}": index for index in range(1, 118)}})
    sizes = {f"organ {index}_{unit}": index for index in range(1, 61) for unit in ("ml", "mm2", "voxels")}
    page = Page(contact_sheet([{"case": "whole", "status": "done", **sizes}], {}, colours(many), tmp_path))
    text = " ".join(page.articles[0].split())
    assert all(f"organ {index} " in text for index in range(1, 61))
    assert text.index("organ 60 ") < text.index("organ 1 ")
    assert "54 more" in text
    assert "organ 66 and 51 more" in text


def test_no_case_is_a_page_too(tmp_path: Path) -> None:
    assert "0 cases" in contact_sheet([], {}, colours(CLASSES), tmp_path)


def shown(html: str, folder: Path, state: str) -> list[str]:
    """The ids of the cases that a browser shows, in order."""
    script = """return [...document.querySelectorAll("article")].filter(article => !article.hidden)
        .map(article => JSON.parse(article.dataset.values)[0]);"""
    return list(visit(html, folder, script, fragment="#" + state))


@needs_browser
def test_a_browser_sorts_and_filters(page: str, tmp_path: Path) -> None:
    nine, ten, odd = "b/scan 9", "b/scan 10", "a & <c>\"'"
    assert shown(page, tmp_path, "") == [odd, nine, ten, "broken"]
    assert shown(page, tmp_path, "sort=1&turn=down") == [odd, nine, ten, "broken"]
    assert shown(page, tmp_path, "sort=2&turn=down") == [ten, odd, nine, "broken"]
    assert shown(page, tmp_path, "sort=2&turn=up") == [nine, odd, ten, "broken"]
    assert shown(page, tmp_path, "filter=SCAN+b") == [nine, ten]
    assert shown(page, tmp_path, "show=failed") == ["broken"]
