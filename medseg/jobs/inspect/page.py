"""The page of ``medseg inspect``: findings, tables, distributions, scans held twice, all cases, pictures, the plan."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medseg.evaluation.pages.page import Picture, render
from medseg.evaluation.pages.plots import Axis, Point, Strip, StripPlot, linear, logarithmic, some
from medseg.evaluation.pages.text_table import counted
from medseg.io.segments.terminology import colour
from medseg.jobs.inspect.tables import AXES, case_table, channel_name, plan_table, short, tables_of, unit_of
from medseg.preprocessing.fingerprint.duplicates import SameScan
from medseg.preprocessing.quality.issues import Issue, cases_with_details, is_named
from medseg.preprocessing.quality.overview import Numbers

FEW = 12
"""Findings of a kind, and cases of a finding, that are shown at once; more are folded away."""
MAX_NAMED = 500
MAX_ROWS = 3000
MAX_POINTS, MIN_POINTS = 6000, 20
"""Points of all strips of a plot, and of one strip at least."""
MAX_BYTES = 3_000_000
"""Of all thumbnails as files."""
SPREAD = 10
"""Ratio of the 95 to the 5 percentile from which on values are shown on a logarithmic axis."""


class Finding(NamedTuple):
    """A finding with its cases, and the address of each one's picture ("": none); ``is_named``: the text names them."""

    text: str
    cases: list[tuple[str, str]]
    is_named: bool


class Thumbnail(NamedTuple):
    """A small picture of a case with a note, and where it is found on the page ("": not linked to)."""

    name: str
    note: str
    picture: Picture
    anchor: str = ""


class Pair(NamedTuple):
    """Cases that are one scan, and why that is thought."""

    names: Sequence[str]
    reason: str
    thumbnails: list[Thumbnail]


def inspect_page(
    name: str,
    numbers: Numbers,
    findings: Sequence[Issue],
    same: Sequence[SameScan],
    thumbnails: Mapping[str, bytes],
    plan: Numbers | None,
    config: str,
) -> str:
    """Return the page of a data set; ``numbers`` are those of ``inspect.json``, ``thumbnails`` WebP files by case."""
    shown, size = {}, 0  # the first thumbnails, as many as a page can hold
    for case_id, content in thumbnails.items():
        size += len(content)
        if size <= MAX_BYTES:
            shown[case_id] = Picture.of(content)
    rows = numbers["per_case"]
    anchors = {case["id"]: f"case-{index}" for index, case in enumerate(rows) if case["id"] in shown}
    links = {case_id: f"#{anchor}" for case_id, anchor in anchors.items()}

    by_level: dict[str, dict[str, list[Finding]]] = {}
    for level in ("error", "warning"):
        of_level = [finding for finding in findings if finding.level == level]
        for finding in of_level:
            labels = finding.cases if is_named(finding) else cases_with_details(finding)
            cases = [(label, links.get(case, "")) for label, case in zip(labels, finding.cases, strict=True)]
            of_kind = by_level.setdefault(counted(len(of_level), level), {}).setdefault(finding.kind, [])
            of_kind.append(Finding(finding.text, cases, is_named(finding)))

    subsets = {case["id"]: case["part"] or "unused" for case in rows}
    shown_pairs = [pair for pair in same if all(case in shown for case in pair.cases)]
    pairs = [
        Pair(pair.cases, pair.reason, [Thumbnail(case, subsets[case], shown[case]) for case in pair.cases])
        for pair in shown_pairs
    ]
    rest = f"; {len(shown_pairs)} of them are shown" if len(shown_pairs) < len(same) else ""
    same_scans = f"{counted(len(same), 'scan')} held more than once, certainly or probably{rest}." if same else ""

    # of too many cases those with findings come first
    listed = rows if len(rows) <= MAX_ROWS else sorted(rows, key=lambda case: not case["findings"])[:MAX_ROWS]
    n_cases = counted(numbers["cases"], "case")
    usable = [f"{numbers['usable']} of them usable"] if numbers["usable"] < numbers["cases"] else []
    levels = [counted(sum(f.level == level for f in findings), level) for level in ("error", "warning")]
    too_large = (
        f", {len(thumbnails) - len(shown)} more would make this page too large" if len(shown) < len(thumbnails) else ""
    )
    return render(
        "jobs/inspect/inspect.html",
        title=f"Data set {name}",
        facts=[n_cases, *usable, counted(numbers["groups"], "group"), *levels],
        findings=by_level,
        few=FEW,
        most_named=MAX_NAMED,
        tables=tables_of("cases", numbers),
        plots=distributions(numbers, links),
        same_scans=same_scans,
        pairs=pairs,
        cases=case_table({**numbers, "per_case": listed}),
        case_links=[links.get(case["id"], "") for case in listed],
        n_rows_left_out=len(rows) - len(listed),
        thumbnails=[
            Thumbnail(case["id"], ", ".join(case["findings"]), shown[case["id"]], anchors[case["id"]])
            for case in rows
            if case["id"] in shown
        ],
        selection=f"{len(shown)} of {n_cases}, evenly chosen and those with findings{too_large}.",
        colours={name: colour(index) for index, name in enumerate(numbers.get("masks", {}), 1)},
        plan=plan_table(plan) if plan else None,
        config=config,
    )


def distributions(numbers: Numbers, links: Mapping[str, str]) -> list[StripPlot]:
    """Return strip plots over the cases: sizes of classes, intensities, shapes and spacings.

    ``links`` are the addresses of the cases' pictures.
    """
    known = [case for case in numbers["per_case"] if "shape" in case]
    if not known:
        return []
    unit = unit_of(numbers)
    sizes = {
        name: [(case["sizes"][name], case["id"]) for case in known if case["sizes"][name]] for name in numbers["masks"]
    }
    notes = {name: f"in {len(pairs)} of {len(known)}" for name, pairs in sizes.items()}
    plots = [strip_plot("Size of each class", fitting(unit, sizes), sizes, unit, links, notes)]
    titles = {1: "0.5 %", 2: "50 %", 3: "99.5 %"}  # by the index in a case's intensities
    for index, channel in enumerate(numbers["channels"]):
        strips = {
            title: [(case["intensities"][index][at], case["id"]) for case in known] for at, title in titles.items()
        }
        caption = f"Percentiles of channel {channel_name(index, channel)}"
        plots.append(strip_plot(caption, fitting("intensity", strips), strips, "", links))
    keys = {"shape": "voxels", "spacing": "mm"} if numbers["unit"] == "mm" else {"shape": "pixels"}
    for key, step in keys.items():
        axes = AXES[numbers["unit"], numbers["spatial_dims"]]
        strips = {name: [(case[key][index], case["id"]) for case in known] for index, name in enumerate(axes)}
        axis = linear(step, [value for pairs in strips.values() for value, _ in pairs], least=0)
        plots.append(strip_plot(key.capitalize(), axis, strips, step, {}))
    return plots


Pairs = Sequence[tuple[float, str]]
"""Values, each with the id of its case."""


def fitting(title: str, strips: Mapping[str, Pairs]) -> Axis:
    """Return an axis that holds the values, logarithmic where they are positive and spread by factors."""
    values = [value for pairs in strips.values() for value, _ in pairs]
    is_wide = bool(values) and min(values) > 0 and np.quantile(values, 0.95) > SPREAD * np.quantile(values, 0.05)
    return logarithmic(title, values) if is_wide else linear(title, values)


def strip_plot(
    caption: str,
    axis: Axis,
    strips: Mapping[str, Pairs],
    unit: str,
    links: Mapping[str, str],
    notes: Mapping[str, str] | None = None,
) -> StripPlot:
    """Return a plot of values with their cases, not too many of them drawn; the others count in the boxes."""
    most = min(300, max(MIN_POINTS, MAX_POINTS // max(1, len(strips))))
    drawn, medians = [], []
    for name, pairs in strips.items():
        points = [
            Point(value, 0, f"{case}: {short(value)} {unit}".strip(), links.get(case, "")) for value, case in pairs
        ]
        values = [value for value, _ in pairs]
        drawn.append(Strip(name, (notes or {}).get(name, ""), values, some(points, most)))
        medians += [f"{name}: {short(sorted(values)[len(values) // 2])}"] if values else []
    words = f"Medians in {axis.title}: {'; '.join(medians)}."
    return StripPlot(caption=caption, title=caption, description=words, x=axis, strips=drawn)
