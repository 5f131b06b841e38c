"""How fast batches come from the cache, and what a GPU would wait for at the ends of epochs.

    python scripts/benchmark_feeding.py [--workers 1 2] [--step 0 0.04] [--gb 0.5] [--json FILE]

Synthetic cases of BraTS's size, four channels of 240 x 240 x 155, lie in the cache's format in a temporary folder, and
batches of two patches of 128 x 128 x 128 are cut from them. A step is a sleep, as a GPU's is for the processes that
load data. The first table tells how many batches a second come, and what a patch costs in CPU milliseconds of all
processes. The second tells how long a GPU has nothing to do between two epochs of 50 steps with Lightning, without
checkpoints and with those of a state of so many GB. Linux only.
"""

import argparse
import json
import logging
import os
import time
import warnings
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from process_tree import cpu_seconds
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader

from medseg.preprocessing.cache import compact
from medseg.system.files import write_torch
from medseg.training.callbacks.checkpoints import CheckpointFiles, Checkpoints, Selection
from medseg.training.data.batches import Batches, BatchNumbers, batch_type
from medseg.training.data.datamodule import SegmentationData
from medseg.training.data.loader import PatchLoader
from medseg.training.data.patches import Patches
from medseg.training.data.workers import slots_for
from medseg.training.optim.divergence import StepRecord

CASES, SHAPE, CHANNELS = 4, (240, 240, 155), 4
PATCH, BATCH, STEPS = (128, 128, 128), 2, 50
WARM_UP, MEASURED = 8, 40  # batches
EPOCHS = 6


def main() -> None:
    """Measure both and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--step", type=float, nargs="+", default=[0.0, 0.04])
    parser.add_argument("--gb", type=float, default=0.5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        files = write_cases(Path(folder))
        rows = [feeding(files, workers, step) for workers in options.workers for step in options.step]
        Console(width=120).print(table(rows))
        ends = [
            epoch_ends(files, options.workers[-1], step, gb) for step in options.step[-1:] for gb in (0, options.gb)
        ]
        Console(width=120).print(table(ends))
    if options.json:
        options.json.write_text(json.dumps({"feeding": rows, "epoch_ends": ends}, indent=2))


def write_cases(folder: Path) -> list[Path]:
    """Write preprocessed cases: z-scores, one box of a class."""
    files = []
    for number in range(CASES):
        label = torch.zeros(SHAPE, dtype=torch.uint8)
        label[100:140, 100:140, 60:90] = 1
        case = {
            "image": compact(torch.randn(CHANNELS, *SHAPE, generator=torch.Generator().manual_seed(number))),
            "label": label,
            "locations": [label.nonzero().int()[::5].clone()],
            "known": torch.zeros(0, 3, dtype=torch.int32),
            "false_positives": torch.zeros(0, 3, dtype=torch.int32),
            "annotated": torch.ones(2, dtype=torch.bool),
        }
        files.append(folder / f"{number}.case.pt")
        write_torch(files[-1], case)
    return files


def feeding(files: list[Path], workers: int, step: float) -> dict[str, Any]:
    """Return the speed of loading in the steady state, for a GPU, which copies from shared memory by itself."""
    patches = Patches(files, patch_size=PATCH, foreground=0.33, seed=0)
    dtype = batch_type(patches, torch.device("cuda"))
    batches = Batches(patches, BATCH, slots_for(workers), dtype=dtype, is_shared=workers > 0)
    loader = PatchLoader(batches, BatchNumbers(STEPS, BATCH), workers=workers, device=torch.device("cpu"))
    slots = DataLoader.__iter__(loader)
    for _ in islice(slots, WARM_UP):
        pass
    # Workers that a server has forked are no children of this process.
    processes = [os.getpid()] + [worker.pid for worker in getattr(loader._iterator, "_workers", ())]
    began, cpu, waited = time.perf_counter(), sum(map(cpu_seconds, processes)), 0.0
    for _ in range(MEASURED):
        asked = time.perf_counter()
        next(slots)
        waited += time.perf_counter() - asked
        time.sleep(step)
    seconds, cpu = time.perf_counter() - began, sum(map(cpu_seconds, processes)) - cpu
    return {
        "workers": workers,
        "step_ms": 1000 * step,
        "batches_per_s": MEASURED / seconds,
        "waited_ms_per_batch": 1000 * waited / MEASURED,
        "cpu_ms_per_patch": 1000 * cpu / MEASURED / BATCH,
    }


class Sleeping(LightningModule):
    """A step that sleeps, and a state of some size."""

    def __init__(self, step: float, gb: float) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weights = nn.Parameter(torch.zeros(int(gb * 1e9 / 4)))
        self.step, self.step_record = step, StepRecord()
        self.idle: list[float] = []
        self.ended = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Sleep, and note how long the device had nothing to do between two epochs."""
        if batch_idx == 0:
            self.idle.append(time.perf_counter() - self.ended)
        time.sleep(self.step)
        self.ended = time.perf_counter()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return an optimizer without a state."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def epoch_ends(files: list[Path], workers: int, step: float, gb: float) -> dict[str, Any]:
    """Return the seconds from the last step of an epoch to the first of the next."""
    module = Sleeping(step, gb)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            logger=False,
            callbacks=[Checkpoints(Path(folder), Selection())] if gb else [],
            enable_checkpointing=bool(gb),
            plugins=CheckpointFiles(),
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        sizes: dict[str, Any] = {"patch_size": PATCH, "batch_size": BATCH, "steps_per_epoch": STEPS}
        trainer.fit(module, SegmentationData(files, files, workers=workers, **sizes))
    return {
        "workers": workers,
        "step_ms": 1000 * step,
        "state_gb": gb,
        "idle_after_first_epoch_s": module.idle[1],
        "idle_after_others_s": median(module.idle[2:]),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay out rows."""
    result = Table(*rows[0])
    for row in rows:
        result.add_row(*(f"{value:.3g}" for value in row.values()))
    return result


if __name__ == "__main__":
    main()
