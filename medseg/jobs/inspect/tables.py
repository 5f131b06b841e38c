"""What ``medseg inspect`` shows, as tables of text for the terminal and the page: every number is written here."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medseg.config.check import dotted
from medseg.evaluation.pages.text_table import NONE, TextTable, counted, print_tables
from medseg.preprocessing.quality.issues import Issue, on_a_line
from medseg.preprocessing.quality.overview import Numbers

AXES = {("mm", 3): ("right", "front", "head"), ("mm", 2): ("right", "front"), ("px", 2): ("row", "column")}
"""Network axes: where they run to."""
RANGE = ("min", "median", "max")


def show(console: Console, name: str, numbers: Numbers, findings: Sequence[Issue], plan: Numbers | None) -> None:
    """Print the tables of a data set, the plan and everything found."""
    print_tables(tables_of(name, numbers), console)
    if plan:
        table = Table(title="plan", box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")  # values may be long
        for row in plan_table(plan).rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for level, style in (("error", "bold red"), ("warning", "yellow")):
        of_level = [finding for finding in findings if finding.level == level]
        console.print(f"\n{counted(len(of_level), level)}", style=style if of_level else None)
        for finding in of_level:
            console.print(f"  - {on_a_line(finding)}", markup=False, highlight=False, soft_wrap=True)


def tables_of(name: str, numbers: Numbers) -> Iterator[TextTable]:
    """Yield the tables of a data set: cases, and where any can be used grids, intensities, classes and masks."""
    rows = [["all", str(numbers["cases"]), str(numbers["groups"])]]
    if numbers["usable"] < numbers["cases"]:
        rows.append(["usable", str(numbers["usable"]), ""])
    rows += [[subset, str(size["cases"]), str(size["groups"])] for subset, size in (numbers["split"] or {}).items()]
    yield TextTable(name, ("subset", "cases", "groups"), rows)
    if "shape" not in numbers:
        return

    # shape and spacing along each network axis
    in_mm = numbers["unit"] == "mm"
    keys = ("shape", "spacing") if in_mm else ("shape",)
    rows = [
        [axis, *(short(numbers[key][word][index]) for key in keys for word in RANGE)]
        for index, axis in enumerate(AXES[numbers["unit"], numbers["spatial_dims"]])
    ]
    title = "grid: shape in voxels, spacing in mm" if in_mm else "grid: shape in pixels"
    headers = [header for key in keys for header in (f"{key} {RANGE[0]}", *RANGE[1:])]
    yield TextTable(title, ("axis to" if in_mm else "axis", *headers), rows)

    # intensities of each channel, and how their percentiles differ between the cases
    channels = [(channel_name(index, channel), channel) for index, channel in enumerate(numbers["channels"])]
    words = ("min", "low", "median", "high", "max")
    rows = [
        [named, channel["modality"] or "unknown", *(short(channel[word]) for word in words)]
        for named, channel in channels
    ]
    note = "percentiles are of a case's voxels, and here the medians over the cases"
    yield TextTable("channels", ("channel", "modality", "min", "0.5 %", "50 %", "99.5 %", "max"), rows, [note])
    percentiles = {"low": "0.5 %", "median": "50 %", "high": "99.5 %"}
    rows = [
        [named, percentile, *(short(channel["over_cases"][word][each]) for each in RANGE)]
        for named, channel in channels
        for word, percentile in percentiles.items()
    ]
    yield TextTable("intensities over the cases", ("channel", "percentile", *RANGE), rows)

    # in how many cases each class is, and how large it is there
    rows = []
    for class_name, of_class in numbers["classes"].items():
        value = "region" if of_class["is_region"] else value_text(numbers["labels"][class_name])
        sizes = (short(of_class["volume"][word]) if of_class["volume"] else NONE for word in RANGE)
        rows.append([class_name, value, f"{of_class['n_present']} of {of_class['n_known']}", *sizes])
    headers = ["class", "value", "in cases", *(f"{word} {unit_of(numbers)}" for word in RANGE)]
    yield TextTable("classes", headers, rows)

    # the connected components of each class's masks
    rows = [
        [
            class_name,
            *(short(mask["components"][word]) if mask["components"] else NONE for word in RANGE),
            f"≤ {mask['speck']}",
            in_cases(mask["specks"]["n"], mask["specks"]["n_cases"]),
            in_cases(mask["outside"]["voxels"], mask["outside"]["n_cases"]),
        ]
        for class_name, mask in numbers["masks"].items()
    ]
    unit = "voxels" if numbers["spatial_dims"] == 3 else "pixels"
    headers = ["class", f"components {RANGE[0]}", *RANGE[1:], f"speck {unit}", "specks", f"outside {unit}"]
    note = "specks: small components beside a much larger one; outside: in the air around the body"
    yield TextTable("masks", headers, rows, [note])


def channel_name(index: int, channel: Numbers) -> str:
    """Return a channel's name, or its index."""
    return channel["name"] or str(index)


def unit_of(numbers: Numbers) -> str:
    """Return the unit of the sizes of classes."""
    return "ml" if numbers["unit"] == "mm" else "pixels"


def in_cases(number: int, cases: int) -> str:
    """Write how many there are of something, and in how many cases.

    >>> in_cases(12, 3), in_cases(0, 0)
    ('12 (3 cases)', '0')
    """
    return f"{number} ({counted(cases, 'case')})" if number else "0"


def plan_table(plan: Numbers) -> TextTable:
    """Return the plan that ``train`` would use."""
    rows = [[key, value_text(value)] for key, value in dotted(plan) if not isinstance(value, dict)]
    return TextTable("plan", ("key", "value"), rows)


def case_table(numbers: Numbers) -> TextTable:
    """Return a row a case; what cannot be read has no numbers."""
    classes, unit = [*numbers.get("masks", {})], unit_of(numbers) if "unit" in numbers else ""
    times = "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}"
    rows = []
    for case in numbers["per_case"]:
        sizes = [short(case["sizes"][name]) if "sizes" in case else NONE for name in classes]
        grid = [times.join(map(short, case[key])) if "shape" in case else NONE for key in ("shape", "spacing")]
        middle = [short(channel[2]) for channel in case.get("intensities", [])] or [NONE]
        name = [case["id"], case["group"], case["part"] or NONE, ", ".join(case["findings"])]
        rows.append([*name, *grid, " ".join(middle), *sizes])
    headers = ["case", "group", "subset", "findings", "shape", "spacing", "median value"]
    headers += [f"{name} {unit}" for name in classes]
    return TextTable("all cases", headers, rows)


def value_text(value: Any) -> str:
    """Write a value as on the command line, numbers to six digits."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def short(number: float) -> str:
    """Write a number to four digits, larger ones whole.

    >>> short(0.123456), short(36.0), short(123456.7)
    ('0.1235', '36', '123457')
    """
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"
