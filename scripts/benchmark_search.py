"""What pruning saves of a search, and what the search finds: training time and best validation Dice, beside full runs.

    python scripts/benchmark_search.py --work WORK --trials 20 dataset=phantom trainer.max_epochs=20

Searches the recipe ``--search`` with pruning. What its trials would have taken in full is the time that each took, over
the share of its training at which it was ended. The first trial is the default. With ``--full`` there is a second
search, whose trials are all trained to their end. Further arguments are settings of ``medseg train``. A search goes on
where it was stopped.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path


def main() -> None:
    """Search, and print a line for each way to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the searches")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--search", default="usual", help="recipe of conf/search")
    parser.add_argument("--full", action="store_true", help="without pruning as well")
    options, settings = parser.parse_known_args()
    for pruning in ("true", "false") if options.full else ("true",):
        folder = options.work / f"pruning_{pruning}"
        line = [f"search={options.search}", f"search.trials={options.trials}", f"search.pruning={pruning}"]
        command = [sys.executable, "-m", "medseg", "train", *line, "sweep.test=none", f"run_dir={folder}", *settings]
        subprocess.run(command, check=False)
        print(line_of(folder, pruning))


def line_of(folder: Path, pruning: str) -> str:
    """Return what a search took and found."""
    trials = json.loads((folder / "search.json").read_text("utf-8"))["trials"]
    scores = [trial["score"] for trial in trials if trial["score"] is not None]
    spent = [seconds_of(folder / str(trial["number"])) for trial in trials]
    # A trial that was ended at 15 % would have taken its time so far, divided by 0.15
    shares = [trial["percents"][-1][0] / 100 if trial["state"] == "pruned" else 1 for trial in trials]
    total, full = sum(spent), sum(seconds / share for seconds, share in zip(spent, shares, strict=True))
    states = ", ".join(f"{count} {state}" for state, count in Counter(trial["state"] for trial in trials).items())
    return (
        f"pruning={pruning}: {len(trials)} trials ({states}), {total:.0f} s of training, in full about {full:.0f} s "
        f"({total / full:.0%}); best {max(scores):.4f}, the default {trials[0]['score']:.4f}"
    )


def seconds_of(run: Path) -> float:
    """Return the training time of a run, by the last row of its ``metrics.csv``; 0 of one that has none."""
    table = run / "metrics.csv"
    rows = list(csv.DictReader(table.open(encoding="utf-8"))) if table.is_file() else []
    return float(rows[-1]["seconds"]) if rows else 0.0


if __name__ == "__main__":
    main()
