"""Augmentation by batch, on the device that trains: ``transform(image, label, generator) -> (image, label)``.

Images are floating (B, C, *spatial), labels integer (B, 1, *spatial). Every sample has its own draw, made on the CPU
from ``generator`` before anything is computed, so that a GPU never waits and the same state gives the same result.
"""

from medseg.augmentation.intensity import Blur, Brightness, Contrast, Gamma, Noise
from medseg.augmentation.spatial import Spatial

__all__ = ["Blur", "Brightness", "Contrast", "Gamma", "Noise", "Spatial"]
