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
from medseg.inference.out_of_distribution import Measured, Ranges, of_scan, of_voxels, shared_reasons
from medseg.inference.predictor import Mask, Predictor, Prepared
from medseg.inference.probabilities import Watch, probability_files
from medseg.inference.trained_model import Model
from medseg.inference.uncertainty import UncertaintyMap, case_uncertainty, write_uncertainty
from medseg.io.dicom.references import Privacy
from medseg.io.files.write_masks import write_classes
from medseg.io.formats.stl import write_meshes
from medseg.io.warnings import tell, told
from medseg.jobs.predict import manifest
from medseg.jobs.predict.manifest import Record
from medseg.jobs.predict.pipeline import Stage
from medseg.jobs.predict.scans import Job
from medseg.jobs.predict.table import row_of
from medseg.system.files import replacing
from medseg.system.memory import MORE_MEMORY, enough_memory

log = logging.getLogger(__name__)


@dataclass
class Work:
    """A scan on its way: what it is made of, what was made of it so far, and the seconds that took."""

    job: Job
    made_of: str
    seconds: float = 0.0
    prepared: Prepared | None = None
    decided: NDArray[np.uint8] | None = None
    uncertainty: UncertaintyMap | None = None
    measured: dict[str, Measured] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    kept: Record | None = None


@dataclass(frozen=True)
class Folder:
    """How the scans of a folder are worked on, in three stages: read, segment and write."""

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
    known: Sequence[Ranges]  # what the training data of each model were like

    @classmethod
    def of(cls, models: Sequence[Model], settings: dict[str, Any]) -> "Folder":
        """Set up what the settings ask for."""
        output = Path(settings["output"])
        options = {name: settings[name] for name in ("device", "precision", "inference", "postprocess")}
        predictor = Predictor(models, **options, reading=settings["dataset"], scratch=output)
        names = ("save_probabilities", "uncertainty", "format", "codes", "privacy", "meshes")
        wanted = {name: settings[name] for name in names}
        wanted["overlays"] = bool(settings["overlays"])
        recipe = {**predictor.recipe, **wanted, "version": __version__}
        recipe["models"] = [manifest.file_hash(model.path) for model in models]
        known = [model.training_data for model in models if model.training_data]
        if not known:
            log.info("the checkpoint does not tell what its training data were like: no scan is compared with them")
        return cls(predictor, output, recipe, settings["skip_done"], **wanted, known=known)

    @property
    def stages(self) -> list[Stage]:
        """The stages, with PyTorch's threads for each: on a CPU the network has the cores."""
        threads = torch.get_num_threads()
        beside = 1 if self.predictor.device.type == "cpu" else threads
        return [Stage(self.read, beside), Stage(self.segment, threads), Stage(self.write, 1)]

    def read(self, job: Job) -> Work:
        """Read and prepare a scan, unless its results are there."""
        began = time.monotonic()
        work = Work(job, manifest.made_of(job.images, self.recipe | {"absent": sorted(job.absent)}))
        record = manifest.read(self.output, job.id)
        if self.skip_done and record and manifest.is_done(self.output, record, work.made_of):
            work.kept = record
            tell(record.messages)
        else:
            with told() as work.messages:
                prepared = self.predictor.prepare(job.images, sorted(job.absent))
            if self.known:
                work.measured = of_scan(prepared.scan, job.absent)
            work.prepared = prepared if self.overlays else prepared.without_image
        work.seconds += time.monotonic() - began
        return work

    def segment(self, work: Work) -> Work:
        """Run the networks over a scan."""
        if work.kept:
            return work
        assert work.prepared is not None
        began = time.monotonic()
        with ExitStack() as files:
            watches: list[Watch] = []
            if self.uncertainty:
                regions = bool(self.predictor.label_map.regions)
                work.uncertainty = UncertaintyMap(work.prepared.scan.shape, regions=regions)
                watches.append(work.uncertainty)
            if self.save_probabilities:
                names, folder = self.predictor.label_map.outputs, work.job.probabilities
                watches.append(files.enter_context(probability_files(folder, names, work.prepared.scan, work.files)))
            work.decided = self.predictor.decide(work.prepared, watches)
        work.prepared = replace(work.prepared, inputs=())  # frees the image on the network grid
        work.seconds += time.monotonic() - began
        return work

    def write(self, work: Work) -> dict[str, Any]:
        """Write a scan's mask and what else is wanted, record it, and return its row of the table."""
        if work.kept:
            return dict(work.kept.row)
        assert work.prepared is not None
        assert work.decided is not None
        with enough_memory(f"to write the mask of a scan of {work.prepared.scan.shape}", MORE_MEMORY):
            return self.written(work, work.prepared, work.decided)

    def written(self, work: Work, prepared: Prepared, decided: NDArray[np.uint8]) -> dict[str, Any]:
        """Do what ``write`` does for a scan that was segmented now."""
        began = time.monotonic()
        mask = self.predictor.finish(prepared, decided)
        write_classes(work.job.mask, mask.indices, mask.label_map, mask.scan, self.format, self.codes, self.privacy)
        work.files.append(work.job.mask)
        if self.meshes:
            work.files += write_meshes(work.job.meshes, mask.indices, mask.label_map.names, mask.scan)
        if self.overlays:
            draw(mask, work.job.picture)
            work.files.append(work.job.picture)
        row = row_of(work.job, mask, work.seconds + time.monotonic() - began)
        if self.known:
            sizes = of_voxels(mask.voxels, mask.scan.unit, mask.indices.ndim, mask.scan.voxel_volume)
            row["unlike"] = shared_reasons(self.known, work.measured | sizes)
        if work.uncertainty:
            row["uncertainty"] = case_uncertainty(work.uncertainty.values, mask.indices)
            work.files.append(write_uncertainty(work.job.uncertainty, work.uncertainty.values, mask.scan))
        files = {path.relative_to(self.output).as_posix(): manifest.file_hash(path) for path in work.files}
        manifest.write(self.output, work.job.id, Record(work.made_of, files, row, work.messages))
        return row


def draw(mask: Mask, path: Path) -> None:
    """Draw a mask over its scan."""
    from medseg.evaluation.images.overlays import overlay

    with replacing(path) as temporary:
        overlay(mask.scan, mask.indices, mask.label_map.names).save(temporary)
