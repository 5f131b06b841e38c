"""A checkpoint of a small network that medseg ships, for tests of prediction."""

from pathlib import Path

import torch

from medseg.models import UNet


def write_model(
    path: Path, *, dims: int, channels: int, tta: bool | None = False, mirror_axes: tuple[int, ...] = ()
) -> Path:
    """A checkpoint of an untrained U-Net that medseg ships, so that nothing is to be trusted."""
    model = {
        "_target_": "medseg.models.UNet", "spatial_dims": dims, "in_channels": channels, "out_channels": 2,
        "depth": 1, "base_channels": 4,
    }  # fmt: skip
    torch.manual_seed(0)
    network = UNet(**{key: value for key, value in model.items() if key != "_target_"})
    preprocessing = {
        "spacing": None, "resize": None, "crop": False, "normalize": ["zscore"] * channels, "window": None,
        "denoise": None, "denoise_strength": 1.0,
    }  # fmt: skip
    config = {
        "model": model,
        "preprocessing": preprocessing,
        "inference": {"overlap": 0.5, "tta": tta, "threshold": None, "batch_size": 2},
        "postprocess": {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0},
        "trainer": {"precision": "fp32"},
        "augment": None,
        "plan": {"patch_size": [8] * dims, "mirror_axes": [*mirror_axes], "slice_axis": None, "context": 0},
        "dataset": {"name": "test", "geometry": "error", "reference": 0},
    }
    content = {
        "format": 2, "version": "0", "config": config, "channels": None, "regions": None, "region_order": None,
        "classes": {"background": 0, "nucleus": 255},
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "medseg": content}, path)
    return path
