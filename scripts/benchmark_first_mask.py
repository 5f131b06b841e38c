"""How long the first mask of a small scan takes, beside the bare ``import torch``.

    python scripts/benchmark_first_mask.py RUN SCAN [--rounds 5]

Runs both as whole processes, in turn, and prints the medians and the median difference in seconds.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time


def seconds(command: list[str]) -> float:
    """Return the wall time of a whole process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run directory or a .ckpt file")
    parser.add_argument("scan", help="a small scan that the model takes")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    bare = [sys.executable, "-c", "import torch"]
    pairs = []
    for _ in range(options.rounds + 1):
        with tempfile.TemporaryDirectory() as output:
            predict = [sys.executable, "-m", "medseg", "predict", f"checkpoint={options.run}", f"input={options.scan}"]
            pairs.append((seconds(bare), seconds([*predict, f"output={output}/masks"])))
    torch_seconds, mask_seconds = zip(*pairs[1:], strict=True)  # the first round warms the disk's cache
    print(f"import torch  {statistics.median(torch_seconds):.2f} s")
    print(f"first mask    {statistics.median(mask_seconds):.2f} s")
    print(f"difference    {statistics.median(m - t for t, m in pairs[1:]):.2f} s")


if __name__ == "__main__":
    main()
