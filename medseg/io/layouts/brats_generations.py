"""The generations of BraTS: their label values, their regions, and what tells them apart.

Label values and regions: Menze et al. 2015 (2012 to 2016), Bakas et al. 2018 and Baid et al. 2021 (2017 to 2022), the
challenge's own pages (2023), de Verdier et al. 2024 (2024), Fathi Kazerooni et al. 2024 (2024, paediatric), Antonelli
et al. 2022 (the Decathlon's Task01).
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medseg.errors import MedsegError, listing
from medseg.io.case import Case, FileValues
from medseg.io.files.read import read_mask

log = logging.getLogger(__name__)

CAVITY = "resection_cavity"
LABELS: dict[str, dict[str, FileValues]] = {
    "brats2012": {"background": 0, "necrosis": 1, "edema": 2, "non_enhancing": 3, "enhancing": 4},
    "brats2017": {"background": 0, "necrosis": 1, "edema": 2, "enhancing": 4},
    "brats2023": {"background": 0, "necrosis": 1, "edema": 2, "enhancing": 3},
    "brats2024": {"background": 0, "necrosis": 1, "edema": 2, "enhancing": 3, CAVITY: 4},
    "brats2024_ped": {"background": 0, "enhancing": 1, "non_enhancing": 2, "cystic": 3, "edema": 4},
    "decathlon": {"background": 0, "edema": 1, "necrosis": 2, "enhancing": 3},
}
"""Classes and their values by generation, each called by its first year. ``necrosis`` is, from 2017 on and in the
Decathlon, one class with the non-enhancing core (NCR/NET, NETC); ``edema`` is called SNFH from 2023 on."""

FIRST_YEARS = (2012, 2017, 2023, 2024)
GENERATIONS = {f"brats{year}": f"brats{max(y for y in FIRST_YEARS if y <= year)}" for year in range(2012, 2026)} | {
    name: name for name in ("brats2024_ped", "decathlon")
}
"""The values of ``dataset.generation`` and the key of their ``LABELS``."""

FIRST_RELEASE, PAEDIATRIC = "the first release of brats2012", "brats_ped"
NAMES = (
    (r"(sim)?brats_[hl]g\d", FIRST_RELEASE),
    (r"brats_(2013|tcia)_pat\d|VSD\.", "brats2012"),
    (r"(brats(1[789]|20|202[012])|fets\d*)_", "brats2017"),
    (r"brats-ped-\d", PAEDIATRIC),
    (r"brats-[a-z]+-", "brats2023"),
)
"""How the names of cases, or of their files, begin, and the generation that this tells, as far as it does."""
UNKNOWN = "names of no generation"

BY_MASKS: dict[str, dict[tuple[int, ...], str]] = {
    "brats2023": {(): "brats2023", (3,): "brats2023", (3, 4): "brats2024"},
    PAEDIATRIC: {(): "brats2023", (3,): "brats2023", (4,): "brats2024_ped", (3, 4): "brats2024_ped"},
    FIRST_RELEASE: {(3,): "brats2012", (4,): "brats2012", (3, 4): "brats2012"},
}
"""What names leave open, by which of the values 3 and 4 the masks hold. What is not listed tells nothing: under names
of 2023 a 4 without any 3 may be the enhancing tumour of 2021, and the first masks of 2012 had 1 edema and 2 core."""


def regions_of(labels: Mapping[str, FileValues]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the regions of a generation's classes and the class that each is painted with.

    >>> regions_of({"background": 0, "necrosis": 1, "edema": 2, "enhancing": 4})[0]["TC"]
    ['necrosis', 'enhancing']
    """
    tumour = [name for name in labels if name not in ("background", CAVITY)]
    core = [name for name in tumour if name != "edema"]
    regions = {"WT": tumour, "TC": core, "ET": ["enhancing"]}
    order = ["edema", next(name for name in core if name != "enhancing"), "enhancing"]
    return (regions | {"RC": [CAVITY]}, [*order, CAVITY]) if CAVITY in labels else (regions, order)


def recognise(root: Path, cases: Iterable[Case]) -> str:
    """Return the key in ``LABELS`` of the one generation that the cases' names tell, or else their masks.

    Raises:
        MedsegError: they are of several or of none.
    """
    by_name: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_name[told_by_name(case)].append(case)
    found: dict[str, list[str]] = defaultdict(list)
    for told, members in by_name.items():
        found[told_by_masks(told, members)] += [case.id for case in members]
    if len(found) > 1 or not set(found) <= set(LABELS):
        raise MedsegError(unclear(root, found))
    return next(iter(found))


def chosen_by_user(generation: str, cases: Iterable[Case]) -> str:
    """Return the key in ``LABELS`` of a value of ``dataset.generation``, with a warning where names tell another."""
    chosen = GENERATIONS[generation]
    told = {told_by_name(case) for case in cases} - {UNKNOWN}
    if others := [name for name in sorted(told) if chosen not in (name, *BY_MASKS.get(name, {}).values())]:
        log.warning("dataset.generation=%s, but there are names of %s", generation, " and ".join(others))
    return chosen


def told_by_name(case: Case) -> str:
    """Return the generation in ``NAMES`` of a case."""
    names = (case.id, case.images[0].name)
    fitting = (told for beginning, told in NAMES for name in names if re.match(beginning, name, re.IGNORECASE))
    return next(fitting, UNKNOWN)


def told_by_masks(told: str, cases: Sequence[Case]) -> str:
    """Return the generation of cases whose names may leave it open."""
    if told not in BY_MASKS:
        return told
    log.info("reading masks for the values 3 and 4, which tell the generation; dataset.generation=... spares it")
    seen = seen_values(cases, {3, 4})
    return BY_MASKS[told].get(seen, f"names of {told}, masks with {'4 but no 3' if seen else 'neither 3 nor 4'}")


def seen_values(cases: Iterable[Case], wanted: set[int]) -> tuple[int, ...]:
    """Return which of some values masks hold, sorted; reading ends as soon as all have been seen."""
    seen: set[int] = set()
    for case in cases:
        try:
            values = read_mask(case.labels[0].path)
        except MedsegError:
            continue  # all files that cannot be read are listed together when every case is checked
        seen |= {value for value in wanted - seen if (values == value).any()}
        if seen == wanted:
            break
    return tuple(sorted(seen))


def unclear(root: Path, found: Mapping[str, Sequence[str]]) -> str:
    """Say which generations were found where one is needed."""
    lines = [f"{name}: {len(ids)} cases, such as {ids[0]}" for name, ids in sorted(found.items())]
    several = "cases of several generations, whose label values differ" if len(found) > 1 else "no clear generation"
    return (
        f"dataset.root={root}: {several}:\n{listing(lines)}\nGive the folder of one of them as dataset.root, or, if all"
        f" masks have the same values, say which: dataset.generation={'|'.join(GENERATIONS)}."
    )
