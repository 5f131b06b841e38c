"""Groups: which cases belong to one patient, so that a split never parts them."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from medseg.errors import MedsegError, listing
from medseg.io.case import Case
from medseg.io.tables import read_table


def assign_groups(cases: Iterable[Case], *, pattern: str | None = None, file: str | None = None) -> tuple[Case, ...]:
    """Give each case the group that a regular expression finds in its id, or that a CSV file names.

    ``pattern`` is searched in the id; its first group counts, or the whole match where it has none. ``file`` has the
    columns ``id`` and ``group``. Without either, cases keep the group of their layout.

    Raises:
        MedsegError: both are given, one cannot be used, or listing the cases that it gives no group.
    """
    cases = tuple(cases)
    if pattern is not None and file is not None:
        raise MedsegError(f"dataset.group={pattern} and dataset.group_file={file} exclude each other: give one.")
    if pattern is None and file is None:
        return cases
    groups = _from_file(Path(file)) if file is not None else _from_pattern(cases, str(pattern))
    missing = [case.id for case in cases if not groups.get(case.id)]
    if missing:
        source = f"dataset.group_file={file}" if file is not None else f"dataset.group={pattern}"
        raise MedsegError(f"{source} gives {len(missing)} of {len(cases)} cases no group:\n{listing(missing)}")
    return tuple(replace(case, group=groups[case.id]) for case in cases)


def _from_pattern(cases: Iterable[Case], pattern: str) -> dict[str, str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise MedsegError(f"dataset.group={pattern} is no regular expression: {error}.") from error
    matches = {case.id: expression.search(case.id) for case in cases}
    place = min(expression.groups, 1)
    return {name: match[place] for name, match in matches.items() if match}


def _from_file(path: Path) -> dict[str, str]:
    groups: dict[str, str] = {}
    for row in read_table(path, "dataset.group_file", ("id", "group")):
        name, group = row["id"], row["group"]
        if name and group and groups.setdefault(name, group) != group:
            raise MedsegError(f"dataset.group_file={path} gives {name} two groups: {groups[name]} and {group}.")
    return groups
