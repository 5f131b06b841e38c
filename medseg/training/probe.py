"""What training by a plan costs on a device, found out before anything is trained: memory counted, steps measured."""

import math
import time
from dataclasses import replace
from statistics import median
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from medseg.augmentation import RandomNumbers
from medseg.config.check import planned
from medseg.config.schema import typed
from medseg.config.settings import PretrainSettings, TrainingPlan, TrainingSettings, TrainSettings
from medseg.errors import first_line
from medseg.io.labels import IGNORE, LabelMap
from medseg.models.slices import context_in_volume, patch_in_volume
from medseg.preprocessing.planning.resources import StepCost
from medseg.system.device import AUTOCAST, pick_precision
from medseg.system.memory import drop_frames, free_caches, is_out_of_memory
from medseg.training.assembly import make_module, make_progress, make_reconstruction
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.module import TrainingModule
from medseg.training.pretraining.module import ReconstructionModule

REPEATS = 4
CPU_BATCH = 2
"""Patches that a CPU is timed with: its time grows with their number from there on."""
OVERHEAD = 1.15
"""Memory of a step relative to what is alive at its peak: cuDNN's workspace, gaps between tensors (an estimate)."""


class Probe:
    """Tries out what a plan makes of a config, by steps of the very module that will train.

    Args:
        config: the unresolved config, nulls where the plan decides.
        device: where it will be trained.
        classes: what is learned.
        kind: the settings that the config has.
    """

    def __init__(
        self,
        config: dict[str, Any],
        device: torch.device,
        classes: LabelMap,
        kind: type[TrainingSettings] = TrainSettings,
    ) -> None:
        self.config, self.device, self.classes, self.kind = config, device, classes, kind
        self.precision = pick_precision(config["trainer"]["precision"], device)
        self.spent = 0.0

    def memory(self, plan: dict[str, Any]) -> int | None:
        """Return the bytes that training by this plan takes at its peak; None for networks that cannot be counted.

        A whole step, with loss, backward pass and optimizer, is made with tensors that have a shape, a type and the
        device, but no values (PyTorch's ``FakeTensorMode``): autocast and autograd do what they do on the device. The
        bytes of the tensors that are alive are added up. Augmentation is left out: it needs values, and what it takes
        is free again when the network runs.
        """
        from torch._subclasses.fake_tensor import FakeTensorMode  # which takes a second to import

        module, seen = self.module(plan, compiled=False)
        module.augmentations = []
        if isinstance(module, ReconstructionModule):
            module.pretext = hide_all
        try:
            with (
                _disable_current_modes(),  # the count is the same whatever the caller watches
                torch.autograd.set_multithreading_enabled(False),  # the modes are this thread's
                FakeTensorMode(allow_non_fake_inputs=True),
                LiveBytes(self.device) as live,
            ):
                for part in module.modules():
                    for name, weight in part.named_parameters(recurse=False):
                        fake = torch.empty_like(weight, device=self.device)
                        part.register_parameter(name, torch.nn.Parameter(fake, weight.requires_grad))
                    for name, values in part.named_buffers(recurse=False):
                        setattr(part, name, torch.empty_like(values, device=self.device))
                optimizer = module.configure_optimizers()
                for group in optimizer.param_groups:  # its state, which lies there while all later steps go back
                    for weight in group["params"]:
                        weight.grad = torch.zeros_like(weight)
                optimizer.step()
                optimizer.zero_grad()
                self.train_step(module, optimizer, self.batch(seen, seen.batch_size), 0)
        except (NotImplementedError, RuntimeError):
            return None  # an operation that needs values
        return int(OVERHEAD * live.peak)

    def seconds(self, plan: dict[str, Any]) -> float:
        """Return the seconds of a step, by which plans are compared; infinite where it cannot be done.

        Two things are left out that would tell no plan from another: augmentation, and compiling, which takes longer
        than all comparisons. Of a few steps the quickest counts: what else the machine does at the start is not what a
        training will meet.
        """
        started = time.perf_counter()
        module, seen = self.module(plan, compiled=False)
        module.augmentations = []
        size = min(seen.batch_size, CPU_BATCH) if self.device.type == "cpu" else seen.batch_size
        try:
            return min(self.times(module, self.batch(seen, size))) * seen.batch_size / size
        except RuntimeError:  # out of memory, or a layout that the network cannot take
            return math.inf
        finally:
            del module
            free_caches()
            self.spent += time.perf_counter() - started

    def step(self, plan: dict[str, Any], *, compiled: bool = True) -> StepCost:
        """Train a few steps by a plan, augmented and, if it says so and it works, compiled; return what they took."""
        is_cuda = self.device.type == "cuda"
        if is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        module, seen = self.module(plan, compiled=compiled)
        seconds, failure = math.inf, None
        try:
            seconds = median(self.times(module, self.batch(seen, seen.batch_size)))
            failure = module.compiled.failure if module.compiled else None
        except Exception as error:
            if not is_out_of_memory(error):
                if not module.compiled:
                    raise
                failure = first_line(error)  # the backward pass could not be compiled
            drop_frames(error)
        peak = torch.cuda.max_memory_allocated(self.device) if is_cuda else 0
        is_fallback = failure is not None and math.isinf(seconds)
        del module
        free_caches()
        return (
            replace(self.step(plan, compiled=False), failure=failure)
            if is_fallback
            else StepCost(seconds, peak, failure)
        )

    def module(self, plan: dict[str, Any], *, compiled: bool) -> tuple[TrainingModule, TrainingPlan]:
        """Build what a plan trains, ``compiled`` only if it says so, too; also return how it sees the images."""
        config = planned(self.config, plan)
        config["trainer"]["compile"] = compiled and config["trainer"]["compile"]
        settings, seen = typed(self.kind, config), typed(TrainingPlan, config["plan"])
        progress = make_progress(settings.limits)
        if isinstance(settings, PretrainSettings):
            selection = Selection(name="loss", lowest=True)
            return make_reconstruction(settings, seen, {}, progress, selection, self.device), seen
        assert isinstance(settings, TrainSettings)
        return make_module(settings, seen, self.classes, {}, progress, Selection(), self.device), seen

    def batch(self, plan: TrainingPlan, size: int) -> dict[str, Tensor]:
        """Return ``size`` patches, of zeros, as training is given them; without a margin for the augmentation."""
        shape = [patch + 2 * c for patch, c in zip(patch_in_volume(plan), context_in_volume(plan), strict=True)]
        channels = plan.in_channels // (2 * plan.context + 1)
        return {
            "image": torch.zeros(size, channels, *shape, device=self.device),
            "label": torch.zeros(size, 1, *shape, dtype=torch.uint8, device=self.device),
            "annotated": torch.ones(size, len(self.classes.names), dtype=torch.bool, device=self.device),
        }

    def times(self, module: TrainingModule, batch: dict[str, Tensor]) -> list[float]:
        """Return the seconds of a few steps on random values; not of the first, which makes what the others reuse."""
        generator = torch.Generator().manual_seed(0)
        batch["image"].copy_(torch.randn(batch["image"].shape, generator=generator))
        batch["label"].copy_(torch.randint(len(self.classes.names), batch["label"].shape, generator=generator))
        is_free = not self.config["trainer"]["deterministic"]
        torch.backends.cudnn.benchmark = is_free  # as Lightning does for the training
        module.to(self.device)
        optimizer, times = module.configure_optimizers(), []
        for number in range(1 + REPEATS):
            started = time.perf_counter()
            self.train_step(module, optimizer, batch, number)
            wait_for(self.device)
            times.append(time.perf_counter() - started)
        return times[1:]

    def train_step(self, module: TrainingModule, optimizer: Optimizer, batch: dict[str, Tensor], number: int) -> None:
        """Make a step as Lightning does; the batch may be written into."""
        dtype = AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=False):
            loss = module.loss_of(dict(batch), number, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of the tensors on a device that are alive, each storage once; ``peak`` is the most so far.

    What asks for a value gets that of an unknown voxel: losses then make the masks that these need.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind, self.live, self.peak = device.type, 0, 0
        self.counted: WeakKeyDictionary[torch.UntypedStorage, int] = WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation and count what it has made."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return IGNORE
        if func is torch.ops.prim.device.default:  # half of all calls
            return args[0].fake_device
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.device.type == self.kind:
                storage = made.untyped_storage()
                if storage not in self.counted:
                    size = self.counted[storage] = storage.nbytes()
                    self.live += size
                    self.peak = max(self.peak, self.live)
                    finalize(storage, self.free, size)
        return result

    def free(self, size: int) -> None:
        """Take off the bytes of a tensor that is gone."""
        self.live -= size


def hide_all(image: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
    """Return what a pretext does, of the same size, without values: the image as the network sees it, and a mask."""
    return image.clone(), torch.ones_like(image[:, :1], dtype=torch.bool)


def wait_for(device: torch.device) -> None:
    """Let a GPU, of whatever kind, finish."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
