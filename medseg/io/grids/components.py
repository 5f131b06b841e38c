"""Connected components of masks."""

import numpy as np
from numpy.typing import NDArray


def connected_components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the components of a mask of two or three axes, joined through faces, edges and corners.

    Returns:
        The numbers (*mask.shape) from 1, in the order in which the components begin, 0 outside the mask; and how many
        components there are.
    """
    import cc3d  # takes a tenth of the time of scipy.ndimage.label (docs/benchmarks.md)

    # the order of the numbers follows the memory; so equal masks are numbered alike, as SciPy numbers them
    contiguous = np.ascontiguousarray(mask, dtype=bool)
    numbers, count = cc3d.connected_components(
        contiguous, connectivity=8 if mask.ndim == 2 else 26, return_N=True, out_dtype=np.uint32
    )
    return numbers.view(np.int32), int(count)
