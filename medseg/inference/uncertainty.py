"""How sure a network was of each voxel, and of each case: the entropy of its probabilities.

Nothing here is the chance of being wrong: networks are sure of mistakes, too. It says where to look first.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from medseg.io.case import Scan
from medseg.io.csv_files import as_csv
from medseg.io.formats.slab_writer import shares_file
from medseg.io.grids.grid import bounding_box
from medseg.system.files import replacing, write_text
from medseg.system.memory import on_device_or_cpu

STEPS = 255
"""An entropy of 1 in the map, which is uint8."""
SUFFIXES = (".nii.gz", ".png")
"""Of the maps of scans and of 2D images."""
AT_ONCE = 16  # slices that are written at once


def entropy(probs: Tensor, *, regions: bool) -> Tensor:
    """Return Shannon's entropy (*) of probabilities (K, *), from 0, sure, to 1, as good as a guess.

    Of classes that exclude each other it is -Σ p log p / log K; of regions, each of which is there or not, the mean
    over them of -(p log₂ p + (1 - p) log₂ (1 - p)).
    """
    total = torch.zeros_like(probs[0], dtype=torch.float32)
    for p in probs:  # one by one: all at once would take several times the memory of the probabilities
        total += bits(p) + bits(1 - p) if regions else bits(p)
    return total / (len(probs) if regions else float(np.log2(len(probs))))


def bits(probabilities: Tensor) -> Tensor:
    """Return -p log₂ p, which is 0 at 0; what rounding left below 0 counts as 0."""
    p = probabilities.float().clamp(min=0)
    return -torch.xlogy(p, p) / float(np.log(2))


class UncertaintyMap:
    """The entropy of every voxel of a scan, gathered slab by slab.

    >>> gathered = UncertaintyMap((1, 2), regions=False)
    >>> gathered(slice(0, 1), torch.tensor([[[0.5]], [[0.5]]]))
    >>> gathered(slice(1, 2), torch.tensor([[[1.0]], [[0.0]]]))
    >>> gathered.values
    array([[255,   0]], dtype=uint8)
    """

    def __init__(self, shape: Sequence[int], *, regions: bool) -> None:
        self.values: NDArray[np.uint8] = np.zeros(tuple(shape), np.uint8)  # entropy, 255 being 1
        self.regions = regions

    def __call__(self, slices: slice, probs: Tensor) -> None:
        """Take up the probabilities (K, *slab) of a slice along the last axis."""
        entropies = on_device_or_cpu(partial(entropy, regions=self.regions), probs)
        self.values[..., slices] = (entropies * STEPS).round().clamp(0, STEPS).to(torch.uint8).cpu().numpy()


def case_uncertainty(values: NDArray[np.uint8], indices: NDArray[np.uint8]) -> float:
    """Return how unsure a network was of a case, 0 to 1: the mean entropy of the predicted foreground.

    The mean is over all predicted foreground and a rim of one voxel around it (neighbours by a face), where borders are
    drawn. Without any, it is the highest entropy of any voxel: how near it came to finding something.

    Args:
        values: the map (*spatial) uint8 of ``UncertaintyMap``.
        indices: the class indices (*spatial) that were predicted.
    """
    from scipy.ndimage import binary_dilation

    if not indices.any():
        return round(float(values.max()) / STEPS, 4)
    around = bounding_box(indices, margin=1)
    near = binary_dilation(indices[around] > 0)
    return round(float(values[around][near].mean()) / STEPS, 4)


def write_uncertainty(path: Path, values: NDArray[np.uint8], scan: Scan) -> Path:
    """Write a map on the scan's grid, whole or not at all: NIfTI in uint8 with a slope, 0 to 1; of 2D images a PNG.

    ``path`` has no suffix; the file's is put behind it. A PNG is grey, 255 being 1.

    Returns:
        The file.

    Raises:
        MedsegError: it cannot be written.
    """
    if scan.unit == "px":
        file = path.with_name(f"{path.name}.png")
        with replacing(file) as temporary:
            Image.fromarray(values).save(temporary)
        return file
    file = path.with_name(f"{path.name}.nii.gz")
    with shares_file(file, scan) as writer:
        for low in range(0, values.shape[-1], AT_ONCE):
            writer.write(values[..., low : low + AT_ONCE] / STEPS)
    return file


def ranked(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rank, case and uncertainty of the rows that have one, the most uncertain first, equal ones by name."""
    known = [row for row in rows if row.get("uncertainty") not in (None, "")]
    order = sorted(known, key=lambda row: (-float(row["uncertainty"]), row["case"]))
    return [{"rank": rank, "case": row["case"], "uncertainty": row["uncertainty"]} for rank, row in enumerate(order, 1)]


def write_ranking(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the cases of ``predictions.csv`` as a table in the order of their uncertainty, whole or not at all."""
    write_text(path, as_csv(["rank", "case", "uncertainty"], ranked(rows)))
