"""The files of a comparison: numbers in full as JSON and CSV, tables as Markdown, a page to look at."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medseg.evaluation.comparison.page import comparison_page
from medseg.evaluation.comparison.tables import RULES, Result, all_tables
from medseg.evaluation.comparison.tests import Comparison
from medseg.evaluation.pages.text_table import as_markdown
from medseg.io import csv_files
from medseg.system.files import write_json, write_text

FORMAT = 1


def write_comparison(folder: Path, result: Result, reports: Sequence[Path]) -> None:
    """Write ``comparison.json``, ``.csv``, ``.md`` and ``.html``, each whole or not at all.

    ``reports`` are the folders of the runs' reports. Raises MedsegError where the folder cannot be written.
    """
    paired = result.paired
    content = {
        "format": FORMAT,
        "runs": [{"name": name, "report": str(path)} for name, path in zip(paired.runs, reports, strict=True)],
        "unit": result.unit,
        "classes": list(paired.classes),
        "n_cases": len(paired.cases),
        "n_patients": paired.n_patients,
        "notes": list(paired.notes),
        "conclusions": list(result.conclusions),
        "ranking": asdict(result.ranking),
        "comparisons": [_record(one) for one in result.comparisons],
    }
    write_json(folder / "comparison.json", content)
    write_text(folder / "comparison.csv", as_csv(result.comparisons))
    rules = "\n".join(f"* {rule}" for rule in RULES)
    tables = "\n".join(map(as_markdown, all_tables(result)))
    write_text(folder / "comparison.md", f"## Comparison\n\n{tables}\n### Rules\n\n{rules}\n")
    write_text(folder / "comparison.html", comparison_page(result, reports))


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """Return a row a comparison; what is undefined is an empty cell, and so is the class of the mean over classes."""
    pairs = {"means": ("mean_a", "mean_b"), "interval": ("low", "high"), "missed": ("missed_a", "missed_b")}
    rows = []
    for one in comparisons:
        row: dict[str, Any] = {}
        for name, value in _record(one).items():
            if name in pairs:  # as two columns
                row |= dict(zip(pairs[name], value or ("", ""), strict=True))
            else:
                row[name] = "" if value is None else value
        rows.append(row)
    return csv_files.as_csv(list(rows[0]), rows)


def _record(one: Comparison) -> dict[str, Any]:
    """A comparison with "class" for the name of the class."""
    return {"class" if name == "name" else name: value for name, value in asdict(one).items()}
