"""The page of ``medseg inspect``: findings, tables, distributions, scans held twice, all cases, pictures, the plan."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np

from medseg.evaluation.pages.page import (
    Section,
    embedded,
    folded,
    page,
    paragraph,
    preformatted,
    section,
    side_by_side,
    table,
)
from medseg.evaluation.pages.plots import Axis, Point, Strip, figure, linear, logarithmic, some, strips
from medseg.io.segments.terminology import colour
from medseg.jobs.inspect.tables import (
    AXES,
    case_table,
    channel_name,
    counted,
    plan_table,
    short,
    tables_of,
    unit_of,
)
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
"""Of all pictures as files."""
SPREAD = 10
"""Ratio of the 95 to the 5 percentile from which on values are shown on a logarithmic axis."""


def inspect_page(
    name: str,
    numbers: Numbers,
    findings: Sequence[Issue],
    same: Sequence[SameScan],
    pictures: Mapping[str, bytes],
    plan: Numbers | None,
    config: str,
) -> str:
    """Return the page of a data set; ``numbers`` are those of ``inspect.json``, ``pictures`` WebP files by case id."""
    shown, size = {}, 0  # the first pictures, as many as a page can hold
    for case_id, content in pictures.items():
        size += len(content)
        if size <= MAX_BYTES:
            shown[case_id] = content
    anchors = {case["id"]: f"case-{index}" for index, case in enumerate(numbers["per_case"]) if case["id"] in shown}
    sections = [
        section("Findings", *finding_lists(findings, anchors)),
        section("Numbers", *map(table, tables_of("cases", numbers))),
        *distributions(numbers, anchors),
        *same_scans(same, shown, numbers),
        section("Cases", *cases(numbers, anchors)),
        *gallery(numbers, shown, anchors, len(pictures)),
        section("Plan", *([table(plan_table(plan))] if plan else [paragraph("There is no plan; see the findings.")])),
        section("Config", folded("config.yaml", preformatted(config, "config.yaml"))),
    ]
    levels = [counted(sum(f.level == level for f in findings), level) for level in ("error", "warning")]
    usable = [f"{numbers['usable']} of them usable"] if numbers["usable"] < numbers["cases"] else []
    parts = [counted(numbers["cases"], "case"), *usable, counted(numbers["groups"], "group"), *levels]
    return page(f"Data set {name}", sections, lead=paragraph(" · ".join(parts), "quiet"))


def finding_lists(findings: Sequence[Issue], anchors: Mapping[str, str]) -> Iterator[str]:
    """Yield the errors and the warnings with their cases, a list for each kind; many of a kind are folded away."""
    for level in ("error", "warning"):
        of_level = [finding for finding in findings if finding.level == level]
        if of_level:
            yield f"<h3>{counted(len(of_level), level)}</h3>"
        for kind in dict.fromkeys(finding.kind for finding in of_level):
            items = [f"<li>{finding_item(finding, anchors)}</li>" for finding in of_level if finding.kind == kind]
            html = f"<ul>{''.join(items)}</ul>"
            yield html if len(items) <= FEW else folded(f"{kind}: {len(items)}", html)
    if not findings:
        yield paragraph("Nothing was found that is wrong or odd.")


def finding_item(finding: Issue, anchors: Mapping[str, str]) -> str:
    """Return a finding with its cases, many of them folded away; those with a picture lead to it."""
    text = escape(finding.text).replace("\n", "<br>")
    if is_named(finding):
        names = [linked("picture", name, anchors) for name in finding.cases if name in anchors]
        return text + "".join(f" ({name})" for name in names)
    labels = cases_with_details(finding)
    names = [linked(label, name, anchors) for label, name in zip(labels, finding.cases, strict=True)]
    listed = ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" * (len(names) > MAX_NAMED))
    return f"{text}: {listed}" if len(names) <= FEW else text + folded(counted(len(names), "case"), f"<p>{listed}</p>")


def linked(text: str, name: str, anchors: Mapping[str, str]) -> str:
    """Return text that leads to a case's picture, where there is one."""
    return f'<a href="#{anchors[name]}">{escape(text)}</a>' if name in anchors else escape(text)


def distributions(numbers: Numbers, anchors: Mapping[str, str]) -> list[Section]:
    """Return strip plots over the cases: sizes of classes, intensities, shapes and spacings."""
    known = [case for case in numbers["per_case"] if "shape" in case]
    if not known:
        return []
    masks, unit = numbers["masks"], unit_of(numbers)
    sizes = {name: [(case["sizes"][name], case["id"]) for case in known if case["sizes"][name]] for name in masks}
    axis = fitting(unit, [value for pairs in sizes.values() for value, _ in pairs])
    parts = [
        strip_of(name, f"in {len(pairs)} of {len(known)}", pairs, len(sizes), unit, anchors)
        for name, pairs in sizes.items()
    ]
    plots = [plot_of("Size of each class", parts, axis)]
    titles = {1: "0.5 %", 2: "50 %", 3: "99.5 %"}  # by the index in a case's intensities
    for index, channel in enumerate(numbers["channels"]):
        strips = {
            title: [(case["intensities"][index][at], case["id"]) for case in known] for at, title in titles.items()
        }
        axis = fitting("intensity", [value for pairs in strips.values() for value, _ in pairs])
        parts = [strip_of(title, "", pairs, len(titles), "", anchors) for title, pairs in strips.items()]
        plots.append(plot_of(f"Percentiles of channel {channel_name(index, channel)}", parts, axis))
    axes = AXES[numbers["unit"], numbers["spatial_dims"]]
    keys = {"shape": "voxels", "spacing": "mm"} if numbers["unit"] == "mm" else {"shape": "pixels"}
    for key, step in keys.items():
        strips = {name: [(case[key][index], case["id"]) for case in known] for index, name in enumerate(axes)}
        axis = linear(step, [value for pairs in strips.values() for value, _ in pairs], least=0)
        parts = [strip_of(name, "", pairs, len(axes), step, {}) for name, pairs in strips.items()]
        plots.append(plot_of(key.capitalize(), parts, axis))
    note = "A box from quartile to quartile with the median, whiskers of 1.5 times its length, and the cases."
    return [section("Distributions", paragraph(note, "note"), side_by_side(plots))]


def fitting(title: str, values: Sequence[float]) -> Axis:
    """Return an axis that holds the values, logarithmic where they are positive and spread by factors."""
    is_wide = bool(values) and min(values) > 0 and np.quantile(values, 0.95) > SPREAD * np.quantile(values, 0.05)
    return logarithmic(title, values) if is_wide else linear(title, values)


def strip_of(
    name: str, note: str, pairs: Sequence[tuple[float, str]], n_strips: int, unit: str, anchors: Mapping[str, str]
) -> Strip:
    """Return a strip of values with their cases, not too many of them drawn; the others count in the box."""
    points = [
        Point(value, name=f"{case}: {short(value)} {unit}".strip(), link=f"#{anchors[case]}" if case in anchors else "")
        for value, case in pairs
    ]
    most = min(300, max(MIN_POINTS, MAX_POINTS // n_strips))
    return Strip(name, note, [value for value, _ in pairs], some(points, most))


def plot_of(caption: str, parts: Sequence[Strip], axis: Axis) -> str:
    """Return a strip plot under its caption, described in words."""
    medians = (f"{part.name}: {short(sorted(part.values)[len(part.values) // 2])}" for part in parts if part.values)
    return figure(caption, strips(parts, axis, caption, f"Medians in {axis.title}: {'; '.join(medians)}."))


def same_scans(same: Sequence[SameScan], pictures: Mapping[str, bytes], numbers: Numbers) -> list[Section]:
    """Return the scans that are held twice, side by side where their pictures are there."""
    if not same:
        return []
    part_of = {case["id"]: case["part"] for case in numbers["per_case"]}
    pairs = [pair for pair in same if all(name in pictures for name in pair.cases)]
    shown = [
        f"<h3>{escape(' = '.join(pair.cases))}</h3>{paragraph(pair.reason, 'note')}"
        + side_by_side(picture(name, part_of[name] or "unused", pictures[name]) for name in pair.cases)
        for pair in pairs
    ]
    rest = f"; {len(pairs)} of them are shown" if len(pairs) < len(same) else ""
    text = f"{counted(len(same), 'scan')} held more than once, surely or probably{rest}. A split must not part them."
    return [section("Same scans", paragraph(text), *shown[:1], *([folded("all", *shown[1:])] if shown[1:] else []))]


def cases(numbers: Numbers, anchors: Mapping[str, str]) -> Iterator[str]:
    """Yield the table of cases, those with findings first where there are too many."""
    rows = numbers["per_case"]
    if len(rows) > MAX_ROWS:
        yield paragraph(f"{MAX_ROWS} of {len(rows)} cases; inspect.json has all of them.", "note")
        rows = sorted(rows, key=lambda case: not case["findings"])[:MAX_ROWS]
    links = [f"#{anchors[case['id']]}" if case["id"] in anchors else "" for case in rows]
    yield table(case_table({**numbers, "per_case": rows}), is_sortable=True, is_filterable=True, links=links)


def gallery(
    numbers: Numbers, pictures: Mapping[str, bytes], anchors: Mapping[str, str], drawn: int
) -> Iterator[Section]:
    """Yield the pictures of cases."""
    if not pictures:
        return
    rest = f", {drawn - len(pictures)} more would make this page too large" if len(pictures) < drawn else ""
    text = (
        f"{len(pictures)} of {counted(numbers['cases'], 'case')}, evenly chosen and those with findings{rest}. Slices "
        "go through the largest part of the mask, or of what was found, which is in white rings."
    )
    shown = [
        picture(case["id"], ", ".join(case["findings"]), pictures[case["id"]], anchors[case["id"]])
        for case in numbers["per_case"]
        if case["id"] in pictures
    ]
    yield section("Pictures", paragraph(text, "note"), legend([*numbers["masks"]]), side_by_side(shown))


def legend(names: Sequence[str]) -> str:
    """Return the colours of the classes 1, 2, … in the pictures."""
    squares = (
        f'<svg width="14" height="14" aria-hidden="true"><rect width="14" height="14" fill="rgb{colour(index)}"/></svg>'
        for index in range(1, len(names) + 1)
    )
    items = (f"<li>{square}{escape(name)}</li>" for square, name in zip(squares, names, strict=True))
    return f'<ul class="legend">{"".join(items)}</ul>'


def picture(name: str, note: str, content: bytes, anchor: str = "") -> str:
    """Return a picture with its case's name."""
    small = f"<small>{escape(note)}</small>" if note else ""
    image = embedded(content, f"{name} with its mask")
    identity = f' id="{anchor}" tabindex="-1"' if anchor else ""
    return f"<figure{identity}><figcaption>{escape(name)}{small}</figcaption>{image}</figure>"
