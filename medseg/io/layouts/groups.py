"""Groups: which cases belong to one patient, so that a split never parts them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.errors import MedsegError, listing
from medseg.io.case import Case
from medseg.io.tables import read_table

LONGEST_SEARCH, LONGEST_WAIT = 4, 60.0
"""Seconds of a processor, and of all, that a regular expression, which a file may give, is searched for."""

SEARCH = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1])))
except ImportError:  # on Windows; then the wait is limited alone
    pass
pattern, names = json.load(sys.stdin)
expression = re.compile(pattern)
matches = map(expression.search, names)
print(json.dumps([match and match[min(expression.groups, 1)] for match in matches]))
"""
"""Run in a process of its own, which can be ended: nothing else stops a search."""


def assign_groups(cases: Iterable[Case], *, pattern: str | None = None, file: Path | None = None) -> tuple[Case, ...]:
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
    if file is not None:
        groups: dict[str, str] = {}
        for row in read_table(file, "dataset.group_file", ("id", "group")):
            name, group = row["id"], row["group"]
            if name and group and groups.setdefault(name, group) != group:
                raise MedsegError(f"dataset.group_file={file} gives {name} two groups: {groups[name]} and {group}.")
    else:
        groups = search_groups(str(pattern), [case.id for case in cases])
    missing = [case.id for case in cases if not groups.get(case.id)]
    if missing:
        source = f"dataset.group_file={file}" if file is not None else f"dataset.group={pattern}"
        raise MedsegError(f"{source} gives {len(missing)} of {len(cases)} cases no group:\n{listing(missing)}")
    return tuple(replace(case, group=groups[case.id]) for case in cases)


def search_groups(pattern: str, names: Sequence[str]) -> dict[str, str]:
    """Return what a regular expression finds in names, without those in which it finds nothing.

    Raises:
        MedsegError: it is none, or cannot be searched for in a reasonable time.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise MedsegError(f"dataset.group={pattern} is no regular expression: {error}.") from error
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", SEARCH, str(LONGEST_SEARCH)],
            input=json.dumps([pattern, names]),
            capture_output=True,
            text=True,
            check=True,
            timeout=LONGEST_WAIT,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        raise MedsegError(
            f"dataset.group={pattern}: not found in {len(names)} case ids within {LONGEST_SEARCH} s, as its repeats"
            " can be matched in too many ways. Give a simpler one, without repeats inside repeats."
        ) from error
    return {name: group for name, group in zip(names, json.loads(done.stdout), strict=True) if group}
