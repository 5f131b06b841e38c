"""Writes the table of docs/development/reliability.md: what was tried in tests/trust, and what came of it.

A test of the corpus records its counts as properties; every other test is one try of its file's family.
"""

import ast
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

BEGIN, END = "<!-- table: make trust writes it -->", "<!-- end of the table -->"
COUNTS = ("tried", "right", "clear error", "failed")


class ReliabilityTable:
    """Counts reports of tests by family, and writes them between the two lines of a page when all are done."""

    def __init__(self, page: Path, root: Path) -> None:
        """Take the page, and the root that the names of tests begin at."""
        self.page, self.root = page, root
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.subjects: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test when it has been called, or where what it needs could not be made."""
        if report.skipped or (report.when != "call" and not report.failed):
            return
        file = Path(report.nodeid.partition("::")[0])
        properties: dict[str, Any] = dict(report.user_properties)
        family = properties.get("family") or file.stem.removeprefix("test_").replace("_", " ")
        if "family" in properties:
            counts = {count: int(properties[count]) for count in COUNTS}
        else:
            counts = {"tried": 1, "right": report.passed, "failed": report.failed}
        self.counts[family].update(counts)
        self.subjects.setdefault(family, properties.get("subject") or first_line_of(self.root / file))

    def pytest_sessionfinish(self) -> None:
        """Write the table; a page without the two lines is an error."""
        text = self.page.read_text("utf-8")
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise pytest.UsageError(f"{self.page} lacks the line {BEGIN if not begin else END}")
        self.page.write_text(f"{before}{BEGIN}\n\n{self.table()}\n\n{END}{after}", "utf-8")

    def table(self) -> str:
        """Return the table in Markdown, families by name, with their sum."""
        rows = [(family, self.subjects[family], counts) for family, counts in sorted(self.counts.items())]
        rows.append(("**all**", "", sum((counts for *_, counts in rows), Counter())))
        lines = [f"| family | what | {' | '.join(COUNTS)} |", "|---|---|--:|--:|--:|--:|"]
        for family, subject, counts in rows:
            numbers = " | ".join(str(int(counts[count])) for count in COUNTS)
            lines.append(f"| {family} | {subject.replace('|', ' ')} | {numbers} |")
        return "\n".join(lines)


def first_line_of(file: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return docstring.partition("\n")[0].removesuffix(".")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the page."""
    parser.addoption("--reliability", metavar="PAGE", help="write the table of tests/trust into this page")


def pytest_configure(config: pytest.Config) -> None:
    """Count in the main process, which the reports of all others reach."""
    page = config.getoption("--reliability", None)
    if page and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ReliabilityTable(Path(page), config.rootpath))
