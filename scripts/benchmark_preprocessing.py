"""How long it takes from a data set to all that training reads: medseg beside nnU-Net v2, on the same cores.

    python scripts/benchmark_preprocessing.py DECATHLON_FOLDER --peers VENV [--repeats 3] [--json FILE]

medseg: survey, plan and cache of every case, in an empty cache. nnU-Net: nnUNetv2_plan_and_preprocess of 3d_fullres,
with its check of the data set and a process for each core, from the same files in its own layout. Whole processes in
turn; seconds of wall and of CPU. VENV is an environment with nnU-Net.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

OURS = """
import sys
from pathlib import Path
import torch
from medseg.io.labels import LabelMap
from medseg.io.layouts import decathlon
from medseg.cli.sources import Sources, compose
from medseg.config.schema import CONF
from medseg.config.check import read_settings
from medseg.config.settings import TrainSettings
from medseg.preprocessing.cache import cached_cases
from medseg.preprocessing.planning.plan import make_plan
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.preprocessing.quality.check_dataset import check_dataset
data, folder = decathlon(root=sys.argv[1]), Path(sys.argv[2])
classes = LabelMap(data.labels)
sources = Sources(CONF, "train")
settings = read_settings(TrainSettings, compose(sources, sources.loader(), ["dataset=decathlon", "dataset.root=x"]))
found = check_dataset(data.cases, classes, folder=folder)
plan = make_plan(settings, found, classes, data.modality, torch.device("cpu"))
cached_cases(data.cases, Preprocessor(**plan["preprocessing"]), classes, folder)
"""

START_UP = """
import torch
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
"""torchvision without its compiled operators, as beside PyTorch for CPUs, cannot be imported, and nnU-Net imports
it, though it does not use them. As sitecustomize Python runs this also in the processes that nnU-Net spawns."""


def write_nnunet(source: Path, raw: Path) -> None:
    """Write a Decathlon data set of one channel in nnU-Net's layout, labels as whole numbers."""
    described = json.loads((source / "dataset.json").read_text("utf-8"))
    folder = raw / "Dataset004_Benchmark"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for entry in described["training"]:
        image, label = source / entry["image"], nib.load(source / entry["label"])
        shutil.copy(image, folder / "imagesTr" / image.name.replace(".nii.gz", "_0000.nii.gz"))
        whole = np.asarray(label.dataobj).astype(np.uint8)  # some label files hold floats, which its check refuses
        nib.save(nib.Nifti1Image(whole, label.affine), folder / "labelsTr" / image.name)
    content = {
        "channel_names": described["modality"],
        "labels": {name: int(value) for value, name in described["labels"].items()},
        "numTraining": len(described["training"]),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content), "utf-8")


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return wall and CPU seconds of a process and its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ours(source: Path, work: Path) -> tuple[float, float]:
    """Time medseg."""
    shutil.rmtree(work / "cache", ignore_errors=True)
    here = str(Path(__file__).parents[1])
    return timed([sys.executable, "-c", OURS, str(source), str(work / "cache")], os.environ | {"PYTHONPATH": here})


def theirs(peers: Path, work: Path) -> tuple[float, float]:
    """Time nnU-Net."""
    shutil.rmtree(work / "preprocessed", ignore_errors=True)
    folders = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    command = ["nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "3d_fullres", "--verify_dataset_integrity"]
    command += ["-np", str(os.cpu_count()), "-npfp", str(os.cpu_count())]
    script = [str(peers / "bin" / "python"), str(peers / "bin" / command[0]), *command[1:]]
    return timed(script, os.environ | folders | {"PYTHONPATH": str(work / "start")})


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a data set of the Decathlon with one channel")
    parser.add_argument("--peers", type=Path, required=True, help="an environment with nnU-Net v2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[tuple[float, float]]] = {"medseg": [], "nnU-Net v2": []}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "start").mkdir()
        (work / "start" / "sitecustomize.py").write_text(START_UP, "utf-8")
        write_nnunet(options.source, work / "raw")
        for _ in range(options.repeats):
            seconds["medseg"].append(ours(options.source.resolve(), work))
            seconds["nnU-Net v2"].append(theirs(options.peers.absolute(), work))
    ratio = statistics.median(a[0] / b[0] for a, b in zip(*seconds.values(), strict=True))
    print(f"{'':<12}{'wall s':>10}{'CPU s':>10}    medians of {options.repeats}, load {load:.1f} before")
    for name, times in seconds.items():
        wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:<12}{wall:>10.1f}{processor:>10.1f}")
    print(f"medseg takes {ratio:.2f} of nnU-Net's wall time")
    if options.json:
        content = {"seconds": seconds, "ratio": ratio, "load": load, "cores": os.cpu_count()}
        options.json.write_text(json.dumps(content, indent=2), "utf-8")


if __name__ == "__main__":
    main()
