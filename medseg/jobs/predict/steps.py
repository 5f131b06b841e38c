"""What is done with each scan of a folder, in three stages that overlap: read, segment and write."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medseg import __version__
from medseg.config.settings import PredictSettings
from medseg.inference.out_of_distribution import Measured, Ranges, of_scan, of_voxels, shared_reasons
from medseg.inference.predictor import Predictor, Prepared
from medseg.inference.probabilities import Observer, probability_files
from medseg.inference.trained_model import Model
from medseg.inference.uncertainty import UncertaintyMap, case_uncertainty, write_uncertainty
from medseg.io.case import Case
from medseg.io.dicom.references import Privacy
from medseg.io.files.sizes import UNKNOWN, size_of
from medseg.io.files.write_masks import write_classes
from medseg.io.formats.stl import write_meshes
from medseg.io.warnings import log_all, logged
from medseg.jobs.predict import manifest
from medseg.jobs.predict.manifest import Record
from medseg.jobs.predict.pipeline import Stage
from medseg.jobs.predict.scans import ScanTask
from medseg.jobs.predict.table import row_of
from medseg.preprocessing.cache import COPIES, hash_of
from medseg.system.files import file_hash, replacing
from medseg.system.memory import MORE_MEMORY, enough_memory
from medseg.system.parallel import free_memory

log = logging.getLogger(__name__)

MAX_READERS = 8
"""Threads that read scans for a GPU at most: the largest keeps some five busy (1.6 s of CPU for a case of BraTS)."""


@dataclass
class Work:
    """A scan on its way: the hash of what its mask is made of, what was made of it so far, and the seconds that took.

    ``record`` is that of an earlier run, whose results are there already.
    """

    task: ScanTask
    made_of: str
    seconds: float = 0.0
    prepared: Prepared | None = None
    predicted: NDArray[np.uint8] | None = None
    uncertainty: UncertaintyMap | None = None
    measured: dict[str, Measured] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    record: Record | None = None


@dataclass(frozen=True)
class FolderPrediction:
    """How the scans of a folder are segmented, in three stages: read, segment and write.

    ``recipe`` holds all that masks depend on beside their scans. ``training_data`` are the ranges of each model's
    training data, empty where no model has any.
    """

    predictor: Predictor
    output: Path
    recipe: dict[str, Any]
    skip_done: bool
    overlays: bool
    save_probabilities: bool
    uncertainty: bool
    format: str
    codes: dict[str, Any] | None
    privacy: Privacy
    meshes: bool
    training_data: Sequence[Ranges]

    @classmethod
    def of(cls, models: Sequence[Model], settings: PredictSettings) -> "FolderPrediction":
        """Set up what the settings of ``medseg predict`` ask for."""
        predictor = Predictor(
            models,
            device=settings.device,
            precision=settings.precision,
            inference=settings.inference,
            postprocess=settings.postprocess,
            reading=settings.dataset,
            scratch=settings.output,
        )
        names = ("save_probabilities", "uncertainty", "format", "codes", "privacy", "meshes")
        outputs = {**{name: getattr(settings, name) for name in names}, "overlays": bool(settings.overlays)}
        recipe = {**predictor.recipe, **outputs, "version": __version__}
        recipe["models"] = [file_hash(model.path) for model in models]
        training_data = [model.training_data for model in models if model.training_data]
        if not training_data:
            log.info("checkpoint has no training-data statistics; out-of-distribution check disabled")
        return cls(predictor, settings.output, recipe, settings.skip_done, **outputs, training_data=training_data)

    def stages(self, tasks: Sequence[ScanTask]) -> list[Stage]:
        """Return the stages, with PyTorch's threads for each: on a CPU the network has the cores, also a first stage's.

        A GPU needs less time for a scan than a thread needs to read it. So several read, as many as there are cores,
        and as the largest file fits into half of the free memory: that many scans are read or wait, and two more.
        """
        threads = torch.get_num_threads()
        if self.predictor.device.type == "cpu":
            reading = threads if self.predictor.has_first_stage else 1
            return [Stage(self.read, reading), Stage(self.segment, threads), Stage(self.write, 1)]
        largest = max(tasks, key=bytes_on_disk, default=None)
        size = size_of(Case("", "", largest.images)) if largest else UNKNOWN
        channels = size.channels + self.predictor.added_channels
        fitting = free_memory() / 2 / (COPIES * 4 * channels * size.voxels or 1) - 2
        readers = int(max(1, min(MAX_READERS, threads - 1, fitting)))
        return [
            Stage(self.read, max(1, threads // readers), readers),
            Stage(self.segment, threads),
            Stage(self.write, 1),
        ]

    def read(self, task: ScanTask) -> Work:
        """Read and prepare a scan, unless its results are there."""
        began = time.monotonic()
        recipe = self.recipe | {"absent": sorted(task.absent)}
        work = Work(task, hash_of([recipe], Case("", "", task.images)))
        record = manifest.read(self.output, task.id)
        if self.skip_done and record and manifest.is_done(self.output, record, work.made_of):
            work.record = record
            log_all(record.messages)
        else:
            with logged() as work.messages:
                prepared = self.predictor.prepare(task.images, sorted(task.absent))
            if self.training_data:
                work.measured = of_scan(prepared.scan, task.absent)
            work.prepared = prepared if self.overlays else prepared.without_image
        work.seconds += time.monotonic() - began
        return work

    def segment(self, work: Work) -> Work:
        """Run the networks over a scan."""
        if work.record:
            return work
        assert work.prepared is not None
        began = time.monotonic()
        with ExitStack() as files:
            observers: list[Observer] = []
            if self.uncertainty:
                regions = bool(self.predictor.label_map.regions)
                work.uncertainty = UncertaintyMap(work.prepared.scan.shape, regions=regions)
                observers.append(work.uncertainty)
            if self.save_probabilities:
                names, folder = self.predictor.label_map.outputs, work.task.probabilities
                observers.append(files.enter_context(probability_files(folder, names, work.prepared.scan, work.files)))
            work.predicted = self.predictor.predict_labels(work.prepared, observers)
        work.prepared = replace(work.prepared, inputs=())  # frees the image on the network grid
        work.seconds += time.monotonic() - began
        return work

    def write(self, work: Work) -> dict[str, Any]:
        """Write a scan's mask and what else the settings ask for, record it, and return its row of the table."""
        if work.record:
            return dict(work.record.row)
        task, prepared = work.task, work.prepared
        assert prepared is not None
        assert work.predicted is not None
        with enough_memory(f"to write the mask of a scan of {prepared.scan.shape}", MORE_MEMORY):
            began = time.monotonic()
            mask = self.predictor.finish(prepared, work.predicted)
            write_classes(task.mask, mask.indices, mask.label_map, mask.scan, self.format, self.codes, self.privacy)
            work.files.append(task.mask)
            if self.meshes:
                work.files += write_meshes(task.meshes, mask.indices, mask.label_map.names, mask.scan)
            if self.overlays:
                from medseg.evaluation.images.overlays import overlay

                with replacing(task.picture) as temporary:
                    overlay(mask.scan, mask.indices, mask.label_map.names).save(temporary)
                work.files.append(task.picture)
            row = row_of(task, mask, work.seconds + time.monotonic() - began)
            if self.training_data:
                sizes = of_voxels(mask.voxels, mask.scan.unit, mask.indices.ndim, mask.scan.voxel_volume)
                row["unlike"] = shared_reasons(self.training_data, work.measured | sizes)
            if work.uncertainty:
                row["uncertainty"] = case_uncertainty(work.uncertainty.values, mask.indices)
                work.files.append(write_uncertainty(task.uncertainty, work.uncertainty.values, mask.scan))
            files = {path.relative_to(self.output).as_posix(): file_hash(path) for path in work.files}
            manifest.write(self.output, task.id, Record(work.made_of, files, row, work.messages))
        return row


def bytes_on_disk(task: ScanTask) -> int:
    """Return the bytes of a scan's files, 0 where one cannot be looked at."""
    try:
        return sum(path.stat().st_size for path in task.images)
    except OSError:
        return 0
