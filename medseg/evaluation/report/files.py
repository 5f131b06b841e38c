"""The files of a report, written and read back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import escape

from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError
from medseg.evaluation.pages.text_table import as_latex, as_markdown, counted, plain
from medseg.evaluation.report.tables import number, overview, statistics_table, tables_of
from medseg.evaluation.statistics.cases import Row, as_csv, read_rows
from medseg.evaluation.statistics.summary import Summary
from medseg.system.files import write_json, write_text

REPORT = "report.html"


@dataclass(frozen=True, repr=False)
class Report:
    """The report of an evaluation, read back; a notebook shows its page, with tables, plots and pictures.

    ``rows`` are a mapping for each case and class, as in ``cases.csv``, ``summary`` what ``metrics.json`` holds: the
    statistics over the cases. Shares such as Dice are from 0 to 1, distances in mm (px in 2D images), volume
    differences in ml (px).

    >>> report = medseg.Run.open("outputs/nuclei").report
    >>> report.mean["dice"] == report.summary["mean"]["dice"]
    True
    >>> sorted(report.classes), report.classes["core"]["dice"] <= 1
    (['core', 'edema', 'enhancing'], True)
    """

    name: str
    folder: Path
    rows: Sequence[Row]
    summary: Summary

    def __repr__(self) -> str:
        """Describe the report by what it is of, and its mean Dice."""
        dice = number(self.mean.get("dice"), "dice")
        cases = counted(len({row["case"] for row in self.rows}), "case")
        subset = self.summary.get("subset", self.name)
        return f"Report({subset}: {cases}, mean Dice {dice}, folder={str(self.folder)!r})"

    def __str__(self) -> str:
        """Return the report's tables as Markdown."""
        return "\n".join(map(as_markdown, tables_of(self.summary)))

    def _repr_html_(self) -> str | None:
        """Return the report's page in a frame, whose styles and scripts are its own; None: there is no page."""
        if not self.page.is_file():
            return None
        # Links within the page would lead to the notebook without a base of their own
        page = self.page.read_text("utf-8").replace("<head>", '<head>\n<base href="about:srcdoc">', 1)
        page, title = escape(page), escape(repr(self))
        style = "width: 100%; height: 45em; border: 0"
        return f'<iframe sandbox="allow-scripts" title="{title}" style="{style}" srcdoc="{page}"></iframe>'

    @property
    def page(self) -> Path:
        """The page of the report, ``report.html``."""
        return self.folder / REPORT

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the metrics; none in a report of format 1."""
        settings: dict[str, Any] = self.summary.get("settings", {})
        return settings

    @property
    def mean(self) -> dict[str, float | None]:
        """The mean over the classes, or regions, of each metric; None: undefined."""
        return dict(self.summary.get("mean", {}))

    @property
    def classes(self) -> dict[str, dict[str, float | None]]:
        """The mean over the cases of each metric by class, or region; None: undefined."""
        of_class: dict[str, Any] = self.summary.get("classes", {})
        return {name: {metric: of_class[name][metric]["mean"] for metric in self.mean} for name in of_class}


def read_report(folder: Path, name: str) -> Report:
    """Read the report in a folder.

    Raises:
        MedsegError: its files are not there, or not what ``write_report`` writes.
    """
    cure = "medseg eval checkpoint=RUN writes the report anew."
    summary = read_json_object(folder / "metrics.json", cure)
    if not isinstance(summary.get("settings", {}), dict):
        raise MedsegError(f"{folder / 'metrics.json'}: settings must be a mapping. {cure}")
    return Report(name, folder, read_rows(folder / "cases.csv"), summary)


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
