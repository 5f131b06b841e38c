"""The patients of BraTS: what cases of several time points, or under several generations' names, have in common."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.tables import Row, read_table

log = logging.getLogger(__name__)

TIME_POINTS = (r"(brats1[789]_[^_]+_[^_]+)_\d+", r"(brats_(?:2013|tcia)_pat\d+)_\d+", r"(brats-[a-z]+-\d+)-\d+")
"""Names of cases of which one patient may have several; the first group is the patient."""

SUBJECT = re.compile(r"((brats|fets)\d*[_-]\S*\d|tcga-\w\w-\w{4})", re.IGNORECASE)
NO_SUBJECT = {"", "na", "n/a", "nan", "none", "-"}


def patient(name: str) -> str:
    """Return the patient of a case: its name without the time point.

    >>> patient("Brats18_TCIA05_396_1"), patient("BraTS-GLI-00000-000"), patient("BraTS20_Training_001")
    ('Brats18_TCIA05_396', 'BraTS-GLI-00000', 'BraTS20_Training_001')
    """
    matches = (re.fullmatch(form, name, re.IGNORECASE) for form in TIME_POINTS)
    return next((match[1] for match in matches if match), name)


def by_patient(cases: Sequence[Case], files: Iterable[Path]) -> tuple[list[Case], list[str]]:
    """Give cases of one patient the same group, as name mappings tell; also say which of these cannot be read."""
    rows, problems = [], []
    for path in files:
        if "mapping" in path.name.lower() and path.suffix.lower() == ".csv":
            try:
                rows += [subjects(row) for row in read_table(path, "name mapping")]
            except MedsegError as error:
                problems.append(str(error))
        elif "mapping" in path.name.lower() and path.suffix.lower() in (".xls", ".xlsx"):
            log.warning("%s is not read: save it as CSV, or patients with several names are taken for several", path)
    names_of = joined(rows)
    own = {case.group for case in cases}
    return [replace(case, group=min(names_of.get(case.group, {case.group}) & own)) for case in cases], problems


def subjects(row: Row) -> set[str]:
    """Return the patients that a row of a name mapping names, in whatever columns."""
    return {
        patient(cell)
        for column, cell in row.items()
        if SUBJECT.fullmatch(cell) or ("subject" in column.lower() and cell.lower() not in NO_SUBJECT)
    }


def joined(rows: Iterable[set[str]]) -> dict[str, set[str]]:
    """Return for each name all those that rows join with it, directly or through others.

    >>> sorted(joined([{"a", "b"}, {"c"}, {"b", "d"}])["a"])
    ['a', 'b', 'd']
    """
    together: dict[str, set[str]] = {}
    for row in rows:
        union = row.union(*(together[name] for name in row if name in together))
        together |= dict.fromkeys(union, union)
    return together
