"""How medseg's resampling in PyTorch compares with SciPy's spline, which nnU-Net uses: values, fidelity and time.

    python scripts/benchmark_resampling.py SCAN [SCAN ...] [--factors 0.5 0.8 1.25 2] [--json FILE]

Each scan (NIfTI, one channel) is resampled by each factor along all axes, by ``medseg.preprocessing.resample`` (Keys'
cubic) and by ``skimage.transform.resize`` as nnU-Net calls it (cubic spline, edges repeated, no low-pass). "Difference"
is theirs in standard deviations of the scan; "there and back" is the error of the scan brought to the grid and back by
the same method. Times are of one thread.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from skimage.transform import resize

from medseg.preprocessing.resample import interpolation, resample_axis

Volume = NDArray[np.float32]
Resize = Callable[[Volume, tuple[int, ...]], Volume]


def main() -> None:
    """Compare both on all scans and factors and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 0.8, 1.25, 2.0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [compare(read(path), factor, path.name) for path in options.scans for factor in options.factors]
    Console(width=120).print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def read(path: Path) -> Volume:
    """Read a volume, z-scored."""
    volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    return (volume - volume.mean()) / volume.std()


def compare(volume: Volume, factor: float, name: str) -> dict[str, Any]:
    """Resample by both methods; return differences in standard deviations and times in seconds."""
    shape = tuple(max(1, round(size * factor)) for size in volume.shape)
    (ours, our_time), (theirs, their_time) = timed(by_medseg, volume, shape), timed(by_spline, volume, shape)
    difference = np.abs(ours - theirs)
    return {
        "scan": name,
        "factor": factor,
        "difference_mean": float(difference.mean()),
        "difference_99": float(np.quantile(difference, 0.99)),
        "back_medseg": error(by_medseg(ours, volume.shape), volume),
        "back_spline": error(by_spline(theirs, volume.shape), volume),
        "seconds_medseg": our_time,
        "seconds_spline": their_time,
    }


def timed(method: Resize, volume: Volume, shape: tuple[int, ...]) -> tuple[Volume, float]:
    """Return the result and the shortest of three times."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        result = method(volume, shape)
        times.append(time.perf_counter() - started)
    return result, min(times)


def by_medseg(volume: Volume, shape: tuple[int, ...]) -> Volume:
    """Resample as medseg's preprocessing does."""
    x = torch.from_numpy(np.ascontiguousarray(volume))
    for axis, (old, new) in enumerate(zip(volume.shape, shape, strict=True)):
        x = resample_axis(x, axis, interpolation(old, new, "cubic"))
    return x.numpy()


def by_spline(volume: Volume, shape: tuple[int, ...]) -> Volume:
    """Resample as nnU-Net's preprocessing does."""
    return np.asarray(resize(volume, shape, 3, mode="edge", anti_aliasing=False), np.float32)


def error(found: Volume, truth: Volume) -> float:
    """Return the root mean square difference."""
    return float(np.sqrt(np.mean((found - truth) ** 2)))


def table(rows: list[dict[str, Any]]) -> Table:
    """Show a row a scan and factor."""
    shown = Table("scan", "factor", "difference: mean", "99 %", "there and back: medseg", "spline", "time ratio")
    for row in rows:
        numbers = [row[key] for key in ("difference_mean", "difference_99", "back_medseg", "back_spline")]
        ratio = row["seconds_spline"] / row["seconds_medseg"]
        shown.add_row(row["scan"], f"{row['factor']:g}", *(f"{number:.3f}" for number in numbers), f"{ratio:.1f}")
    return shown


if __name__ == "__main__":
    main()
