"""The cases of a report: a table of all, pictures and slices of some, and what is shown when a case is opened."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

from medseg.evaluation.images.views import View
from medseg.evaluation.pages.page import Picture
from medseg.evaluation.pages.text_table import NONE, TextTable
from medseg.evaluation.report.tables import number, titled
from medseg.evaluation.statistics.cases import ScoredCase, ranked
from medseg.evaluation.statistics.sampling import evenly
from medseg.evaluation.statistics.summary import Summary
from medseg.system.file_names import file_names

COLUMNS = 12
"""Classes that have a column of their own in the table of cases; of more the lowest Dice is named."""
CELLS = 250_000
"""Values kept for opening cases, about 7 bytes each; of more, the first metrics or none."""
EXAMPLES = 9
SIDE = 1000
"""Overlays in a report, and the longer side of each in pixels."""


@dataclass(frozen=True)
class Example:
    """A case that is shown with its overlay; ``index`` is that of the case in the report."""

    case: ScoredCase
    index: int
    position: str
    mean_dice: str
    dice: str
    picture: Picture


def overlay_files(folder: Path, cases: Iterable[str]) -> dict[str, Path]:
    """Return the path of the overlay of each case of the report in ``folder``, by id; all its cases must be given."""
    return {case: folder / "overlays" / f"{name}.png" for case, name in file_names(cases).items()}


def examples(cases: Sequence[ScoredCase], folder: Path) -> tuple[list[Example], int]:
    """Return the cases of which a report's folder has overlays, the worst first, and how many are left out."""
    order, files = ranked(cases), overlay_files(folder, (case.id for case in cases))
    indices = {case.id: index for index, case in enumerate(cases)}
    with_overlay = [(rank, case) for rank, case in enumerate(order) if files[case.id].is_file()]
    shown = [with_overlay[index] for index in evenly(len(with_overlay), EXAMPLES)]
    chosen = []
    for rank, case in shown:
        position, picture = position_of(rank, len(order)), Picture.shrunk(files[case.id], (SIDE, SIDE))
        chosen.append(Example(case, indices[case.id], position, number(case.dice, "dice"), by_class(case), picture))
    return chosen, len(with_overlay) - len(shown)


def position_of(rank: int, n: int) -> str:
    """Return which case that of a rank, from 0 for the worst, is among ``n``."""
    if n == 1:
        return "The only case"
    if rank in (0, n - 1):
        return "Best case" if rank else "Worst case"
    return "Median case" if abs(rank - (n - 1) / 2) <= 0.5 else f"Case {rank + 1} of {n} from the worst"


def by_class(case: ScoredCase) -> str:
    """Return the Dice of a case's classes in a line, the lowest first."""
    scores = case.lowest_first
    dice = ", ".join(f"{name} {number(value, 'dice')}" for value, name in scores[:COLUMNS])
    return dice + (f" and {len(scores) - COLUMNS} better ones" if len(scores) > COLUMNS else "")


def answers(cases: Sequence[ScoredCase], summary: Summary) -> dict[str, tuple[str, str, str]]:
    """Return the worst class and the worst case: of each its name, the address of more, and its Dice in words."""
    worst: dict[str, tuple[str, str, str]] = {}
    dice = {name: of["dice"] for name, of in summary["classes"].items() if of["dice"]["n"]}
    if len(dice) > 1:
        name = min(dice, key=lambda each: float(dice[each]["mean"]))
        mean, median = (number(dice[name][key], "dice") for key in ("mean", "median"))
        worst["Worst class"] = (name, "#by-class", f"Dice {mean}, median {median}")
    if len(order := ranked(cases)) > 1:
        case = order[0]
        words = f"mean Dice {number(case.dice, 'dice')}" + (f": {by_class(case)}" if len(dice) > 1 else "")
        worst["Worst case"] = (case.id, f"#case-{cases.index(case)}", words)
    return worst


def view_data(views: Sequence[View], cases: Sequence[ScoredCase]) -> list[dict[str, Any]]:
    """Return what the slice viewer shows of each case."""
    order = ranked(cases)
    ranks = {case.id: rank for rank, case in enumerate(order)}
    return [
        {
            "case": view.case,
            "position": position_of(ranks[view.case], len(order)),
            "dice": f"Dice {number(order[ranks[view.case]].dice, 'dice')}",
            "isVolume": view.is_volume,
            "shape": view.shape,
            "spacing": view.spacing,
            "start": view.start,
            "columns": view.columns,
            "channels": [vars(channel) | {"slices": channel.slices.source} for channel in view.channels],
            "masks": view.masks.source,
            "classes": {index: {"name": name, "colour": fill} for index, (name, fill) in view.classes.items()},
            "note": view.note,
        }
        for view in views
    ]


def case_table(cases: Sequence[ScoredCase], summary: Summary) -> TextTable:
    """Return the table of all cases: what the data set's table says of them, and their Dice."""
    names = list(summary["classes"])
    has_groups = any(case.group != case.id for case in cases)
    further = list(cases[0].further) if cases else []
    headers = ["case", *["group"] * has_groups, *further, "mean"]
    headers += names if len(names) <= COLUMNS else ["lowest", "of class"]
    rows = []
    for case in cases:
        row = [case.id, *[case.group] * has_groups, *case.further.values(), number(case.dice, "dice")]
        if len(names) <= COLUMNS:
            row += [number(case.value(name, "dice"), "dice") for name in names]
        else:
            lowest, name = (case.lowest_first or [(nan, NONE)])[0]
            row += [number(lowest, "dice"), name]
        rows.append(row)
    return TextTable("Dice by case", headers, rows)


def case_data(cases: Sequence[ScoredCase], summary: Summary) -> dict[str, Any]:
    """Return what the page's script shows of a case that is opened: every metric of every class."""
    metrics = summary["settings"]["names"]
    sizes = ["truth_ml", "predicted_ml"] if summary["unit"] == "mm" else ["truth_voxels", "predicted_voxels"]
    columns = [*metrics, *sizes][: CELLS // max(1, len(cases) * len(summary["classes"]))]
    unit = "ml" if summary["unit"] == "mm" else "px"
    titles = {sizes[0]: f"true size ({unit})", sizes[1]: f"predicted size ({unit})"}

    def cell(case: ScoredCase, name: str, column: str) -> str:
        value = case.value(name, column)
        if column.endswith("_voxels"):
            return NONE if isnan(value) else f"{value:.0f}"
        return number(value, "volume_difference" if column.endswith("_ml") else column)

    return {
        "columns": [titles.get(column) or titled(column, summary["unit"]) for column in columns],
        "classes": list(summary["classes"]),
        "isPart": len(columns) < len(metrics) + len(sizes),
        "cases": [
            {
                "id": case.id,
                "facts": {"group": case.group, "mean Dice": number(case.dice, "dice"), **case.further},
                "values": ["\t".join(cell(case, name, column) for column in columns) for name in summary["classes"]],
            }
            for case in cases
        ],
    }
