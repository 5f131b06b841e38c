"""Classes that short trainings never learn: Dice of each class over seeds, widths and budgets, before and after.

    python scripts/benchmark_rare_classes.py --work WORK --seeds 20 --widths 8 16 --steps 125 250

Trains on the phantom, whose class ``core`` has 18 voxels of 10 000, as two sweeps: as medseg does by default, and as it
did before, with an activation before the head, biases that begin at 0, and one learning rate. Further arguments are
settings of ``medseg train``, such as those of another data set. All runs share one split; they are bound by steps, so
that other load changes nothing. A sweep goes on where it was stopped.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

BEFORE = ["trainer.class_prior=false", "trainer.head_factor=1", "model.last_activation=true"]
METHODS = {"after": [], "before": BEFORE}
EPOCHS = 5


def main() -> None:
    """Train what is not done yet, and print a line for each method, width and budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the sweeps")
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds")
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16], help="base channels")
    parser.add_argument("--steps", type=int, nargs="+", default=[125, 250], help=f"multiples of {EPOCHS}")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    options, settings = parser.parse_known_args()
    for method in options.methods:
        folder = options.work / method
        steps = ",".join(str(count // EPOCHS) for count in options.steps)
        swept = [f"seed=range({options.seeds})", f"model.base_channels={','.join(map(str, options.widths))}"]
        swept += [f"trainer.steps_per_epoch={steps}", f"trainer.max_epochs={EPOCHS}", "sweep.test=all"]
        engine = [f"hydra.launcher.jobs_per_device={options.jobs}", "logger=none", f"run_dir={folder}", "resume=auto"]
        command = [sys.executable, "-m", "medseg", "train", "-m", *swept, *METHODS[method], *engine, *settings]
        subprocess.run(command, check=False)
        for line in lines_of(folder):
            print(f"{method}: {line}")


def lines_of(sweep: Path) -> list[str]:
    """Return a line for each width and budget of a sweep: how many classes are at 0, and their mean test Dice."""
    dice = defaultdict(list)
    for file in sorted(sweep.glob("*/test/metrics.json")):
        plan, rows = file.parents[1] / "config.yaml", json.loads(file.read_text("utf-8"))
        dice[settings_of(plan)].append([each["dice"]["mean"] for each in rows["classes"].values()])
    lines = []
    for (width, steps), runs in sorted(dice.items()):
        values = np.array(runs)
        means = ", ".join(
            f"{mean:.3f} (from {least:.3f})" for mean, least in zip(values.mean(0), values.min(0), strict=True)
        )
        lines.append(
            f"{width} channels, {steps} steps: {len(values)} runs, {(values < 0.05).sum()} classes below 0.05,"
            f" {(values < 0.5).sum()} below 0.5; by class {means}; mean {values.mean():.3f}"
        )
    return lines


def settings_of(config: Path) -> tuple[int, int]:
    """Return the base channels and the number of steps of a run."""
    run = OmegaConf.load(config)
    return run.model.base_channels, run.trainer.steps_per_epoch * run.trainer.max_epochs


if __name__ == "__main__":
    main()
