"""From image files to cases: a file a case, or a file a channel where names end in the channel's; their modalities."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from medseg.io.case import Case
from medseg.io.files.read import exists, stem

MASK_ENDINGS = ("_mask", "_seg", "_label", "_segmentation", "-seg")

Found = dict[str, dict[int, list[Path]]]
"""Files by case and by the place of their ending."""


def cases_from_files(
    root: Path, files: Iterable[Path], endings: Sequence[Sequence[str]] | None, *, may_lack: bool = False
) -> tuple[list[Case], list[str]]:
    """Group files below ``root`` into unlabelled cases, sorted by id; also say what forms no case.

    ``endings`` are those of names without ``.nii.gz`` or the like, in the channels' order, of which each channel may
    have several: ``[["_flair", "-t2f"], ["_t1", "-t1n"]]``. None or empty: each file is a case. ``"/ct"`` is a file of
    this name in a folder a case, ``"ct/"`` a folder a channel. Masks beside the channels, known by the endings that are
    usual for them, are skipped, and so is what else lies in folders a case. The id is the name relative to
    ``root``, without ending and suffix and with ``/`` between folders.

    With ``may_lack`` a case needs the file of one channel only, and its ``absent`` names the others.

    Returns:
        The complete cases, and a line for each file without an ending, each case that lacks a channel, and files that
        one case and channel would have to share.
    """
    channels = [tuple(channel) for channel in endings or [("",)]]
    files_of_case, others = by_ending(root, files, channels)
    known = [ending for channel in channels for ending in channel]
    in_folders = all(ending.startswith("/") for ending in known)
    problems = [
        f"{path} ends in none of {', '.join(known)}"
        for path in others
        if not in_folders and not stem(path).endswith(MASK_ENDINGS)
    ]
    problems += shared_names(files_of_case)
    cases = []
    for name, files_of in sorted(files_of_case.items()):
        absent = tuple(index for index in range(len(channels)) if index not in files_of)
        if absent and not may_lack:
            missing = [" or ".join(channels[index]) for index in absent]
            problems.append(f"{name} has no file ending in {', and none in '.join(missing)}")
        elif not shared_names({name: files_of}):
            cases.append(Case(name, name, tuple(files_of[index][0] for index in sorted(files_of)), absent=absent))
    return cases, problems


def by_ending(root: Path, files: Iterable[Path], endings: Sequence[Sequence[str]]) -> tuple[Found, list[Path]]:
    """Sort files by id and by the index of their ending, of those that fit the longest; also return what fits none."""
    known = sorted(
        ((ending, index) for index, several in enumerate(endings) for ending in several), key=lambda item: -len(item[0])
    )
    files_of: Found = defaultdict(lambda: defaultdict(list))
    others = []
    for path in files:
        name = relative_id(path, root)
        fitting = ((rest, index) for ending, index in known if (rest := without(name, ending)))
        match = next(fitting, None)
        if match is None:
            others.append(path)
        else:
            files_of[match[0]][match[1]].append(path)
    return files_of, others


def without(name: str, ending: str) -> str | None:
    """Return a name without its ending, or without its folder where ``ending`` is one; None where it does not fit.

    >>> without("p1_t1", "_t1"), without("p1/ct", "/ct"), without("ct/p1", "ct/"), without("p1", "_t1")
    ('p1', 'p1', 'p1', None)
    """
    if ending.endswith("/"):
        return name.removeprefix(ending) if name.startswith(ending) else None
    return name.removesuffix(ending) if name.endswith(ending) else None


def shared_names(files_of_case: Mapping[str, Mapping[int, Sequence[Path]]]) -> list[str]:
    """Name the files that one case and channel would have to share."""
    shared = [paths for channels in files_of_case.values() for paths in channels.values() if len(paths) > 1]
    suffix_only = [len({stem(path) for path in paths}) == 1 for paths in shared]
    return [
        f"{' and '.join(map(str, paths))} differ in their {'suffix' if alike else 'ending'} only: rename or remove one"
        for paths, alike in zip(shared, suffix_only, strict=True)
    ]


def equal_names(root: Path, files: Iterable[Path], endings: Sequence[Sequence[str]] | None) -> list[str]:
    """Name the files that ``cases_from_files`` cannot tell apart: their masks would have one name."""
    return shared_names(by_ending(root, files, endings or [("",)])[0])


def complete(cases: Iterable[Case]) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Return the cases whose files are all there and whose id no other has, and a line for each fault of the rest."""
    cases = tuple(cases)
    times = Counter(case.id for case in cases)
    problems = [f"{case.id}: {path} is missing" for case in cases for path in case.files if not exists(path)]
    problems += [f"{name} is listed {count} times" for name, count in times.items() if count > 1]
    usable = (case for case in cases if times[case.id] == 1 and all(exists(path) for path in case.files))
    return tuple(usable), tuple(problems)


def relative_id(path: Path, root: Path) -> str:
    """Return the name relative to ``root`` without suffix, ``/`` between folders; ``root`` may be the file itself."""
    return stem(path) if path == root else path.relative_to(root).with_name(stem(path)).as_posix()


def common_name(images: Sequence[Path]) -> str:
    """Return the words that the names of a case's files have in common at their beginning, or else their folder's name.

    >>> common_name([Path("p1_t1.nii"), Path("p1_t1ce.nii")]), common_name([Path("p1/ct.nii"), Path("p1/pet.nii")])
    ('p1', 'p1')
    """
    stems = [stem(path) for path in images]
    if len(set(stems)) == 1:
        return stems[0]
    words = zip(*(re.split(r"([-_. ]+)", name) for name in stems), strict=False)
    shared = "".join(several[0] for several in takewhile(lambda several: len(set(several)) == 1, words))
    return shared.rstrip("-_. ") or images[0].parent.name


def endings_of(cases: Iterable[Case]) -> tuple[tuple[str, ...], ...] | None:
    """Return what follows the id in the names of each channel's files, or None where it is not unique.

    A single channel cannot be taken for another: files without the ending are as good.
    """
    endings_of_case = {tuple(_ending(path, case.id.rpartition("/")[2]) for path in case.images) for case in cases}
    endings = [ending for ending in endings_of_case.pop() if ending is not None] if len(endings_of_case) == 1 else []
    if endings in ([], [""]) or len(set(endings)) < len(next(iter(cases)).images):
        return None
    return tuple((ending,) for ending in endings) if endings[1:] else ((endings[0], ""),)


def _ending(path: Path, name: str) -> str | None:
    if stem(path).startswith(name):
        return stem(path)[len(name) :]
    return f"/{stem(path)}" if path.parent.name == name else None


MODALITIES = {
    "mri": ("mri", "mr", "t1", "t2", "flair", "adc", "dwi", "swi", "pd"),
    "ct": ("ct", "cbct", "cta"),
    "xray": ("xray", "x-ray", "xr", "cr", "dx"),
    "ultrasound": ("ultrasound", "us"),
    "microscopy": ("microscopy",),
}
"""Names of channels as data sets write them, by modality; those of MRI's sequences may go on (``t1gd``)."""


def modalities_of(channels: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the modality of each channel by its name; None where one is unknown.

    >>> modalities_of(["FLAIR", "T1w"]), modalities_of(["CT", "dose"])
    (('mri', 'mri'), None)
    """
    modality_of = {name: modality for modality, names in MODALITIES.items() for name in names}
    names = [channel.lower() for channel in channels or ()]
    modalities = [modality_of.get(name, "mri" if name.startswith(("t1", "t2", "flair")) else "") for name in names]
    return tuple(modalities) if modalities and all(modalities) else None
