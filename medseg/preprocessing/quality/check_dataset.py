"""Data validation: every scan and mask is read once, and all errors and warnings are reported at once."""

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from medseg.errors import MedsegError, listing
from medseg.io.case import Case
from medseg.io.files.read import on_disk
from medseg.io.files.sizes import UNKNOWN, size_of
from medseg.io.labels import LabelMap
from medseg.preprocessing.file_hashes import hashes_in
from medseg.preprocessing.fingerprint.cached import cached_fingerprint
from medseg.preprocessing.fingerprint.duplicates import EQUAL
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint, Fingerprint
from medseg.preprocessing.quality.issues import FEW, MOST, Issue, in_brief, in_full, is_named
from medseg.preprocessing.quality.mask_values import doubtful_masks
from medseg.preprocessing.quality.warnings import data_warnings
from medseg.system.memory import TO_READ, NotEnoughMemoryError, enough_memory
from medseg.system.parallel import Watch, in_parallel, unwatched

log = logging.getLogger(__name__)

COPIES = 4  # times that an image is in memory while it is described
FAR = 5
"""How many times coarser or finer than the median an axis must be for its spacing to be odd."""

NUMBERS = re.compile(r"(#[0-9a-f]{6}|\d+(\.\d+)?)(, (#[0-9a-f]{6}|\d+(\.\d+)?))*( and \d+ more)?")
"""A number or a colour, or a list of them, as messages write it."""


def check_dataset(
    cases: Sequence[Case],
    label_map: LabelMap,
    problems: Sequence[str] = (),
    watch: Watch = unwatched,
    folder: Path | None = None,
) -> Fingerprint:
    """Read every case and check it; log what is worth a warning, and in a line each what is worth a look.

    ``problems`` are mistakes that the layout found (``Dataset.problems``).

    Raises:
        MedsegError: listing these and all that ``examine`` calls an error, those of many cases as one.
    """
    usable, issues = examine(cases, label_map, problems, watch, folder)
    wrong = [issue for issue in issues if issue.level == "error"]
    if wrong:
        errors = [issue.text if is_named(issue) else in_brief(issue) for issue in alike_as_one(wrong, cases)]
        raise MedsegError(
            f"{len(wrong)} error(s) in a data set of {len(cases)} cases:\n{listing(errors, most=MOST)}\n"
            "Mend or remove these cases. medseg inspect lists everything, with warnings."
        )
    for issue in issues:
        log.warning("%s", in_full(issue))
    for issue in data_warnings(usable, label_map):
        log.warning("%s", in_brief(issue))
    return usable


def examine(
    cases: Sequence[Case],
    label_map: LabelMap,
    problems: Sequence[str] = (),
    watch: Watch = unwatched,
    folder: Path | None = None,
) -> tuple[Fingerprint, list[Issue]]:
    """Read every case, several at once; return the usable ones and all that is wrong, in the order of the cases.

    Fingerprints of cases that have not changed are read from ``folder``, the data set's in the cache.

    Errors are the layout's ``problems``, cases that cannot be read or hold NaN, constant images, channels or masks on
    other grids, undeclared values, cases of other dimensions or channels than most, masks that are all empty, and
    values that nobody declared and that are no classes (see ``doubtful_masks``).
    Warnings are equal images, empty masks, classes that never occur and odd spacings.
    """
    fingerprints: dict[str, CaseFingerprint] = {}
    errors = [Issue("error", problem) for problem in problems]
    outcomes = in_parallel(
        partial(attempt, label_map=label_map, folder=folder),
        cases,
        working_bytes(cases),
        too_large=lambda case, error: str(error),
    )
    for case, outcome in zip(cases, watch(outcomes, len(cases), "reading"), strict=True):
        if isinstance(outcome, str):
            text = outcome if outcome.startswith(f"{case.id} ") else f"{case.id}: {outcome}"
            errors.append(Issue("error", text, (case.id,)))
        else:
            fingerprints[case.id] = outcome
    hashes_in(folder).save()
    forms = {name: (len(case.shape), case.channels, case.unit) for name, case in fingerprints.items()}
    usual = max(dict.fromkeys(forms.values()), key=list(forms.values()).count, default=None)
    for name, form in forms.items():
        if usual and form != usual:
            text = (
                f"{name}: {form[0]}D with {form[1]} channel(s) in {form[2]}, "
                f"the others are {usual[0]}D with {usual[1]} in {usual[2]}"
            )
            errors.append(Issue("error", text, (name,)))
            del fingerprints[name]
    usable = Fingerprint(fingerprints)
    if fingerprints and not any(case.voxels[1:].any() for case in fingerprints.values()):
        text = "every mask is empty: there is nothing to learn. Are dataset.labels and dataset.masks right?"
        errors.append(Issue("error", text, tuple(fingerprints)))
    errors += [issue for issue in doubtful_masks(fingerprints, label_map) if issue.level == "error"]
    return usable, errors + warnings_of(usable, label_map)


def alike_as_one(issues: Sequence[Issue], cases: Sequence[Case]) -> list[Issue]:
    """Return issues in which one stands for those of many cases that differ by names of files and by numbers alone."""
    paths = {case.id: [str(path) for path in (*case.images, *(file.path for file in case.labels))] for case in cases}
    alike: dict[str, list[Issue]] = {}
    for issue in issues:
        key = issue.text
        if is_named(issue) and issue.cases:
            for path in sorted(paths[issue.cases[0]], key=len, reverse=True):
                key = key.replace(path, "")
            key = NUMBERS.sub("", key.removeprefix(issue.cases[0]))
        alike.setdefault(key, []).append(issue)
    return [issue for same in alike.values() for issue in (same if len(same) <= FEW else [as_one(same, len(cases))])]


def as_one(same: Sequence[Issue], total: int) -> Issue:
    """Return an issue for such as each tell of one case; its text is that of the first."""
    names = [issue.cases[0] for issue in same]
    text = f"{len(same)} of {total} cases ({', '.join(names[:FEW])}, …) are wrong alike. The first: {same[0].text}"
    return Issue(same[0].level, text, kind=same[0].kind)


def attempt(case: Case, label_map: LabelMap, folder: Path | None) -> CaseFingerprint | str:
    """Return the fingerprint of a case, or what is wrong with it.

    Raises:
        NotEnoughMemoryError: which may not come again when fewer cases are read at once.
    """
    try:
        with enough_memory(lambda: f"to read {size_of(case)}", TO_READ):
            return cached_fingerprint(case, label_map, folder)
    except NotEnoughMemoryError:
        raise
    except MedsegError as error:
        return str(error)


def working_bytes(cases: Sequence[Case]) -> float:
    """Return about how many bytes of memory it takes to read and describe the case with the largest files."""

    def bytes_on_disk(case: Case) -> int:
        try:
            return sum(part.stat().st_size for path in case.images for part in on_disk(path))
        except MedsegError:  # raised again where the case is read
            return 0

    size = size_of(max(cases, key=bytes_on_disk)) if cases else UNKNOWN
    return COPIES * 4 * size.channels * size.voxels


def warnings_of(usable: Fingerprint, label_map: LabelMap) -> list[Issue]:
    """Return warnings: equal images, empty masks, absent classes, spacings far from the median.

    A spacing is off where metres were taken for millimetres, or a header says 1 mm for want of anything better.
    """
    cases = usable.cases
    warnings = [
        Issue("warning", f"{len(same.cases)} cases have the same image", same.cases, "same image")
        for same in usable.same_scans
        if same.reason == EQUAL
    ]
    if empty := tuple(name for name, case in cases.items() if not case.voxels[1:].any()):
        warnings.append(Issue("warning", f"{len(empty)} case(s) have an empty mask", empty, "empty mask"))
    total = np.sum([case.voxels for case in cases.values()], axis=0) if cases else []
    absent = [name for name, count in zip(label_map.names, total, strict=False) if not count]
    if absent and label_map.has_masks:
        warnings.append(Issue("warning", f"no mask holds the class(es) {', '.join(absent)}", kind="absent class"))
    if not cases or usable.unit == "px":
        return warnings
    median = np.median([case.spacing for case in cases.values()], axis=0)
    for name, case in cases.items():
        if np.any(np.maximum(case.spacing / median, median / case.spacing) > FAR):
            own, usual = (" × ".join(f"{step:.3g}" for step in spacing) for spacing in (case.spacing, median))
            text = f"{name}: spacing {own} mm, the median is {usual} mm"
            warnings.append(Issue("warning", text, (name,), "spacing"))
    return warnings
