"""BraTS, the brain tumour segmentation challenge: the labelled cases of every public generation, as they are named.

Label values and regions: Menze et al. 2015 (2012 to 2016), Bakas et al. 2018 and Baid et al. 2021 (2017 to 2022), the
challenge's own pages (2023), de Verdier et al. 2024 (2024), Fathi Kazerooni et al. 2024 (2024, paediatric), Antonelli
et al. 2022 (the Decathlon's Task01).
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.errors import MedsegError, listing, nearest_path
from medseg.io.case import Case, Dataset, FileValues, LabelFile
from medseg.io.files.read import read_mask
from medseg.io.formats.archives import files_below
from medseg.io.layouts.decathlon_json import decathlon
from medseg.io.tables import Row, read_table

log = logging.getLogger(__name__)

CHANNELS = ("flair", "t1", "t1ce", "t2")
ENDINGS = (
    ("_flair", "_Flair", "_FLAIR", "-t2f", "_t2f"),
    ("_t1", "_T1", "-t1n", "_t1n"),
    ("_t1ce", "_T1ce", "_T1CE", "-t1c", "_t1c", "_T1c", "_T1C", "_t1gd", "_T1gd"),
    ("_t2", "_T2", "-t2w", "_t2w"),
)
"""How names end in each generation, a row a channel; files are found by them in upper and lower case alike."""
MASK_ENDINGS = ("_seg", "-seg", "_segm", "_truth")
MASK = len(CHANNELS)  # the part of a case that is no channel
PARTS = {ending.lower(): part for part, row in enumerate((*ENDINGS, MASK_ENDINGS)) for ending in row}

VSD = re.compile(r"VSD\..*?[._](?:MR_(?P<channel>flair|t1c|t1|t2)|OT)(?:\.\d+)?", re.IGNORECASE)
"""Files of 2013 to 2016: ``VSD.Brain.XX.O.MR_T1c.54513``, and ``VSD.Brain_3more.XX.O.OT.54517`` for masks."""
SUFFIX = re.compile(r"\.(nii\.gz|nii|mha|mhd)$", re.IGNORECASE)

MISNAMED = {"W39_1998.09.19": "BraTS20_Training_355"}
"""Masks that were published under another name, without its ending."""

Files = Mapping[str, Mapping[int, Sequence[Path]]]
"""The files of each case by part: 0 to 3 are channels, ``MASK`` is the mask."""


def brats(root: str | Path, generation: str | None = None) -> Dataset:
    """Find the labelled cases of a BraTS data set, in folders nested at any depth or flat, among other files.

    Channels are FLAIR, T1, T1 with contrast agent and T2, in this order. Learned are the regions WT, TC and ET, and RC
    where resection cavities are labelled; masks are written with the generation's own values. Cases of one patient make
    a group: those that differ in the time point only, and those that a name mapping (a CSV below ``root`` or beside it)
    gives the same subject of another generation. Cases without a mask are the unlabelled ones.

    ``generation`` is one of ``GENERATIONS``, by default what the names tell. Those of 2023 and 2024 are alike; masks
    are read then until the values 3 and 4 have been seen, all of them where there is no 4: about 0.06 s each, or 75 s
    for the 1251 of 2023. ``generation`` makes that unnecessary.

    Raises:
        MedsegError: there is no such folder, no labelled case in it, or its generation is not clear.
    """
    root = Path(root)
    if generation is not None and generation not in GENERATIONS:
        raise MedsegError(f"dataset.generation={generation} is none of {', '.join(GENERATIONS)}.")
    if not root.is_dir():
        raise MedsegError(f"dataset.root={root}: there is no such folder.{nearest_path(root)}")
    files = files_below(root)
    files_of, strays = sort_files(files, root)
    tasks = [path.parent for path in files if path.name == "dataset.json" and (path.parent / "imagesTr").is_dir()]
    if generation == "decathlon" or (tasks and not files_of and generation is None):
        return task01(tasks[0] if tasks else root)
    if tasks and generation is None:
        raise MedsegError(unclear(root, {"decathlon": [str(tasks[0])], "others": sorted(files_of)}))
    cases, problems, unlabelled = complete_cases(files_of)
    problems += [f"{path} is a mask of no case" for path in strays]
    if not cases:
        raise MedsegError(no_labelled_cases(root, files_of, problems))
    if generation is None:
        key = recognise(root, cases)
    else:
        key = GENERATIONS[generation]
        by_names = {generation_of_name(case) for case in cases} - {UNKNOWN}
        if others := [name for name in sorted(by_names) if key not in (name, *BY_MASKS.get(name, {}).values())]:
            log.warning("dataset.generation=%s, but there are names of %s", generation, " and ".join(others))
    log.info("%s: %d labelled cases with the label values of %s", root, len(cases), key)
    cases, unread = group_by_patient(cases, [*files, *sorted(root.parent.glob("*.csv"))])
    dataset = Dataset(tuple(cases), endings=ENDINGS, problems=(*problems, *unread), unlabelled=tuple(unlabelled))
    return described(dataset, key)


def described(dataset: Dataset, generation: str) -> Dataset:
    """Return a data set with the classes, regions and channels of a generation."""
    regions, order = regions_of(LABELS[generation])
    return replace(
        dataset,
        labels=dict(LABELS[generation]),
        regions=regions,
        region_order=order,
        channels=CHANNELS,
        modality=("mri",) * len(CHANNELS),
    )


def task01(root: Path) -> Dataset:
    """Read the Decathlon's Task01, one 4D file a case.

    Raises:
        MedsegError: ``dataset.json`` cannot be used, or describes something else.
    """
    dataset = decathlon(root)
    by_value = {value: name.lower() for name, value in (dataset.labels or {}).items() if isinstance(value, int)}
    edema, non_enhancing, enhancing = (by_value.get(value, "") for value in (1, 2, 3))
    is_task01 = (
        [name.lower() for name in dataset.channels or ()] == ["flair", "t1w", "t1gd", "t2w"]
        and ("edema" in edema and "non" not in edema)
        and "non" in non_enhancing
        and ("enhanc" in enhancing and "non" not in enhancing)
    )
    if not is_task01:
        raise MedsegError(
            f"{root / 'dataset.json'}: channels {dataset.channels} with labels {dataset.labels} are not the Decathlon's"
            " Task01_BrainTumour (FLAIR, T1w, t1gd, T2w; 1 edema, 2 non-enhancing, 3 enhancing tumour)."
            " Read it by dataset=decathlon, or by dataset=nnunet where nnU-Net made it."
        )
    return described(dataset, "decathlon")


# ---- files


def sort_files(files: Iterable[Path], root: Path) -> tuple[Files, list[Path]]:
    """Sort files by case and part; also return the masks that belong to none. Other files are skipped."""
    files_of: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    spelling: dict[str, str] = {}  # the files of one case may differ in upper and lower case
    cases_in: dict[Path, set[str]] = defaultdict(set)
    masks: list[tuple[str, Path]] = []
    strays: list[Path] = []
    for path in files:
        name, part = part_of(path, root)
        if part == MASK:
            masks.append((name, path))
        elif part is not None:
            case = spelling.setdefault(name.lower(), name)
            files_of[case][part].append(path)
            cases_in[path.parent].add(case)
    for name, path in masks:
        # a mask of another name is of the only case in its folder, or was published under a wrong name
        here = cases_in[path.parent]
        only = min(here) if len(here) == 1 else spelling.get(MISNAMED.get(name, "").lower(), "")
        owner = spelling.get(name.lower(), only)
        (files_of[owner][MASK] if owner else strays).append(path)
    return files_of, strays


def part_of(path: Path, root: Path) -> tuple[str, int | None]:
    """Return the case that a file belongs to and which part of it, None for a file that is no scan or none of a case.

    A file in a folder that is called like a scan, as some archivers unpack one, goes by the folder's name.
    """
    if not SUFFIX.search(path.name):
        return "", None
    named = path.parent if path.parent != root and SUFFIX.search(path.parent.name) else path
    name = SUFFIX.sub("", named.name)
    if match := VSD.fullmatch(name):
        # the case is the innermost folder that is no scan's own, "HG/0001" where that is but a number
        folders = [folder for folder in path.parents if folder.is_relative_to(root)]
        folder = next((folder for folder in folders if not folder.name.upper().startswith("VSD.")), root)
        case = f"{folder.parent.name}/{folder.name}" if folder.name.isdecimal() else folder.name
        return case, PARTS[f"_{match['channel'].lower()}"] if match["channel"] else MASK
    ending = max((ending for ending in PARTS if name.lower().endswith(ending)), key=len, default="")
    return name[: len(name) - len(ending)], PARTS.get(ending)


def complete_cases(files_of: Files) -> tuple[list[Case], list[str], list[Case]]:
    """Return the cases with a mask, sorted by id, a line for each of these that is not right, and those without."""
    cases: list[Case] = []
    unlabelled: list[Case] = []
    problems = []
    for name, files in sorted(files_of.items()):
        missing = [channel for part, channel in enumerate(CHANNELS) if part not in files]
        twice = [path for paths in files.values() if len(paths) > 1 for path in paths]
        if MASK in files and missing:
            problems.append(f"{name} has no {' and no '.join(missing)}")
        elif MASK in files and twice:
            problems.append(f"{name} has several files for one part: {', '.join(map(str, twice))}")
        elif not missing and not twice:
            images = tuple(files[part][0] for part in range(MASK))
            labels = (LabelFile(files[MASK][0]),) if MASK in files else ()
            (cases if labels else unlabelled).append(Case(name, patient(name), images, labels))
    if unlabelled:
        log.info("%d cases have no mask, such as %s", len(unlabelled), unlabelled[0].id)
    return cases, problems, unlabelled


def no_labelled_cases(root: Path, files_of: Files, problems: Sequence[str]) -> str:
    """Return the message that says why there is no labelled case."""
    if problems:
        return f"dataset.root={root}: no case can be used.\n{listing(problems)}"
    if files_of:
        return (
            f"dataset.root={root}: none of {len(files_of)} cases, such as {min(files_of)}, has a mask, whose name ends"
            f" in {' or '.join(MASK_ENDINGS)}. Is this a validation set? Segment it by medseg predict."
        )
    endings = ", ".join(row[0] for row in ENDINGS)
    return (
        f"dataset.root={root}: no BraTS scans. Their names end in {endings} or as other years have them, before .nii.gz"
        " or .nii; the Decathlon's Task01 has a dataset.json. For other names use dataset=folder."
    )


# ---- generations: label values, regions, and what distinguishes them


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
"""How the names of cases, or of their files, begin, and the generation that this implies, where it does."""
UNKNOWN = "names of no generation"

BY_MASKS: dict[str, dict[tuple[int, ...], str]] = {
    "brats2023": {(): "brats2023", (3,): "brats2023", (3, 4): "brats2024"},
    PAEDIATRIC: {(): "brats2023", (3,): "brats2023", (4,): "brats2024_ped", (3, 4): "brats2024_ped"},
    FIRST_RELEASE: {(3,): "brats2012", (4,): "brats2012", (3, 4): "brats2012"},
}
"""What names leave open, by which of the values 3 and 4 the masks hold. Other combinations decide nothing: under names
of 2023 a 4 without any 3 may be the enhancing tumour of 2021, and the first masks of 2012 had 1 edema and 2 core."""


def regions_of(labels: Mapping[str, FileValues]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the regions of a generation's classes and the class that each is given in a mask.

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
        by_name[generation_of_name(case)].append(case)
    ids_of: dict[str, list[str]] = defaultdict(list)
    for name, members in by_name.items():
        generation = name
        if name in BY_MASKS:
            log.info(
                "reading masks for the values 3 and 4, which tell the generation; dataset.generation=... spares it"
            )
            values = values_in_masks(members, {3, 4})
            nothing = f"names of {name}, masks with {'4 but no 3' if values else 'neither 3 nor 4'}"
            generation = BY_MASKS[name].get(values, nothing)
        ids_of[generation] += [case.id for case in members]
    if len(ids_of) > 1 or not set(ids_of) <= set(LABELS):
        raise MedsegError(unclear(root, ids_of))
    return next(iter(ids_of))


def generation_of_name(case: Case) -> str:
    """Return the generation in ``NAMES`` of a case."""
    names = (case.id, case.images[0].name)
    fitting = (name for beginning, name in NAMES for each in names if re.match(beginning, each, re.IGNORECASE))
    return next(fitting, UNKNOWN)


def values_in_masks(cases: Iterable[Case], values: set[int]) -> tuple[int, ...]:
    """Return which of some values masks hold, sorted; reading ends as soon as all have been seen."""
    seen: set[int] = set()
    for case in cases:
        try:
            mask = read_mask(case.labels[0].path)
        except MedsegError:
            continue  # all files that cannot be read are listed together when every case is checked
        seen |= {value for value in values - seen if (mask == value).any()}
        if seen == values:
            break
    return tuple(sorted(seen))


def unclear(root: Path, ids_of: Mapping[str, Sequence[str]]) -> str:
    """Return the message that names the generations that there are where one is needed."""
    lines = [f"{name}: {len(ids)} cases, such as {ids[0]}" for name, ids in sorted(ids_of.items())]
    several = "cases of several generations, whose label values differ" if len(ids_of) > 1 else "no clear generation"
    return (
        f"dataset.root={root}: {several}:\n{listing(lines)}\nGive the folder of one of them as dataset.root, or, if all"
        f" masks have the same values, say which: dataset.generation={'|'.join(GENERATIONS)}."
    )


# ---- patients: what cases of several time points, or under several generations' names, have in common


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


def group_by_patient(cases: Sequence[Case], files: Iterable[Path]) -> tuple[list[Case], list[str]]:
    """Give cases of one patient the same group, as name mappings tell; also return which of these cannot be read."""
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
