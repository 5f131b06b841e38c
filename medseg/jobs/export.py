"""``medseg export``: a checkpoint, or an ensemble, as an ONNX file that gives the same masks, or none at all."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.config.check import read_settings
from medseg.config.schema import typed
from medseg.config.settings import DatasetSettings, ExportSettings
from medseg.errors import MedsegError
from medseg.inference.loading import read_models
from medseg.inference.onnx.agreement import Agreement, agreement
from medseg.inference.onnx.export import summary, write_onnx
from medseg.inference.onnx.runtime import read_onnx
from medseg.inference.predictor import Predictor
from medseg.inference.trained_model import Model
from medseg.io.case import Scan
from medseg.io.datasets.dataset import open_dataset
from medseg.io.datasets.splits import read_split
from medseg.jobs.training_run import saved_dataset, select, training_run
from medseg.system.files import remove_leftovers_of, replacing

log = logging.getLogger(__name__)

SUFFIX = ".onnx"

THICKNESS = 4
"""Slices of synthetic scans for networks that look at one at a time."""


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Export as the composed config says; return status, reason, score and seconds.

    Raises:
        MedsegError: no checkpoint, one that cannot be exported, or a file whose results differ from the checkpoint's;
            nothing has been written then.
    """
    started = time.monotonic()
    settings = read_settings(ExportSettings, config)
    output = settings.output
    if output.suffix != SUFFIX or output.is_dir():
        raise MedsegError(f"output={output}: give the name of a file that ends in {SUFFIX}.")
    models = read_models(settings.checkpoint, settings.trust)
    remove_leftovers_of(output)
    with replacing(output) as temporary:
        write_onnx(models, temporary, settings.trust)
        name, files = case_to_check(settings, models[0])
        result = check(models, temporary, files, settings.device)
        if not result:
            raise MedsegError(
                f"{output}: not written, since on {name} it does not do what the checkpoint does: {result}."
            )
        log.info("%s: %s", output, summary(temporary))
    log.info("checked on %s: %s", name, result)
    return {"status": "done", "reason": "", "score": None, "seconds": round(time.monotonic() - started, 1)}


def check(models: Sequence[Model], file: Path, scan: Scan | Sequence[Path], device: str) -> Agreement:
    """Compare a file with the models that it was made of, in fp32 and without flips, which are not in the graph."""
    options: dict[str, Any] = {"device": device, "precision": "fp32", "inference": {"tta": False}}
    one, other = Predictor(models, **options), Predictor([read_onnx(file)], **options)
    return agreement(one, other, one.prepare(scan))


def case_to_check(settings: ExportSettings, model: Model) -> tuple[str, Scan | Sequence[Path]]:
    """Return a name and the files of ``case``, else of the first case of the run, those of its test first; else noise.

    Raises:
        MedsegError: the data of ``dataset.root`` cannot be opened.
    """
    if settings.case:
        return str(settings.case[0]), settings.case
    try:
        trained_in = training_run(settings.checkpoint)
        node = saved_dataset(settings.dataset, trained_in, settings.trust)
        dataset = open_dataset(typed(DatasetSettings, node), settings.trust, may_write=False)
        assert trained_in is not None  # or its data set would be unknown
        split = read_split(trained_in / "splits.json")
        subset = next(name for name in ("test", "val", "train") if getattr(split, name))
        case = select(dataset, subset, trained_in / "splits.json")[0]
        return case.id, case.images
    except MedsegError as error:
        if settings.dataset["root"]:
            raise
        log.warning("ONNX output checked on random noise (%s); pass case=FILE to check a real scan", error)
        return "noise", noise(model)


def noise(model: Model) -> Scan:
    """Return a synthetic scan of one patch on the model's own grid."""
    config = model.preprocessor.config
    shape = [THICKNESS if size == 1 else size for size in model.patch_size]
    spacing = [*(config["spacing"] or [1.0] * len(shape)), 1.0][:3]
    image = np.random.default_rng(0).normal(size=(model.preprocessor.n_channels, *shape)).astype(np.float32)
    return Scan(image, np.diag([*spacing, 1.0]), unit="px" if config["resize"] else "mm")
