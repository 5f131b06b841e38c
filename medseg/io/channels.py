"""From image files to cases: a file a case, or a file a channel where names end in the channel's."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medseg.errors import MedsegError, listing
from medseg.io.case import Case
from medseg.io.files import stem


def cases_from_files(root: Path, files: Iterable[Path], suffixes: Sequence[str] | None) -> tuple[list[Case], list[str]]:
    """Group files below ``root`` into unlabelled cases, sorted by id; also say what forms no case.

    ``suffixes`` are the endings of names without ``.nii.gz`` or the like, one a channel in the channels' order, such as
    ``["_flair", "_t1"]``; None or empty: each file is a case. The id is the name relative to ``root``, without
    ending and suffix and with ``/`` between folders.

    Returns:
        The complete cases, and a line for each file without an ending and each case that lacks a channel.

    Raises:
        MedsegError: files differ in their suffix only, so that one name would mean two scans.
    """
    endings = list(suffixes or [""])
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    problems = []
    for path in files:
        name = relative_id(path, root)
        ending = max((ending for ending in endings if name.endswith(ending)), key=len, default=None)
        if ending is None:
            problems.append(f"{path} ends in none of {', '.join(endings)}")
        else:
            found[name.removesuffix(ending)][ending].append(path)
    refuse_equal_names(found)
    cases = []
    for name, channels in sorted(found.items()):
        if missing := [ending for ending in endings if ending not in channels]:
            problems.append(f"{name} has no file ending in {' or '.join(missing)}")
        else:
            cases.append(Case(name, name, tuple(channels[ending][0] for ending in endings)))
    return cases, problems


def refuse_equal_names(found: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Raise where one name and ending belong to several files."""
    equal = [paths for channels in found.values() for paths in channels.values() if len(paths) > 1]
    if equal:
        lines = [" and ".join(map(str, paths)) for paths in equal]
        raise MedsegError(f"these files differ in their suffix only:\n{listing(lines)}\nRename or remove one of them.")


def relative_id(path: Path, root: Path) -> str:
    """Return the name relative to ``root`` without suffix, ``/`` between folders; ``root`` may be the file itself."""
    return stem(path) if path == root else path.relative_to(root).with_name(stem(path)).as_posix()
