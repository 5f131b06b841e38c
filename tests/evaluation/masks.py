"""Pairs of masks to measure: noise, blobs, single voxels, whole arrays, thin slabs, parts that touch the frame."""

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter

from medseg.evaluation.metrics.surfaces import Mask, Spacing


def random_pairs(axes: int, number: int, longest: int = 16) -> Iterator[tuple[Mask, Mask, Spacing]]:
    """Yield predictions, truths, each with a voxel at least, and spacings."""
    random = np.random.default_rng(axes)
    for _ in range(number):
        shape = random.integers(1, longest, axes)
        spacing = tuple(random.choice([0.5, 0.7, 0.9375, 1.0, 1.2, 3.0, 5.0], axes).tolist())
        yield some_mask(shape, random), some_mask(shape, random), spacing


def some_mask(shape: np.ndarray, random: np.random.Generator) -> Mask:
    """Return a mask of one kind or another, with a voxel at least."""
    blobs = gaussian_filter(random.standard_normal(shape), 1.5)
    kinds = (
        np.ones(shape, bool),
        np.zeros(shape, bool),
        random.random(shape) < random.choice([0.05, 0.5, 0.95]),
        blobs > 0,
        blobs > blobs.std(),
    )
    mask = kinds[random.choice(5, p=[0.05, 0.05, 0.2, 0.35, 0.35])].copy()
    mask[tuple(random.integers(0, shape))] = True
    return mask
