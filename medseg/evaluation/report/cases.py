"""The cases of a report: a table of all, pictures of some, and what is shown when a case is opened."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from math import isnan
from pathlib import Path

from medseg.evaluation.report.page import paragraph, picture, table
from medseg.evaluation.report.tables import NONE, TextTable, number, titled
from medseg.evaluation.statistics.cases import ScoredCase, ranked
from medseg.evaluation.statistics.summary import Summary
from medseg.system.file_names import file_names

SCRIPT = Path(__file__).with_name("cases.js")
COLUMNS = 12
"""Classes that have a column of their own in the table of cases; of more the lowest Dice is named."""
CELLS = 250_000
"""Values kept for opening cases, about 7 bytes each; of more, the first metrics or none."""
PICTURES = 9
SIDE = 1000
"""Pictures in a report, and the longer side of each in pixels."""


def overlay_files(folder: Path, cases: Iterable[str]) -> dict[str, Path]:
    """Return where the overlay of each case of the report in ``folder`` is, by id; all its cases must be given."""
    return {case: folder / "overlays" / f"{name}.png" for case, name in file_names(cases).items()}


def pictures(cases: Sequence[ScoredCase], folder: Path) -> list[str]:
    """Return the overlays that a report's folder has, the worst case first, with what they show in words."""
    order, files = ranked(cases), overlay_files(folder, (case.id for case in cases))
    places = {case.id: place for place, case in enumerate(cases)}
    drawn = [case for case in order if files[case.id].is_file()]
    shown = (
        drawn
        if len(drawn) <= PICTURES
        else [drawn[place * (len(drawn) - 1) // (PICTURES - 1)] for place in range(PICTURES)]
    )
    figures = [_figure(case, _rank(order.index(case), len(order)), places[case.id], files[case.id]) for case in shown]
    more = [paragraph(f"{len(drawn) - len(shown)} more pictures are in the folder overlays.", "note")]
    return [*figures, *(more if len(drawn) > len(shown) else [])]


def case_table(cases: Sequence[ScoredCase], summary: Summary) -> str:
    """Return the table of all cases: what the data set's table says of them, and their Dice."""
    names = list(summary["classes"])
    has_groups = any(case.group != case.id for case in cases)
    further = list(cases[0].further) if cases else []
    classes = names if len(names) <= COLUMNS else ["lowest", "of class"]
    headers = ["case", *["group"] * has_groups, *further, "mean", *classes]
    rows = [
        [
            case.id,
            *[case.group] * has_groups,
            *case.further.values(),
            number(case.dice, "dice"),
            *(_by_class(case, names) if len(names) <= COLUMNS else _lowest(case)),
        ]
        for case in cases
    ]
    links = [f"#case-{place}" for place in range(len(cases))]
    return table(TextTable("Dice by case", headers, rows), is_sortable=True, is_filterable=True, links=links)


def case_data(cases: Sequence[ScoredCase], summary: Summary) -> str:
    """Return what the page's script shows of a case that is opened: every metric of every class."""
    metrics = summary["settings"]["names"]
    sizes = ["truth_ml", "predicted_ml"] if summary["unit"] == "mm" else ["truth_voxels", "predicted_voxels"]
    columns = [*metrics, *sizes][: CELLS // max(1, len(cases) * len(summary["classes"]))]
    unit = "ml" if summary["unit"] == "mm" else "px"
    titles = {sizes[0]: f"true size ({unit})", sizes[1]: f"predicted size ({unit})"}
    content = {
        "columns": [titles.get(column) or titled(column, summary["unit"]) for column in columns],
        "classes": list(summary["classes"]),
        "isPart": len(columns) < len(metrics) + len(sizes),
        "cases": [
            {
                "id": case.id,
                "facts": {"group": case.group, "mean Dice": number(case.dice, "dice"), **case.further},
                "values": ["\t".join(_cell(case, name, column) for column in columns) for name in summary["classes"]],
            }
            for case in cases
        ],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="case-data">{text}</script>'


def _rank(place: int, number: int) -> str:
    if place == 0:
        return "Worst case"
    if place == number - 1:
        return "Best case"
    return "Median case" if abs(place - (number - 1) / 2) <= 0.5 else f"Case {place + 1} of {number} from the worst"


def _figure(case: ScoredCase, rank: str, place: int, file: Path) -> str:
    scores = sorted((case.value(name, "dice"), name) for name in case.classes if not isnan(case.value(name, "dice")))
    told = ", ".join(f"{name} {number(value, 'dice')}" for value, name in scores[:COLUMNS])
    told += f" and {len(scores) - COLUMNS} better ones" if len(scores) > COLUMNS else ""
    text = f"Overlay of {case.id}: the prediction filled in colours, the truth as a dashed white contour. Dice: {told}"
    link = f'<a href="#case-{place}">{escape(case.id)}</a>'
    caption = f"{rank}: {link}<small>mean Dice {number(case.dice, 'dice')}; {escape(told)}</small>"
    image = picture(file, SIDE, text)
    return f'<figure data-case="{place}"><figcaption>{caption}</figcaption>\n{image}</figure>'


def _by_class(case: ScoredCase, names: Sequence[str]) -> list[str]:
    return [number(case.value(name, "dice"), "dice") for name in names]


def _lowest(case: ScoredCase) -> list[str]:
    scores = [(case.value(name, "dice"), name) for name in case.classes]
    value, name = min(((value, name) for value, name in scores if not isnan(value)), default=(None, NONE))
    return [number(value, "dice"), name]


def _cell(case: ScoredCase, name: str, column: str) -> str:
    value = case.value(name, column)
    if column.endswith("_voxels"):
        return NONE if isnan(value) else f"{value:.0f}"
    return number(value, "volume_difference" if column.endswith("_ml") else column)
