"""nnU-Net v2 as a peer: its raw data, its preprocessing, its training for a time budget, its prediction.

Everything runs in the peers' own environment, in processes of their own; ``nnunet_runner.py`` is what runs there.
"""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from benchmark_data import BenchmarkData
from PIL import Image

from medseg.io.case import Case, Dataset
from medseg.io.datasets.dataset import by_id, label_map
from medseg.io.datasets.splits import Split

RUNNER = Path(__file__).with_name("nnunet_runner.py")
EPOCHS = 10
VALIDATION_RATIO = 5  # nnU-Net: 250 iterations of training, 50 of validation
PLANS = "nnUNetPlans"
START_UP = """\
# torchvision has no operators beside a CPU build of torch, and its import fails without their schemas.
import torch

library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


@dataclass(frozen=True)
class Peer:
    """nnU-Net in the environment ``venv``, with its three folders under ``work``."""

    venv: Path
    work: Path
    data: BenchmarkData

    @property
    def raw(self) -> Path:
        """Folder of the raw data set."""
        return self.work / "raw" / self.data.nnunet_name

    @property
    def preprocessed(self) -> Path:
        """Folder of the preprocessed data set and of its plans."""
        return self.work / "preprocessed" / self.data.nnunet_name

    def environment(self, results: str) -> dict[str, str]:
        """Return the environment variables that nnU-Net needs; ``results`` is the folder of a run's checkpoints."""
        start_up = self.work / "start_up"
        start_up.mkdir(parents=True, exist_ok=True)
        (start_up / "sitecustomize.py").write_text(START_UP)
        folders = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": f"results/{results}"}
        paths = {name: str(self.work / folder) for name, folder in folders.items()}
        return {**os.environ, **paths, "PYTHONPATH": str(start_up), "nnUNet_def_n_proc": str(os.cpu_count())}

    def run(self, command: Sequence[str | Path], log: str, results: str = "none") -> float:
        """Run a program of the environment to its end; return its CPU seconds, those of its children included."""
        path = self.work / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        program, *arguments = map(str, command)
        before = cpu_seconds_of_children()
        with path.open("w") as file:
            full = [str(self.venv / "bin" / program), *arguments]
            subprocess.run(full, check=True, env=self.environment(results), stdout=file, stderr=subprocess.STDOUT)
        return cpu_seconds_of_children() - before


def cpu_seconds_of_children() -> float:
    """Return the CPU seconds of all child processes that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def prepare(peer: Peer, dataset: Dataset, split: Split) -> None:
    """Write the raw data and preprocess them, once; fold 0 has medseg's training and validation cases.

    The test cases stay outside ``imagesTr``, so neither fingerprint nor plan knows them.
    """
    if (peer.preprocessed / "splits_final.json").is_file():
        return
    shutil.rmtree(peer.raw, ignore_errors=True)
    write_cases(peer, dataset, by_id(dataset.cases, split.train + split.val), "Tr")
    write_cases(peer, dataset, by_id(dataset.cases, split.test), "Ts")
    names = label_map(dataset).names
    content = {
        "channel_names": {str(index): name for index, name in enumerate(peer.data.channels)},
        "labels": {name: index for index, name in enumerate(names)},
        "numTraining": len(split.train + split.val),
        "file_ending": peer.data.suffix,
    }
    (peer.raw / "dataset.json").write_text(json.dumps(content, indent=1))
    processes = str(os.cpu_count())
    command = ["nnUNetv2_plan_and_preprocess", "-d", str(peer.data.number), "-c", peer.data.configuration]
    peer.run([*command, "-np", processes, "-npfp", processes], f"{peer.data.name}_preprocess")
    folds = [{"train": list(split.train), "val": list(split.val)}]
    (peer.preprocessed / "splits_final.json").write_text(json.dumps(folds, indent=1))


def write_cases(peer: Peer, dataset: Dataset, cases: Sequence[Case], part: str) -> None:
    """Copy images, and write masks as uint8 class indices."""
    images, labels = peer.raw / f"images{part}", peer.raw / f"labels{part}"
    images.mkdir(parents=True)
    labels.mkdir()
    values = list(label_map(dataset).labels.values())
    write = write_picture if peer.data.suffix == ".png" else write_volume
    for case in cases:
        for channel, image in enumerate(case.images):
            write(image, images / f"{case.id}_{channel:04d}{peer.data.suffix}")
        (label,) = case.labels
        indices = sum(index * (read_mask(label.path) == value) for index, value in enumerate(values))
        write_mask(np.asarray(indices, np.uint8), label.path, labels / f"{case.id}{peer.data.suffix}")


def write_volume(source: Path, target: Path) -> None:
    """Copy an image file, compressed if it was not."""
    shutil.copyfile(source, target) if source.name.endswith(".nii.gz") else nib.save(nib.load(source), target)


def write_picture(source: Path, target: Path) -> None:
    """Write a picture as RGB."""
    Image.open(source).convert("RGB").save(target)


def read_mask(path: Path) -> np.ndarray:
    """Return the values of a mask on its own grid."""
    if path.suffix.lower() == ".png":
        return np.asarray(Image.open(path).convert("L"))
    return np.rint(np.asarray(nib.load(path).dataobj)).astype(np.int64)


def write_mask(indices: np.ndarray, like: Path, target: Path) -> None:
    """Write class indices beside an image."""
    if target.suffix == ".png":
        Image.fromarray(indices).save(target)
    else:
        source = nib.load(like)
        header = source.header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        nib.save(nib.Nifti1Image(indices, source.affine, header), target)


def narrow_plans(peer: Peer, base_channels: int) -> str:
    """Write nnU-Net's plans again with features from ``base_channels`` on; return the name of the new plans."""
    plans = json.loads((peer.preprocessed / f"{PLANS}.json").read_text())
    name = f"{PLANS}Base{base_channels}"
    narrow = deepcopy(plans) | {"plans_name": name}
    arguments = narrow["configurations"][peer.data.configuration]["architecture"]["arch_kwargs"]
    factor = arguments["features_per_stage"][0] // base_channels
    arguments["features_per_stage"] = [features // factor for features in arguments["features_per_stage"]]
    (peer.preprocessed / f"{name}.json").write_text(json.dumps(narrow, indent=1))
    return name


def calibration(peer: Peer, plans: str, *, bf16: bool) -> dict[str, Any]:
    """Return the seconds of a training and of a validation iteration, measured once and kept."""
    name = f"{peer.data.name}_{plans}_{'bf16' if bf16 else 'fp32'}"
    report = peer.work / "calibration" / f"{name}.json"
    if not report.is_file():
        report.parent.mkdir(parents=True, exist_ok=True)
        peer.run(runner(peer, "calibrate", plans, report, bf16=bf16), f"calibrate_{name}", "calibration")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def runner(peer: Peer, job: str, plans: str, report: Path, *, bf16: bool) -> list[str | Path]:
    """Return the command that runs a job of ``nnunet_runner.py``."""
    command = ["python", RUNNER, job, peer.data.nnunet_name, peer.data.configuration, plans, report]
    return [*command, "--bf16"] if bf16 else command


def iterations(seconds: float, measured: dict[str, Any]) -> tuple[int, int]:
    """Return the iterations of training and of validation an epoch that use up a budget, at nnU-Net's own ratio.

    The run is so defined by its iterations at the calibrated speed, and other load does not shorten it.
    """
    step = measured["train_step_seconds"] + measured["val_step_seconds"] / VALIDATION_RATIO
    steps = max(1, round(seconds / EPOCHS / step))
    return steps, max(1, round(steps / VALIDATION_RATIO))


def train(
    peer: Peer, run: str, plans: str, seed: int, *, seconds: float | None, steps: int | None, bf16: bool
) -> dict[str, Any]:
    """Train for seconds of an undisturbed machine, or steps; return what was done. What has ended is not done again."""
    report = peer.work / "runs" / f"{run}.json"
    if report.is_file():
        return dict(json.loads(report.read_text()))
    report.parent.mkdir(parents=True, exist_ok=True)
    measured = calibration(peer, plans, bf16=bf16) if seconds else None
    if seconds:
        each, val_steps = iterations(seconds, measured)
    else:
        each = steps // EPOCHS
        val_steps = max(1, each // VALIDATION_RATIO)
    schedule = ["--epochs", str(EPOCHS), "--steps", str(each), "--val-steps", str(val_steps), "--seed", str(seed)]
    ended = report.with_suffix(".ended.json")
    cpu = peer.run([*runner(peer, "train", plans, ended, bf16=bf16), *schedule], f"train_{run}", run)
    done = {"steps": EPOCHS * each, "val_steps": EPOCHS * val_steps, "cpu_seconds": cpu, "calibration": measured}
    report.write_text(json.dumps(done | json.loads(ended.read_text()), indent=1))
    return dict(json.loads(report.read_text()))


def predict(peer: Peer, run: str, plans: str) -> Path:
    """Predict the test cases as ``nnUNetv2_predict`` does by default, mirroring included; return the folder."""
    masks = peer.work / "masks" / run
    if not (masks / "done").is_file():
        command = ["nnUNetv2_predict", "-i", peer.raw / "imagesTs", "-o", masks, "-d", str(peer.data.number)]
        command += ["-c", peer.data.configuration, "-p", plans, "-f", "0", "-npp", "1", "-nps", "1"]
        peer.run([*command, "-device", "cuda" if torch.cuda.is_available() else "cpu"], f"predict_{run}", run)
        (masks / "done").touch()
    return masks
