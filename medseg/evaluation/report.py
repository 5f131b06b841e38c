"""The files of a report."""

from collections.abc import Sequence
from pathlib import Path

from medseg.evaluation.renderings import as_latex, as_markdown
from medseg.evaluation.rows import Row, as_csv
from medseg.evaluation.summary import Summary
from medseg.evaluation.tables import overview, statistics_table, tables_of
from medseg.io.atomic import write_json, write_text


def write_report(folder: Path, rows: Sequence[Row], summary: Summary) -> None:
    """Write ``metrics.json``, ``cases.csv``, ``report.md`` and ``report.tex``, each whole or not at all.

    Raises MedsegError where the folder cannot be written.
    """
    write_json(folder / "metrics.json", summary)
    write_text(folder / "cases.csv", as_csv(rows))
    tables = [*tables_of(summary), *(statistics_table(summary, metric) for metric in summary["settings"]["names"])]
    write_text(folder / "report.md", "\n".join(map(as_markdown, tables)))
    write_text(folder / "report.tex", as_latex(overview(summary)))
