"""Plots for HTML pages: what they show, and where it lies. ``plots.html`` draws them as SVG.

They are drawn in percent of the width there is, so that text and dots keep their size on a phone. Colours come from the
page's style, which knows dark mode and print. Each plot has a title and a description for those who do not see it.
Points may show a name on hover and link to a place in the page.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from medseg.evaluation.pages.text_table import NONE
from medseg.evaluation.statistics.sampling import evenly

NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
SERIES = 6
"""Lines that colour and dashes can tell apart."""


class Point(NamedTuple):
    """A point of a plot with its name and the address that it links to ("": none)."""

    x: float
    y: float = 0.0
    name: str = ""
    link: str = ""


class Box(NamedTuple):
    """Quartiles and whiskers of some values."""

    low: float
    q1: float
    median: float
    q3: float
    high: float


class Strip(NamedTuple):
    """Values along x with their name and a note beside it; ``drawn`` are the points that are shown of them."""

    name: str
    note: str
    values: Sequence[float]
    drawn: Sequence[Point]

    @property
    def box(self) -> Box:
        """The box plot of at least one value.

        Whiskers reach to the last value within 1.5 times the box's length from the box: Tukey, "Exploratory Data
        Analysis", 1977.
        """
        q1, median, q3 = np.percentile(self.values, (25, 50, 75)).tolist()
        reach = 1.5 * (q3 - q1)
        within = [value for value in self.values if q1 - reach <= value <= q3 + reach]
        return Box(min(within), q1, median, q3, max(within))


class Series(NamedTuple):
    """A line through points, and the address it links to; ``is_minor`` draws it thin, for one of many."""

    name: str
    points: Sequence[Point]
    is_minor: bool = False
    link: str = ""


class Axis(NamedTuple):
    """A range of values and where it is marked."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    is_log: bool = False

    def percent(self, value: float) -> float:
        """Return the position of a value on the axis, from 0 to 100."""
        low, high, at = (math.log(v) for v in (self.low, self.high, value)) if self.is_log else (*self[1:3], value)
        return round(100 * (at - low) / (high - low), 2)

    def from_top(self, value: float) -> float:
        """Return the same on an axis that runs upwards: 0 is at the top."""
        return round(100 - self.percent(value), 2)


class Coordinate(NamedTuple):
    """One of several axes side by side: where it is marked with what, and where each line meets it, from 0 to 100."""

    title: str
    ticks: Sequence[tuple[float, str]]
    positions: Sequence[float]
    is_choice: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What all plots have: the caption above, with a note, and the words for those who do not see them."""

    caption: str
    title: str
    description: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class StripPlot(Plot):
    """A strip for each class or run: a box plot with the cases as points."""

    x: Axis
    strips: Sequence[Strip]


@dataclass(frozen=True, kw_only=True)
class ScatterPlot(Plot):
    """Points in a plane."""

    x: Axis
    y: Axis
    points: Sequence[Point]


@dataclass(frozen=True, kw_only=True)
class LinePlot(Plot):
    """Lines with a legend. Where there are more than ``SERIES``, the minor ones, ``others``, all look the same."""

    x: Axis
    y: Axis
    series: Sequence[Series]
    others: str = "single classes"

    @property
    def styled(self) -> list[tuple[str, Series]]:
        """Each series with the class of its style, s1 to s6, or s0 for minor ones that look the same."""
        own = iter(range(len(self.series)))
        return [
            ("s0" if one.is_minor and len(self.series) > SERIES else f"s{1 + next(own) % SERIES}", one)
            for one in self.series
        ]

    @property
    def legend(self) -> list[tuple[str, str]]:
        """The styles and what they stand for; nothing for a single line."""
        entries = [(style, one.name) for style, one in self.styled if style != "s0"]
        if n_minor := len(self.series) - len(entries):
            entries.append(("s0", f"{n_minor} {self.others}"))
        return entries if len(self.series) > 1 else []


@dataclass(frozen=True, kw_only=True)
class ParallelPlot(Plot):
    """Parallel coordinates (Inselberg 1985): a line for each of ``names`` across all axes.

    The axes lie one below the other, so that their names and values find room on a phone. ``weights`` from 0 to 1 say
    how much a line stands out, those of 1 in colour, and ``links`` where it leads.
    """

    coordinates: Sequence[Coordinate]
    names: Sequence[str]
    links: Sequence[str]
    weights: Sequence[float]

    @property
    def lines(self) -> list[tuple[str, str, float, list[float]]]:
        """The name, link, weight and positions of each line, the heaviest last."""
        positions = [list(its) for its in zip(*(one.positions for one in self.coordinates), strict=True)]
        return sorted(zip(self.names, self.links, self.weights, positions, strict=True), key=lambda line: line[2])


def coordinate(title: str, values: Sequence[str], *, is_choice: bool = False) -> Coordinate:
    """Return the axis of some values: a range where all are numbers, logarithmic from a ratio of 20 on; else choices.

    Few numbers are marked each. What is no value, ``NONE``, has a place of its own before numbers.
    """
    numbers = [float(value) if NUMBER.fullmatch(value) else None for value in values]
    known = [number for number in numbers if number is not None]
    has_none = NONE in values
    if is_choice or not known or any(n is None and value != NONE for n, value in zip(numbers, values, strict=True)):
        distinct = list(dict.fromkeys(values))
        places = {value: round(100 * (index + 0.5) / len(distinct), 2) for index, value in enumerate(distinct)}
        return Coordinate(title, [(at, value) for value, at in places.items()], [places[v] for v in values], True)
    is_log = min(known) > 0 and max(known) >= 20 * min(known)
    axis = logarithmic(title, known) if is_log else linear(title, known)
    start = 12 if has_none else 0

    def place(value: float) -> float:
        return round(start + (100 - start) * axis.percent(value) / 100, 2)

    own = sorted({place(value): value for value in known}.items())
    is_clear = len(own) <= 6 and all(after[0] - before[0] > 9 for before, after in pairwise(own))
    marked = own if is_clear else [(place(tick), tick) for tick in axis.ticks]
    ticks = [*[(0.0, NONE)] * has_none, *((at, f"{tick:g}") for at, tick in marked)]
    return Coordinate(title, ticks, [0.0 if number is None else place(number) for number in numbers])


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


def some(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most so many of the points, evenly from the lowest x to the highest, both of which are kept."""
    if len(points) <= most:
        return list(points)
    ranked = sorted(points, key=lambda point: point.x)
    return [ranked[index] for index in evenly(len(ranked), most)]
