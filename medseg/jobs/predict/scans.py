"""Which scans there are to segment, and where their results go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.errors import MedsegError, listing
from medseg.io.files.read import SUFFIXES, find_images, stem
from medseg.io.files.write_masks import mask_file_name
from medseg.io.grids.alignment import present
from medseg.io.layouts.channels import cases_from_files, equal_names


@dataclass(frozen=True)
class Job:
    """One scan to segment: its files, one a channel or one for all, and where its results go.

    ``absent`` holds the places and the names of channels that it has no file of.
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


def find_jobs(
    source: Path,
    output: Path,
    endings: Sequence[Sequence[str]] | None,
    reference: int = 0,
    format: str = "image",
    *,
    may_lack: bool = False,
) -> tuple[list[Job], list[str]]:
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
    jobs = [
        replace(
            job_of(case.id, case.images, output, present(reference, case.absent), format),
            absent={place: (endings or [])[place][0] for place in case.absent},
        )
        for case in cases
    ]
    refuse_overwriting(jobs)
    return jobs, problems


def job_of(name: str, images: tuple[Path, ...], output: Path, reference: int, format: str) -> Job:
    """Return where the results of one scan go; its mask is called like the case, in the form of the reference."""
    form = images[min(reference, len(images) - 1)]
    mask = Path(name).parent / mask_file_name(Path(Path(name).name + form.name[len(stem(form)) :]), format)
    return Job(
        name,
        images,
        output / mask,
        picture=output / "overlays" / f"{name}.png",
        probabilities=output / "probabilities" / name,
        uncertainty=output / "uncertainty" / name,
        meshes=output / "meshes" / name,
    )


def refuse_overwriting(jobs: Sequence[Job]) -> None:
    """Refuse masks that would take the place of their scans."""
    images = {image.resolve() for job in jobs for image in job.images}
    if overwritten := [str(job.mask) for job in jobs if job.mask.resolve() in images]:
        raise MedsegError(f"these masks would overwrite scans; give another output folder:\n{listing(overwritten)}")
