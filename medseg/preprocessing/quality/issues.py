"""What is said of a data set: a mistake or a warning, with the cases that it is about."""

from dataclasses import dataclass
from typing import Literal

from medseg.errors import listing

MOST = 200  # lines of a message; medseg inspect leaves out none
FEW = 3  # cases that one line names


@dataclass(frozen=True)
class Finding:
    """A mistake, which a data set cannot be used with, or a warning; ``cases`` are those that it is about.

    ``kind`` is a word or two for tables and filters, ``details`` what is to be said of each case, or nothing.
    """

    level: Literal["error", "warning"]
    text: str
    cases: tuple[str, ...] = ()
    kind: str = "error"
    details: tuple[str, ...] = ()


def told(finding: Finding) -> list[str]:
    """Return the cases of a finding, each with what is to be said of it."""
    if not finding.details:
        return list(finding.cases)
    return [f"{name} ({detail})" for name, detail in zip(finding.cases, finding.details, strict=True)]


def is_named(finding: Finding) -> bool:
    """Tell whether the text names the cases itself, or there are none."""
    return not finding.cases or (len(finding.cases) == 1 and finding.cases[0] in finding.text and not finding.details)


def in_full(finding: Finding) -> str:
    """Return a finding with its cases, a line each, where the text does not name the one that it is about."""
    return finding.text if is_named(finding) else f"{finding.text}:\n{listing(told(finding), most=MOST)}"


def on_a_line(finding: Finding) -> str:
    """Return a finding on one line, with every case that its text does not name."""
    return finding.text if is_named(finding) else f"{finding.text}: {', '.join(told(finding))}"


def in_brief(finding: Finding) -> str:
    """Return a finding on one line, with few of its cases."""
    names = ", ".join(finding.cases[:FEW]) + ("" if len(finding.cases) <= FEW else ", …")
    return f"{finding.text}, in {len(finding.cases)} case(s): {names}. medseg inspect tells more"
