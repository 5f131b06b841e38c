"""Which axes a data set may be mirrored along, by its images.

Mirroring helps where a mirrored image could have been one of the data set's own. In scans taken in a fixed position it
could not: the network would have to learn a second anatomy that it never meets.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from medseg.io.case import Scan
from medseg.preprocessing.geometry import Geometry

Thumbnail = NDArray[np.float32]

SIZE = 16
COMMON = 0.1
"""Share of the thumbnails' variance that their mean explains where images are taken in a common position."""
ALIKE = 0.8
"""Correlation of the mean thumbnail with its mirror image from which on an axis counts as symmetric."""


def thumbnail(scan: Scan, geometry: Geometry) -> Thumbnail:
    """Return the scan in network axes as 16 voxels an axis, of mean 0 and variance 1, its channels averaged."""
    image = torch.from_numpy(np.ascontiguousarray(scan.image.mean(0, keepdims=True)))
    pool = F.adaptive_avg_pool2d if image.dim() == 3 else F.adaptive_avg_pool3d
    small = pool(geometry.cut(image), SIZE)[0].numpy()
    return np.asarray((small - small.mean()) / max(float(small.std()), 1e-6), dtype=np.float32)


def symmetric_axes(thumbnails: Sequence[Thumbnail]) -> list[int]:
    """Return the axes to mirror: all where images share no position, else those along which their mean is symmetric."""
    mean = np.mean(thumbnails, axis=0)
    axes = range(mean.ndim)
    if mean.var() < max(COMMON, 2 / len(thumbnails)):  # the mean of n unlike images keeps 1/n of their variance
        return list(axes)
    return [axis for axis in axes if np.corrcoef(mean.ravel(), np.flip(mean, axis).ravel())[0, 1] >= ALIKE]
