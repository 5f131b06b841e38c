"""What a planned network costs on a device, found out before anything is trained: memory counted, speed measured."""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from medseg.config.check import planned
from medseg.config.instantiate import build
from medseg.config.schema import typed
from medseg.config.settings import NetworkPlan, TrainerSettings, TrainingPlan
from medseg.models.slices import context_in_volume, logits_of, memory_format, patch_in_volume
from medseg.system.device import autocast, pick_precision

REPEATS = 4
CPU_BATCH = 2
"""Patches that a CPU is timed with: its time grows with their number from there on."""
HALF = 0.62
"""Share of the float32 bytes that autocast to 16 bits saves for the backward pass (measured: U-Nets with norms)."""
OVERHEAD = 1.4
"""Peak memory of a step relative to what is saved for the backward pass (measured: gradients, workspace)."""
PER_PARAMETER = 20
"""Bytes: weight, gradient, two moments of the optimizer, average; float32."""


class Probe:
    """Tries out what a plan makes of a config, on the device that will train.

    Args:
        config: the unresolved config, nulls where the plan decides.
        device: where it will be trained.
    """

    def __init__(self, config: dict[str, Any], device: torch.device) -> None:
        self.config, self.device = config, device

    def memory(self, plan: dict[str, Any]) -> int | None:
        """Return the bytes that training by this plan takes at its peak; None for networks that cannot be counted.

        The forward pass runs on PyTorch's meta device, where tensors have shapes but no values.
        """
        config = planned(self.config, plan)
        seen, trainer = typed(TrainingPlan, config["plan"]), typed(TrainerSettings, config["trainer"])
        try:
            network = build(config["model"], "model", config["trust"]).to("meta").train()
            saved = saved_bytes(network, seen, patches(seen, torch.device("meta")))
        except (NotImplementedError, RuntimeError):
            return None  # an operation without a meta kernel
        half = pick_precision(trainer.precision, self.device) != "fp32"
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return int(OVERHEAD * saved * (HALF if half else 1.0) + PER_PARAMETER * parameters)

    def seconds(self, plan: dict[str, Any]) -> float:
        """Return the seconds that the forward and backward pass of one batch take, infinite where it cannot be done.

        Of a few passes the quickest counts: what else the machine does at the start is not what a training will meet.
        """
        config = planned(self.config, plan)
        seen, trainer = typed(TrainingPlan, config["plan"]), typed(TrainerSettings, config["trainer"])
        precision, layout = pick_precision(trainer.precision, self.device), memory_format(trainer, seen)
        try:
            network = build(config["model"], "model", config["trust"]).to(self.device, memory_format=layout).train()
            images = patches(seen, self.device, most=CPU_BATCH if self.device.type == "cpu" else None)
            images = images.contiguous(memory_format=layout)
            logits = logits_of(network, seen)
            times = []
            for _ in range(1 + REPEATS):
                started = time.perf_counter()
                with autocast(self.device, precision):
                    loss = torch.stack([output.float().square().mean() for output in logits(images)]).sum()
                loss.backward()  # type: ignore[no-untyped-call]
                wait_for(self.device)
                times.append(time.perf_counter() - started)
            return min(times[1:]) * seen.batch_size / len(images)
        except RuntimeError:  # out of memory, or a layout that the network cannot take
            return math.inf


def patches(plan: TrainingPlan, device: torch.device, most: int | None = None) -> Tensor:
    """Return a batch (B, C, *patch with context) as training by ``plan`` feeds it, of ``most`` patches at most."""
    size = [patch + 2 * c for patch, c in zip(patch_in_volume(plan), context_in_volume(plan), strict=True)]
    channels = plan.in_channels // (2 * plan.context + 1)
    batch = min(plan.batch_size, most or plan.batch_size)
    return torch.zeros(batch, channels, *size, device=device)


def saved_bytes(network: nn.Module, plan: NetworkPlan, images: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, each storage counted once."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits_of(network, plan)(images)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def wait_for(device: torch.device) -> None:
    """Let a GPU, of whatever kind, finish."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
