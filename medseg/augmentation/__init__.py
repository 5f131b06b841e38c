"""Augmentation by batch, on the device that trains: ``transform(image, label, random) -> (image, label)``.

Images are floating (B, C, *spatial), labels integer (B, 1, *spatial). A transform may write into the tensors it is
given: a training batch is used once. Every sample has random numbers of its own, made on the CPU before anything is
computed, so that a GPU never waits and a sample comes out the same whatever batch it is in.

``BlockMasking`` and ``Genesis`` are for pre-training: ``(image, random) -> (image, hidden)`` tells with the image which
voxels, bool (B, 1, *spatial), have to be reconstructed. ``CoarseErrors`` is for the channels that a first stage adds.
"""

from medseg.augmentation.coarse_errors import CoarseErrors
from medseg.augmentation.genesis import Genesis
from medseg.augmentation.intensity import Blur, Brightness, ChannelDropout, Contrast, Gamma, LowResolution, Noise
from medseg.augmentation.masking import BlockMasking
from medseg.augmentation.random import RandomNumbers
from medseg.augmentation.spatial import Spatial

Draws = RandomNumbers  # the name in earlier versions, for augmentations of users

__all__ = [
    "BlockMasking",
    "Blur",
    "Brightness",
    "ChannelDropout",
    "CoarseErrors",
    "Contrast",
    "Draws",
    "Gamma",
    "Genesis",
    "LowResolution",
    "Noise",
    "RandomNumbers",
    "Spatial",
]
