"""The files of a report, written and read back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.evaluation.pages.text_table import as_latex, as_markdown, plain
from medseg.evaluation.report.tables import overview, statistics_table, tables_of
from medseg.evaluation.statistics.cases import Row, as_csv, read_rows
from medseg.evaluation.statistics.summary import Summary
from medseg.system.files import write_json, write_text


@dataclass(frozen=True)
class Report:
    """A report read back: what it is called, its rows, and the settings of its metrics."""

    name: str
    folder: Path
    rows: Sequence[Row]
    settings: dict[str, Any]


def read_report(folder: Path, name: str) -> Report:
    """Read the report in a folder.

    Raises:
        MedsegError: its files are not there, or not what ``write_report`` writes.
    """
    cure = "medseg eval checkpoint=RUN writes the report anew."
    settings = read_json_object(folder / "metrics.json", cure).get("settings", {})  # format 1 has metrics without any
    if not isinstance(settings, dict):
        raise MedsegError(f"{folder / 'metrics.json'}: settings must be a mapping. {cure}")
    return Report(name, folder, read_rows(folder / "cases.csv"), settings)


def write_report(folder: Path, rows: Sequence[Row], summary: Summary) -> None:
    """Write ``metrics.json``, ``cases.csv``, ``report.md`` and ``report.tex``, each whole or not at all.

    Raises MedsegError where the folder cannot be written.
    """
    write_json(folder / "metrics.json", summary)
    write_text(folder / "cases.csv", as_csv(rows))
    tables = [*tables_of(summary), *(statistics_table(summary, metric) for metric in summary["settings"]["names"])]
    warnings = [f"**{plain(warning)}**\n" for warning in summary["warnings"]]
    write_text(folder / "report.md", "\n".join([*warnings, *map(as_markdown, tables)]))
    write_text(folder / "report.tex", as_latex(overview(summary)))
