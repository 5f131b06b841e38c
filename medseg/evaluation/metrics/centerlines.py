"""Whether tubes, such as vessels, are found along their whole length: clDice."""

import numpy as np
from numpy.typing import NDArray

from medseg.io.grids.grid import bounding_box

Mask = NDArray[np.bool_]


def cldice(prediction: Mask, reference: Mask) -> float:
    """Return the centreline Dice of two masks (*spatial), 2D or 3D, that both have voxels; 0…1.

    The harmonic mean of the share of the predicted centreline that lies in the ground truth, and of the share of the
    true centreline that lies in the prediction. Shit et al., "clDice - a novel topology-preserving loss function for
    tubular structure segmentation" (CVPR 2021).
    """
    precision, sensitivity = share_within(prediction, reference), share_within(reference, prediction)
    return 2 * precision * sensitivity / (precision + sensitivity) if precision and sensitivity else 0.0


def share_within(tube: Mask, other: Mask) -> float:
    """Return how much of a tube's centreline lies in another mask.

    The centreline is the mask's skeleton: Zhang and Suen's of 1984 in 2D, Lee, Kashyap and Chu's of 1994 in 3D.
    """
    from skimage.morphology import skeletonize

    box = bounding_box(tube)
    inner = (slice(1, -1),) * tube.ndim
    line = np.asarray(skeletonize(np.pad(tube[box], 1)), bool)[inner]  # with a frame: it is thinned from outside
    if not line.any():  # of some blobs, such as 4 × 4 × 4 voxels, Lee's leaves nothing
        line = tube[box]
    return float(np.count_nonzero(line & other[box]) / np.count_nonzero(line))
