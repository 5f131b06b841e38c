"""Learning to segment: the loss on patches, its targets, validation by the Dice of whole cases."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import isnan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.evaluation.metrics.overlap import counts, dice
from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.evaluation.statistics.means import mean_of_defined
from medseg.inference.probabilities import NotFiniteError, Scorer
from medseg.inference.segmenter import Segmenter
from medseg.io.labels import IGNORE, LabelMap
from medseg.models.slices import without_context
from medseg.preprocessing.cache import form_of
from medseg.preprocessing.geometry import Geometry
from medseg.training.data.datamodule import SegmentationData
from medseg.training.losses.combination import deep_supervision
from medseg.training.module import TrainingModule, gather
from medseg.training.optim.divergence import diverged

Predicted = Future[NDArray[np.uint8]]
"""Class indices (*native grid) of a validation case, which a thread is still measuring."""


class SegmentationModule(TrainingModule):
    """Trains a segmentation network and validates it on whole cases, on their native grid.

    Args:
        network: patches (B, C, *patch) to logits, a tensor or a list of them with the finest first.
        loss: (logits (B, K, *), target int64) to a scalar; the target is (B, 1, *) class indices, or (B, K, *) for
            regions.
        scorer: makes the probabilities of a whole case, as ``medseg predict`` does.
        segmenter: makes labels of them, as ``medseg predict`` does.
        label_map: the classes, and the regions if these are learned in their place.
        common: what every training takes (see ``TrainingModule``).
    """

    region_table: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: nn.Module,
        scorer: Scorer,
        segmenter: Segmenter,
        label_map: LabelMap,
        **common: Any,
    ) -> None:
        super().__init__(network, **common)
        self.loss, self.scorer, self.segmenter, self.label_map = loss, scorer, segmenter, label_map
        self.case_counts: dict[int, np.ndarray[Any, Any]] = {}
        self.measured: Predicted | None = None  # the latest case of a validation
        self.dice_where_held: dict[str, float] = {}  # of each class, over the validation cases that hold it
        # Not persistent: the regions are the config's, and a checkpoint is loaded whatever they are.
        regions = list(label_map.reported.values()) if label_map.regions else []
        self.register_buffer("region_table", region_table(regions), persistent=False)

    def loss_of(self, batch: dict[str, Tensor], step: int, first: int) -> Tensor:
        """Augment a batch, run the network, compare with the target."""
        image, label = self.augment(batch["image"], batch["label"], step, first)
        target = self.target(without_context(label, self.context), batch["annotated"])
        outputs = self.logits(image.contiguous(memory_format=self.memory_format))
        return deep_loss(self.loss, outputs, target)

    def count_windows(self, data: SegmentationData) -> list[int]:
        """Return how many windows of each validation case the network is given."""
        return [self.scorer.count_windows(form_of(file)[0][1:]) for file in data.val_files]

    def input_of(self, batch: dict[str, Tensor], step: int) -> Tensor:
        """Return a batch's augmented images."""
        return self.augment(batch["image"], batch["label"], step)[0]

    def target(self, label: Tensor, annotated: Tensor) -> Tensor:
        """Return what the outputs are compared with: (B, 1, *) class indices, or (B, R, *) regions; int64."""
        if self.label_map.regions:
            return region_targets(label, annotated, self.region_table).long()
        return label.long()

    def on_validation_epoch_start(self) -> None:
        """Forget the cases of the last validation."""
        super().on_validation_epoch_start()
        self.case_counts = {}
        self.measured = None
        self.thread = ThreadPoolExecutor(1)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Predicted]:
        """Predict one whole case on its native grid; a thread cleans and counts it while the next is predicted.

        Returns:
            ``predicted``: class indices (*spatial) to come; those of the case before are there.

        Raises:
            MedsegError: the network's output is not finite.
        """
        geometry = Geometry.from_dict(batch["geometry"])
        slabs = self.scorer([self.final_logits], batch["image"], geometry)
        try:
            labels = self.segmenter.predict_labels(slabs, geometry.native_shape)
        except NotFiniteError as error:
            raise diverged(self.trainer, "the network's output for a validation case is NaN or infinite") from error
        if self.measured:
            self.measured.result()  # no more than one waits
        annotated = batch["annotated"].cpu().numpy()
        case = {name: value for name, value in batch.items() if name not in ("image", "geometry")}
        self.measured = self.thread.submit(self.measure, labels, case, annotated)
        return {"predicted": self.measured}

    def measure(
        self, labels: NDArray[np.uint8], case: dict[str, Any], annotated: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Post-process the labels of a case, count its voxels, and return its class indices (*spatial)."""
        predicted = self.segmenter.clean(
            labels, spacing=case["spacing"], unit=case["unit"], voxel_volume=case["voxel_volume"]
        )
        voxels = counts(predicted, case["truth"], len(self.label_map.names), self.label_map.reported.values())
        self.case_counts[case["index"]] = voxels * self.label_map.is_known(annotated)[:, None]
        return predicted

    def on_validation_epoch_end(self) -> None:
        """Log the Dice of each class or region, the mean over cases, and the mean over classes."""
        if self.measured:
            self.measured.result()
        self.thread.shutdown()
        gathered = gather(self.case_counts)
        voxels = np.stack([gathered[index] for index in sorted(gathered)])  # (cases, classes or regions, 3)
        scores = dice(voxels)
        means = [mean_of_defined(column) for column in scores.T]
        # A class that is only predicted where there is none has Dice 0, too, but nothing of it was missed
        held = np.where(voxels[..., 2] > 0, scores, np.nan)
        self.dice_where_held = dict(zip(self.label_map.reported, map(mean_of_defined, held.T), strict=True))
        names = ScoreNames(self.selection.key, list(self.label_map.reported))
        for name, value in zip(names.classes.values(), means, strict=True):
            self.log(name.tag, value, sync_dist=True)
        mean = mean_of_defined(means)
        self.add_score(0.0 if isnan(mean) else mean)

    def on_train_epoch_end(self) -> None:
        """Look for classes that are not learned, if the epoch ended with a validation."""
        trainer, epoch = self.trainer, self.current_epoch + 1
        if trainer.is_global_zero and self.selection.epochs[-1:] == [epoch]:
            is_last = trainer.should_stop or epoch == trainer.max_epochs
            patches, members = trainer.datamodule.patches, self.label_map.reported  # type: ignore[attr-defined]

            def is_trained_on(name: str) -> bool:
                return not patches.classes.isdisjoint(members[name])

            progress = 1.0 if is_last else self.progress.current
            self.selection.unlearned.add(self.dice_where_held, progress, is_trained_on)


def deep_loss(loss: nn.Module, outputs: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return the loss over all outputs by ``deep_supervision``.

    Targets (B, C, *) are brought to a coarser output's size by nearest neighbour, so that every value stays a class.
    """

    def loss_of(output: Tensor) -> Tensor:
        coarse, shape = target, output.shape[2:]
        if target.shape[2:] != shape:
            coarse = nn.functional.interpolate(target.float(), size=list(shape), mode="nearest-exact").long()
        result: Tensor = loss(output, coarse)
        return result

    return deep_supervision(outputs, loss_of)


def region_table(regions: Sequence[Sequence[int]]) -> Tensor:
    """Return what each class index is to each region, whose class indices are given: uint8 (R, IGNORE + 1).

    It is 1 within the region, 0 outside, and IGNORE where the class is unknown.
    """
    table = torch.zeros(len(regions), IGNORE + 1, dtype=torch.uint8)
    for row, members in zip(table, regions, strict=True):
        row[list(members)] = 1
    table[:, IGNORE] = IGNORE
    return table


def region_targets(label: Tensor, annotated: Tensor, table: Tensor) -> Tensor:
    """Tell of each region and voxel whether it belongs to it: 1, 0, or IGNORE where that is unknown.

    A voxel of unknown class is unknown to every region; a region of which a class was not annotated in a sample is
    unknown in all of the sample. So partly annotated cases teach what they know (as in Ulrich et al., "MultiTalent",
    MICCAI 2023). A GPU is not waited for.

    Args:
        label: class indices (B, 1, *spatial), IGNORE among them.
        annotated: bool (B, K), which classes were annotated.
        table: ``region_table`` of R regions, on the same device.

    Returns:
        uint8 (B, R, *spatial).
    """
    indices = label[:, 0].long()
    targets = torch.stack([row[indices] for row in table], dim=1)
    is_member = table[:, : annotated.shape[1]] == 1  # (R, K)
    is_unknown = (is_member & ~annotated[:, None]).any(2)  # (B, R)
    return targets.masked_fill_(is_unknown.reshape(*is_unknown.shape, *[1] * (label.ndim - 2)), IGNORE)
