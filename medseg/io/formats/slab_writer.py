"""Volumes written slice by slice, of which no more than a few slices are ever in memory."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medseg.io.case import Scan
from medseg.system.files import replacing

LEVEL = 3
"""gzip's: what is higher takes twice the time for a few per cent."""


class SharesFile:
    """A NIfTI file of fractions from 0 to 1 in steps of 1/255, a byte a voxel, that grows along its last axis."""

    def __init__(self, file: IO[bytes], like: Scan) -> None:
        image = nib.Nifti1Image(np.broadcast_to(np.uint8(0), like.shape), like.affine)
        image.header.set_xyzt_units("mm" if like.unit == "mm" else "unknown")
        image.header.set_slope_inter(1 / 255, 0)
        image.header.set_data_offset(352)
        self.file = file
        self.file.write(image.header.binaryblock + bytes(4))  # no extensions

    def write(self, shares: NDArray[np.floating]) -> None:
        """Add slices (*spatial, the last axis with these slices only)."""
        steps = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
        self.file.write(steps.tobytes(order="F"))  # NIfTI has the first axis fastest


@contextmanager
def shares_file(path: Path, like: Scan) -> Iterator[SharesFile]:
    """Open a ``.nii.gz`` file on the grid of ``like`` that is there when the block ends well, and else is not."""
    with (
        replacing(path) as temporary,
        temporary.open("wb") as raw,
        # No name and no time in the file, so that equal contents are equal bytes.
        gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=raw, mtime=0) as file,
    ):
        yield SharesFile(cast("IO[bytes]", file), like)
