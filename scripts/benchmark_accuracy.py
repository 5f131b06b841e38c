"""Mean Dice of the same test cases against training time: medseg, nnU-Net v2, and nnU-Net's recipe at medseg's width.

    python scripts/benchmark_accuracy.py hippocampus --root DATA/hippocampus --minutes 10 --seeds 0 1 2 \\
        --methods medseg nnunet control --peers VENV --work WORK --json accuracy.json

Budgets are ``--minutes`` and ``--steps``; further arguments are settings of ``medseg train``, which other results must
not share a JSON file with.

* medseg: ``medseg train`` with the data set and the budget named and nothing else. A budget in minutes counts its
  validations; its CPU seconds those of the whole command, preprocessing and test included.
* nnunet: nnU-Net's default trainer, plan and augmentation in fp32, ten epochs whose iterations end at the budget on an
  undisturbed machine; predicted with its default, mirroring included. Its CPU seconds are those of training alone.
* control: the same with ``--width`` base channels and the network in bfloat16: what width and precision alone bring.

All train and validate on the same cases, and are tested on the same others: medseg's default split of seed 0. Results
are added to the JSON file, so that a table can be made of several calls. VENV has ``requirements-peers.txt`` installed.
nnU-Net's runs are kept under WORK and not done again; medseg's are, for its code changes.
"""

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal

import nnunet_peer as nnunet
import numpy as np
from benchmark_data import DATA, TESTED, BenchmarkData, opened
from benchmark_report import ROOT, add_results, circumstances, peers_at
from rich.console import Console
from rich.table import Table

from medseg.io.datasets.dataset import label_map

KEY = ("data", "method", "budget", "seed")
EPOCHS = nnunet.EPOCHS
"""A budget in steps is divided into so many epochs."""
Scores = dict[str, dict[str, float]]
"""Dice by case and class; NaN where neither the truth nor the mask has a voxel of it."""


@dataclass(frozen=True)
class Budget:
    """How long a training may take: minutes or steps."""

    amount: float
    unit: Literal["min", "steps"]

    @property
    def name(self) -> str:
        """As it stands in names of runs, and in the table."""
        return f"{self.amount:g} {self.unit}"

    @property
    def settings(self) -> list[str]:
        """What tells ``medseg train`` of it."""
        if self.unit == "min":
            return [f"trainer.max_time={duration(self.amount)}", "trainer.max_epochs=null"]
        return [f"trainer.max_epochs={EPOCHS}", f"trainer.steps_per_epoch={self.steps // EPOCHS}"]

    @property
    def steps(self) -> int:
        """Its steps."""
        return int(self.amount)


def main() -> None:
    """Train what was asked for, one after the other, and print the table of all results in the JSON file."""
    options = parse()
    peers = peers_at(options.peers) if {"nnunet", "control"} & {*options.methods} else None
    budgets = [*(Budget(each, "min") for each in options.minutes), *(Budget(each, "steps") for each in options.steps)]
    for budget in budgets:
        for seed in options.seeds:
            for method in options.methods:
                if method == "medseg" or peers:
                    add_results(options.json, [result(options, method, budget, seed)], KEY)
    found = [row for row in add_results(options.json, [], KEY) if row["data"] == options.data]
    Console(width=140).print(table(found))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=TESTED)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--minutes", type=float, nargs="+", default=[], help="budgets, such as 1 2 5 10 20")
    parser.add_argument("--steps", type=int, nargs="+", default=[], help=f"budgets, multiples of {EPOCHS}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--width", type=int, default=16, help="base channels of the control")
    parser.add_argument("--peers", type=Path, help="environment with nnU-Net; without it nnU-Net is left out")
    parser.add_argument("--work", type=Path, required=True, help="folder for data, caches and runs")
    parser.add_argument("--json", type=Path, required=True, help="file that the results are added to")
    options, options.settings = parser.parse_known_args()
    if wrong := [each for each in options.settings if each.startswith("-")]:
        parser.error(f"no such options: {' '.join(wrong)}")
    return options


def result(options: argparse.Namespace, method: str, budget: Budget, seed: int) -> dict[str, Any]:
    """Train and test once."""
    data: BenchmarkData = DATA[options.data]
    name = f"{data.name}_{method}_{budget.name.replace(' ', '')}_seed{seed}"
    print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
    done, scores = METHODS[method](options, data, name, budget, seed)
    row = {"data": data.name, "method": method, "budget": budget.name, "seed": seed, **done, **summary(scores)}
    cases = {case: {name: None if isnan(value) else value for name, value in of.items()} for case, of in scores.items()}
    return row | {"cases": cases, **circumstances(options.peers if method != "medseg" else None)}


def train_medseg(
    options: argparse.Namespace, data: BenchmarkData, name: str, budget: Budget, seed: int
) -> tuple[dict[str, Any], Scores]:
    """Run ``medseg train`` on the benchmark's split and read its test report."""
    root, work = options.root.resolve(), options.work.resolve()
    _, split = opened(data, root, work)
    file = work / f"{data.name}_split.json"
    work.mkdir(parents=True, exist_ok=True)
    split.save(file, {}, seed=0)
    run_dir = work / "medseg" / f"{name}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    command = [sys.executable, "-m", "medseg", "train", *data.overrides(root, work), f"split.file={file}"]
    command += [*budget.settings, f"seed={seed}", f"run_dir={run_dir}", *options.settings]
    cpu, began = nnunet.cpu_seconds_of_children(), time.perf_counter()
    subprocess.run([*command, f"cache_dir={work / 'cache'}"], cwd=ROOT, check=True)
    spent = {
        "cpu_seconds": nnunet.cpu_seconds_of_children() - cpu,
        "wall_seconds": time.perf_counter() - began,
    }
    return {"steps": last_step(run_dir / "metrics.csv"), **spent}, reported(run_dir / "test" / "cases.csv")


def duration(minutes: float) -> str:
    """Write minutes as DD:HH:MM:SS."""
    hours, seconds = divmod(round(minutes * 60), 3600)
    return f"00:{hours:02d}:{seconds // 60:02d}:{seconds % 60:02d}"


def last_step(metrics: Path) -> int:
    """Return how many steps a run of medseg made."""
    with metrics.open(newline="") as file:
        return int(list(csv.DictReader(file))[-1]["step"])


def reported(cases: Path) -> Scores:
    """Read the Dice of each case and class from medseg's report."""
    scores: Scores = {}
    with cases.open(newline="") as file:
        for row in csv.DictReader(file):
            scores.setdefault(row["case"], {})[row["class"]] = float(row["dice"]) if row["dice"] else nan
    return scores


def train_nnunet(
    options: argparse.Namespace, data: BenchmarkData, name: str, budget: Budget, seed: int, *, control: bool = False
) -> tuple[dict[str, Any], Scores]:
    """Train nnU-Net for the budget, predict the test cases and score the masks."""
    work = options.work.resolve()
    dataset, split = opened(data, options.root.resolve(), work)
    peer = nnunet.Peer(options.peers, work, data)
    nnunet.prepare(peer, dataset, split)
    plans = nnunet.narrow_plans(peer, options.width) if control else nnunet.PLANS
    seconds, steps = (budget.amount * 60, None) if budget.unit == "min" else (None, budget.steps)
    done = nnunet.train(peer, name, plans, seed, seconds=seconds, steps=steps, bf16=control)
    masks = nnunet.predict(peer, name, plans)
    classes = dict(enumerate(label_map(dataset).names))
    return done, {case: score(peer.raw / "labelsTs", masks, f"{case}{data.suffix}", classes) for case in split.test}


def train_control(*arguments: Any) -> tuple[dict[str, Any], Scores]:
    """Train nnU-Net's recipe at medseg's width and in bfloat16."""
    return train_nnunet(*arguments, control=True)


def score(truths: Path, masks: Path, file: str, classes: dict[int, str]) -> dict[str, float]:
    """Return the Dice of each foreground class of one case, on its own grid."""
    truth, mask = nnunet.read_mask(truths / file), nnunet.read_mask(masks / file)
    return {name: dice(truth == index, mask == index) for index, name in classes.items() if index}


def dice(truth: np.ndarray, mask: np.ndarray) -> float:
    """Return twice the overlap over the sum of both; NaN where both are empty."""
    total = int(truth.sum()) + int(mask.sum())
    return 2 * int((truth & mask).sum()) / total if total else nan


def summary(scores: Scores) -> dict[str, Any]:
    """Return the mean over the cases of each class, cases without a value left out, and the mean over the classes."""
    classes = {name: mean(case[name] for case in scores.values()) for name in next(iter(scores.values()))}
    return {"dice": classes, "mean_dice": mean(classes.values()), "n_cases": len(scores)}


def mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN."""
    return float(np.mean([value for value in values if not isnan(value)]))


METHODS = {"medseg": train_medseg, "nnunet": train_nnunet, "control": train_control}


def table(results: list[dict[str, Any]]) -> Table:
    """Return a row for each method and budget: means over the seeds, and the range of the mean Dice."""
    classes = list(results[0]["dice"]) if results else []
    found = Table("method", title=results[0]["data"] if results else "no results")
    for column in ("budget", "seeds", "steps", *classes, "mean Dice", "from", "to", "CPU seconds"):
        found.add_column(column, justify="right")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in results:
        groups.setdefault((row["budget"], row["method"]), []).append(row)
    for (budget, method), rows in sorted(groups.items()):
        values = [f"{mean(row['dice'][name] for row in rows):.3f}" for name in classes]
        dice = [row["mean_dice"] for row in rows]
        steps, cpu = (f"{mean(row[key] for row in rows):.0f}" for key in ("steps", "cpu_seconds"))
        spread = [f"{value:.3f}" for value in (mean(dice), min(dice), max(dice))]
        found.add_row(method, budget, str(len(rows)), steps, *values, *spread, cpu)
    return found


if __name__ == "__main__":
    main()
