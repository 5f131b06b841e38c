"""MONAI's training as its spleen tutorial does it, timed beside bare steps; ``benchmark_training.py`` starts it.

    python monai_steps.py TASK.json [--augment]

CacheDataset, dictionary transforms with RandCropByPosNegLabeld, MONAI's UNet, DiceLoss, Adam. ``--augment`` adds the
transforms of nnU-Net's recipe, with its probabilities, as dictionary transforms; the tutorial has none of them.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from math import ceil
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, DataLoader, PILReader
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    Spacingd,
    SpatialPadd,
)
from step_meter import StepMeter

BOTH = ("image", "label")
MOST_SAMPLES = 4  # patches from one case, as in the tutorial


def main() -> None:
    """Train for as long as there are turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Path)
    parser.add_argument("--augment", action="store_true")
    options = parser.parse_args()
    task = json.loads(options.task.read_text())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = endless(make_loader(task, augment=options.augment))
    step = make_step(task, device)
    resident = next(batches)
    resident = {key: resident[key].to(device) for key in BOTH}
    told = {key: task[key] for key in ("patch", "precision")}
    meter = StepMeter(lambda: step(resident), batch=len(resident["image"]), told=told)
    while True:
        step(next(batches))
        meter.after_step()


def make_step(task: dict[str, Any], device: torch.device) -> Callable[[dict[str, Any]], None]:
    """Return the tutorial's step, in medseg's precision."""
    dims, depth = len(task["patch"]), task["depth"]
    network = UNet(
        spatial_dims=dims,
        in_channels=task["channels"],
        out_channels=task["classes"],
        channels=[task["width"] * 2**level for level in range(depth + 1)],
        strides=[2] * depth,
        num_res_units=2,
        norm="batch",
    ).to(device)
    loss = DiceLoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    is_bf16 = task["precision"].startswith("bf16")

    def step(batch: dict[str, Any]) -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16) if is_bf16 else nullcontext():
            outputs = network(batch["image"].to(device))
        loss(outputs.float(), batch["label"].to(device)).backward()
        optimizer.step()

    return step


def make_loader(task: dict[str, Any], *, augment: bool) -> DataLoader:
    """Return the tutorial's loader: patches of few cases, as many as medseg's batch."""
    samples = next(number for number in range(MOST_SAMPLES, 0, -1) if task["batch"] % number == 0)
    cases = task["batch"] // samples
    data = task["cases"] * ceil(4 * cases / len(task["cases"]))
    transforms = Compose([*fixed(task), *random(task, samples, augment=augment)])
    dataset = CacheDataset(data, transforms, cache_rate=1.0, num_workers=task["workers"], progress=False)
    return DataLoader(dataset, batch_size=cases, shuffle=True, num_workers=task["workers"], drop_last=True)


def endless(loader: DataLoader) -> Iterator[dict[str, Any]]:
    """Go through the data again and again."""
    while True:
        yield from loader


def fixed(task: dict[str, Any]) -> list[Any]:
    """Return the transforms before the cache."""
    if len(task["patch"]) == 2:
        read = [
            LoadImaged("image", reader=PILReader(converter=lambda picture: picture.convert("RGB"))),
            LoadImaged("label", reader=PILReader(converter=lambda picture: picture.convert("L"))),
            EnsureChannelFirstd("image", channel_dim=-1),
            EnsureChannelFirstd("label", channel_dim="no_channel"),
            Lambdad("label", lambda mask: (mask > 0).float()),
        ]
    else:
        read = [LoadImaged(BOTH), EnsureChannelFirstd(BOTH), Orientationd(BOTH, axcodes="RAS", labels=None)]
    spaced = [Spacingd(BOTH, pixdim=task["spacing"], mode=("bilinear", "nearest"))] if task["spacing"] else []
    crop = CropForegroundd(BOTH, source_key="image")
    normalise = NormalizeIntensityd("image", nonzero=True, channel_wise=True)
    return [*read, normalise, crop, *spaced, SpatialPadd(BOTH, task["patch"])]


def random(task: dict[str, Any], samples: int, *, augment: bool) -> list[Any]:
    """Return the transforms behind the cache."""
    patch = task["patch"]
    crop = RandCropByPosNegLabeld(BOTH, "label", patch, pos=1, neg=1, num_samples=samples, image_key="image")
    if not augment:
        return [crop]
    angles = [0.52] * 3 if len(patch) == 3 else [3.14]
    return [
        crop,
        RandAffined(
            BOTH,
            prob=0.36,
            rotate_range=angles,
            scale_range=[0.3] * len(patch),
            mode=("bilinear", "nearest"),
            spatial_size=patch,
        ),
        *(RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in range(len(patch))),
        RandGaussianNoised("image", prob=0.1, std=0.3),
        RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0), sigma_z=(0.5, 1.0)),
        RandScaleIntensityd("image", factors=0.25, prob=0.15),
        RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
    ]


if __name__ == "__main__":
    main()
