"""What is wrong with a data set: every scan and mask read once, every mistake found at once."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from medseg.errors import MedsegError, listing
from medseg.io.case import Case
from medseg.io.datasets.splits import Split
from medseg.io.files.read import on_disk
from medseg.io.files.sizes import UNKNOWN, size_of
from medseg.io.labels import UNLABELLED, LabelMap
from medseg.preprocessing.fingerprint.cached import noted
from medseg.preprocessing.fingerprint.duplicates import EQUAL, warn_of_parted
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint
from medseg.preprocessing.quality.issues import MOST, Finding, in_brief, in_full, is_named
from medseg.preprocessing.quality.mask_values import doubtful_masks
from medseg.preprocessing.quality.warnings import suspicions
from medseg.system.memory import TO_READ, NotEnoughMemoryError, enough_memory
from medseg.system.parallel import Watch, in_parallel, unwatched

log = logging.getLogger(__name__)

COPIES = 4  # times that an image is in memory while it is described
FAR = 5
"""How many times coarser or finer than the median an axis must be for its spacing to be odd."""


def survey(
    cases: Sequence[Case],
    label_map: LabelMap,
    problems: Sequence[str] = (),
    watch: Watch = unwatched,
    folder: Path | None = None,
) -> Fingerprint:
    """Read every case and check it; log what is worth a warning, and in a line each what is worth a look.

    ``problems`` are mistakes that the layout found (``Dataset.problems``).

    Raises:
        MedsegError: listing these and all that ``examine`` calls an error.
    """
    usable, findings = examine(cases, label_map, problems, watch, folder)
    wrong = [finding for finding in findings if finding.level == "error"]
    if errors := [finding.text if is_named(finding) else in_brief(finding) for finding in wrong]:
        raise MedsegError(
            f"{len(errors)} error(s) in a data set of {len(cases)} cases:\n{listing(errors, most=MOST)}\n"
            "Mend or remove these cases. medseg inspect lists everything, with warnings."
        )
    for finding in findings:
        log.warning("%s", in_full(finding))
    for finding in suspicions(usable, label_map):
        log.warning("%s", in_brief(finding))
    return usable


def examine(
    cases: Sequence[Case],
    label_map: LabelMap,
    problems: Sequence[str] = (),
    watch: Watch = unwatched,
    folder: Path | None = None,
) -> tuple[Fingerprint, list[Finding]]:
    """Read every case, several at once; return the usable ones and all that is wrong, in the order of the cases.

    What was noted of cases that have not changed is taken from ``folder``, the data set's in the cache.

    Errors are the layout's ``problems``, cases that cannot be read or hold NaN, constant images, channels or masks on
    other grids, undeclared values, cases of other dimensions or channels than most, masks that are all empty, and
    values that nobody declared and that are no classes (see ``doubtful_masks``).
    Warnings are equal images, empty masks, classes that never occur and odd spacings.
    """
    found: dict[str, CaseFingerprint] = {}
    errors = [Finding("error", problem) for problem in problems]
    read = in_parallel(
        partial(attempt, label_map=label_map, folder=folder),
        cases,
        working_bytes(cases),
        too_large=lambda case, error: str(error),
    )
    for case, outcome in zip(cases, watch(read, len(cases), "reading"), strict=True):
        if isinstance(outcome, str):
            errors.append(Finding("error", named(case.id, outcome), (case.id,)))
        else:
            found[case.id] = outcome
    odd = odd_ones(found)
    usable = Fingerprint({name: case for name, case in found.items() if name not in odd})
    errors += [Finding("error", text, (name,)) for name, text in odd.items()]
    errors += foreground_missing(usable)
    errors += [finding for finding in doubtful_masks(usable.cases, label_map) if finding.level == "error"]
    return usable, errors + warnings_of(usable, label_map)


def attempt(case: Case, label_map: LabelMap, folder: Path | None) -> CaseFingerprint | str:
    """Return what is noted of a case, or what is wrong with it.

    Raises:
        NotEnoughMemoryError: which may not come again when fewer cases are read at once.
    """
    try:
        with enough_memory(lambda: f"to read {size_of(case)}", TO_READ):
            return noted(case, label_map, folder)
    except NotEnoughMemoryError:
        raise
    except MedsegError as error:
        return str(error)


def working_bytes(cases: Sequence[Case]) -> float:
    """Return about how much memory it takes to read and describe the case whose files are largest."""
    size = size_of(max(cases, key=bytes_on_disk)) if cases else UNKNOWN
    return COPIES * 4 * size.channels * size.voxels


def bytes_on_disk(case: Case) -> int:
    """Return the bytes of a case's images, 0 where one cannot be told."""
    try:
        return sum(part.stat().st_size for path in case.images for part in on_disk(path))
    except MedsegError:  # said where the case is read
        return 0


def named(name: str, text: str) -> str:
    """Put a case's name before a message that does not begin with it."""
    return text if text.startswith(f"{name} ") else f"{name}: {text}"


def odd_ones(found: dict[str, CaseFingerprint]) -> dict[str, str]:
    """Describe, by name, the cases that differ from most in dimensions, channels or unit."""
    forms = {name: (len(case.shape), case.channels, case.unit) for name, case in found.items()}
    usual = max(dict.fromkeys(forms.values()), key=list(forms.values()).count, default=None)
    return {
        name: f"{name}: {form[0]}D with {form[1]} channel(s) in {form[2]}, "
        f"the others are {usual[0]}D with {usual[1]} in {usual[2]}"
        for name, form in forms.items()
        if usual and form != usual
    }


def foreground_missing(usable: Fingerprint) -> list[Finding]:
    """Complain of a data set without any foreground."""
    if not usable.cases or any(case.voxels[1:].any() for case in usable.cases.values()):
        return []
    text = "every mask is empty: there is nothing to learn. Are dataset.labels and dataset.masks right?"
    return [Finding("error", text, tuple(usable.cases))]


def warnings_of(usable: Fingerprint, label_map: LabelMap) -> list[Finding]:
    """Return what is worth a look, but may be meant."""
    cases = usable.cases
    found = [
        Finding("warning", f"{len(same.cases)} cases have the same image", same.cases, "same image")
        for same in usable.same_scans
        if same.reason == EQUAL
    ]
    if empty := tuple(name for name, case in cases.items() if not case.voxels[1:].any()):
        found.append(Finding("warning", f"{len(empty)} case(s) have an empty mask", empty, "empty mask"))
    total = np.sum([case.voxels for case in cases.values()], axis=0) if cases else []
    absent = [name for name, count in zip(label_map.names, total, strict=False) if not count]
    if absent and label_map is not UNLABELLED:
        found.append(Finding("warning", f"no mask holds the class(es) {', '.join(absent)}", kind="absent class"))
    return found + odd_spacings(usable)


def odd_spacings(usable: Fingerprint) -> list[Finding]:
    """Name the cases whose spacing is far from the median, as where metres or a header of 1 mm slipped in."""
    if not usable.cases or usable.unit == "px":
        return []
    usual = np.median([case.spacing for case in usable.cases.values()], axis=0)
    found = []
    for name, case in usable.cases.items():
        if np.any(np.maximum(case.spacing / usual, usual / case.spacing) > FAR):
            text = f"{name}: spacing {in_mm(case.spacing)}, the median is {in_mm(usual)}"
            found.append(Finding("warning", text, (name,), "spacing"))
    return found


def in_mm(spacing: Iterable[float]) -> str:
    """Write a spacing."""
    return " × ".join(f"{step:.3g}" for step in spacing) + " mm"


def warn_of_equal_scans(fingerprint: Fingerprint, split: Split) -> None:
    """Name the cases of one scan, surely or probably, that are in two parts of a split."""
    warn_of_parted(fingerprint.same_scans, split)
