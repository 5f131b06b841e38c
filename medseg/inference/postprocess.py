"""Post-processing of a label map: smoother borders, no holes, no small components.

Every step works inside the bounding boxes of the classes, so that its cost depends on the foreground and not the scan.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.grids.components import connected_components

Indices = NDArray[np.uint8]
Box = tuple[slice, ...]

TRUNCATE = 4.0
"""Where the Gaussian kernel ends, in sigmas."""


@dataclass(frozen=True)
class Rule:
    """How one class is cleaned; ``minimum`` is in voxels."""

    largest: bool
    minimum: int
    fill_holes: bool

    @property
    def removes(self) -> bool:
        """Whether a component may go."""
        return self.largest or self.minimum > 1


def postprocess(
    indices: Indices,
    spacing: tuple[float, ...],
    unit: Literal["mm", "px"],
    *,
    largest: bool = False,
    min_ml: float = 0.0,
    min_voxels: int = 0,
    fill_holes: bool = False,
    smooth_mm: float = 0.0,
    voxel_volume: float | None = None,
    classes: Mapping[int, Mapping[str, Any]] | None = None,
) -> Indices:
    """Smooth the borders, then fill the holes, then remove components; all off returns ``indices`` itself.

    ``indices`` is uint8 (*spatial), 0 the background, ``spacing`` the voxel size along each axis in ``unit``.

    ``smooth_mm``: sigma of the Gaussian that blurs each class's one-hot map before the largest wins (pixels for "px").
    ``fill_holes``: background that a class encloses becomes that class; other classes inside it stay.
    ``largest``: of each class only the largest component stays; the rest becomes background.
    ``min_ml``, ``min_voxels``: components of a class below either size become background.
    ``voxel_volume``: in mm³, where axes are sheared; None: the product of the spacing.
    ``classes``: by class index its own ``fill_holes``, ``largest``, ``min_ml`` and ``min_voxels``, in place of those
    for all.

    Components are connected through faces, edges and corners, as in nnU-Net and Metrics Reloaded; a hole must not
    leak through a face. Raises MedsegError for ``min_ml`` where there is no volume: in pixels or on a single slice.
    """
    volume = prod(spacing) if voxel_volume is None else voxel_volume

    def rule(options: Mapping[str, Any]) -> Rule:
        minimum, ml = options["min_voxels"], options["min_ml"]
        if ml > 0 and (unit == "px" or len(spacing) < 3):
            raise MedsegError(
                f"postprocess.min_ml={ml:g} needs a volume, but the scan is a picture with {len(spacing)} axes "
                f"in {unit}. Give the smallest size in pixels instead, for example postprocess.min_voxels=50."
            )
        if ml > 0:  # 1 ml = 1000 mm³; a rounding error must not cost a voxel
            minimum = max(minimum, ceil(ml * 1000 / volume - 1e-6))
        return Rule(options["largest"], minimum, options["fill_holes"])

    of_all = {"largest": largest, "min_ml": min_ml, "min_voxels": min_voxels, "fill_holes": fill_holes}
    common = rule(of_all)
    own = {index: rule({**of_all, **options}) for index, options in (classes or {}).items()}
    every, rules = [common, *own.values()], defaultdict(lambda: common, own)
    if smooth_mm > 0:
        if max(smooth_mm / step for step in spacing) > max(indices.shape):
            raise MedsegError(
                f"postprocess.smooth_mm={smooth_mm:g}: wider than the mask of shape {indices.shape}, of which nothing"
                " would be left. Give less."
            )
        indices = smoothed(indices, tuple(smooth_mm / step for step in spacing))
    if any(one.fill_holes for one in every):
        indices = filled(indices, rules)
    if any(one.removes for one in every):
        indices = without_small_components(indices, rules)
    return indices


def smoothed(indices: Indices, sigma: tuple[float, ...]) -> Indices:
    """Blur each class's one-hot map by ``sigma`` (voxels an axis) and let the largest win, the lower index in a tie."""
    from scipy.ndimage import gaussian_filter

    reach = [ceil(TRUNCATE * s) + 1 for s in sigma]
    result = np.zeros_like(indices)
    for _, around in _boxes((indices > 0).view(np.uint8)):  # one box round all that is foreground, or none
        around = _grown(around, reach)
        inside = indices[around]
        winner = np.zeros_like(inside)
        best = np.zeros(inside.shape, np.float32)
        # one class at a time is in memory; the background is what the others leave of 1, the blur being linear
        background = np.ones(inside.shape, np.float32)
        for index, box in _boxes(inside):
            box = _grown(box, reach)
            one_hot = (inside[box] == index).astype(np.float32)
            blurred = gaussian_filter(one_hot, sigma, mode="nearest", truncate=TRUNCATE)
            wins = blurred > best[box]
            winner[box][wins] = index
            best[box][wins] = blurred[wins]
            background[box] -= blurred
        winner[background >= best] = 0
        result[around] = winner
    return result


def filled(indices: Indices, rules: Mapping[int, Rule]) -> Indices:
    """Give each component of the background that a class encloses to that class, the innermost where classes nest."""
    from scipy.ndimage import binary_fill_holes

    result = indices.copy()
    boxes = [(index, box) for index, box in _boxes(indices) if rules[index].fill_holes]
    for index, box in sorted(boxes, key=lambda each: prod(span.stop - span.start for span in each[1])):
        holes = binary_fill_holes(indices[box] == index) & (result[box] == 0)
        result[box][holes] = index
    return result


def without_small_components(indices: Indices, rules: Mapping[int, Rule]) -> Indices:
    """Remove each class's components below its ``minimum``, and with ``largest`` all but its largest one."""
    result = indices.copy()
    for index, box in _boxes(indices):
        if not rules[index].removes:
            continue
        components, sizes = _components(indices[box] == index)
        keep = sizes >= rules[index].minimum
        if rules[index].largest:
            keep &= np.arange(len(sizes)) == sizes.argmax()
        keep[0] = True
        result[box][~keep[components]] = 0
    return result


def largest_together(indices: Indices, groups: Sequence[Sequence[int]]) -> Indices:
    """Of each group of classes, taken together, keep the largest component only; the rest becomes background.

    Groups come one after the other; components of one size all stay. So does nnU-Net (Isensee et al. 2021) with what it
    finds to help in cross-validation.
    """
    for group in groups:
        for _, box in _boxes(np.isin(indices, group).view(np.uint8)):
            inside = np.isin(indices[box], group)
            components, sizes = _components(inside)
            indices = indices.copy()
            indices[box][inside & (sizes != sizes.max())[components]] = 0
    return indices


def _components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the components of a mask from 1, and count the voxels of each; what is not of the mask counts as 0."""
    components, _ = connected_components(mask)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return components, sizes


def _boxes(indices: Indices) -> Iterator[tuple[int, Box]]:
    """The bounding box of each foreground class that occurs."""
    from scipy.ndimage import find_objects

    boxes: list[Any] = find_objects(indices)
    return ((index, box) for index, box in enumerate(boxes, start=1) if box is not None)


def _grown(box: Box, reach: list[int]) -> Box:
    """The box with room on all sides for a kernel of that reach; past the end of an array a slice is cut by NumPy."""
    return tuple(slice(max(0, s.start - r), s.stop + r) for s, r in zip(box, reach, strict=True))
