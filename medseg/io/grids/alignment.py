"""Channels and masks that lie on another grid than their case's: refused, resampled, or taken as they lie."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.case import GridPolicy, Scan
from medseg.io.grids.grid import Grid, corner_shift, overlap, same_grid, same_spacing
from medseg.io.grids.resample import resample_image, resample_labels
from medseg.io.warnings import warn

LEAST_OVERLAP = 0.1
"""Share of the reference below which a channel on another grid is taken for one of another body part."""


def join_channels(scans: Sequence[Scan], geometry: GridPolicy, reference: int) -> Scan:
    """Return one scan of all channels, on the grid and in the form of scan ``reference``; a single one is as it is.

    Raises:
        MedsegError: there is no such reference, or scans differ in a way that ``geometry`` does not allow, or show
            different parts of the body.
    """
    if len(scans) == 1:
        return scans[0]
    if reference >= len(scans):
        paths = ", ".join(map(name, scans))
        raise MedsegError(
            f"dataset.reference={reference}: the channels of a case count from 0 to {len(scans) - 1}: {paths}."
        )
    like = scans[reference]
    images = [scan.image if scan is like else fit_image(scan, like, geometry) for scan in scans]
    if geometry == "warn":
        warn_of([name(scan) for scan in scans if not same_grid(grid_of(scan), grid_of(like))], like)
    return replace(like, image=np.concatenate(images))


def present(channel: int, absent: Sequence[int]) -> int:
    """Return the place of a channel among those that have files: the first one's where it has none itself.

    >>> present(2, [0]), present(0, [0])
    (1, 0)
    """
    return 0 if channel in absent else channel - sum(other < channel for other in absent)


def with_absent(scan: Scan, absent: Sequence[int]) -> Scan:
    """Put channels of zeros where channels have no file; normalised, zero is what a dropped channel has in training."""
    image = scan.image
    for channel in sorted(absent):
        image = np.insert(image, channel, 0, axis=0)
    return replace(scan, image=image) if absent else scan


def fit_image(scan: Scan, like: Scan, geometry: GridPolicy) -> NDArray[np.float32]:
    """Return the channels (C, *like.shape) of a scan on the grid of ``like``."""
    grid, target = grid_of(scan), grid_of(like)
    if stays(name(scan), grid, scan.unit, like, geometry):
        return scan.image
    check_overlap(name(scan), grid, like, overlap(grid, target))
    return resample_image(scan.image, grid, target)


def fit_mask(
    path: Path,
    values: NDArray[np.int32],
    affine: NDArray[np.float64],
    unit: str,
    like: Scan,
    geometry: GridPolicy,
    background: int,
) -> NDArray[np.int32]:
    """Return file values (*spatial) of the mask at ``path`` on the grid of ``like``, ``background`` outside its own.

    Raises:
        MedsegError: it lies on another grid in a way that ``geometry`` does not allow, or elsewhere altogether.
    """
    grid, target = Grid(values.shape, affine), grid_of(like)
    if stays(str(path), grid, unit, like, geometry):
        if geometry == "warn" and not same_grid(grid, target):
            warn_of([str(path)], like)
        return values
    # a mask may well cover a small part only, if it does not lie in another
    check_overlap(str(path), grid, like, max(overlap(grid, target), overlap(target, grid)))
    return resample_labels(values, grid, target, background)


def stays(file: str, grid: Grid, unit: str, like: Scan, geometry: GridPolicy) -> bool:
    """Return whether voxels are taken as they lie, rather than resampled; MedsegError where neither is allowed."""
    target, in_mm = grid_of(like), unit == like.unit == "mm"
    if same_grid(grid, target):
        return True
    if geometry == "resample" and in_mm:  # 2D images have no position in the scanner
        return False
    if geometry == "warn" and grid.shape == target.shape and same_spacing(grid, target):
        return True
    advice = "Both must lie on one grid"
    if in_mm:
        advice += ": dataset.geometry=resample brings it there in scanner coordinates. Or correct its header"
    if geometry == "warn":
        advice += "; dataset.geometry=warn allows for another origin or direction only"
    raise MedsegError(f"{file}: {difference(grid, like)} {advice}.")


def difference(grid: Grid, like: Scan) -> str:
    """Return a sentence on how a grid differs from that of ``like``."""
    target = grid_of(like)
    if grid.shape != target.shape:
        tag = getattr(like.layout, "orientation", 1)
        turned = (
            f" That is turned as its orientation tag ({tag}) says, as viewers show it: dataset.orientation=ignore reads"
            " the stored pixels."
        )
        return f"its shape {grid.shape} differs from {target.shape} of {name(like)}.{turned if tag != 1 else ''}"
    return (
        f"its affine differs from that of {name(like)} by up to {corner_shift(grid, target):.3g} voxels:\n"
        f"  {np.round(grid.affine[:3], 4).tolist()}\n  {np.round(target.affine[:3], 4).tolist()}\n"
    )


def check_overlap(file: str, grid: Grid, like: Scan, share: float) -> None:
    """Reject a grid that has too small a share in common with that of ``like``."""
    if share >= LEAST_OVERLAP:
        return
    boxes = [[edge.round(1).tolist() for edge in each.box] for each in (grid, grid_of(like))]
    raise MedsegError(
        f"{file}: it shows another place than {name(like)}: {100 * share:.0f} % of the extent is common to both,"
        f" {100 * LEAST_OVERLAP:.0f} % is the least. They reach, in mm to the right, front and head:\n"
        f"  from {boxes[0][0]} to {boxes[0][1]}\n  from {boxes[1][0]} to {boxes[1][1]}\n"
        "Are both of one patient and examination? Correct the header, or leave the case out."
    )


def warn_of(files: Sequence[str], like: Scan) -> None:
    """Warn of files whose voxels are taken as they lie though their headers say that they lie elsewhere."""
    if files:
        others = ", ".join(files)
        warn(f"{name(like)}: headers differ (origin/direction); files used by voxel index: {others}")


def grid_of(scan: Scan) -> Grid:
    """Return where the voxels of a scan lie."""
    return Grid(scan.shape, scan.affine)


def name(scan: Scan) -> str:
    """Return a scan's file for messages."""
    return str(getattr(scan.layout, "path", "its image"))
