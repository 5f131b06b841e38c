"""What is said of a data set: a mistake or a warning, with the cases that it is about."""

from dataclasses import dataclass
from typing import Literal

from medseg.errors import listing

MOST = 200  # lines of a message; medseg inspect leaves out none
FEW = 3  # cases that one line names


@dataclass(frozen=True)
class Issue:
    """A mistake, which a data set cannot be used with, or a warning; ``cases`` are those that it is about.

    ``kind`` is a word or two for tables and filters, ``details`` what is to be said of each case, or nothing.
    """

    level: Literal["error", "warning"]
    text: str
    cases: tuple[str, ...] = ()
    kind: str = "error"
    details: tuple[str, ...] = ()


def cases_with_details(issue: Issue) -> list[str]:
    """Return the cases of an issue, each with what is to be said of it."""
    if not issue.details:
        return list(issue.cases)
    return [f"{name} ({detail})" for name, detail in zip(issue.cases, issue.details, strict=True)]


def is_named(issue: Issue) -> bool:
    """Return whether the text names the cases itself, or there are none."""
    return not issue.cases or (len(issue.cases) == 1 and issue.cases[0] in issue.text and not issue.details)


def in_full(issue: Issue) -> str:
    """Return an issue with its cases, a line each, where the text does not name the one that it is about."""
    return issue.text if is_named(issue) else f"{issue.text}:\n{listing(cases_with_details(issue), most=MOST)}"


def on_a_line(issue: Issue) -> str:
    """Return an issue on one line, with every case that its text does not name."""
    return issue.text if is_named(issue) else f"{issue.text}: {', '.join(cases_with_details(issue))}"


def in_brief(issue: Issue) -> str:
    """Return an issue on one line, with few of its cases."""
    names = ", ".join(issue.cases[:FEW]) + ("" if len(issue.cases) <= FEW else ", …")
    return f"{issue.text}, in {len(issue.cases)} case(s): {names}. medseg inspect tells more"
