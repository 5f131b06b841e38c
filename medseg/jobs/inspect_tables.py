"""What ``medseg inspect`` shows: tables for a terminal of 80 columns, the same as plain text in a pipe."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medseg.preprocessing.overview import Numbers
from medseg.preprocessing.survey import Finding

AXES = {("mm", 3): ("right", "front", "head"), ("mm", 2): ("right", "front"), ("px", 2): ("row", "column")}
"""Network axes: where they run to."""
RANGE = ("min", "median", "max")


def show(console: Console, name: str, numbers: Numbers, findings: Sequence[Finding], plan: Numbers | None) -> None:
    """Print the tables of a data set, the plan and everything found."""
    console.print(data_table(name, numbers))
    if "shape" in numbers:
        console.print(grid_table(numbers))
        console.print(channel_table(numbers["channels"]))
        console.print(class_table(numbers))
    if plan:
        console.print(plan_table(plan))
    for level, style in (("error", "bold red"), ("warning", "yellow")):
        found = [finding for finding in findings if finding.level == level]
        console.print(f"\n{len(found)} {level}{'s' if len(found) != 1 else ''}", style=style if found else None)
        for finding in found:
            console.print(f"  - {written(finding)}", markup=False, highlight=False, soft_wrap=True)


def data_table(name: str, numbers: Numbers) -> Table:
    """Show how many cases and groups there are, in all and in each part of the split."""
    table = new_table(name, ("", "cases", "groups"))
    table.add_row("all", str(numbers["cases"]), str(numbers["groups"]))
    if numbers["usable"] < numbers["cases"]:
        table.add_row("usable", str(numbers["usable"]), "")
    for part, size in (numbers["split"] or {}).items():
        table.add_row(part, str(size["cases"]), str(size["groups"]))
    return table


def grid_table(numbers: Numbers) -> Table:
    """Show shape and spacing along each network axis."""
    in_mm = numbers["unit"] == "mm"
    title = "grid: shape in voxels, spacing in mm" if in_mm else "grid: shape in pixels"
    spacing = [f"spacing {RANGE[0]}", *RANGE[1:]] if in_mm else []
    table = new_table(title, ("axis to" if in_mm else "axis", f"shape {RANGE[0]}", *RANGE[1:], *spacing))
    for place, axis in enumerate(AXES[numbers["unit"], numbers["spatial_dims"]]):
        steps = (short(numbers["spacing"][word][place]) for word in RANGE if in_mm)
        table.add_row(axis, *(short(numbers["shape"][word][place]) for word in RANGE), *steps)
    return table


def channel_table(channels: Sequence[Numbers]) -> Table:
    """Show name, modality and intensities of each channel."""
    table = new_table("channels", ("", "modality", "min", "0.5 %", "median", "99.5 %", "max"))
    for place, channel in enumerate(channels):
        values = (short(channel[word]) for word in ("min", "low", "median", "high", "max"))
        table.add_row(escape(channel["name"] or str(place)), channel["modality"] or "unknown", *values)
    return table


def class_table(numbers: Numbers) -> Table:
    """Show in how many cases each class is, and how large it is there."""
    unit = "ml" if numbers["unit"] == "mm" else "pixels"
    table = new_table("classes", ("", "value", "in cases", *(f"{word} {unit}" for word in RANGE)))
    for name, found in numbers["classes"].items():
        value = "region" if found["is_region"] else value_text(numbers["labels"][name])
        sizes = (short(found["volume"][word]) if found["volume"] else "-" for word in RANGE)
        table.add_row(escape(name), value, f"{found['n_present']} of {found['n_known']}", *sizes)
    return table


def plan_table(plan: Numbers) -> Table:
    """Show the plan that ``train`` would use."""
    table = Table(title="plan", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for path, value in leaves(plan):
        table.add_row(path, escape(value_text(value)))
    return table


def new_table(title: str, headers: Iterable[str]) -> Table:
    """Return an empty table: the first column names, the others hold numbers."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place else "left", overflow="fold", min_width=3)
    return table


def leaves(node: Numbers, path: str = "") -> Iterable[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings, in the config's own terms."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


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


def written(finding: Finding) -> str:
    """Write a finding on one line, with every case that its text does not name."""
    if not finding.cases or (len(finding.cases) == 1 and finding.cases[0] in finding.text):
        return finding.text
    return f"{finding.text}: {', '.join(finding.cases)}"
