"""Scans that a data set holds twice: equal voxels, or what is probably two cuts of one scan.

A split must keep them together, or the test is of patients that were trained on. Equal voxels have equal hashes. Two
cuts of one scan have other voxels, but share how it was taken:

* the intensity step of each channel. Scanners and converters scale whole numbers by a slope that is the scan's own,
  such as 5.95897, so that all values are multiples of it. It is recovered as the greatest common divisor of the
  differences between the values that occur; interpolated images have none.
* the affine, voxels to mm.
* the header's free texts and codes.

Cases that agree in all of these are probably of one scan, if these tell anything. They do where a channel's step is no
round number (whole numbers have the step 1) and the image was not scaled to a range of whole numbers (0 to 255); or
where the position in the scanner is known: its coordinates are no multiples of half a millimetre, as those of an atlas
are, and the middle of the grid is not the origin, as converters have it that know no better. What more than a few cases
share is no evidence either: the space of an atlas, or the constant slope of a device.

Data sets that cut each scan into n parts number these one after the other. Where almost all sets recognised by the
above are n consecutive numbers, and the first of them is the same modulo n in all, that numbering is evidence for the
cases that have nothing else to tell, too.
"""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.errors import listing
from medseg.io.case import Scan
from medseg.io.datasets.splits import SUBSETS, Split
from medseg.io.formats.nifti import header_hash

log = logging.getLogger(__name__)

EQUAL = "equal voxels"

SAMPLES = 200_000  # voxels from which a step is estimated
FEWEST_LEVELS = 16  # values below which no step is looked for
CLEAR = 64  # a step must exceed the rounding of float32 this many times
MOST_SCALED = 65535  # largest number that images are scaled to; float32 makes larger ones whole by chance
SAME_STEP = 1e-6  # relative; float32 leaves about 1e-7
SAME_PLACE = 1e-4  # mm
MOST_SHARING, SHARE_SHARING = 8, 0.1  # cases that may share an acquisition which is evidence
LEAST_NUMBERED, SHARE_NUMBERED = 5, 0.9  # sets from which the numbering of the others is inferred


@dataclass(frozen=True)
class Acquisition:
    """How a scan was taken.

    ``steps`` holds the intensity step of each channel, NaN where there is none, ``affine`` the 12 numbers of the map
    from voxels to mm, ``header_hash`` stands for the header's texts and codes. ``telling`` says whether another scan is
    unlikely to have the same.
    """

    steps: tuple[float, ...]
    affine: tuple[float, ...]
    header_hash: str
    telling: bool


@dataclass(frozen=True)
class SameScan:
    """Cases that are, or probably are, of one scan, and why they are thought so."""

    cases: tuple[str, ...]
    reason: str


def acquisition(scan: Scan) -> Acquisition | None:
    """Return how a scan was taken; None for 2D images, whose files do not tell."""
    if scan.unit == "px":
        return None
    levels = [levels_of(channel) for channel in scan.image]
    steps = tuple(intensity_step(channel) for channel in levels)
    own = any(is_own(step, channel) for step, channel in zip(steps, levels, strict=True))
    telling = own or is_placed(scan.affine, scan.shape)
    return Acquisition(steps, tuple(scan.affine[:3].ravel().tolist()), header_hash(scan), telling)


def levels_of(channel: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the values that occur in (*spatial), sorted, from a sample of its voxels with the extremes."""
    sample = channel.ravel()[:: max(1, channel.size // SAMPLES)]
    return np.unique(np.append(sample, [channel.min(), channel.max()])).astype(np.float64)


def intensity_step(levels: NDArray[np.float64]) -> float:
    """Return the largest number of which all differences of the sorted ``levels`` are multiples; NaN without one.

    Euclid's algorithm on numbers that float32 has rounded: of the remainders by the smallest difference the smallest is
    tried next, until there are none. Each candidate is sharpened over ever larger differences.

    >>> round(intensity_step(np.float32(5.95897) * np.arange(3, 300, 7.0)), 4)  # 7 steps apart
    41.7128
    """
    if len(levels) < FEWEST_LEVELS:
        return float("nan")
    rounding = 2 * float(np.spacing(np.abs(levels).max().astype(np.float32)))
    gaps = np.diff(levels)
    gaps = gaps[gaps > rounding]
    step = float(gaps.min(initial=np.inf))
    while CLEAR * rounding < step < np.inf:
        step = sharpened(step, gaps, rounding)
        rests = np.abs(gaps - np.round(gaps / step) * step)
        if rests.max() <= 2 * rounding:
            return step
        step = float(rests[rests > 2 * rounding].min())
    return float("nan")


def sharpened(step: float, gaps: NDArray[np.float64], rounding: float) -> float:
    """Fit a step to the gaps that are multiples of it: first to small ones, whose multiples a rough step finds."""
    for most in (10, 100, np.inf):
        times = np.round(gaps / step)
        fits = (times > 0) & (times <= most) & (np.abs(gaps - times * step) <= (times + 1) * rounding)
        step = float(gaps[fits].sum() / times[fits].sum()) if fits.any() else step
    return step


def is_own(step: float, levels: NDArray[np.float64]) -> bool:
    """Return whether a step is the scan's own: no round number, nor made by scaling to a range of whole numbers."""
    lowest, highest = levels[[0, -1]]
    scaled = abs(lowest - round(lowest)) + abs(highest - round(highest)) < 1e-6 and abs(highest) <= MOST_SCALED
    return not np.isnan(step) and not is_round(step) and not scaled


def is_round(number: float) -> bool:
    """Return whether a number or its inverse has at most three digits, or its inverse is whole.

    >>> is_round(1.0), is_round(0.25), is_round(1 / 4095), is_round(5.95897)
    (True, True, True, False)
    """
    inverse = 1 / number
    rounded = (float(f"{number:.3g}") / number, float(f"{inverse:.3g}") / inverse, max(1, round(inverse)) / inverse)
    return any(abs(ratio - 1) < SAME_STEP for ratio in rounded)


def is_placed(affine: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Return whether an affine holds a position in the scanner, rather than one of an atlas or of a converter."""
    origin = affine[:3, 3]
    axes = len(shape)
    middle = affine[:3, :axes] @ ((np.array(shape) - 1) / 2) + origin
    voxel = np.linalg.norm(affine[:3, :axes], axis=0).max()
    irregular = np.abs(2 * origin - np.round(2 * origin)) > 1e-3
    return bool(irregular.all() and np.linalg.norm(middle) > voxel)


def same_scans(
    hashes: Mapping[str, str], acquisitions: Mapping[str, Acquisition | None], groups: Mapping[str, str]
) -> list[SameScan]:
    """Name all cases of equal voxels, and those of different groups that are probably of one scan; by case id."""
    cases_by_hash: dict[str, list[str]] = defaultdict(list)
    for name, code in hashes.items():
        cases_by_hash[code].append(name)
    equal = [SameScan(tuple(names), EQUAL) for names in cases_by_hash.values() if len(names) > 1]
    known = {frozenset(same.cases) for same in equal}
    probable = [same for same in probable_same_scans(acquisitions) if len({groups[name] for name in same.cases}) > 1]
    return equal + [same for same in probable if frozenset(same.cases) not in known]


def probable_same_scans(acquisitions: Mapping[str, Acquisition | None]) -> list[SameScan]:
    """Name the cases that are probably cuts of one scan; those of equal voxels may be among them."""
    telling = {name: taken for name, taken in acquisitions.items() if taken and taken.telling}
    most = max(2, min(MOST_SHARING, int(SHARE_SHARING * len(acquisitions))))
    sets = [names for names in by_acquisition(telling) if 1 < len(names) <= most and len(names) < len(acquisitions)]
    sets = [sorted(names, key=numbered) for names in sets]
    same = [SameScan(tuple(names), "equal intensity step, affine and header") for names in sets]
    return same + numbered_alike(sets, [name for name in acquisitions if name not in telling])


def by_acquisition(acquisitions: Mapping[str, Acquisition]) -> list[list[str]]:
    """Group cases by their acquisition: header and channels equal to the letter, steps and affine nearly."""
    by_header: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name, taken in acquisitions.items():
        by_header[len(taken.steps), taken.header_hash].append(name)
    sets = []
    for (channels, _), names in by_header.items():
        numbers = np.array([[*acquisitions[name].steps, *acquisitions[name].affine] for name in names])
        relative, absolute = np.repeat([SAME_STEP, 0], [channels, 12]), np.repeat([0, SAME_PLACE], [channels, 12])
        # Cases that are near in every number are near in a weighted sum of them, too. So each is compared with the few
        # that are, in place of all; the weights make it unlikely that others are. Steps count by their logarithm.
        weights = 1 + np.modf(np.arange(channels + 12) * np.sqrt(2))[0]
        logarithms = SAME_PLACE / SAME_STEP * np.log(numbers[:, :channels])
        sums = np.nan_to_num(np.hstack([logarithms, numbers[:, channels:]])) @ weights
        order, reach = np.argsort(sums), 2 * SAME_PLACE * weights.sum()
        begins, ends = (np.searchsorted(sums[order], sums + side * reach) for side in (-1, 1))
        is_left = np.ones(len(names), bool)
        for index, first in enumerate(numbers):
            if is_left[index]:
                others = np.sort(order[begins[index] : ends[index]])
                others = others[is_left[others]]
                near = np.abs(numbers[others] - first) <= absolute + relative * np.abs(first)
                same = others[(near | (np.isnan(numbers[others]) & np.isnan(first))).all(axis=1)]
                sets.append([names[other] for other in same])
                is_left[same] = False
    return sets


def numbered_alike(sets: list[list[str]], others: list[str]) -> list[SameScan]:
    """Name sets of ``others`` that are numbered as almost all ``sets`` are, one after the other."""
    runs = Counter(run for names in sets if (run := run_of(names)))
    (size, remainder), fitting = runs.most_common(1)[0] if runs else ((0, 0), 0)
    if len(sets) < LEAST_NUMBERED or fitting < SHARE_NUMBERED * len(sets):
        return []
    ordered = sorted(others, key=numbered)
    candidates = [tuple(ordered[first : first + size]) for first in range(len(ordered))]
    reason = f"numbered like {fitting} sets that have equal intensity step, affine and header"
    return [SameScan(names, reason) for names in candidates if run_of(names) == (size, remainder)]


def run_of(names: Sequence[str]) -> tuple[int, int] | None:
    """Return how many names differ in their number only, which goes up by one, and the first number modulo so many.

    None where names differ in another way.

    >>> run_of(["case_07", "case_08"]), run_of(["case_07", "case_09"])
    ((2, 1), None)
    """
    before, after, first = numbered(names[0])
    is_run = first >= 0 and [*map(numbered, names)] == [(before, after, first + step) for step in range(len(names))]
    return (len(names), first % len(names)) if is_run else None


def numbered(name: str) -> tuple[str, str, int]:
    """Split a name into what is before and after its last number, and the number.

    >>> numbered("case_007_left")
    ('case_', '_left', 7)
    """
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", name)
    return (match[1], match[3], int(match[2])) if match else (name, "", -1)


def subsets_of(split: Split | None) -> dict[str, str]:
    """Return the subset (train, val, test) of each case in a split."""
    return {name: part for part in SUBSETS if split for name in getattr(split, part)}


def is_split_apart(same: SameScan, part_of: Mapping[str, str]) -> bool:
    """Return whether the cases of one scan are in several subsets of a split."""
    return len({part_of[name] for name in same.cases if name in part_of}) > 1


def warn_of_split_scans(same_scans: Iterable[SameScan], split: Split) -> None:
    """Name the scans that are in two subsets of a split: the test would be of scans that were trained on."""
    part_of = subsets_of(split)
    lines: dict[bool, list[str]] = {True: [], False: []}
    for same in same_scans:
        if is_split_apart(same, part_of):
            names = " = ".join(f"{name} ({part_of[name]})" for name in same.cases if name in part_of)
            lines[same.reason == EQUAL].append(f"{names}: {same.reason}")
    if lines[True]:
        text = "the same scan is in two parts of the split; give dataset.group or remove one:\n%s"
        log.warning(text, listing(lines[True], most=100))
    if lines[False]:
        text = "probably the same scan is in two parts of the split, %d times; give dataset.group or dataset.group_file"
        log.warning(f"{text}:\n%s", len(lines[False]), listing(lines[False], most=100))
