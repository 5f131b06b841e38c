"""Lesion by lesion: which are found, what is found that is none, and how well those that are found are outlined.

Lesions are connected components of the ground truth, across faces, edges and corners. A component of the prediction
belongs to a lesion if it reaches into its zone; a lesion may have several components, and a component several lesions.
Under the rule ``overlap`` the zone is the lesion itself. Under ``brats`` it is the lesion dilated, lesions whose zones
touch are one, and small ones do not count: the rule of BraTS 2023 for glioma (Saluja et al.,
github.com/rachitsaluja/BraTS-2023-Metrics).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.evaluation.metrics.boxes import around
from medseg.evaluation.metrics.surfaces import Kind, Spacing, hd95, surface_distances
from medseg.io.grids.grid import bounding_box

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Rule:
    """What is a lesion, and when it is found."""

    dilations: int = 0
    """Voxels by which a lesion's zone reaches beyond it, across faces and edges."""
    above: float = 0.0
    """Lesions count if they are larger than this, in mm³ (pixels for pictures)."""


RULES = {"overlap": Rule(), "brats": Rule(dilations=3, above=50.0)}


@dataclass(frozen=True)
class Lesions:
    """Lesions 1…L and the components 1…P of the prediction, on a box; 0 is neither."""

    true: Labels  # (*box): of which lesion a voxel is
    predicted: Labels  # (*box): of which component of the prediction
    spacing: Spacing
    counted: Mask  # (1 + L,): whether a lesion counts
    n_components: int
    pairs: tuple[Counts, Counts]  # lesions, ascending, and components, (N,) each: all that belong together

    @property
    def hits(self) -> Mask:
        """Of each of the pairs, whether its lesion counts."""
        return self.counted[self.pairs[0]]

    @property
    def n_true(self) -> int:
        """Lesions that count."""
        return int(self.counted.sum())

    @property
    def n_found(self) -> int:
        """Those of them that a component belongs to."""
        return len(np.unique(self.pairs[0][self.hits]))

    @property
    def n_right(self) -> int:
        """Components that belong to a lesion that counts."""
        return len(np.unique(self.pairs[1][self.hits]))

    @property
    def n_wrong(self) -> int:
        """Components that belong to no lesion, neither to one that counts nor to another."""
        return self.n_components - len(np.unique(self.pairs[1]))


def match(prediction: Mask, reference: Mask, spacing: Spacing, rule: Rule) -> Lesions:
    """Find the lesions of the ground truth and what belongs to them; masks (*spatial), not both of them empty."""
    from scipy.ndimage import binary_dilation, generate_binary_structure

    box = bounding_box(prediction | reference, rule.dilations)
    zone = reference[box]
    if rule.dilations:  # across faces and edges, in 2D across corners
        zone = binary_dilation(zone, generate_binary_structure(zone.ndim, 2), rule.dilations)
    zones, n_zones = labelled(zone)
    predicted, n_components = labelled(prediction[box])
    true = zones * reference[box]
    counted = np.bincount(true.ravel(), minlength=n_zones + 1) * np.prod(spacing) > rule.above
    counted[0] = False
    return Lesions(true, predicted, spacing, counted, n_components, shared(zones, predicted))


def sensitivity(lesions: Lesions) -> float:
    """Return the share of the lesions that are found; NaN where there are none."""
    return lesions.n_found / lesions.n_true if lesions.n_true else np.nan


def precision(lesions: Lesions) -> float:
    """Return the share of the prediction's components that belong to a lesion; NaN where there are none."""
    components = lesions.n_right + lesions.n_wrong
    return lesions.n_right / components if components else np.nan


def f1(lesions: Lesions) -> float:
    """Return the harmonic mean of sensitivity and precision; 0 where one is undefined, NaN where both are."""
    both = sensitivity(lesions), precision(lesions)
    if np.isnan(both).all():
        return np.nan
    return 2 * both[0] * both[1] / sum(both) if min(np.nan_to_num(both)) > 0 else 0.0


def lesion_dice(lesions: Lesions) -> float:
    """Return the mean Dice of the lesions, each with all components that belong to it; wrong ones count as 0.

    NaN where there is nothing to be scored.
    """
    n, n_labels = lesions.n_true + lesions.n_wrong, len(lesions.counted)
    if not n:
        return np.nan
    true = np.bincount(lesions.true.ravel(), minlength=n_labels)  # (1 + L,) voxels, as are the others
    # all of it belongs to the lesion, being in its zone
    within = np.bincount(lesions.true[lesions.predicted > 0], minlength=n_labels)
    lesion, component = lesions.pairs
    components = np.bincount(lesion, np.bincount(lesions.predicted.ravel())[component], minlength=n_labels)
    return float((2 * within / np.maximum(true + components, 1))[lesions.counted].sum() / n)


def lesion_hd95(lesions: Lesions, missed: float | None, kind: Kind = "elements") -> float:
    """Return the mean HD95 of the lesions, each with all components that belong to it.

    Lesions that are missed and components that are wrong have the distance ``missed``; with None they are left out. NaN
    where nothing is left.
    """
    from scipy.ndimage import find_objects

    distances = []
    true, predicted = find_objects(lesions.true), find_objects(lesions.predicted)
    lesion, component = lesions.pairs
    for number in np.unique(lesion[lesions.hits]):
        own = component[slice(*np.searchsorted(lesion, (number, number + 1)))]
        box = around([true[number - 1], *(predicted[component - 1] for component in own)])
        prediction, reference = np.isin(lesions.predicted[box], own), lesions.true[box] == number
        distances.append(hd95(surface_distances(prediction, reference, lesions.spacing, kind)))
    if missed is not None:
        distances += [missed] * (lesions.n_true - lesions.n_found + lesions.n_wrong)
    return float(np.mean(distances)) if distances else np.nan


def shared(zones: Labels, predicted: Labels) -> tuple[Counts, Counts]:
    """Return the zones, ascending, and the components, (N,) each, of all pairs of them that share a voxel."""
    both = (zones > 0) & (predicted > 0)
    n = int(predicted.max(initial=0)) + 1
    pairs = np.unique(zones[both].astype(np.int64) * n + predicted[both])
    return pairs // n, pairs % n


def labelled(mask: Mask) -> tuple[Labels, int]:
    """Number the connected components of a mask, across faces, edges and corners."""
    from scipy.ndimage import label

    labels, number = label(mask, np.ones((3,) * mask.ndim))
    return labels, int(number)
