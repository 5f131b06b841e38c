"""HTML pages as the standard library's parser and a headless Chromium see them."""

import json
import os
import select
import shutil
import subprocess
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
    fragment: str = "",
    is_dark: bool | None = None,
) -> Any:
    """Open a page in a browser, run the body of an async function in it, and return what that returns.

    ``width`` is that of the window in CSS px, ``fragment`` the end of the address, as in "#case-3".
    Nothing waits for a time: the script runs after the page's load event, and its end is awaited.
    Fails where the script throws, or the browser's console has anything to say, a violation of the
    content security policy included.
    """
    path = folder / "visited.html"
    path.write_text(html, encoding="utf-8")
    with Browser(folder / "profile") as browser:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            browser.call(f"{domain}.enable")
        if width:
            screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            browser.call("Emulation.setDeviceMetricsOverride", **screen)
        if is_dark is not None:
            scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
            browser.call("Emulation.setEmulatedMedia", features=[scheme])
        browser.call("Page.navigate", url=path.as_uri() + fragment)
        browser.until("Page.loadEventFired")
        run = f"(async () => {{ {script} }})()"
        answer = browser.call("Runtime.evaluate", expression=run, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        said = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        assert [event for event in browser.events if event["method"] in said] == []
    return answer["result"].get("value")


class Browser:
    """A headless Chromium that is spoken to over two pipes, by its DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        to_browser, self.commands = os.pipe()
        self.answers, from_browser = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
        # Chromium reads its file descriptor 3 and writes 4, whatever numbers the pipes have here.
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        command = ["bash", "-c", shell, "bash", str(BROWSER), *options]
        fds = (to_browser, from_browser)
        self.process = subprocess.Popen(command, pass_fds=fds, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.unread = b""
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        self.calls = 0

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.commands)  # ends it, and what it has started
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.answers)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.calls += 1
        message = {"id": self.calls, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.calls:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def until(self, method: str) -> None:
        while all(event["method"] != method for event in self.events):
            self.events.append(self.read())

    def read(self) -> dict[str, Any]:
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.answers], [], [], 300)
            more = os.read(self.answers, 1 << 20) if ready else b""
            assert more, f"{BROWSER} ended, or said nothing for 300 s"
            self.unread += more
        text, _, self.unread = self.unread.partition(b"\0")
        return json.loads(text)
