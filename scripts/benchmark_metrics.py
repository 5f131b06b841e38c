"""How long medseg's metrics take, side by side with MONAI's and DeepMind's surface-distance, and whether they agree.

    python scripts/benchmark_metrics.py [--repeats 5] [--masks FOLDER] [--json FILE]

A volume of 240 × 240 × 155 voxels with three nested regions like those of a glioma, and the same outlined a little
differently: HD95 and surface Dice of the three, by each method in turn, on one thread, after a first time that does not
count; median seconds and CPU seconds. ``--masks`` names a folder of pictures (``nuclei/masks``): each is measured
against itself shifted by a pixel by all of medseg's metrics, cases in parallel, on all cores.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from benchmark_report import circumstances
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from medseg.evaluation.metrics.registry import PRESETS, Settings, measure, measure_case
from medseg.system.cores import cores
from medseg.system.parallel import in_parallel

Mask = NDArray[np.bool_]
Pair = tuple[Mask, Mask]
Method = Callable[[Sequence[Pair]], list[float]]
"""HD95 of each pair, then surface Dice of each; of more metrics, the same first."""

SHAPE = (240, 240, 155)
SPACING = (1.0, 1.0, 1.0)
RADII = (38, 26, 18)
TOLERANCE = 1.0


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--masks", type=Path, help="folder of binary pictures")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {"volume": in_turn(METHODS, glioma(), options.repeats), **circumstances()}
    Console(width=120).print(table(found["volume"]))
    if options.masks:
        found["masks"] = shifted(options.masks)
        print("{n} masks, all metrics, {cores} cores: {wall:.1f} s, {cpu:.1f} CPU s".format(**found["masks"]))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def glioma() -> list[Pair]:
    """Return three nested regions with uneven outlines, each predicted and true."""
    squares = sum(
        (axis - centre) ** 2 for axis, centre in zip(np.ogrid[*map(slice, SHAPE)], (150, 100, 80), strict=True)
    )
    distance = np.sqrt(squares).astype(np.float32)
    coarse, fine = noise(6, seed=0), noise(3, seed=1)
    outlines = [radius + 5 * coarse - distance for radius in RADII]
    return [(outline + 2 * fine > 0, outline > 0) for outline in outlines]


def noise(width: float, seed: int) -> NDArray[np.float32]:
    """Return smooth noise of standard deviation 1."""
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32), width)
    return np.asarray(values / values.std())


def in_turn(methods: dict[str, Method], pairs: Sequence[Pair], repeats: int) -> dict[str, dict[str, Any]]:
    """Time each method once a round; return median seconds and what it found."""
    torch.set_num_threads(1)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    values = {}
    for _ in range(repeats + 1):
        for name, method in methods.items():
            started = time.perf_counter(), time.process_time()
            values[name] = method(pairs)
            times[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    medians = {name: [median(column) for column in zip(*rounds[1:], strict=True)] for name, rounds in times.items()}
    return {name: {"wall": wall, "cpu": cpu, "values": values[name]} for name, (wall, cpu) in medians.items()}


def of_medseg(*names: str, **options: Any) -> Method:
    """Return medseg's metrics of these names as a method."""
    settings = Settings(names, nsd_mm=TOLERANCE, **options)

    def method(pairs: Sequence[Pair]) -> list[float]:
        found = [measure(*pair, spacing=SPACING, voxel_size=0.001, settings=settings) for pair in pairs]
        return [one[name] for name in ("hd95", "nsd") for one in found]

    return method


def monai(subvoxels: bool) -> Method:
    """Return MONAI's metrics as a method; they take the regions as channels."""
    from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric

    hausdorff = HausdorffDistanceMetric(include_background=True, percentile=95)
    surface = SurfaceDiceMetric([TOLERANCE] * len(RADII), include_background=True, use_subvoxels=subvoxels)

    def method(pairs: Sequence[Pair]) -> list[float]:
        masks = [torch.from_numpy(np.stack(side))[None] for side in zip(*pairs, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own arguments
            return [float(value) for metric in (hausdorff, surface) for value in metric(*masks, spacing=SPACING)[0]]

    return method


def deepmind(pairs: Sequence[Pair]) -> list[float]:
    """DeepMind's surface-distance, both metrics from one computation of distances."""
    import surface_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old names of SciPy
        found = [surface_distance.compute_surface_distances(truth, mask, SPACING) for mask, truth in pairs]
    hausdorff = [surface_distance.compute_robust_hausdorff(one, 95) for one in found]
    return hausdorff + [surface_distance.compute_surface_dice_at_tolerance(one, TOLERANCE) for one in found]


METHODS: dict[str, Method] = {
    "medseg: HD95, NSD": of_medseg("hd95", "nsd"),
    "medseg: HD95, NSD, voxels": of_medseg("hd95", "nsd", surface="voxel"),
    "MONAI: HD95, NSD": monai(subvoxels=False),
    "MONAI: HD95, NSD with areas": monai(subvoxels=True),
    "surface-distance: HD95, NSD": deepmind,
    "medseg: brats, without lesion HD95": of_medseg(*PRESETS["brats"][:-1], "nsd", lesions="brats"),
    "medseg: brats": of_medseg(*PRESETS["brats"], "nsd", lesions="brats", missed_mm=374.0),
    "medseg: full": of_medseg(*PRESETS["full"]),
}


def shifted(folder: Path) -> dict[str, Any]:
    """Measure each mask of a folder against itself, a pixel further down, by all metrics."""
    masks = [(np.asarray(Image.open(path).convert("L")) > 0).astype(np.uint8) for path in sorted(folder.iterdir())]
    settings = Settings(PRESETS["full"])

    def measured(mask: NDArray[np.uint8]) -> list[dict[str, float]]:
        moved = np.zeros_like(mask)
        moved[1:] = mask[:-1]
        return measure_case(moved, mask, [(1,)], spacing=(1.0, 1.0), voxel_size=1.0, settings=settings)

    started = time.perf_counter(), time.process_time()
    found = [one for case in in_parallel(measured, masks) for one in case]
    spent = time.perf_counter() - started[0], time.process_time() - started[1]
    means = {name: float(np.nanmean([one[name] for one in found])) for name in settings.names}
    return {"n": len(masks), "cores": cores(), "wall": spent[0], "cpu": spent[1], "means": means}


def table(results: dict[str, dict[str, Any]]) -> Table:
    """Show a row a method."""
    peer = results["MONAI: HD95, NSD"]["cpu"]
    shown = Table("three regions of 240 × 240 × 155", "wall s", "CPU s", "MONAI's ÷ this", "HD95", "NSD")
    for name, found in results.items():
        hd95, nsd = (" ".join(f"{value:.3f}" for value in found["values"][place : place + 3]) for place in (0, 3))
        shown.add_row(name, f"{found['wall']:.3f}", f"{found['cpu']:.3f}", f"{peer / found['cpu']:.1f}", hd95, nsd)
    return shown


if __name__ == "__main__":
    main()
