"""A small structure in large scans: one stage, a cascade and a region of interest, trained for the same time.

    OMP_NUM_THREADS=2 python scripts/benchmark_cascade.py --work WORK --minutes 4 --json cascade.json

The scans are phantoms of about ``--size`` voxels along each axis whose lesion, one class here, is ``--lesion`` times as
wide as usual; patients stay on one side of the split. Each method is ``medseg train`` with ``trainer.max_time`` and
``experiment``, and nothing else but ``--set``. With ``--epochs`` instead of a time each makes as many steps, those of
all its stages together, which is fairer where a machine has other work. Then ``medseg predict`` of the test scans: its
peak is the largest resident memory of the process, its seconds a scan are those of ``predictions.csv``.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

from benchmark_report import ROOT, add_results, circumstances
from process_tree import measured
from rich.console import Console
from rich.table import Table

from medseg.io.layouts.synthetic import make_phantom, write_decathlon

METHODS = {"one stage": [], "cascade": ["experiment=cascade"], "roi": ["experiment=roi"]}
KEY = ("method", "minutes", "epochs", "size", "lesion", "seed")


def main() -> None:
    """Train, test and predict by each method, and print the table of all results in the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data, caches and runs")
    parser.add_argument("--json", type=Path, required=True, help="file that the results are added to")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--epochs", type=int, help="epochs of 50 steps to train, whatever the time")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--lesion", type=float, default=0.3)
    parser.add_argument("--cases", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], help="further settings of medseg train")
    options = parser.parse_args()
    for method in options.methods:
        print(f"{time.strftime('%H:%M:%S')} {method}", file=sys.stderr, flush=True)
        add_results(options.json, [result(options, method)], KEY)
    table = Table(*KEY, "Dice of the test", "per case", "s a scan", "peak GB", "steps")
    for row in add_results(options.json, [], KEY):
        numbers = (f"{row['seconds']:.1f}", f"{row['peak_gb']:.2f}", str(row["steps"]))
        cases = " ".join("-" if each is None else f"{each:.3f}" for each in row["cases"])
        table.add_row(*(str(row[name]) for name in KEY), f"{row['dice']:.3f}", cases, *numbers)
    Console(width=160).print(table)


def result(options: argparse.Namespace, method: str) -> dict[str, Any]:
    """Train and test by one method, and predict the test scans once more, in a process of its own."""
    work = options.work.resolve()
    data = phantoms(work / f"phantom_{options.size}_{options.lesion:g}_{options.cases}", options)
    run = work / f"{method.replace(' ', '_')}_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    minutes, seconds = divmod(round(60 * options.minutes), 60)
    settings = [f"dataset.root={data}", f"dataset.group_file={data / 'groups.csv'}", f"cache_dir={work / 'cache'}"]
    settings += ["dataset.labels={background: 0, lesion: [1, 2, 3]}", f"seed={options.seed}", f"run_dir={run}"]
    limit = f"trainer.max_epochs={options.epochs}" if options.epochs else ""
    settings += [limit or f"trainer.max_time=00:00:{minutes:02d}:{seconds:02d}", *METHODS[method], *options.set]
    medseg = [sys.executable, "-m", "medseg"]
    subprocess.run([*medseg, "train", "dataset=decathlon", *settings], cwd=ROOT, check=True)

    tested = json.loads((run / "splits.json").read_text())["test"]
    scans, masks = run / "scans", run / "masks"
    scans.mkdir()
    for name in tested:
        (scans / f"{name}.nii.gz").symlink_to(data / "imagesTr" / f"{name}.nii.gz")
    line = [*medseg, "predict", f"checkpoint={run}", f"input={scans}", f"output={masks}", "device=cpu"]
    predicted = measured(line)
    if isnan(predicted["wall_seconds"]):
        raise SystemExit(f"{' '.join(line)}: failed")
    rows = table_of(masks / "predictions.csv")
    scores = [row["dice"] for row in table_of(run / "test" / "cases.csv")]
    return {
        **{name: getattr(options, name, method) for name in KEY},
        "dice": json.loads((run / "result.json").read_text())["test_score"],
        "cases": [float(score) if score else None for score in scores],
        "seconds": sum(float(row["seconds"]) for row in rows) / len(rows),
        "peak_gb": predicted["peak_gb"],
        "steps": int(table_of(run / "metrics.csv")[-1]["step"]),
        **circumstances(),
    }


def phantoms(root: Path, options: argparse.Namespace) -> Path:
    """Make the data set, unless it is there."""
    if not (root / "groups.csv").is_file():
        root.mkdir(parents=True)
        make = partial(make_phantom, dims=3, channels=1, size=options.size, seed=0, lesion=options.lesion)
        patients = write_decathlon(root, make, options.cases, 1)
        with (root / "groups.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "group"), *patients.items()])
    return root


def table_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
