"""Probabilities kept in files: one a class, a byte a voxel, written as they are made."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch import Tensor

from medseg.inference.segmenter import Watch
from medseg.io.case import Scan
from medseg.io.formats.slab_writer import shares_file
from medseg.system.file_names import file_names


@contextmanager
def probability_files(folder: Path, names: Sequence[str], like: Scan, written: list[Path]) -> Iterator[Watch]:
    """Yield what writes the probabilities (K, *) of each class or region into ``folder/NAME.nii.gz``.

    They are there when the block ends well, and their paths then added to ``written``.
    """
    stems = file_names(names)
    paths = [folder / f"{stems[name]}.nii.gz" for name in names]
    with ExitStack() as stack:
        files = [stack.enter_context(shares_file(path, like)) for path in paths]

        def write(place: slice, scores: Tensor) -> None:
            for file, shares in zip(files, scores.float().cpu().numpy(), strict=True):
                file.write(shares)

        yield write
    written += paths
