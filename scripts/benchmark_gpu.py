"""What medseg does on a GPU, in one table, in at most eight minutes.

    python scripts/benchmark_gpu.py --work FOLDER [--minutes 8] [--accelerator gpu] [--small] [--json FILE]

It needs torch, lightning, hydra-core, monai, nibabel and this checkout; nnU-Net is measured where it is installed.
Cases are synthetic, of BraTS's size: four channels of 240 x 240 x 155, with patches of 128 x 128 x 128. ``--small``
takes a fraction of that, to try the script out without a GPU. What the time does not suffice for is left out, and said.

* networks: a step (augmentation, loss, backward pass and optimizer) as it is, with channels last, and compiled; the
  memory that the plan counts on beside the peak of the device.
* training: ``medseg train`` on these cases. A step beside a bare one (forward, backward, optimizer, on a batch that
  stays where it is), in turns; then epochs as they are, with their ends: the device's busy share is that of the bare
  steps in the time of an epoch.
* feeding: batches a second from the cache, without a step.
* windows: a scan of this size by ``sliding_window``, by MONAI's function and by nnU-Net's, with one network, windows by
  half, in one precision.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch as replaced

import nibabel as nib
import numpy as np
import torch
from benchmark_data import composed
from benchmark_feeding import feeding, write_cases
from benchmark_report import circumstances
from lightning.pytorch import Callback
from medseg_steps import ENDLESS, Watch
from rich.console import Console
from rich.table import Table

from medseg.config.check import read_settings
from medseg.config.settings import TrainSettings
from medseg.config.untrusted import read_json
from medseg.inference.sliding_window import sliding_window, softmax
from medseg.io.datasets.dataset import label_map, open_dataset
from medseg.jobs.train import train
from medseg.jobs.train.setup import Run, set_up
from medseg.models.slices import logits_of
from medseg.system.cores import cores
from medseg.system.device import autocast, pick_device, pick_precision
from medseg.system.distributed.ranks import Ranks
from medseg.training.assembly import make_network
from medseg.training.probe import Probe

NETWORKS = ("unet", "resenc_m", "segresnet", "swin_unetr")
CHANNELS = ("flair", "t1", "t1ce", "t2")
CASES = 6
SIZES = {False: ((240, 240, 155), 128), True: ((72, 72, 64), 32)}
"""Voxels of a case and of a patch's side, by ``--small``."""
TURNS = 20  # steps beside as many bare ones
EPOCHS = 3
REPEATS = 3
COMPILING = 100  # seconds that a large network may take

Rows = list[tuple[str, str, str]]
"""Part, what was measured, result."""


def main() -> None:
    """Measure part after part and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for cases, cache and runs")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    shape, side = SIZES[options.small]
    write_dataset(options.work / "cases", shape)

    def begin(name: str, *more: str) -> Run[TrainSettings]:
        return make_run(options, name, [f"plan.patch_size=[{side},{side},{side}]", *more])

    parts: list[tuple[str, Callable[[], Iterator[tuple[str, str]]]]] = [
        ("training", lambda: training(begin("steps"), begin("epochs"))),
        ("windows", lambda: windows(begin("windows"), shape)),
        ("feeding", lambda: batches(options.work / "feeding", options.small)),
        *((f"network {name}", lambda name=name: network(begin(name, f"model={name}"), end)) for name in NETWORKS),
    ]
    rows: Rows = []
    for part, measure in parts:
        if time.monotonic() > end:
            rows.append((part, "left out", "the time is over"))
            continue
        try:
            rows += [(part, *row) for row in measure()]
        except Exception as error:  # one part that fails takes no other with it
            rows.append((part, "failed", f"{type(error).__name__}: {error}".splitlines()[0]))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    found = circumstances()
    Console(width=110).print(table(rows, found))
    if options.json:
        options.json.write_text(json.dumps({"circumstances": found, "rows": rows}, indent=1))


def write_dataset(folder: Path, shape: tuple[int, ...]) -> None:
    """Write cases as BraTS has them: zero outside the head, three nested classes; and the table that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij", sparse=True)
    rows = []
    for number in range(CASES):
        rng = np.random.default_rng(number)
        centre = rng.uniform(-0.3, 0.3, 3)
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
        label = sum((distance < radius).astype(np.uint8) for radius in (0.35, 0.25, 0.15))
        inside = sum(axis**2 for axis in axes) < 0.6
        row = {"id": f"case_{number}", "group": number, "label": f"{number}_label.nii"}
        nib.save(nib.Nifti1Image(label * inside, np.eye(4)), folder / row["label"])
        for channel, name in enumerate(CHANNELS):
            image = (rng.normal(100, 20, shape) + 30 * np.cos(channel + label)) * inside
            row[f"image_{name}"] = f"{number}_{name}.nii"
            nib.save(nib.Nifti1Image(image.clip(0).astype(np.int16), np.eye(4)), folder / row[f"image_{name}"])
        rows.append(row)
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_run(options: argparse.Namespace, name: str, more: list[str]) -> Run[TrainSettings]:
    """Read the cases, or what is known of them by now, and plan, as ``medseg train`` does."""
    folder = options.work / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    fixed = ["dataset=table", f"dataset.root={options.work / 'cases'}", f"cache_dir={options.work / 'cache'}"]
    fixed += [f"run_dir={folder}", f"trainer.accelerator={options.accelerator}", "split.test=0", "split.val=0.2"]
    fixed += ["logger=none", f"trainer.max_epochs={EPOCHS}", "trainer.validation_interval=1"]
    fixed += ["trainer.steps_per_epoch=4"] if options.small else []
    config = composed([*fixed, *more])
    settings = read_settings(TrainSettings, config)
    dataset = open_dataset(settings.dataset, settings.trust)
    return set_up(
        config, settings, dataset, label_map(dataset), Ranks(devices=[pick_device(settings.trainer.accelerator)])
    )


def training(run: Run[TrainSettings], second: Run[TrainSettings]) -> Iterator[tuple[str, str]]:
    """Time steps of a training and bare ones in turns; then a second training, with validations and checkpoints."""
    device = pick_device(run.settings.trainer.accelerator)
    yield "device, precision", f"{name_of(device)}, {pick_precision(run.settings.trainer.precision, device)}"
    yield "patch, batch", f"{'x'.join(map(str, run.plan.patch_size))}, {run.plan.batch_size}"
    watch, make = Watch({}, Turns), train.make_trainer
    endless = replace(run.settings, trainer=replace(run.settings.trainer, **ENDLESS))
    with replaced.object(
        train, "make_trainer", lambda *given: make(*given[:2], [*given[2], watch, StopAfter(watch)], *given[3:])
    ):
        train.fit(replace(run, settings=endless), lambda: None)
    bare = median(watch.meter.bare_steps)
    ratios = [step / other for step, other in zip(watch.meter.steps, watch.meter.bare_steps, strict=True)]
    yield "bare step", f"{1000 * bare:.1f} ms"
    yield "step / bare step", f"{median(ratios):.3f}"

    began = time.perf_counter()
    train.fit(second, lambda: None)
    seconds = time.perf_counter() - began
    with (second.directory / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    count = second.settings.trainer.steps_per_epoch
    span = median(float(after["seconds"]) - float(before["seconds"]) for before, after in pairwise(rows))
    step = median(float(row["step_seconds"]) for row in rows[1:])
    yield f"epoch of {count} steps, with its end and validation", f"{span:.2f} s, steps {count * step:.2f} s"
    yield "busy share: bare steps in the time of an epoch", f"{count * bare / span:.1%}"
    yield "waiting for data", f"{median(float(row['data_share']) for row in rows[1:]):.1%}"
    yield f"{len(rows)} epochs, compiling and preprocessing included", f"{seconds:.1f} s"


class Turns:
    """A training step, a bare step, and so on; see ``step_meter.StepMeter``."""

    def __init__(self, bare: Callable[[], Any], **_: Any) -> None:
        self.bare, self.steps, self.bare_steps = bare, list[float](), list[float]()
        self.began = clock()

    def after_step(self) -> None:
        """Note a step, do a bare one."""
        self.steps.append(clock() - self.began)
        began = clock()
        self.bare()
        self.began = clock()
        self.bare_steps.append(self.began - began)


class StopAfter(Callback):
    """Ends a training when its steps have been measured."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Stop after the turns; the first ones warm up."""
        if self.watch.meter and len(self.watch.meter.steps) >= TURNS + REPEATS:
            del self.watch.meter.steps[:REPEATS], self.watch.meter.bare_steps[:REPEATS]
            trainer.should_stop = True
            trainer.limit_val_batches = 0


def network(run: Run[TrainSettings], end: float) -> Iterator[tuple[str, str]]:
    """Time a network's steps as planned and in other ways; compare the memory that was counted with the peak.

    It is not compiled when less than ``COMPILING`` seconds are left until ``end``.
    """
    device = pick_device(run.settings.trainer.accelerator)
    plan = read_json(run.directory / "plan.json")
    probe = Probe(run.config, device, run.label_map)
    size = sum(parameter.numel() for parameter in make_network(run.settings, run.plan).parameters())
    counted = probe.memory(plan)
    ways = {
        "as it is": (False, False),
        "channels last": (False, True),
        "compiled": (True, plan["trainer"]["channels_last"]),
    }
    yield "parameters", f"{size / 1e6:.1f} million"
    for way, (compiled, last) in ways.items():
        if compiled and time.monotonic() > end - COMPILING:
            yield f"step {way}", "left out: the time is over"
            continue
        trainer = {**plan["trainer"], "compile": compiled, "channels_last": last}
        began = time.perf_counter()
        cost = probe.step({**plan, "trainer": trainer})
        spent = time.perf_counter() - began
        text = f"{1000 * cost.seconds:.1f} ms" if cost.failure is None else f"not possible: {cost.failure}"
        yield f"step {way}", text + (f", tried in {spent:.0f} s" if compiled else "")
        if way == "as it is" and counted and cost.bytes:
            yield "memory counted, peak", f"{counted / 1e9:.2f}, {cost.bytes / 1e9:.2f} GB: {counted / cost.bytes:.2f}"
    chosen = plan["trainer"]
    yield "chosen", f"compile={chosen['compile']}, channels_last={chosen['channels_last']}"


def batches(folder: Path, is_small: bool) -> Iterator[tuple[str, str]]:
    """Load batches of two patches without a step; the cases are always of BraTS's size, in a cache of their own."""
    if is_small:
        yield "left out", "with --small"
        return
    folder.mkdir(exist_ok=True)
    files = write_cases(folder)
    for workers in sorted({1, 4, 8, cores()} & set(range(1, cores() + 1))):
        row = feeding(files, workers, 0.0)
        speed = f"{row['batches_per_s']:.1f} batches/s, {row['cpu_ms_per_patch']:.0f} CPU ms a patch"
        yield f"{workers} workers", speed


def windows(run: Run[TrainSettings], shape: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Put a scan through the sliding windows of each tool, in turn."""
    device = pick_device(run.settings.trainer.accelerator)
    precision = pick_precision(run.settings.trainer.precision, device)
    net = make_network(run.settings, run.plan).to(device).eval()
    patch, outputs = run.plan.patch_size, len(run.label_map.outputs)
    image = torch.randn(len(CHANNELS), *shape, generator=torch.Generator().manual_seed(0)).to(device)
    size, overlap = run.settings.inference.batch_size, 0.5

    def first(patches: torch.Tensor) -> torch.Tensor:
        result = net(patches)
        return result[0] if isinstance(result, (list, tuple)) else result

    def ours() -> None:
        logits = logits_of(net, run.plan)
        options = {"n_outputs": outputs, "main_axis": 2, "overlap": overlap, "batch_size": size, "activation": softmax}
        for _ in sliding_window([logits], image, patch_size=patch, **options):
            pass

    def monais() -> None:
        from monai.inferers import sliding_window_inference

        sliding_window_inference(image[None], patch, size, first, overlap, mode="gaussian").softmax(1)

    def nnunets() -> None:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(overlap, True, False, True, device, allow_tqdm=False)
        predictor.network, predictor.allowed_mirroring_axes = Whole(first), None
        predictor.configuration_manager = SimpleNamespace(patch_size=patch)
        predictor.label_manager = SimpleNamespace(num_segmentation_heads=outputs)
        predictor.predict_sliding_window_return_logits(image.cpu()).softmax(0)

    tools = {"medseg": ours, "MONAI": monais, "nnU-Net": nnunets}
    if not find_spec("nnunetv2"):
        del tools["nnU-Net"]
        yield "nnU-Net", "not installed"
    times: dict[str, list[float]] = {tool: [] for tool in tools}
    for tool, predict in list(tools.items()) * (1 + REPEATS):
        with torch.inference_mode(), autocast(device, precision):
            began = clock()
            predict()
            times[tool].append(clock() - began)
    best = {tool: min(values[1:]) for tool, values in times.items()}
    for tool, seconds in best.items():
        yield tool, f"{seconds:.2f} s a scan, {seconds / best['medseg']:.2f} times medseg's"


class Whole(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.forward = function  # type: ignore[method-assign]


def clock() -> float:
    """Return the time in seconds after all work on the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def name_of(device: torch.device) -> str:
    """Return what a device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def table(rows: Rows, found: dict[str, Any]) -> Table:
    """Lay the results out."""
    machine = found["machine"]
    title = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores; torch {found['torch']}; {found['date']}"
    result = Table("part", "what", "result", title=title)
    for row in rows:
        result.add_row(*row)
    return result


if __name__ == "__main__":
    main()
