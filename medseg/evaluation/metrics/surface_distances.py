"""Distances between the surfaces of two masks, and what is said with them: HD95, ASSD and normalised surface Dice."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.metrics.boxes import bounding_box
from medseg.evaluation.metrics.nearest import to_nearest
from medseg.evaluation.metrics.surfaces import Mask, Numbers, Spacing, Surface, edge_voxels, elements

Kind = Literal["elements", "voxel"]
SURFACES: Mapping[Kind, Callable[[Mask, Spacing], Surface]] = {"elements": elements, "voxel": edge_voxels}

PERCENT = 95
SLACK = 1e-6
"""Relative: a distance that equals the tolerance is within it, however it was rounded."""


@dataclass(frozen=True)
class Distances:
    """From every place on a surface to the nearest one on another, in the unit of the spacing."""

    values: Numbers  # (N,)
    weights: Numbers | None  # (N,); None: all the same

    @property
    def total(self) -> float:
        """The size of the surface."""
        return float(len(self.values) if self.weights is None else self.weights.sum())

    def integral(self, values: NDArray[Any]) -> float:
        """Sum up values (N,) over the surface."""
        return float(values.sum() if self.weights is None else (values * self.weights).sum())

    def percentile(self, percent: float) -> float:
        """Return the distance within which this share of the surface lies.

        Of places that weigh the same it is interpolated as NumPy does; else it is the first at which the share of the
        area is reached.
        """
        if self.weights is None:
            return float(np.percentile(self.values, percent))
        order = np.lexsort((self.weights, self.values))
        shares = np.cumsum(self.weights[order]) / np.sum(self.weights[order])
        place = min(int(np.searchsorted(shares, percent / 100)), len(order) - 1)
        return float(self.values[order[place]])


Pair = tuple[Distances, Distances]
"""From the predicted surface to the true one, and back."""


def surface_distances(prediction: Mask, truth: Mask, spacing: Spacing, kind: Kind = "elements") -> Pair:
    """Measure how far the surfaces of two masks are apart, each way.

    Args:
        prediction: (*spatial), 2D or 3D, with at least one voxel.
        truth: the same. What both have at the frame of the array is surface as well.
        spacing: of the voxels along each axis, as a rule in mm.
        kind: what surfaces are made of: ``elements`` of an area, or edge ``voxel``.

    Returns:
        The distances from the prediction's surface to that of the truth, and from that of the truth.
    """
    box = bounding_box(prediction | truth)
    found, true = (SURFACES[kind](np.pad(np.ascontiguousarray(mask[box]), 2), spacing) for mask in (prediction, truth))
    return (
        Distances(to_nearest(found.places, true.places, spacing), found.weights),
        Distances(to_nearest(true.places, found.places, spacing), true.weights),
    )


def hd95(pair: Pair) -> float:
    """Return the 95 % Hausdorff distance: the larger one of the 95th percentiles of both directions.

    Huttenlocher et al., "Comparing images using the Hausdorff distance", IEEE TPAMI 15 (1993).
    """
    return max(distances.percentile(PERCENT) for distances in pair)


def assd(pair: Pair) -> float:
    """Return the average symmetric surface distance: the mean over both surfaces together.

    Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT datasets", IEEE TMI 28 (2009).
    """
    return sum(each.integral(each.values) for each in pair) / sum(each.total for each in pair)


def nsd(pair: Pair, tolerance: float) -> float:
    """Return the normalised surface Dice: the share of both surfaces that is within the tolerance of the other one.

    Nikolov et al. (see above).
    """
    limit = tolerance * (1 + SLACK)
    return sum(each.integral(each.values <= limit) for each in pair) / sum(each.total for each in pair)
