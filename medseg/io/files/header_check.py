"""How far the headers of one case's files agree on where its voxels lie."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

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
    """Compare the headers of a case's NIfTI files with the scan that was read of it; others tell of one place only."""
    headers = [nifti.read_header(path) for path in case.files if path.is_file() and format_of(path) is nifti]
    like = grid_of(scan)
    return Placement(
        max((shift_of(header, like) for header in headers), default=0.0),
        max((form_shift(header, like) for header in headers), default=0.0),
    )


def shift_of(header: nib.Nifti1Header, like: Grid) -> float:
    """Return how far a header's grid is from another, in voxels; infinite where the shapes differ."""
    shape = header.get_data_shape()[: len(like.shape)]
    if tuple(shape) != like.shape:
        return float("inf")
    return corner_shift(Grid(like.shape, in_mm(header.get_best_affine(), header)), like)


def form_shift(header: nib.Nifti1Header, like: Grid) -> float:
    """Return how far sform and qform of a header are apart on the scan's grid, in voxels; 0 where one is not given."""
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    if sform is None or qform is None:
        return 0.0
    grids = [Grid(like.shape, in_mm(form, header)) for form in (sform, qform)]
    return float(np.linalg.norm(grids[0].corners - grids[1].corners, axis=1).max() / like.spacing.min())


def in_mm(affine: NDArray[np.float64], header: nib.Nifti1Header) -> NDArray[np.float64]:
    """Return an affine of a header in mm, whatever unit the header has."""
    found = np.array(affine, dtype=np.float64)
    found[:3] *= nifti.millimetres(header)
    return found
