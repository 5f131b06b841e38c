"""Networks that need no training: they copy their input, or its threshold."""

import numpy as np
import torch
from torch import Tensor, nn


class Threshold(nn.Module):
    """Foreground where the first channel exceeds ``value``."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 2, *) of an image (B, C, *)."""
        return torch.cat([self.value - x[:, :1], x[:, :1] - self.value], dim=1) * 20


class Probabilities(nn.Module):
    """Every channel is the probability of a region."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C, *) of an image (B, C, *)."""
        return x.clamp(1e-3, 1 - 1e-3).logit()


TARGET = "thresholding.Threshold"


def write_checkpoint(
    path,
    *,
    dims,
    channels=1,
    spacing=None,
    resize=None,
    values=(0, 1),
    endings=None,
    reading=("error", 0),
    augment=None,
    value=0.5,
    **inference,
):
    """A checkpoint as medseg writes it, with the network in it that thresholds at a value."""
    preprocessing = {
        "spacing": spacing, "resize": resize, "crop": True, "normalize": ["none"] * channels, "window": None,
        "denoise": None, "denoise_strength": 1.0,
    }  # fmt: skip
    config = {
        "model": {"_target_": TARGET, "value": value},
        "preprocessing": preprocessing,
        "inference": {"overlap": 0.5, "tta": False, "threshold": None, "batch_size": 2} | inference,
        "postprocess": {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0},
        "trainer": {"precision": "fp32"},
        "augment": augment,
        "plan": {"patch_size": [16] * dims, "mirror_axes": list(range(dims)), "slice_axis": None, "context": 0},
        "dataset": {"name": "test"} | dict(zip(("geometry", "reference"), reading, strict=True)),
    }
    content = {
        "format": 2, "version": "0", "config": config, "channels": endings, "regions": None, "region_order": None,
        "classes": {"background": values[0], "thing": values[1]},
    }  # fmt: skip
    torch.save({"state_dict": {}, "medseg": content}, path)
    return path


def blob(shape):
    """A lopsided body: its mirror images and transposes are unlike it."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = sum((a - 0.15 * (i + 1)) ** 2 / (0.3 + 0.12 * i) ** 2 for i, a in enumerate(axes)) < 1
    body |= np.all([np.abs(a + 0.6) < 0.2 for a in axes], axis=0)
    return body
