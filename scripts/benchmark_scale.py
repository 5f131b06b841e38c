"""How seconds and memory grow with the number of cases, from the data set's folder to the report.

    python scripts/benchmark_scale.py --json FILE [--cases 1000 3000 10000] [--brats 6] [--plot FILE.svg]

Makes data sets of tiny cases (16³ voxels, one channel) and one of a few cases of BraTS's size (240×240×155, four
channels, gzip) in a temporary folder, and measures the stages of ``STAGES`` in turn, each in a process of its own, and
the phases of a training of one step within its process. Seconds of wall and of CPU, and how far the memory of the
process rises above what it had at the stage's start. Nothing else should run meanwhile.
"""

import argparse
import json
import logging
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import nibabel as nib
import numpy as np

TINY, BRATS = (16, 16, 16), (240, 240, 155)
CHANNELS = {"tiny": 1, "brats": 4}
SETTINGS = [
    *("dataset=folder", "model.base_channels=4", "model.depth=2", "plan.batch_size=2", "trainer.steps_per_epoch=1"),
    *(
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        "logger=none",
        "trainer.precision=fp32",
        "metrics.names=[dice]",
    ),
]

Measured = dict[str, dict[str, float]]
"""Seconds, CPU seconds and MB of each stage."""


def write_cases(root: Path, kind: str, number: int) -> None:
    """Write a data set in folders: a bright ball in noise, off the middle, as the class to find."""
    shape, rng = TINY if kind == "tiny" else BRATS, np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    head = (grid**2).sum(0) < 0.6  # the rest is air, which is cropped: a third of the voxels remains
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for case in range(number):
        ball = ((grid - rng.uniform(-0.3, 0.3, (3, 1, 1, 1))) ** 2).sum(0) < rng.uniform(0.04, 0.1)
        nib.save(nib.Nifti1Image(ball.astype(np.uint8), np.eye(4)), root / "masks" / f"case_{case:05d}.nii.gz")
        for channel in range(CHANNELS[kind]):
            values = head * (rng.normal(500, 60, shape) + (200 + 40 * channel) * ball)
            end = f"_{channel:04d}" if kind == "brats" else ""
            image = nib.Nifti1Image(values.astype(np.int16), np.eye(4))
            nib.save(image, root / "images" / f"case_{case:05d}{end}.nii.gz")


@contextmanager
def metered(result: Measured, name: str) -> Iterator[None]:
    """Add what the block takes to a result: ``seconds``, ``cpu`` seconds, and ``mb`` of memory above its start."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        this = result.setdefault(name, {"seconds": 0.0, "cpu": 0.0, "mb": 0.0})
        this |= {key: this[key] + value for key, value in spent.items()}
        this["mb"] = max(this["mb"], memory("VmHWM") - before)


def memory(field: str) -> float:
    """Return a field of this process's memory, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field))) / 1e3


def composed(command: str, root: Path, kind: str) -> dict[str, Any]:
    """Return the config of a command on a data set, with its cache and run directory beside it."""
    from medseg.cli.sources import Sources, compose
    from medseg.config.schema import CONF

    sources = Sources(CONF, command)
    endings = [f"_{channel:04d}" for channel in range(CHANNELS[kind])]
    options = [f"dataset.root={root}", *([f"dataset.channels={endings}"] if kind == "brats" else [])]
    overrides = [*SETTINGS, *options, f"cache_dir={root.parent / 'cache'}", f"run_dir={root.parent / command}"]
    plain: dict[str, Any] = compose(sources, sources.loader(), [each.replace("'", "") for each in overrides])
    return plain


def stage_of_data(stage: str, root: Path, kind: str) -> Measured:
    """Measure a stage before training: what comes before it is done first, unmeasured."""
    from medseg.config.check import read_settings
    from medseg.config.settings import TrainSettings
    from medseg.io.datasets.dataset import label_map, open_dataset
    from medseg.io.datasets.splits import split_as_set
    from medseg.jobs.train.setup import cache_of
    from medseg.preprocessing.cache import cached_cases, hash_of
    from medseg.preprocessing.preprocessor import Preprocessor
    from medseg.preprocessing.quality.check_dataset import check_dataset

    result: Measured = {}
    settings = read_settings(TrainSettings, composed("train", root, kind))
    if stage == "open":
        with metered(result, stage):
            open_dataset(settings.dataset)
        return result
    dataset = open_dataset(settings.dataset)
    classes, folder = label_map(dataset), cache_of(settings)
    preprocessor = Preprocessor(spacing=[1.0] * 3, normalize=["zscore"] * CHANNELS[kind])
    with metered(result, stage):
        if stage == "hash":
            for case in dataset.cases:
                hash_of([], case)
        elif stage == "split":
            split = split_as_set(dataset.cases, settings.split, 0, None)
            split.save(root.parent / "splits.json", {case.id: case.id for case in dataset.cases}, 0)
        elif stage == "survey":
            check_dataset(dataset.cases, classes, folder=folder)
        elif stage == "cache":
            cached_cases(dataset.cases, preprocessor, classes, folder)
        elif stage == "again":
            check_dataset(dataset.cases, classes, folder=folder)
            cached_cases(dataset.cases, preprocessor, classes, folder)
    return result


def stage_report(stage: str, root: Path, kind: str) -> Measured:
    """Measure statistics and report of as many cases as the data set has, of three classes and two metrics."""
    from medseg.config.check import read_settings
    from medseg.config.settings import TrainSettings
    from medseg.evaluation.metrics.registry import settings_of
    from medseg.evaluation.report.files import write_report
    from medseg.evaluation.report.html import html_report
    from medseg.evaluation.statistics.summary import summarise

    result: Measured = {}
    metrics = read_settings(TrainSettings, composed("train", root, kind)).metrics
    rng, names = np.random.default_rng(0), ["whole", "core", "rim"]
    rows: list[dict[str, Any]] = []
    for case in range(len(list((root / "masks").iterdir()))):
        for name in names:
            row: dict[str, Any] = {"case": f"case_{case:05d}", "group": f"case_{case:05d}", "class": name}
            row |= {"dice": float(rng.beta(8, 2)), "hd95": float(rng.gamma(2, 3)), "truth_voxels": 900}
            rows.append(row | {"predicted_voxels": 1000, "truth_ml": 0.9, "predicted_ml": 1.0})
    assert metrics is not None
    with metered(result, stage):
        settings = replace(settings_of(metrics), names=("dice", "hd95"))
        summary = summarise(rows, names, settings, subset="test")
        write_report(root.parent / "report", rows, summary)
        html_report(summary, rows, root.parent / "report", {})
    return result


def stage_inspect(stage: str, root: Path, kind: str) -> Measured:
    """Measure ``medseg inspect`` on a data set that is in the cache."""
    from medseg.jobs.inspect import inspect

    result: Measured = {}
    with metered(result, stage):
        inspect.run(composed("inspect", root, kind))
    return result


def stage_train(stage: str, root: Path, kind: str) -> Measured:
    """Measure a training of one step on a data set that is in the cache, and its phases, which follow each other."""
    from medseg.jobs.train import fit, setup, train
    from medseg.training.callbacks.progress import Budget

    result: Measured = {}
    open_phases: list[Any] = []

    def begin(name: str) -> None:
        end()
        open_phases.append(metered(result, name))
        open_phases[-1].__enter__()

    def end() -> None:
        while open_phases:
            open_phases.pop().__exit__(None, None, None)

    def phase(owner: Any, function: str, name: str) -> None:
        """Begin a phase where a function is called."""
        original: Callable[..., Any] = getattr(owner, function)

        def called(*arguments: Any, **options: Any) -> Any:
            begin(name)
            return original(*arguments, **options)

        stack.enter_context(patch.object(owner, function, called))

    with ExitStack() as stack:
        phase(train, "open_dataset", "train: open")
        phase(setup, "check_dataset", "train: survey, known")
        phase(setup, "plan_run", "train: plan")
        phase(fit, "cached_cases", "train: cache, known")
        phase(train, "make_data", "train: start of the epoch")
        phase(Budget, "on_validation_start", "train: validation")
        phase(Budget, "on_validation_end", "train: checkpoint")
        phase(train, "test", "train: test")
        train.run(composed("train", root, kind))
        end()
    return result


STAGES: dict[str, Callable[[str, Path, str], Measured]] = {
    **dict.fromkeys(("open", "hash", "survey", "split", "cache", "again"), stage_of_data),
    "inspect": stage_inspect,
    "train": stage_train,
    "report": stage_report,
}


def measured(root: Path, kind: str, stages: Sequence[str]) -> Measured:
    """Return what the stages take on a data set, each in a process of its own."""
    found: Measured = {}
    for stage in stages:
        command = [sys.executable, __file__, "--stage", stage, kind, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{stage} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        found |= json.loads(done.stdout.splitlines()[-1])
        print(kind, root.name, stage, "done", file=sys.stderr, flush=True)
    return found


def table(results: dict[str, Measured]) -> str:
    """Return a Markdown table: seconds, CPU seconds and MB of each stage for each data set."""
    names = list(results)
    lines = [f"| stage | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for stage in next(iter(results.values())):
        cells = [results[name].get(stage) for name in names]
        shown = [f"{cell['seconds']:.1f} / {cell['cpu']:.1f} / {cell['mb']:.0f}" if cell else "" for cell in cells]
        lines.append(f"| {stage} | {' | '.join(shown)} |")
    return "\n".join(lines)


def plot(results: dict[str, Measured]) -> str:
    """Return an SVG picture of CPU seconds and MB by the number of tiny cases, both axes logarithmic."""
    sets = {int(name.split()[0]): found for name, found in results.items() if name.endswith("tiny")}
    numbers, stages = sorted(sets), [stage for stage in next(iter(sets.values())) if stage != "train: checkpoint"]
    left, top, width, height, colours = (
        60,
        40,
        360,
        380,
        ("#1b6ca8", "#c0392b", "#1e8449", "#8e44ad", "#b9770e", "#555"),
    )
    texts = []

    def add(x: float, y: float, text: str, more: str = "") -> None:
        texts.append(f'<text x="{x:.0f}" y="{y:.0f}" {more}>{text}</text>')

    for panel, (key, title, low, high) in enumerate((("cpu", "CPU seconds", 0.01, 100), ("mb", "MB", 1, 10_000))):
        x_of = partial(position, low=numbers[0], high=numbers[-1], begin=left + 640 * panel, size=width)
        y_of = partial(position, low=low, high=high, begin=top + height, size=-height)
        add(x_of(numbers[0]), 20, f"{title} by the number of cases")
        for number in numbers:
            add(x_of(number), top + height + 18, f"{number}", 'text-anchor="middle"')
        ticks = [low * 10**power for power in range(round(math.log10(high / low)) + 1)]
        for tick in ticks:
            ends = (
                f'x1="{x_of(numbers[0]):.0f}" x2="{x_of(numbers[-1]):.0f}" y1="{y_of(tick):.0f}" y2="{y_of(tick):.0f}"'
            )
            texts.append(f'<line {ends} stroke="#ddd"/>')
            add(x_of(numbers[0]) - 8, y_of(tick) + 4, f"{tick:g}", 'text-anchor="end"')
        label_at = top + height + 14.0
        last = {stage: sets[numbers[-1]][stage][key] for stage in stages if sets[numbers[-1]][stage][key] >= low}
        for index, stage in enumerate(sorted(last, key=lambda each: last[each])):
            colour = colours[index % len(colours)]
            values = [max(low, sets[number][stage][key]) for number in numbers]
            points = " ".join(f"{x_of(n):.1f},{y_of(value):.1f}" for n, value in zip(numbers, values, strict=True))
            texts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            label_at = min(label_at - 14, y_of(values[-1]) + 4)
            add(x_of(numbers[-1]) + 8, label_at, stage, f'fill="{colour}"')
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1240 460" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="1240" height="460" fill="#fff"/>', *texts, "</svg>", ""])


def position(value: float, low: float, high: float, begin: float, size: float) -> float:
    """Return where a value lies on a logarithmic axis."""
    return begin + size * math.log(value / low) / math.log(high / low)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="*", default=[1000, 3000, 10_000], help="numbers of tiny cases")
    parser.add_argument("--brats", type=int, default=6, help="cases of BraTS's size; 0: none")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="an SVG file; needs two numbers of tiny cases")
    parser.add_argument("--work", type=Path, help="a folder to make the data in; they are left there")
    parser.add_argument("--stage", nargs=3, metavar=("STAGE", "KIND", "ROOT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        logging.disable(logging.WARNING)
        stage, kind, root = options.stage
        print(json.dumps(STAGES[stage](stage, Path(root), kind)))
        return
    results: dict[str, Measured] = {}
    with TemporaryDirectory(dir=options.work) as temporary:
        sets = [("tiny", number) for number in options.cases] + [("brats", options.brats)] * bool(options.brats)
        for kind, number in sets:
            root = (options.work or Path(temporary)) / f"{kind}_{number}" / "data"
            if not root.is_dir():
                write_cases(root, kind, number)
            results[f"{number} {kind}"] = measured(root, kind, options.stages)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1), "utf-8")
    print(table(results))
    if options.plot:
        options.plot.write_text(plot(results), "utf-8")


if __name__ == "__main__":
    main()
