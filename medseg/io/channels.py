"""From image files to cases: a file a case, or a file a channel where names end in the channel's."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.errors import MedsegError, listing
from medseg.io.case import Case
from medseg.io.files import stem


def cases_from_files(root: Path, files: Iterable[Path], suffixes: Sequence[str] | None) -> list[Case]:
    """Group files below ``root`` into unlabelled cases, sorted by id.

    ``suffixes`` are the endings of names without ``.nii.gz`` or the like, one a channel in the channels' order, such as
    ``["_flair", "_t1"]``; None or empty: each file is a case. The id is the name relative to ``root``, without
    ending and suffix and with ``/`` between folders.

    Raises:
        MedsegError: listing the files without an ending, the cases that lack a channel, and files of the same name.
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
    problems += [problem for name in sorted(found) for problem in _problems(name, found[name], endings)]
    if problems:
        raise MedsegError(f"{root}: the images form no cases:\n{listing(problems)}\nRename, add or remove these files.")
    return [Case(name, name, tuple(found[name][ending][0] for ending in endings)) for name in sorted(found)]


def relative_id(path: Path, root: Path) -> str:
    """Return the name relative to ``root`` without suffix, ``/`` between folders; ``root`` may be the file itself."""
    return stem(path) if path == root else path.relative_to(root).with_name(stem(path)).as_posix()


def _problems(name: str, channels: dict[str, list[Path]], endings: Sequence[str]) -> list[str]:
    missing = [f"{name} has no file ending in {ending}" for ending in endings if ending not in channels]
    same = [f"{name} has several files: {', '.join(map(str, paths))}" for paths in channels.values() if len(paths) > 1]
    return missing + same
