"""Compares medseg's masks with nnU-Net's own, of one model that nnU-Net trained, voxel by voxel.

    python scripts/nnunet_models_check.py compare MODEL IMAGES MASKS [--cases N]
    python scripts/nnunet_models_check.py train   DATA --venv VENV --work WORK [--planner P] [--steps N] [--cases N]

``compare`` predicts IMAGES with the trained model's folder MODEL through medseg, and reads nnU-Net's masks of the same
images from MASKS. ``train`` first makes both in nnU-Net's own environment (see ``nnunet_peer.py``): it plans
with ``--planner``, trains ``--steps`` iterations and predicts ``--cases`` test cases as ``nnUNetv2_predict`` does.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medseg import Predictor
from medseg.inference.nnunet.network import numbers_of_numpy
from medseg.io.files.read import find_images, read_mask
from medseg.io.layouts.channels import cases_from_files

PLANNERS = {"ExperimentPlanner": "nnUNetPlans", "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans"}
"""nnU-Net's planners, and what each calls its plans."""


@dataclass(frozen=True)
class Agreement:
    """Two masks of a case: foreground voxels in both together, those of one class in both, and those that differ."""

    case: str
    foreground: int
    common: int
    different: int

    @classmethod
    def of(cls, case: str, ours: np.ndarray, theirs: np.ndarray) -> "Agreement":
        """Count."""
        foreground = int((ours > 0).sum() + (theirs > 0).sum())
        common = int(((ours == theirs) & (ours > 0)).sum())
        return cls(case, foreground, common, int((ours != theirs).sum()))

    @property
    def dice(self) -> float:
        """Dice of the foreground, where a voxel counts as common only if it has the same class; 1 if both are empty."""
        return 2 * self.common / self.foreground if self.foreground else 1.0


def compare(model: Path, images: Path, masks: Path, most: int | None) -> list[Agreement]:
    """Predict every case that nnU-Net has a mask of, and count."""
    predictor = Predictor.load(model)
    cases, problems = cases_from_files(images, find_images(images), predictor.endings)
    assert not problems, problems
    found, began = [], time.perf_counter()
    for case in cases:
        mask = next(iter(masks.glob(f"{case.id}.*")), None)
        if mask is not None and len(found) != most:
            found.append(Agreement.of(case.id, predictor(case.images).values, read_mask(mask)))
    print(f"{len(found)} cases in {time.perf_counter() - began:.1f} s, {torch.get_num_threads()} threads")
    return found


def table(rows: list[Agreement]) -> Iterator[str]:
    """Yield the lines of a table, the total last."""
    total = Agreement(
        "all", *(sum(getattr(row, name) for row in rows) for name in ("foreground", "common", "different"))
    )
    yield f"{'case':<24} {'foreground':>11} {'different':>10} {'Dice':>9}"
    for row in (*rows, total):
        yield f"{row.case:<24} {row.foreground // 2:>11} {row.different:>10} {row.dice:>9.6f}"
    yield f"lowest Dice {min(row.dice for row in rows):.6f}"


def trained(options: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Plan, train and predict in nnU-Net's environment; return the model, the images and nnU-Net's masks."""
    from benchmark_data import DATA
    from nnunet_peer import Peer, runner

    peer = Peer(options.venv, options.work, DATA[options.data])
    planned, configuration = PLANNERS[options.planner], peer.data.configuration
    if not (peer.preprocessed / f"{planned}.json").is_file():
        peer.run(["nnUNetv2_plan_experiment", "-d", str(peer.data.number), "-pl", options.planner], f"plan_{planned}")
    plans = small_batch(peer.preprocessed, planned, configuration, options.batch_size)
    run = f"check_{peer.data.name}_{plans}"
    model = peer.work / "results" / run / peer.data.nnunet_name / f"nnUNetTrainer__{plans}__{configuration}"
    if not (model / "fold_0" / "checkpoint_final.pth").is_file():
        (peer.work / "runs").mkdir(exist_ok=True)
        schedule = ["--epochs", "1", "--steps", str(options.steps), "--val-steps", "1"]
        command = runner(peer, "train", plans, peer.work / "runs" / f"{run}.json", bf16=options.bf16)
        peer.run([*command, *schedule], f"train_{run}", run)
    images, masks = peer.work / "check_images" / peer.data.name, peer.work / "masks" / run
    few_images(peer.raw / "imagesTs", images, options.cases)
    if options.foreground:
        raise_foreground(model, images, options.foreground)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command = ["nnUNetv2_predict", "-i", images, "-o", masks, "-d", str(peer.data.number), "-c", configuration]
    peer.run([*command, "-p", plans, "-f", "0", "-npp", "1", "-nps", "1", "-device", device], f"predict_{run}", run)
    return model, images, masks


def small_batch(folder: Path, planned: str, configuration: str, batch_size: int) -> str:
    """Write plans again with another batch size, for a training of a minute; return their name."""
    name = f"{planned}Batch{batch_size}"
    plans = json.loads((folder / f"{planned}.json").read_text()) | {"plans_name": name}
    plans["configurations"][configuration]["batch_size"] = batch_size
    (folder / f"{name}.json").write_text(json.dumps(plans, indent=1))
    return name


def raise_foreground(model: Path, images: Path, share: float) -> None:
    """Change the background's bias in the trained file until a share of the first image is foreground.

    A network finds no foreground yet after a few steps, and two masks without any agree whatever was computed.
    """
    predictor = Predictor.load(model, inference={"tta": False})
    [group] = predictor.groups
    case = cases_from_files(images, find_images(images), predictor.endings)[0][0]
    [(image, geometry)] = predictor.prepare(case.images).inputs
    with torch.inference_mode():
        lead = [rows[1:].amax(0) - rows[0] for rows in group.scorer.blocks(group.networks, image, geometry)]
    path = group.models[0].path
    with torch.serialization.safe_globals(numbers_of_numpy()):
        content = torch.load(path, weights_only=True)
    weights = content["network_weights"]
    last = max(key for key in weights if key.startswith("decoder.seg_layers.") and key.endswith("bias"))
    shift = torch.cat([rows.flatten() for rows in lead]).quantile(1 - share)
    print(f"background's bias changed by {shift:.3f}")
    weights[last][0] += shift
    torch.save(content, path)


def few_images(source: Path, target: Path, most: int | None) -> None:
    """Link the first images of a folder into another, those of all channels."""
    target.mkdir(parents=True, exist_ok=True)
    cases = sorted({path.name.rsplit("_", 1)[0] for path in source.iterdir()})[:most]
    for path in source.iterdir():
        link = target / path.name
        if path.name.rsplit("_", 1)[0] in cases and not link.exists():
            link.symlink_to(path.resolve())


def main() -> None:
    """Do what the command line says and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare")
    for name in ("model", "images", "masks"):
        comparing.add_argument(name, type=Path)
    training = commands.add_parser("train")
    training.add_argument("data", help="as in benchmark_data.py; nnunet_peer.prepare has written its raw data")
    training.add_argument("--venv", type=Path, required=True)
    training.add_argument("--work", type=Path, required=True)
    training.add_argument("--planner", choices=list(PLANNERS), default="nnUNetPlannerResEncM")
    training.add_argument("--steps", type=int, default=20)
    training.add_argument("--batch-size", type=int, default=2)
    training.add_argument("--foreground", type=float, help="share of an image that is made foreground")
    training.add_argument("--bf16", action="store_true", help="train in bfloat16 on a CPU")
    for each in (comparing, training):
        each.add_argument("--cases", type=int, default=None)
    options = parser.parse_args()
    paths = trained(options) if options.command == "train" else (options.model, options.images, options.masks)
    print("\n".join(table(compare(*paths, options.cases))))


if __name__ == "__main__":
    main()
