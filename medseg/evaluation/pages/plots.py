"""Plots as SVG, drawn in percent of the width there is, so that text and dots keep their size on a phone.

Colours come from the page's style, which knows dark mode and print. Each plot has a title and a description for those
who do not see it. Points may name themselves when pointed at, and lead somewhere.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

STRIP = 48
"""Height of one strip of a strip plot, and of other plots, in px."""
HEIGHT = 230
JITTER = (0, 5, -4, 3, -6, 6, -2, 4, -5, 1)
"""By how many px neighbouring points are moved apart."""
SERIES = 6
"""Lines that can be told apart by colour and dashes."""


class Point(NamedTuple):
    """A point of a plot: what it is called, and where it leads ("": nowhere)."""

    x: float
    y: float = 0.0
    name: str = ""
    link: str = ""


class Strip(NamedTuple):
    """Values of one class along x, with what stands beside the class's name; ``drawn`` are the points to draw."""

    name: str
    note: str
    values: Sequence[float]
    drawn: Sequence[Point]


class Series(NamedTuple):
    """A line through points; ``is_minor`` draws it thin, for one of many."""

    name: str
    points: Sequence[Point]
    is_minor: bool = False


class Axis(NamedTuple):
    """A range of values and where it is marked."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    is_log: bool = False

    def percent(self, value: float) -> float:
        """Return where a value lies on the axis, from 0 to 100."""
        low, high, at = (math.log(v) for v in (self.low, self.high, value)) if self.is_log else (*self[1:3], value)
        return round(100 * (at - low) / (high - low), 2)


def linear(title: str, values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Axis:
    """Return an axis that holds the values between round numbers; it does not go beyond ``least`` and ``most``."""
    low, high = (min(values), max(values)) if len(values) else (0.0, 1.0)
    if high - low < 1e-9 * max(abs(high), 1e-3):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    # the 1, 2 or 5 times a power of ten that is next above a quarter of the range
    width = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(width))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= width * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [float(f"{step * number:.12g}") for number in range(first, last + 1)]
    ticks = [tick for tick in ticks if least <= tick <= most]
    return Axis(title, max(least, first * step), min(most, last * step), ticks)


def logarithmic(title: str, values: Sequence[float]) -> Axis:
    """Return a logarithmic axis that holds the values, all above 0."""
    low, high = (min(values), max(values)) if len(values) else (1.0, 10.0)
    low, high = low / 1.1, high * 1.1
    if high < 6 * low:
        ticks = linear(title, (low, high)).ticks
    else:  # powers of ten, and 2 and 5 times these where they are few
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        digits = (1, 2, 5) if high < 300 * low else (1,)
        shown = decades[:: math.ceil(len(decades) / 8)]
        ticks = [float(f"{digit}e{decade}") for decade in shown for digit in digits]
    return Axis(title, low, high, [tick for tick in ticks if low <= tick <= high], is_log=True)


def strips(parts: Sequence[Strip], axis: Axis, title: str, description: str) -> str:
    """Return a strip a class: a box from quartile to quartile with the median, whiskers, and the cases as points.

    Whiskers reach to the last value within 1.5 times the box's length from the box: Tukey, "Exploratory Data Analysis",
    1977.
    """
    height = STRIP * len(parts)
    drawn = list(_vertical(axis, height))
    for number, part in enumerate(parts):
        top = STRIP * number
        middle = top + 32
        head = f'<span title="{escape(part.name)}">{escape(part.name)}</span><small>{escape(part.note)}</small>'
        head = f'<div class="strip">{head}</div>'
        drawn.append(f'<foreignObject y="{top + 1}" width="100%" height="20">{head}</foreignObject>')
        if len(part.values):
            low, median, high = np.percentile(part.values, (25, 50, 75)).tolist()
            reach = 1.5 * (high - low)
            within = [value for value in part.values if low - reach <= value <= high + reach]
            first, q1, q2, q3, last = (axis.percent(value) for value in (min(within), low, median, high, max(within)))
            width = round(max(q3 - q1, 0.1), 2)
            drawn += [
                f'<line class="whisker" x1="{first}%" x2="{last}%" y1="{middle}" y2="{middle}"/>',
                f'<rect class="box" x="{q1}%" width="{width}%" y="{middle - 8}" height="16" rx="2"/>',
                f'<line class="median" x1="{q2}%" x2="{q2}%" y1="{middle - 8}" y2="{middle + 8}"/>',
            ]
        drawn += [
            _dot(point, f"{axis.percent(point.x)}%", str(middle + JITTER[index % len(JITTER)]))
            for index, point in enumerate(part.drawn)
        ]
    return _svg(drawn, height + 36, "0 10px", title, description)


def scatter(points: Sequence[Point], x: Axis, y: Axis, title: str, description: str) -> str:
    """Return a plot of points."""
    dots = [_dot(point, f"{x.percent(point.x)}%", f"{100 - y.percent(point.y)}%") for point in points]
    return _in_plane(x, y, dots, title, description)


def lines(series: Sequence[Series], x: Axis, y: Axis, title: str, description: str) -> str:
    """Return a plot of lines with its legend; of more than can be told apart, those that are minor are alike."""
    own = iter(range(len(series)))
    styles = [  # s0 for the minor ones of more than can be told apart
        "s0" if part.is_minor and len(series) > SERIES else f"s{1 + next(own) % SERIES}" for part in series
    ]
    courses = [(part.is_minor, _line(part, style, x, y)) for part, style in zip(series, styles, strict=True)]
    drawn = [course for _, course in sorted(courses, key=lambda course: not course[0])]  # the minor ones below
    entries = dict(zip(styles, (part.name for part in series), strict=True))
    if "s0" in entries:
        entries["s0"] = f"{styles.count('s0')} single classes"
    items = []
    for style, name in entries.items():
        swatch = f'<line class="{style}" x2="28" y1="5" y2="5"/>'
        swatch = f'<svg class="swatch" width="28" height="10" aria-hidden="true">{swatch}</svg>'
        items.append(f"<li>{swatch}{escape(name)}</li>")
    legend = f'<ul class="legend">{"".join(items)}</ul>' if len(series) > 1 else ""
    return legend + _in_plane(x, y, drawn, title, description)


def figure(caption: str, plot: str, note: str = "") -> str:
    """Return a plot under its caption."""
    small = f"<small>{escape(note)}</small>" if note else ""
    return f"<figure><figcaption>{escape(caption)}{small}</figcaption>\n{plot}</figure>"


def some(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most so many of the points, evenly from the lowest x to the highest, both of which are kept."""
    if len(points) <= most:
        return list(points)
    ranked = sorted(points, key=lambda point: point.x)
    return [ranked[index] for index in np.linspace(0, len(ranked) - 1, most).round().astype(int)]


def _svg(drawn: Sequence[str], height: int, padding: str, title: str, description: str) -> str:
    head = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    style = f'height="{height}" style="padding: {padding}"'
    return f'<svg class="plot" role="img" {style}>{head}\n' + "\n".join(drawn) + "\n</svg>"


def _dot(point: Point, x: str, y: str) -> str:
    name = f"<title>{escape(point.name)}</title>" if point.name else ""
    dot = f'<circle cx="{x}" cy="{y}" r="3">{name}</circle>'
    return f'<a href="{escape(point.link)}" tabindex="-1">{dot}</a>' if point.link else dot


def _vertical(axis: Axis, height: int) -> Iterator[str]:
    """The x axis below a plot of some height, with lines upwards from its marks."""
    for tick in axis.ticks:
        x = axis.percent(tick)
        side = "start" if x <= 3 else "end" if x >= 97 else "middle"
        yield f'<line class="grid" x1="{x}%" x2="{x}%" y1="0" y2="{height}"/>'
        yield f'<text class="{side}" x="{x}%" y="{height + 15}">{tick:g}</text>'
    yield f'<line class="axis" x1="0" x2="100%" y1="{height}" y2="{height}"/>'
    yield f'<text class="middle" x="50%" y="{height + 31}">{escape(axis.title)}</text>'


def _in_plane(x: Axis, y: Axis, drawn: Sequence[str], title: str, description: str) -> str:
    """Both axes, and what is drawn between them; the title of y, if it has one, stands above."""
    across = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{100 - y.percent(tick)}%" y2="{100 - y.percent(tick)}%"/>'
        f'<text class="end" x="-6" y="{100 - y.percent(tick)}%" dy="4">{tick:g}</text>'
        for tick in y.ticks
    )
    name = f'<text x="-40" y="-10">{escape(y.title)}</text>' if y.title else ""
    inner = f'<svg height="{HEIGHT}" overflow="visible">{name}{across}{"".join(drawn)}</svg>'
    above = 22 if y.title else 8
    return _svg([*_vertical(x, HEIGHT), inner], HEIGHT + 32 + above, f"{above}px 10px 0 46px", title, description)


def _line(part: Series, style: str, x: Axis, y: Axis) -> str:
    """A polyline, which knows no percent, in a frame that stretches; a single point as a dot."""
    corners = [(x.percent(point.x), round(100 - y.percent(point.y), 2)) for point in part.points]
    if len(corners) == 1:
        return f'<circle class="{style}" cx="{corners[0][0]}%" cy="{corners[0][1]}%" r="3"/>'
    course = " ".join(f"{across:g},{down:g}" for across, down in corners)
    frame = 'viewBox="0 0 100 100" preserveAspectRatio="none" overflow="visible"'
    return f'<svg {frame}><polyline class="{style}" points="{course}"/></svg>'
