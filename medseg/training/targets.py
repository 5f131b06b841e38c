"""What a network's outputs are compared with: class indices, or for regions a map each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.io.labels import IGNORE


def region_targets(label: Tensor, annotated: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """Tell of each region and voxel whether it belongs to it: 1, 0, or IGNORE where that is unknown.

    A voxel of unknown class is unknown to every region; a region of which a class was not annotated in a sample is
    unknown in all of the sample. So partly annotated cases teach what they know (as in Ulrich et al., "MultiTalent",
    MICCAI 2023).

    Args:
        label: class indices (B, 1, *spatial), IGNORE among them.
        annotated: bool (B, K), which classes were annotated.
        regions: the class indices of each of R regions.

    Returns:
        uint8 (B, R, *spatial).
    """
    channels = []
    for members in regions:
        belongs = torch.zeros(IGNORE + 1, dtype=torch.uint8, device=label.device)
        belongs[list(members)] = 1
        belongs[IGNORE] = IGNORE
        target = belongs[label[:, 0].long()]  # (B, *)
        target[~annotated[:, list(members)].all(1)] = IGNORE
        channels.append(target)
    return torch.stack(channels, dim=1)
