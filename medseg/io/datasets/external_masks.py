"""Masks that were predicted elsewhere, found by the names of cases."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.errors import MedsegError
from medseg.io.case import Case
from medseg.io.files.read import find_masks, stem
from medseg.io.layouts.image_folder import masks_by_id

RECORDS = ".medseg"
"""The hidden folder where ``medseg predict`` records what it did; the masks beside it are predicted."""

BESIDE_MASKS = ("overlays", "uncertainty", "probabilities", "meshes", "to_correct")
"""What ``medseg predict`` writes into folders beside the masks, under the names of the same cases."""


def predicted_masks(root: Path, cases: Sequence[Case]) -> dict[str, Path]:
    """Return the mask below ``root`` of each case that has one there, by the case's id.

    A mask has the case's relative name, with a usual ending of masks or without; or else only the name, of the case or
    of its image, in whatever folder, where no other case has it. Of a folder that ``medseg predict`` wrote, 2D images,
    uncertainty maps and the like are skipped.

    Raises:
        MedsegError: no such folder, two masks for one case, or none for any case.
    """
    if not root.is_dir():
        raise MedsegError(f"predictions={root}: there is no such folder.")
    # without what else ``medseg predict`` wrote of the same cases
    files = [
        path
        for path in find_masks(root)
        if not any(folder.name in BESIDE_MASKS and (folder.parent / RECORDS).is_dir() for folder in path.parents)
    ]
    masks_of = masks_by_id(files, root, {case.id for case in cases})
    # what has no case's relative name may have only the name of one, in whatever folder
    others = {root / path.name: path for path in masks_of.pop(None, [])}
    owners = unique_names(cases)
    for name, paths in masks_by_id(others, root, set(owners)).items():
        if name is not None:
            masks_of.setdefault(owners[name], []).extend(others[path] for path in dict.fromkeys(paths))
    if shared := [f"{name}: {', '.join(map(str, paths))}" for name, paths in masks_of.items() if len(paths) > 1]:
        raise MedsegError(f"predictions={root}: several masks for {shared[0]}. Remove all but one.")
    if not masks_of:
        raise MedsegError(
            f"predictions={root}: none of its {len(files)} masks is called like a case:"
            f" {files[0].name if files else 'nothing'} there, {cases[0].id if cases else 'no case'} in the data set."
        )
    return {str(name): paths[0] for name, paths in masks_of.items()}


def unique_names(cases: Iterable[Case]) -> dict[str, str]:
    """Map names without folders, of cases and of their first images, to the id of the one case that has them."""
    names = [(name, case.id) for case in cases for name in {case.id.rpartition("/")[2], stem(case.images[0])}]
    times = Counter(name for name, _ in names)
    return {name: case for name, case in names if times[name] == 1}
