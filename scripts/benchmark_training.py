"""What a training step costs: medseg, MONAI's spleen tutorial and nnU-Net v2, each beside its own bare step.

    python scripts/benchmark_training.py hippocampus --root DATA/hippocampus --work WORK --peers VENV --json steps.json

* medseg: ``medseg train``, planned for ``--minutes``, with data, augmentation and Lightning's Trainer.
* monai, monai_augmented: as MONAI's spleen tutorial does it (CacheDataset, dictionary transforms), with medseg's patch,
  batch, width and precision; once as it is, once with nnU-Net's augmentations as dictionary transforms.
* nnunet: nnU-Net v2 with its own trainer, plan, data loaders and augmentation. On a CPU it computes in fp32.
* medseg_nnunet: medseg with network, patch, batch and optimizer of nnU-Net's plan, in medseg's precision.

The bare step is forward, backward and optimizer step of the same network and precision on a batch that stays where it
is. It alternates with the training step inside one process; the processes take turns of ``--steps`` steps and sleep
while others have theirs, so that other load hits all alike. Ratios are medians of neighbouring pairs. CPU seconds
count the data workers, memory is the largest of the process itself and what its workers have for themselves.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import nnunet_peer as nnunet
import process_tree
from benchmark_accuracy import duration
from benchmark_data import DATA, BenchmarkData, opened
from benchmark_report import ROOT, add_results, circumstances, peers_at
from rich.console import Console
from rich.table import Table
from step_meter import MARK

from medseg.io.datasets.dataset import by_id, label_map

SCRIPTS = Path(__file__).resolve().parent
METHODS = ("medseg", "monai", "monai_augmented", "nnunet", "medseg_nnunet")
OF_PEERS = ("nnunet", "medseg_nnunet")
KEY = ("data", "method")


@dataclass
class Racer:
    """A process that does steps when told, and what it reported turn by turn."""

    method: str
    process: subprocess.Popen[str]
    log: Path
    told: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, Any]] = field(default_factory=list)

    def listen(self) -> dict[str, Any]:
        """Wait for the next report, then put the process to sleep."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith(MARK):
                process_tree.send(self.process.pid, signal.SIGSTOP)
                return dict(json.loads(line.removeprefix(MARK)))
        raise SystemExit(f"{self.method} ended before its time; see {self.log}")

    def turn(self, steps: int) -> None:
        """Let it do some steps while all others sleep."""
        assert self.process.stdin
        before = process_tree.cpu_seconds(self.process.pid)
        process_tree.send(self.process.pid, signal.SIGCONT)
        print(steps, file=self.process.stdin, flush=True)
        report = self.listen()
        cpu = process_tree.cpu_seconds(self.process.pid) - before - report["bare_cpu"]
        self.turns.append({**report, "cpu": cpu})

    def end(self) -> None:
        """End the process and its workers."""
        process_tree.send(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def result(self) -> dict[str, Any]:
        """Return the numbers of all its turns."""
        steps = [seconds for turn in self.turns for seconds in turn["steps"]]
        bare = [seconds for turn in self.turns for seconds in turn["bare"]]
        batch = self.told["batch"]
        return {
            "patch": self.told.get("patch"),
            "batch": batch,
            "patches_per_second": batch / median(steps),
            "bare_patches_per_second": batch / median(bare),
            "ratio_to_bare": median(step / alone for step, alone in zip(steps, bare, strict=True)),
            "cpu_seconds_per_patch": sum(turn["cpu"] for turn in self.turns) / len(steps) / batch,
            "peak_gb": self.told["peak_gb"],
            "peak_gpu_gb": max(turn["gpu_gb"] or 0.0 for turn in self.turns) or None,
            "precision": self.told.get("precision"),
            "parameters": self.told.get("parameters"),
            "seconds": steps,
            "bare_seconds": bare,
        }


def main() -> None:
    """Start all, give them turns, print the table and write the JSON file."""
    options = parse()
    data = DATA[options.data]
    options.peers = peers_at(options.peers) if {*OF_PEERS} & {*options.methods} else None
    racers: list[Racer] = []
    try:
        for method in options.methods:
            if options.peers or method not in OF_PEERS:
                racers.append(start(options, data, method, racers))
        race(racers, options.rounds, options.steps)
    finally:
        for racer in racers:
            racer.end()
    found = circumstances(options.peers)
    rows = [{"data": data.name, "method": racer.method, **racer.result(), **found} for racer in racers]
    add_results(options.json, rows, KEY)
    Console(width=140).print(table(data.name, rows))
    compare(rows)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(DATA))
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--minutes", type=float, default=10, help="budget that medseg plans for")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each")
    parser.add_argument("--steps", type=int, default=5, help="steps a turn")
    parser.add_argument("--peers", type=Path, help="environment with nnU-Net; without it nnU-Net is left out")
    parser.add_argument("--work", type=Path, required=True, help="folder for data, caches and runs")
    parser.add_argument("--json", type=Path, required=True, help="file that the results are added to")
    return parser.parse_args()


def start(options: argparse.Namespace, data: BenchmarkData, method: str, before: list[Racer]) -> Racer:
    """Start a process, wait until it is warm, and put it to sleep."""
    print(f"{time.strftime('%H:%M:%S')} {data.name} {method}", file=sys.stderr, flush=True)
    work = options.work.resolve()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(SCRIPTS)))}
    if method.startswith("medseg"):
        command = medseg_command(options, data, method)
    elif method.startswith("monai"):
        command = [sys.executable, SCRIPTS / "monai_steps.py", write_task(options, data, before)]
        command += ["--augment"] if method == "monai_augmented" else []
    else:
        peer = prepared(options, data)
        command = nnunet.runner(peer, "steps", nnunet.PLANS, work / "unused.json", bf16=False)
        command, environment = [peer.venv / "bin" / "python", *command[1:]], peer.environment("steps")
    log = work / "logs" / f"steps_{data.name}_{method}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=file, text=True
        )
    racer = Racer(method, process, log)
    try:
        racer.told = racer.listen()
    except BaseException:
        racer.end()
        raise
    return racer


def medseg_command(options: argparse.Namespace, data: BenchmarkData, method: str) -> list[str | Path]:
    """Return the command of medseg, by its own plan or by nnU-Net's."""
    work = options.work.resolve()
    run_dir = work / "medseg" / f"steps_{data.name}_{method}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    overrides = [*data.overrides(options.root.resolve(), work), f"trainer.max_time={duration(options.minutes)}"]
    overrides += [f"run_dir={run_dir}", f"cache_dir={work / 'cache'}", "logger=none"]
    overrides += as_nnunet(prepared(options, data)) if method == "medseg_nnunet" else []
    return [sys.executable, SCRIPTS / "medseg_steps.py", *overrides]


def prepared(options: argparse.Namespace, data: BenchmarkData) -> nnunet.Peer:
    """Return nnU-Net with the data planned and preprocessed."""
    work = options.work.resolve()
    peer = nnunet.Peer(options.peers.resolve(), work, data)
    nnunet.prepare(peer, *opened(data, options.root.resolve(), work))
    return peer


def as_nnunet(peer: nnunet.Peer) -> list[str]:
    """Return the settings that give medseg network, patch, batch and optimizer of nnU-Net's plan."""
    plans = json.loads((peer.preprocessed / f"{nnunet.PLANS}.json").read_text())
    plan = plans["configurations"][peer.data.configuration]
    network = plan["architecture"]["arch_kwargs"]
    axes = slice(None) if peer.data.configuration == "2d" else slice(None, None, -1)  # nnU-Net counts z, y, x
    settings = {
        "plan.patch_size": plan["patch_size"][axes],
        "plan.batch_size": plan["batch_size"],
        "plan.strides": [strides[axes] for strides in network["strides"][1:]],
        "plan.kernel_sizes": [kernel[axes] for kernel in network["kernel_sizes"]],
        "model.depth": network["n_stages"] - 1,
        "model.base_channels": network["features_per_stage"][0],
        "model.max_channels": max(network["features_per_stage"]),
        "model.downsampling": "strided",
        "model.deep_supervision": "true",
        "optimizer": "sgd",
    }
    return [f"{key}={str(value).replace(' ', '')}" for key, value in settings.items()]


def write_task(options: argparse.Namespace, data: BenchmarkData, before: list[Racer]) -> Path:
    """Write what MONAI needs to know to be given medseg's task."""
    like = [racer.told for racer in before if racer.method == "medseg"]
    if not like:
        raise SystemExit("monai takes patch, batch and width from medseg: put medseg before it in --methods")
    work = options.work.resolve()
    dataset, split = opened(data, options.root.resolve(), work)
    cases = [
        {"image": [str(file) for file in case.images], "label": str(case.labels[0].path)}
        for case in by_id(dataset.cases, split.train)
    ]
    task = {**like[0], "cases": cases, "channels": len(data.channels), "classes": len(label_map(dataset).names)}
    path = work / f"monai_{data.name}.json"
    path.write_text(json.dumps({**task, "workers": os.cpu_count()}))
    return path


def race(racers: list[Racer], rounds: int, steps: int) -> None:
    """Let all take turns."""
    for _ in range(rounds):
        for racer in racers:
            racer.turn(steps)
    for racer in racers:
        racer.told["peak_gb"] = process_tree.peak_gb(racer.process.pid)


def table(name: str, rows: list[dict[str, Any]]) -> Table:
    """Return a row a method."""
    found = Table("step", title=name)
    for column in ("patch", "batch", "patches/s", "bare patches/s", "step ÷ bare", "CPU s/patch", "peak GB", "GPU GB"):
        found.add_column(column, justify="right")
    for row in rows:
        speeds = [f"{row[key]:.2f}" for key in ("patches_per_second", "bare_patches_per_second", "ratio_to_bare")]
        memory = [f"{row['peak_gb']:.2f}", f"{row['peak_gpu_gb']:.2f}" if row["peak_gpu_gb"] else "–"]
        patch = "×".join(map(str, row["patch"] or [])) or "–"
        found.add_row(row["method"], patch, str(row["batch"]), *speeds, f"{row['cpu_seconds_per_patch']:.3f}", *memory)
    return found


def compare(rows: list[dict[str, Any]]) -> None:
    """Say how medseg and nnU-Net compare at the same network and patch."""
    speeds = {row["method"]: row["patches_per_second"] for row in rows}
    if {*OF_PEERS} <= {*speeds}:
        ratio = speeds["medseg_nnunet"] / speeds["nnunet"]
        print(f"Same network, patch and batch: medseg {ratio:.2f} times nnU-Net's patches a second.")


if __name__ == "__main__":
    main()
