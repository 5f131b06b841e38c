"""The LightningModule: a network, its loss and what happens in a step."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from medseg.augmentation import Draws
from medseg.evaluation.overlap import counts, dice
from medseg.inference.scores import Scorer
from medseg.inference.segmenter import Segmenter
from medseg.io.labels import LabelMap
from medseg.models.slices import context_in_volume, logits_of, patch_in_volume, without_context
from medseg.preprocessing.geometry import Geometry
from medseg.seeding import seeded
from medseg.training.averaging import average_into, decay, estimate_statistics, has_batch_statistics
from medseg.training.finetuning import FineTuning
from medseg.training.progress import Progress
from medseg.training.selection import Selection
from medseg.training.targets import region_targets

Found = TypeVar("Found")
Augmentation = Callable[..., tuple[Tensor, Tensor]]
"""(image, label, draws) to image and label; see ``medseg.augmentation``."""


class SegmentationModule(LightningModule):
    """Trains a segmentation network and validates it on whole cases, on their native grid.

    Args:
        network: patches (B, C, *patch) to logits, a tensor or a list of them with the finest first.
        loss: (logits (B, K, *), target int64) to a scalar; the target is (B, 1, *) class indices, or (B, K, *) for
            regions.
        optimizer: a ``_target_`` specification, called with the network's parameters.
        schedule: progress in 0…1 to a factor on the learning rate.
        augmentations: applied one after the other to each training batch; where patches come with a margin (see
            ``medseg.training.margins``), the first is called with it and cuts it off.
        scorer: makes the probabilities of a whole case, as ``medseg predict`` does.
        segmenter: makes labels of them, as ``medseg predict`` does.
        progress: how far the run is.
        selection: takes the validation scores and tells which weights are the best.
        averaging: share of the planned steps over which weights are averaged; None: no averaging.
        fused: a fused optimizer, where PyTorch has one.
        memory_format: of the network's weights and input, such as ``torch.channels_last_3d``; None: PyTorch's own.
        label_map: the classes, and the regions if these are learned in their place.
        content: all that prediction needs, stored in every checkpoint under the key "medseg".
        seed: with the step it fixes every draw of the augmentation.
        tuning: which of the network's parameters learn, and how fast; None: all alike.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: nn.Module,
        optimizer: dict[str, Any],
        schedule: Callable[[float], float],
        augmentations: Sequence[Augmentation],
        scorer: Scorer,
        segmenter: Segmenter,
        progress: Progress,
        selection: Selection,
        label_map: LabelMap,
        content: dict[str, Any],
        averaging: float | None = None,
        fused: bool = False,
        memory_format: torch.memory_format | None = None,
        seed: int = 0,
        tuning: FineTuning | None = None,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.optimizer_spec, self.schedule = network, loss, optimizer, schedule
        self.augmentations, self.progress = list(augmentations), progress
        self.scorer, self.segmenter = scorer, segmenter
        self.selection, self.averaging, self.fused = selection, averaging, fused
        self.memory_format = memory_format or torch.contiguous_format
        self.label_map, self.content, self.seed = label_map, content, seed
        self.tuning = tuning or FineTuning(network, {})
        self.average = copy.deepcopy(network).requires_grad_(False) if averaging else None
        self.logits = logits_of(network, content["config"]["plan"])
        self.final_logits = logits_of(self.final_network, content["config"]["plan"])
        self.context = context_in_volume(content["config"]["plan"])
        self.patch_size = patch_in_volume(content["config"]["plan"])
        self.case_counts: dict[int, np.ndarray[Any, Any]] = {}
        self.averaged_step = 0
        self.gradient_norm = torch.zeros(())  # of the last step, before it was clipped

    @property
    def final_network(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.average is None else self.average

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Augment a batch, run the network, return the loss."""
        step = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        image, label = self.augment(batch["image"], batch["label"], step, self.global_rank)
        target = self.target(without_context(label, self.context), batch["annotated"])
        outputs = self.logits(image.contiguous(memory_format=self.memory_format))
        loss = deep_loss(self.loss, outputs, target)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(image), sync_dist=True)
        return loss

    def target(self, label: Tensor, annotated: Tensor) -> Tensor:
        """Return what the outputs are compared with: (B, 1, *) class indices, or (B, R, *) regions; int64."""
        if self.label_map.regions:
            return region_targets(label, annotated, list(self.label_map.reported.values())).long()
        return label.long()

    @torch.no_grad()
    def augment(self, image: Tensor, label: Tensor, step: int, rank: int = 0) -> tuple[Tensor, Tensor]:
        """Augment the batch of a process; a sample's draws hang on the seed and its place in the run: (step, index)."""
        first = rank * len(image)
        draws = Draws([seeded(self.seed, 2, step, first + place) for place in range(len(image))])
        margin = self.margin_of(image)
        options: dict[str, Any] = {"margin": margin} if any(margin) else {}
        with torch.autocast(image.device.type, enabled=False):
            for augmentation in self.augmentations:
                image, label = augmentation(image, label, draws, **options)
                options = {}  # the margin is gone
        return image, label

    def margin_of(self, image: Tensor) -> list[int]:
        """Return by how many voxels on either side a batch is larger than what the network sees."""
        seen = [size + 2 * beside for size, beside in zip(self.patch_size, self.context, strict=True)]
        return [(given - size) // 2 for given, size in zip(image.shape[2:], seen, strict=True)]

    def on_train_start(self) -> None:
        """Go on from the step that a resumed run had averaged."""
        self.averaged_step = self.trainer.global_step

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the average towards the weights of this step."""
        step = self.trainer.global_step
        if self.average is None or self.averaging is None or step == self.averaged_step:
            return  # nothing was stepped: gradients are being accumulated
        self.averaged_step = step
        average_into(self.average, self.network, decay(step, self.averaging * self.progress.planned_steps))

    def on_validation_epoch_start(self) -> None:
        """Forget the cases of the last validation; see to it that the averaged weights have statistics of their own."""
        self.case_counts = {}
        still = self.tuning.still
        if self.average is not None and has_batch_statistics(self.average, still):
            with self.trainer.precision_plugin.forward_context():
                estimate_statistics(self.average, self.final_logits, self.some_images(), still)

    def some_images(self) -> Iterator[Tensor]:
        """Yield augmented batches of training images, the same at every call and in every process."""
        for place, batch in enumerate(self.trainer.datamodule.examples()):  # type: ignore[attr-defined]
            moved = self.transfer_batch_to_device(batch, self.device, 0)
            yield self.augment(moved["image"], moved["label"], place)[0]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Predict one whole case on its native grid and count its voxels; return class indices (*spatial)."""
        geometry = Geometry.from_dict(batch["geometry"])
        slabs = self.scorer([self.final_logits], batch["image"], geometry)
        predicted = self.segmenter(
            slabs,
            geometry.native_shape,
            spacing=batch["spacing"],
            unit=batch["unit"],
            voxel_volume=batch["voxel_volume"],
        )
        found = counts(predicted, batch["truth"], len(self.label_map.names), self.label_map.reported.values())
        self.case_counts[batch["index"]] = found * self.label_map.is_known(batch["annotated"].cpu().numpy())[:, None]
        return {"predicted": predicted}

    def on_validation_epoch_end(self) -> None:
        """Log the Dice of each class or region, the mean over cases, and the mean over classes."""
        gathered = gather(self.case_counts)
        scores = np.stack([dice(gathered[index]) for index in sorted(gathered)])  # (cases, classes or regions)
        means = np.array(
            [column[~np.isnan(column)].mean() if (~np.isnan(column)).any() else np.nan for column in scores.T]
        )
        for name, value in zip(self.label_map.reported, means, strict=True):
            self.log(f"val/dice_{name}", float(value), sync_dist=True)
        mean = float(means[~np.isnan(means)].mean()) if (~np.isnan(means)).any() else 0.0
        self.selection.add(self.current_epoch + 1, mean)
        self.log("val/dice", mean, sync_dist=True)  # equal on all ranks already
        self.log("val/dice_smoothed", self.selection.smoothed(), sync_dist=True)
        self.log("best/val_dice", self.selection.best_score, sync_dist=True)

    def on_train_epoch_start(self) -> None:
        """Let what is frozen learn from the epoch on that it is wanted from, and norms that are frozen stay still."""
        if self.tuning.is_due(self.current_epoch):
            self.rates += self.tuning.unfreeze(self.trainer.optimizers[0])
        self.tuning.keep_still()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let weights decay to those that the training began with, where that is wanted."""
        self.tuning.pull(optimizer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate that the schedule wants at this progress."""
        factor = self.schedule(self.progress.current)
        for group, rate in zip(self.trainer.optimizers[0].param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint enough for prediction: one without an optimizer holds the final network alone."""
        checkpoint["medseg"] = self.content
        if "optimizer_states" in checkpoint:
            checkpoint["tuning"] = self.tuning.state_dict()
        else:
            weights = self.final_network.state_dict()
            checkpoint["state_dict"] = {f"network.{name}": value for name, value in weights.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Begin the average with the weights of a run that had none; leave it out where none is wanted any more."""
        state = checkpoint["state_dict"]
        if "tuning" in checkpoint:  # which earlier versions did not keep
            self.tuning.load_state_dict(checkpoint["tuning"])
        if self.average is None:
            checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.startswith("average.")}
            return
        for name in self.average.state_dict():
            state.setdefault(f"average.{name}", state[f"network.{name}"].clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer and remember its full learning rates: a resumed one brings those of its last step."""
        optimizer = self.tuning.make_optimizer(self.optimizer_spec, fused=self.fused)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm. Lightning's own way refuses fused optimizers, for the sake of fp16, which gets none here."""
        parameters = list(self.network.parameters())
        self.gradient_norm = nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        if gradient_clip_val:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, self.gradient_norm)


def deep_loss(loss: nn.Module, outputs: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return the loss over all outputs, each coarser one at half the weight of the one before.

    Deep supervision as in nnU-Net (Isensee et al., 2021); targets (B, C, *) are brought to a coarser output's size by
    nearest neighbour, so that every value stays a class.
    """
    weights = [0.5**level for level in range(len(outputs))]
    total = torch.zeros((), device=target.device)
    for weight, output in zip(weights, outputs, strict=True):
        total = total + weight / sum(weights) * loss(output, nearest_to(target, output.shape[2:]))
    return total


def nearest_to(target: Tensor, shape: Sequence[int]) -> Tensor:
    """Bring class indices (B, C, *) to another spatial shape by nearest neighbour."""
    if target.shape[2:] == torch.Size(shape):
        return target
    return nn.functional.interpolate(target.float(), size=list(shape), mode="nearest-exact").long()


def gather(found: dict[int, Found]) -> dict[int, Found]:
    """Merge what all ranks found of their cases."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return found
    parts: list[dict[int, Found]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, found)
    return {index: value for part in parts for index, value in part.items()}
