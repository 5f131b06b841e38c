"""Memory and time of prediction: one large volume, and a folder of small ones, beside the usual ways and nnU-Net.

    python scripts/benchmark_prediction.py volume --slices 300 600 --classes 3 117 --methods medseg plain monai \\
        --work WORK --json prediction.json
    python scripts/benchmark_prediction.py folder --scans FOLDER --own RUN --theirs NNUNET_MODEL --peers VENV \\
        --work WORK --json prediction.json

* volume: 512x512 voxels a slice at 0.75x0.75x1.5 mm, network grid 1.5 mm, windows of 96x96x96 by half, a U-Net of 16
  base channels with random weights. medseg: the command. plain: the same network, windows and resampling with all
  scores in memory, first on the network's grid, then on the scan's. monai: SlidingWindowInferer and Invertd. nnunet:
  its own command with a model of the same size and windows, made from ``--theirs``, without mirroring.
* folder: nnunet is ``nnUNetv2_predict``, medseg_same the same model, windows and mirroring by medseg in fp32,
  medseg_bf16 the same in the precision that the device computes fastest, medseg_own the network that medseg planned and
  trained, as it is predicted by default.

Whole processes in turn; the peak is the process's largest resident memory.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import nnunet_peer as nnunet
import numpy as np
import torch
import yaml
from benchmark_report import ROOT, add_results, circumstances, peers_at
from process_tree import measured
from rich.console import Console
from rich.table import Table

from medseg.config.check import resolve
from medseg.config.instantiate import build
from medseg.config.schema import CONF
from medseg.inference.checkpoint import FORMAT

KEY = ("what", "method", "slices", "classes")
PATCH = [96, 96, 96]


def main() -> None:
    """Measure what was asked for and print the table of all results in the JSON file."""
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    results = volume(options) if options.what == "volume" else folder(options)
    for row in results:
        add_results(options.json, [row | circumstances(options.peers if row["method"] == "nnunet" else None)], KEY)
    found = [row for row in add_results(options.json, [], KEY) if row["what"] == options.what]
    Console(width=120).print(table(found))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["volume", "folder"])
    parser.add_argument("--methods", nargs="+", help="default: all that can be run")
    parser.add_argument("--slices", type=int, nargs="+", default=[300, 600])
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 117])
    parser.add_argument("--scans", type=Path, help="a folder of scans")
    parser.add_argument("--own", type=Path, help="a run of medseg's for these scans")
    parser.add_argument("--theirs", type=Path, help="a trained nnU-Net for these scans")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peers", type=Path, help="environment with nnU-Net")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def volume(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Predict one large scan with each method."""
    rows = []
    for slices in options.slices:
        scan = make_scan(options.work / f"scan_{slices}" / "scan.nii.gz", slices)
        for classes in options.classes:
            checkpoint = make_checkpoint(options.work / f"random_{classes}.ckpt", classes)
            for method in options.methods or ["medseg", "plain", "monai"]:
                output = options.work / "masks" / f"{method}_{slices}_{classes}"
                shutil.rmtree(output, ignore_errors=True)
                if method == "nnunet":
                    spent = measured(*random_nnunet(options, scan, classes, output))
                else:
                    spent = measured(command(method, checkpoint, scan, output))
                rows.append({"what": "volume", "method": method, "slices": slices, "classes": classes, **spent})
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def command(method: str, checkpoint: Path, scan: Path, output: Path) -> list[str]:
    """Return the command that predicts a scan."""
    if method == "medseg":
        settings = [f"checkpoint={checkpoint}", f"input={scan.parent}", f"output={output}", "device=cpu"]
        return [sys.executable, "-m", "medseg", "predict", *settings]
    script = ROOT / "scripts" / "whole_volume.py"
    return [sys.executable, str(script), method, str(checkpoint), str(scan), str(output / "mask.nii.gz")]


def random_nnunet(
    options: argparse.Namespace, scan: Path, classes: int, output: Path
) -> tuple[list[str], dict[str, str]]:
    """Return nnU-Net's command for a scan, with a model of random weights, and its environment."""
    model, inputs = options.work / f"nnunet_random_{classes}", options.work / f"nnunet_{scan.parent.name}"
    environment = nnunet.Peer(options.peers, options.work, None).environment("none")  # type: ignore[arg-type]
    script = ROOT / "scripts" / "nnunet_random.py"
    make = [options.peers / "bin" / "python", script, options.theirs, model, str(classes)]
    subprocess.run(list(map(str, make)), check=True, env=environment)
    inputs.mkdir(exist_ok=True)
    link = inputs / "scan_0000.nii.gz"
    if not link.exists():
        link.symlink_to(scan)
    command = [options.peers / "bin" / "nnUNetv2_predict_from_modelfolder", "-i", inputs, "-o", output, "-m", model]
    command += ["-f", "0", "-npp", "1", "-nps", "1", "-device", "cpu", "--disable_tta"]
    return [str(part) for part in command], environment


def make_scan(path: Path, slices: int) -> Path:
    """Write a scan with the smooth structures and the noise of a CT, int16 as scanners do."""
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(-1, 1, 512), np.linspace(-1, 1, 512), indexing="ij")
    body = np.where(x**2 / 0.6 + y**2 / 0.35 < 1, 40.0, -1000.0)
    voxels = np.empty((512, 512, slices), np.int16)
    for z in range(slices):
        bones = 400 * (np.hypot(x - 0.3 * np.sin(z / 40), y - 0.3 * np.cos(z / 25)) < 0.1)
        voxels[..., z] = body + bones + rng.normal(0, 12, body.shape)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.75, -0.75, 1.5, 1])), path)
    return path


def make_checkpoint(path: Path, classes: int) -> Path:
    """Write a checkpoint with random weights."""
    plan = {
        "patch_size": PATCH, "in_channels": 1, "out_channels": classes, "strides": [[2, 2, 2]] * 4,
        "kernel_sizes": [[3, 3, 3]] * 5, "mirror_axes": [], "slice_axis": None, "context": 0,
    }  # fmt: skip
    model = yaml.safe_load((CONF / "model" / "unet.yaml").read_text())
    model |= {"spatial_dims": 3, "depth": 4, "base_channels": 16}
    config = resolve({"plan": plan, "model": model}) | {
        "preprocessing": {"spacing": [1.5] * 3, "normalize": ["zscore"]},
        "inference": {"overlap": 0.5, "tta": False, "threshold": None, "batch_size": 4},
        "postprocess": {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0},
        "trainer": {"precision": "auto"},
        "dataset": {"name": "benchmark", "geometry": "error", "reference": 0},
    }  # fmt: skip
    torch.manual_seed(0)
    weights = {f"network.{name}": value for name, value in build(config["model"]).state_dict().items()}
    labels = {"background": 0, **{f"class {index}": index for index in range(1, classes)}}
    content = {
        "format": FORMAT, "version": "0", "config": config, "channels": None, "classes": labels,
        "regions": None, "region_order": None,
    }  # fmt: skip
    torch.save({"state_dict": weights, "medseg": content}, path)
    return path


def folder(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Predict a folder of scans with each method, in turn."""
    methods = options.methods or ["nnunet", "medseg_same", "medseg_bf16", "medseg_own"]
    if "nnunet" in methods and not peers_at(options.peers):
        methods.remove("nnunet")
    count = len([path for path in options.scans.iterdir() if path.name.endswith(".nii.gz")])
    rows = []
    for method in methods * options.rounds:
        output = options.work / "masks" / method
        shutil.rmtree(output, ignore_errors=True)
        if method == "nnunet":
            spent = measured(*nnunet_command(options, output))
        else:
            model = options.own if method == "medseg_own" else options.theirs
            settings = [f"checkpoint={model}", f"input={options.scans}", f"output={output}", "device=cpu"]
            settings += ["precision=auto"] if method == "medseg_bf16" else []
            spent = measured([sys.executable, "-m", "medseg", "predict", *settings])
        rows.append({"what": "folder", "method": method, "slices": count, "classes": 0, **spent})
        print(rows[-1], file=sys.stderr, flush=True)
    return [best(rows, method) for method in dict.fromkeys(methods)]


def nnunet_command(options: argparse.Namespace, output: Path) -> tuple[list[str], dict[str, str]]:
    """Return nnU-Net's own command for a folder, with its default of mirroring, and its environment."""
    peer = nnunet.Peer(options.peers, options.work, None)  # type: ignore[arg-type]
    command = [options.peers / "bin" / "nnUNetv2_predict_from_modelfolder", "-i", options.scans, "-o", output]
    command += ["-m", options.theirs, "-f", "0", "-npp", "1", "-nps", "1", "-device", "cpu"]
    environment = peer.environment("none")
    return [str(part) for part in command], environment


def best(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """Return the fastest round of a method: other load only ever adds."""
    return min((row for row in rows if row["method"] == method), key=lambda row: row["wall_seconds"])


def table(results: list[dict[str, Any]]) -> Table:
    """Return one row a result."""
    found = Table("method", title=results[0]["what"] if results else "no results")
    for column in ("slices or scans", "classes", "seconds", "CPU seconds", "peak GB"):
        found.add_column(column, justify="right")
    for row in results:
        numbers = [f"{row['wall_seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['peak_gb']:.2f}"]
        found.add_row(row["method"], str(row["slices"]), str(row["classes"] or ""), *numbers)
    return found


if __name__ == "__main__":
    main()
