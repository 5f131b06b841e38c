"""Segmentation networks: logits in a list, finest first."""

from medseg.models.unet import UNet

__all__ = ["UNet"]
