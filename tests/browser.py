"""HTML pages as the standard library's parser and a headless Chromium see them."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium to look at the page with")
VOID = {"meta", "img", "input", "link", "br"}
EMPTY_SVG = {"circle", "line", "rect", "polyline"}


class Markup(HTMLParser):
    """A page's tags with their attributes, its tables as text by caption; complains of tags that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "table":
            self.rows: list[list[str]] = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in EMPTY_SVG
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open or "style" in self.open:
            return
        self.text += data + " "
        if "caption" in self.open:
            self.tables[data] = self.rows
        elif "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def visit(
    html: str,
    folder: Path,
    script: str = "return null;",
    *,
    width: int | None = None,
    place: str = "",
    options: Sequence[str] = (),
) -> Any:
    """Open a page in a browser, run the body of an async function in it, and return what that returns.

    ``width`` is that of the window in px, ``place`` the address's end, as in "#case-3", ``options``
    further ones of the browser. Fails where the browser's
    console has anything to say, a violation of the content security policy included.
    """
    run = f"""(async () => {{ {script} }})().catch(error => "failed: " + error)
        .then(found => {{ top.document.documentElement.dataset.found = JSON.stringify(found); }});"""
    allowed = base64.b64encode(hashlib.sha256(run.encode()).digest()).decode()
    changed = html.replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    changed = changed.replace("</body>", f"<script>{run}</script></body>")
    if width:  # windows of a headless browser are not that narrow
        style = f"border: 0; width: {width}px; height: 800px"
        changed = (
            f'<!doctype html><html><body><iframe style="{style}" srcdoc="{escape(changed)}"></iframe></body></html>'
        )
    path = folder / "visited.html"
    path.write_text(changed, encoding="utf-8")
    base = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=5000"]
    base += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"]
    command = [str(BROWSER), *base, *options, path.as_uri() + place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'<html[^>]* data-found="([^"]*)"', done.stdout)
    assert found, done.stderr
    return json.loads(unescape(found.group(1)))
