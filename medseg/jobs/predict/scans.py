"""Which scans there are to segment, and where their results go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import MedsegError, listing
from medseg.io.files.read import SUFFIXES, find_images, stem
from medseg.io.files.write_masks import mask_file_name
from medseg.io.grids.alignment import present
from medseg.io.layouts.channels import cases_from_files, equal_names


@dataclass(frozen=True)
class ScanTask:
    """One scan to segment: its files, one a channel or one for all, and where its results go.

    ``absent`` maps the index of each channel that has no file to the channel's name.
    """

    id: str
    images: tuple[Path, ...]
    mask: Path
    picture: Path
    probabilities: Path
    uncertainty: Path
    meshes: Path
    absent: Mapping[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.id


def find_scans(
    source: Path,
    output: Path,
    endings: Sequence[Sequence[str]] | None,
    reference: int = 0,
    format: str = "image",
    *,
    may_lack: bool = False,
) -> tuple[list[ScanTask], list[str]]:
    """List the scans under ``source`` and where their masks go: the same relative path and name.

    ``format`` is that of the masks (see ``medseg.io.files.write_masks``); ``may_lack`` says whether the network can do
    without some of its channels' files.

    Returns:
        The scans, and a line for each file that belongs to none, such as one whose other channels are missing.

    Raises:
        MedsegError: no scan is there, or a mask would overwrite its scan.
    """
    if output.is_file() or output.name.lower().endswith(SUFFIXES):
        raise MedsegError(f"output={output}: give a folder; the masks in it take the scans' names.")
    root = source if source.is_dir() else source.parent
    files = find_images(source)
    if output.resolve().is_relative_to(root.resolve()) and output.resolve() != root.resolve():
        files = [file for file in files if not file.resolve().is_relative_to(output.resolve())]
    if equal := equal_names(root, files, endings):
        raise MedsegError(f"these files cannot be told apart:\n{listing(equal)}")
    cases, problems = cases_from_files(root, files, endings, may_lack=may_lack)
    if not cases:
        raise MedsegError(f"input={source}: no scan to segment.\n{listing(problems)}".rstrip())
    tasks = []
    for case in cases:
        # The mask is called like the case, with the suffix of the reference channel's file
        reference_file = case.images[min(present(reference, case.absent), len(case.images) - 1)]
        suffix = reference_file.name[len(stem(reference_file)) :]
        relative = Path(case.id)
        tasks.append(
            ScanTask(
                case.id,
                case.images,
                mask=output / relative.parent / mask_file_name(Path(relative.name + suffix), format),
                picture=output / "overlays" / f"{case.id}.png",
                probabilities=output / "probabilities" / case.id,
                uncertainty=output / "uncertainty" / case.id,
                meshes=output / "meshes" / case.id,
                absent={channel: (endings or [])[channel][0] for channel in case.absent},
            )
        )
    images = {image.resolve() for task in tasks for image in task.images}
    if overwritten := [str(task.mask) for task in tasks if task.mask.resolve() in images]:
        raise MedsegError(f"these masks would overwrite scans; give another output folder:\n{listing(overwritten)}")
    return tasks, problems
