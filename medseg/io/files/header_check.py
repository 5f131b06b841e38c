"""How far the headers of one case's files agree on where its voxels lie."""

from dataclasses import dataclass

import numpy as np

from medseg.io.case import Case, Scan
from medseg.io.files.read import format_of
from medseg.io.formats import nifti
from medseg.io.grids.alignment import grid_of
from medseg.io.grids.grid import Grid, corner_shift


@dataclass(frozen=True)
class Placement:
    """Largest distances in voxels: ``files`` between a file's grid and the scan's, ``forms`` between sform and qform.

    ``files`` is infinite where shapes differ. Programs differ in which of the two forms they go by.
    """

    files: float = 0.0
    forms: float = 0.0


def placement(case: Case, scan: Scan) -> Placement:
    """Compare the headers of a case's NIfTI files with the scan that was read of it; other formats have one affine."""
    like = grid_of(scan)
    files, forms = [0.0], [0.0]
    for path in case.files:
        if not path.is_file() or format_of(path) is not nifti:
            continue
        grid, _ = nifti.grid(path)
        files.append(corner_shift(grid, like) if grid.shape == like.shape else np.inf)
        header = nifti.read_header(path)
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
        if sform is not None and qform is not None:
            corners = [Grid(like.shape, nifti.to_mm(header) @ affine).corners for affine in (sform, qform)]
            forms.append(float(np.linalg.norm(corners[0] - corners[1], axis=1).max() / like.spacing.min()))
    return Placement(max(files), max(forms))
