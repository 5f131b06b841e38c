"""What every training has in common, as a LightningModule: steps, their optimizer, averaging, what checkpoints hold."""

import copy
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from math import ceil
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from medseg.augmentation.batch import Augmentation, augmented
from medseg.augmentation.random import random_numbers
from medseg.config.settings import FinetuneSettings, NetworkPlan
from medseg.errors import MedsegError
from medseg.evaluation.metrics.score_names import ScoreNames
from medseg.models.slices import context_in_volume, logits_of, patch_in_volume
from medseg.models.weight_checks import not_finite
from medseg.system.memory import attempted
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.callbacks.progress import Progress
from medseg.training.compiled import Compiled
from medseg.training.optim.divergence import StepRecord, check_steps, check_weights, leave_out
from medseg.training.optim.ema import average_into, decay, estimate_statistics, has_batch_statistics
from medseg.training.optim.finetuning import FineTuning

log = logging.getLogger(__name__)

Value = TypeVar("Value")


class TrainingModule(LightningModule):
    """Trains a network. Subclasses define the loss and the validation.

    Args:
        network: patches (B, C, *patch) to outputs, a tensor or a list of them with the finest first.
        optimizer: a ``_target_`` specification, called with the network's parameters.
        trust: names that it may have beside those of ``conf/optimizer``.
        schedule: progress in 0…1 to a factor on the learning rate.
        augmentations: applied one after the other to each training batch; where patches come with a margin (see
            ``medseg.training.data.patches``), the first is called with it and cuts it off.
        progress: how far the run is.
        selection: the validation scores and the choice of the best weights. Only ``add_score`` adds to it, when a
            validation ends; callbacks read it from ``on_validation_end`` on, in any order.
        averaging: share of the planned steps over which weights are averaged; None: no averaging.
        fused: a fused optimizer, where PyTorch has one.
        compiled: whether training steps run the network compiled, if that works; all else does not.
        memory_format: of the network's weights and input, such as ``torch.channels_last_3d``; None: PyTorch's own.
        plan: how the network sees the images.
        content: all that prediction or fine-tuning needs, stored in every checkpoint under the key "medseg".
        seed: with the step it fixes every draw of the augmentation.
        tuning: which of the network's parameters learn, and how fast; None: all alike.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        optimizer: dict[str, Any],
        trust: Collection[str],
        schedule: Callable[[float], float],
        augmentations: Sequence[Augmentation],
        progress: Progress,
        selection: Selection,
        plan: NetworkPlan,
        content: dict[str, Any],
        averaging: float | None = None,
        fused: bool = False,
        compiled: bool = False,
        memory_format: torch.memory_format | None = None,
        seed: int = 0,
        tuning: FineTuning | None = None,
    ) -> None:
        super().__init__()
        self.network, self.optimizer_spec, self.schedule = network, optimizer, schedule
        self.trust = trust
        self.augmentations, self.progress = list(augmentations), progress
        self.selection, self.averaging, self.fused = selection, averaging, fused
        self.memory_format = memory_format or torch.contiguous_format
        self.content, self.seed = content, seed
        self.first_stage: Sequence[dict[str, Any]] = ()
        """Coarse models that the network needs, as ``Checkpoint.portable``: they travel in every checkpoint."""
        self.tuning = tuning or FineTuning(network, FinetuneSettings())
        self.average = copy.deepcopy(network).requires_grad_(False) if averaging else None
        self.compiled = Compiled(network) if compiled else None
        self.plain_logits = logits_of(network, plan)
        self.logits = logits_of(self.compiled, plan) if self.compiled else self.plain_logits
        self.final_logits = logits_of(self.final_network, plan)
        self.context = context_in_volume(plan)
        self.patch_size = patch_in_volume(plan)
        self.has_stepped = False  # since the weights were last averaged
        self.parts = 1  # in which a batch goes through the network
        self.gradient_norm = torch.zeros(())  # of the last step, before it was clipped
        self.step_record = StepRecord()

    @property
    def final_network(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.average is None else self.average

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Add the gradients of a batch to those of the step, and return its loss."""
        step = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.trainer.optimizers[0].zero_grad()
        loss = self.learn(batch, step)
        self.step_record.add_loss(loss)
        return loss

    def learn(self, batch: dict[str, Tensor], step: int) -> Tensor:
        """Return the loss of a batch and add up its gradients, in as many parts as memory makes necessary.

        Where memory runs out, what the step held is freed, and from now on a batch goes through the network in twice as
        many parts. Each counts by its samples, as many of which make a step as before. The loss is that of the batch as
        far as it is a mean over samples. It differs where samples are taken together: the Dice loss with ``batch`` sums
        over a part, cross-entropy gives the known voxels of each part the same weight, batch norms see a part.

        Each of several processes decides for itself, since none waits for another before the last part's gradients.
        These are computed by Lightning while it exchanges them, not here: memory that runs out then ends the training.

        Raises:
            RuntimeError: memory does not even suffice for one sample at a time.
        """
        size, parts = len(batch["image"]), self.parts
        parameters = list(self.network.parameters())
        # Those of batches accumulated before, since a backward pass adds to them until it fails
        is_retried = self.parts < size
        gradients = [each.grad.clone() if is_retried and each.grad is not None else None for each in parameters]
        while True:
            work = partial(self.learn_parts, batch, step)
            loss = attempted(work) if self.parts < size else work()
            if loss is not None:
                break
            self.parts = min(2 * self.parts, size)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = None if gradient is None else gradient.clone()
        if self.parts > parts:
            log.warning(
                "memory of %s is short: from now on the %d samples of a batch go through the network in %d parts, whose"
                " gradients are added up. A step has as many samples as before, and takes longer.",
                *(self.device, size, self.parts),
            )
        return loss

    def learn_parts(self, batch: dict[str, Tensor], step: int) -> Tensor:
        """Return the loss of a batch, and add up the gradients of its parts, of several processes' all but the last."""
        trainer, size = self.trainer, len(batch["image"])
        total, most = torch.zeros((), device=self.device), ceil(size / self.parts)
        for low in range(0, size, most):
            part = {name: values[low : low + most] for name, values in batch.items()}
            loss = self.loss_of(part, step, self.global_rank * size + low) * (len(part["image"]) / size)
            if low + most >= size and trainer.world_size > 1:
                return total + loss
            with torch.autocast(self.device.type, enabled=False):  # which Lightning's own backward pass is not in
                trainer.strategy.backward(loss / trainer.accumulate_grad_batches, None)
            total = total + loss.detach()
        return total

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Leave the gradients, which Lightning would zero after ``training_step`` has computed them."""

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Go back through what ``training_step`` has left of the loss: nothing, unless processes train together."""
        if loss.requires_grad:
            super().backward(loss, *args, **kwargs)

    def loss_of(self, batch: dict[str, Tensor], step: int, first: int) -> Tensor:
        """Augment a batch, run the network, return the loss.

        Args:
            batch: of a step, or a part of it.
            step: counted over the run.
            first: number of the first sample in the step's batch over all processes.
        """
        raise NotImplementedError

    def count_windows(self, data: Any) -> list[int]:
        """Return how many patches of each validation case of a run's data the network is given in a validation."""
        raise NotImplementedError

    def input_of(self, batch: dict[str, Tensor], step: int) -> Tensor:
        """Return what the network is given of a batch, in a step that is numbered like those of training."""
        raise NotImplementedError

    def augment(self, image: Tensor, label: Tensor, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
        """Augment copies of samples, of which ``first`` is the first one's number in the step: it fixes the draws."""
        random = random_numbers(len(image), first, self.seed, 2, step)
        return augmented(image, label, self.augmentations, random, self.margin_of(image))

    def margin_of(self, image: Tensor) -> list[int]:
        """Return by how many voxels on either side a batch is larger than what the network sees."""
        seen = [size + 2 * beside for size, beside in zip(self.patch_size, self.context, strict=True)]
        return [(whole - size) // 2 for whole, size in zip(image.shape[2:], seen, strict=True)]

    def on_train_start(self) -> None:
        """Give a resumed run's optimizer the options that it is to have now; it may go on within an epoch."""
        self.tuning.keep_norms_frozen()
        for group, options in zip(self.trainer.optimizers[0].param_groups, self.options, strict=True):
            group.update(options)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Check that steps are finite.

        Raises:
            MedsegError: the training has diverged.
        """
        is_incomplete = check_steps(self.trainer, self.step_record, batch_idx)
        if is_incomplete and has_batch_statistics(self.network) and not_finite(dict(self.network.named_buffers())):
            self.renew_statistics()

    def on_validation_start(self) -> None:
        """Raise MedsegError unless all weights are finite."""
        check_weights(self.trainer, self)

    def on_validation_epoch_start(self) -> None:
        """See to it that the averaged weights have statistics of their own."""
        frozen_norms = self.tuning.frozen_norms
        if self.average is not None and has_batch_statistics(self.average, frozen_norms):
            with self.trainer.precision_plugin.forward_context():
                estimate_statistics(self.average, self.final_logits, self.some_images(), frozen_norms)

    def add_score(self, score: float) -> None:
        """Add the score of this validation, equal on all ranks, to the selection; log it, the smoothed and the best."""
        selection = self.selection
        selection.add(self.current_epoch + 1, score)
        names = ScoreNames(selection.key)
        for tag, value in (
            (names.mean.tag, score),
            (names.smoothed.tag, selection.smoothed()),
            (f"best/val_{selection.key}", selection.best_score),
        ):
            self.log(tag, value, sync_dist=True)

    def renew_statistics(self) -> None:
        """Take the running statistics of the trained network anew, which a step that was left out has made NaN."""
        with self.trainer.precision_plugin.forward_context():
            estimate_statistics(self.network, self.plain_logits, self.some_images(), self.tuning.frozen_norms)

    def some_images(self) -> Iterator[Tensor]:
        """Yield batches as the network is given them in training, the same at every call and in every process."""
        for number, batch in enumerate(self.trainer.datamodule.examples()):  # type: ignore[attr-defined]
            yield self.input_of(self.transfer_batch_to_device(batch, self.device, 0), number)

    def on_train_epoch_start(self) -> None:
        """Count the steps of this epoch; unfreeze parameters at that of the config, and keep frozen norms frozen."""
        self.step_record.begin_epoch()
        if self.tuning.is_due(self.current_epoch):
            self.rates += self.tuning.unfreeze(self.trainer.optimizers[0])
        self.tuning.keep_norms_frozen()

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
        if self.first_stage:
            checkpoint["first_stage"] = self.first_stage
        if "optimizer_states" in checkpoint:
            checkpoint["tuning"] = self.tuning.state_dict()
            checkpoint["step_record"] = self.step_record.state_dict()
        else:
            weights = self.final_network.state_dict()
            checkpoint["state_dict"] = {f"network.{name}": value for name, value in weights.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Begin the average with the weights of a run that had none; leave it out where none is wanted any more.

        Raises:
            MedsegError: the weights are not finite.
        """
        state = checkpoint["state_dict"]
        if wrong := not_finite(state):
            raise MedsegError(
                f"resume: {len(wrong)} weights in last.ckpt hold NaN or infinity (such as {wrong[0]}): this training "
                "has diverged, and cannot be gone on with. Train again with a lower optimizer.lr or "
                "trainer.precision=fp32; finetune.checkpoint=RUN begins with the weights of its best.ckpt, if these "
                "are finite."
            )
        if "tuning" in checkpoint:  # which earlier versions did not keep
            self.tuning.load_state_dict(checkpoint["tuning"])
        if "step_record" in checkpoint:
            self.step_record.load_state_dict(checkpoint["step_record"])
        if self.average is None:
            checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.startswith("average.")}
            return
        for name in self.average.state_dict():
            state.setdefault(f"average.{name}", state[f"network.{name}"].clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer; remember its options and full learning rates: a resumed one brings its former ones."""
        optimizer = self.tuning.make_optimizer(self.optimizer_spec, fused=self.fused, trust=self.trust)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        excluded = ("params", "lr", "name")
        self.options = [{key: group[key] for key in group if key not in excluded} for group in optimizer.param_groups]
        optimizer.register_step_post_hook(self.note_step)
        return optimizer

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Make a step, and move the average towards its weights, before callbacks may save both."""
        super().optimizer_step(*arguments, **options)
        has_stepped, self.has_stepped = self.has_stepped, False
        if self.average is None or self.averaging is None or not has_stepped:
            return  # the loss scaling of fp16 has left the step out
        horizon = self.averaging * self.progress.planned_steps
        average_into(self.average, self.network, decay(self.trainer.global_step + 1, horizon))  # it is counted later

    def note_step(self, *_: Any) -> None:
        """Remember that the optimizer has made a step, for the average."""
        self.has_stepped = True

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Leave out a step whose gradient is not finite, and clip the norm of any other.

        Lightning's own clipping refuses fused optimizers, for the sake of fp16, which gets none here.
        """
        parameters = list(self.network.parameters())
        self.gradient_norm = nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        self.step_record.add_step(self.gradient_norm)
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # else it leaves such steps out itself
            leave_out(optimizer, self.gradient_norm)
        if gradient_clip_val:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, self.gradient_norm)


def gather(values: dict[int, Value]) -> dict[int, Value]:
    """Merge the values of all ranks, by case."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    of_ranks: list[dict[int, Value]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(of_ranks, values)
    return {index: value for values_of_rank in of_ranks for index, value in values_of_rank.items()}
