"""Connected components of masks."""

import numpy as np
from numpy.typing import NDArray


def connected_components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the components of a mask of two or three axes, joined through faces, edges and corners.

    Returns:
        The numbers (*mask.shape) from 1, in the order in which the components begin, 0 outside the mask; and how many
        components there are.
    """
    from scipy.ndimage import label  # cc3d is faster, but not right for all masks: docs/development/measurements.md

    numbers, count = label(mask, np.ones((3,) * mask.ndim))
    return numbers, int(count)
