"""How a network with trained weights is trained further: which parameters learn, how fast, and what decays to what.

* Frozen parameters are in no group of the optimizer, so that they take none of its memory, and norms among them
  normalise as they do in prediction, so that their statistics stay.
* Learning rates fall from the head to the first level by a factor a stage: Howard & Ruder, "Universal Language Model
  Fine-tuning" (ACL 2018); Clark et al., "ELECTRA" (ICLR 2020).
* Weight decay may pull to the weights that the training began with instead of to zero: Li, Grandvalet & Davoine,
  "Explicit Inductive Bias for Transfer Learning with Convolutional Networks" (ICML 2018), L2-SP. Here it is decoupled
  from the gradient, as in AdamW: Loshchilov & Hutter (ICLR 2019).

A parameter is only frozen, or pulled to its start, if it was taken over: what was drawn at random has to learn.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from medseg.config.settings import FinetuneSettings
from medseg.errors import MedsegError
from medseg.models.layer_levels import HEAD, stages_of
from medseg.training.optim.optimizers import make_optimizer

log = logging.getLogger(__name__)

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
BY_STAGE = ("freeze_encoder", "freeze_levels", "layer_decay", "head_factor")
"""Those that need to know the stages of the network."""


@dataclass
class Group:
    """Parameters that are trained alike: their names, the factor on the learning rate, what their decay pulls to."""

    name: str
    factor: float
    is_pulled: bool
    members: list[str] = field(default_factory=list)


class FineTuning:
    """The groups of a network's parameters, of which those that are frozen learn later or never.

    Args:
        network: with the weights that it begins with.
        settings: which parameters learn, and how fast.
        whole: names of the parameters that were taken over; None: all.

    Raises:
        MedsegError: the network has fewer levels than are to be frozen, or its levels are not known.
    """

    def __init__(self, network: nn.Module, settings: FinetuneSettings, whole: Collection[str] | None = None) -> None:
        self.network, self.settings = network, settings
        self.parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self.whole = self.parameters.keys() & (self.parameters.keys() if whole is None else set(whole))
        # The stage of each parameter, in the order of the stages; where no setting depends on them, all are one.
        self.stages = dict.fromkeys(self.parameters, "all")
        if {*BY_STAGE} & {*changed(settings)}:
            self.stages = {name: stage for name, stage in stages_of(network).items() if name in self.parameters}
        self.fixed = self._norms() & self.whole if self.settings.freeze_norm else set()
        self.frozen = (self._frozen_levels() & self.whole) - self.fixed
        self.groups = self._grouped(self.parameters.keys() - self.frozen - self.fixed)
        self.is_unfrozen = False
        self.later = self._grouped(self.frozen, ".unfrozen") if self.settings.unfreeze_epoch else []
        pulled = [name for group in self.groups + self.later if group.is_pulled for name in group.members]
        self.start = {name: self.parameters[name].detach().clone() for name in pulled}
        for name in self.frozen | self.fixed:
            self.parameters[name].requires_grad_(False)

    def _frozen_levels(self) -> set[str]:
        """Return the parameters of the encoder's levels that are to be frozen."""
        levels = list(dict.fromkeys(stage for stage in self.stages.values() if stage.startswith("encoder.")))
        count = self.settings.freeze_levels
        if count > len(levels):
            raise MedsegError(
                f"finetune.freeze_levels={count}: the encoder of this network has {len(levels)} levels. Give as many at"
                " most."
            )
        chosen = levels if self.settings.freeze_encoder else levels[:count]
        return {name for name, stage in self.stages.items() if stage in chosen}

    def _norms(self) -> set[str]:
        """Return the names of the parameters of norms."""
        norms = ((name, module) for name, module in self.network.named_modules() if isinstance(module, NORMS))
        return {f"{name}.{own}" for name, module in norms for own, _ in module.named_parameters(recurse=False)}

    def _grouped(self, names: Collection[str], kind: str = "") -> list[Group]:
        """Return parameters in groups, in the order in which an image passes them; ``kind`` ends the groups' names.

        Stages are told apart where their rates differ, and within them what is pulled to its start from what is new.
        """
        order = list(dict.fromkeys(self.stages.values()))
        layer_decay, head_factor = self.settings.layer_decay, self.settings.head_factor
        l2_sp = self.settings.l2_sp
        groups: dict[str, Group] = {}
        for name, stage in self.stages.items():
            if name in names:
                factor = layer_decay ** (len(order) - 1 - order.index(stage))
                factor *= head_factor if stage == HEAD else 1.0
                is_pulled = bool(l2_sp) and name in self.whole
                label = "all"
                if layer_decay != 1:
                    label = stage
                elif head_factor != 1:
                    label = HEAD if stage == HEAD else "body"
                label += (".new" if l2_sp and not is_pulled else "") + kind
                groups.setdefault(label, Group(label, factor, is_pulled)).members.append(name)
        return list(groups.values())

    @property
    def active(self) -> list[Group]:
        """The groups that learn now, in the optimizer's order."""
        return self.groups + (self.later if self.is_unfrozen else [])

    def make_optimizer(
        self, spec: dict[str, Any], *, fused: bool, trust: Collection[str] = ()
    ) -> torch.optim.Optimizer:
        """Build the optimizer of all that learns now; see ``medseg.training.optim.optimizers.make_optimizer``."""
        if not changed(self.settings):
            return make_optimizer(spec, self.network.parameters(), fused=fused, trust=trust)
        groups = [self._for_torch(group) for group in self.groups]
        optimizer = make_optimizer(spec, groups, fused=fused, trust=trust)
        for group, made in zip(self.groups, optimizer.param_groups, strict=True):
            adjust(made, group)
        for group in self.later if self.is_unfrozen else ():
            self._add(optimizer, group)
        return optimizer

    def _for_torch(self, group: Group) -> dict[str, Any]:
        return {"params": [self.parameters[name] for name in group.members], "name": group.name}

    def _add(self, optimizer: torch.optim.Optimizer, group: Group) -> None:
        optimizer.add_param_group(self._for_torch(group))
        adjust(optimizer.param_groups[-1], group)

    def is_due(self, epochs: int) -> bool:
        """Tell whether what is frozen is to learn from now on, after so many epochs."""
        return bool(self.later) and not self.is_unfrozen and epochs >= (self.settings.unfreeze_epoch or 0)

    def unfreeze(self, optimizer: torch.optim.Optimizer | None = None) -> list[float]:
        """Let what is frozen learn; return the full learning rates of the groups that the optimizer gets for it."""
        self.is_unfrozen = True
        for name in self.frozen:
            self.parameters[name].requires_grad_(True)
        if optimizer is None:
            return []
        for group in self.later:
            self._add(optimizer, group)
        rates = [made["lr"] for made in optimizer.param_groups[len(self.groups) :]]
        named = (f"{group.name} (learning rate {rate:.3g})" for group, rate in zip(self.later, rates, strict=True))
        log.info("unfroze %s", ", ".join(named))
        return rates

    @property
    def frozen_norms(self) -> set[str]:
        """The norms, by name, that normalise as in prediction: their parameters and their statistics are frozen."""
        kept = self.fixed | (set() if self.is_unfrozen else self.frozen)
        return {name.rpartition(".")[0] for name in kept & self._norms()}

    def keep_norms_frozen(self) -> None:
        """Take the norms that are frozen out of the training mode that the network is in."""
        self.network.train()
        for name in self.frozen_norms:
            self.network.get_submodule(name).eval()

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """Move parameters towards their start, by learning rate · ``l2_sp`` of the way: before the optimizer's step."""
        for group, made in zip(self.active, optimizer.param_groups, strict=True):
            if group.is_pulled:
                for name in group.members:  # where the network has gone
                    self.start[name] = self.start[name].to(self.parameters[name].device)
                start = [self.start[name] for name in group.members]
                torch._foreach_lerp_(made["params"], start, weight=made["lr"] * self.settings.l2_sp)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training cannot find out again."""
        return {"is_unfrozen": self.is_unfrozen, "start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the run that is resumed was."""
        self.start = state["start"]
        if state["is_unfrozen"]:
            self.unfreeze()

    def describe(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """Return lines that say what is frozen, and how each group is trained."""
        numbers = {name: parameter.numel() for name, parameter in self.parameters.items()}
        lines = []
        if kept := self.frozen | self.fixed:
            until = self.settings.unfreeze_epoch
            share = sum(numbers[name] for name in kept) / sum(numbers.values())
            parts = ", ".join(dict.fromkeys(stage for name, stage in self.stages.items() if name in self.frozen))
            levels = parts + (f" for {until} {'epoch' if until == 1 else 'epochs'}" if parts and until else "")
            what = " and ".join(filter(None, [levels, "the norms" if self.fixed else ""]))
            lines.append(f"frozen: {what}, {100 * share:.1f} % of the parameters")
        if new := self._frozen_levels() - self.whole:
            lines.append(f"not frozen, for they were not taken over: {', '.join(sorted(new))}")
        if len(self.groups) > 1 or self.start:
            for group, made in zip(self.active, optimizer.param_groups, strict=True):
                decay = f"{made.get('weight_decay', 0):g}"
                if group.is_pulled:
                    decay = f"{self.settings.l2_sp:g} to the start"
                size = sum(numbers[name] for name in group.members)
                lines.append(f"{group.name}: learning rate {made['lr']:.3g}, weight decay {decay}, {size:,} parameters")
        return lines


def adjust(made: dict[str, Any], group: Group) -> None:
    """Give a group of an optimizer its own rate, and no decay to zero where it is pulled elsewhere."""
    made["lr"], made["factor"] = made["lr"] * group.factor, group.factor
    if group.is_pulled and "weight_decay" in made:
        made["weight_decay"] = 0.0


def rate_as_set(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate as it is set, which groups of an optimizer have times their factor."""
    rate: float = optimizer.param_groups[0]["lr"] / optimizer.param_groups[0].get("factor", 1)
    return rate


def from_scratch(network: nn.Module, head_factor: float) -> FineTuning:
    """Return how a network learns that begins untrained: all of it, and the head faster.

    A head has few weights, which are large from the start. By steps as small as those of the other weights a short
    training hardly changes them: the outputs of a rare class can then not rise above those of the other classes.
    """
    try:
        return FineTuning(network, FinetuneSettings(head_factor=head_factor))
    except MedsegError:  # its stages are not known
        log.info(
            "trainer.head_factor: all learns at one rate, not the head at %g times that of the rest: which parameters"
            " are the head of %s is not known, since no attribute layer_rules tells the levels of all (see"
            " medseg.models.layer_levels)",
            head_factor,
            type(network).__name__,
        )
        return FineTuning(network, FinetuneSettings())


def changed(settings: FinetuneSettings) -> list[str]:
    """Return the settings by which not all learns alike."""
    default = FinetuneSettings(checkpoint=settings.checkpoint, preprocessing=settings.preprocessing)
    return [key for key, value in vars(settings).items() if value != getattr(default, key)]


def check(settings: FinetuneSettings, model: Mapping[str, Any], devices: int, head_factor: float | None = None) -> None:
    """Reject settings that have no meaning together, or without weights to begin with.

    Args:
        settings: of the fine-tuning.
        model: the description of the network, which may begin with published weights.
        devices: how many train together.
        head_factor: that of a training that begins untrained, if it is given.

    Raises:
        MedsegError: as said.
    """
    begins = settings.checkpoint or model.get("pretrained") or model.get("weights")
    if (wanted := changed(settings)) and not begins:
        raise MedsegError(
            f"finetune.{wanted[0]}={getattr(settings, wanted[0])} is for a training that begins with trained weights."
            " Give finetune.checkpoint, or model.pretrained for published ones."
        )
    if begins and head_factor not in (None, 1.0):
        raise MedsegError(
            f"trainer.head_factor={head_factor:g} is for a training that begins untrained. Give finetune.head_factor."
        )
    if settings.unfreeze_epoch and not (settings.freeze_encoder or settings.freeze_levels):
        raise MedsegError(
            f"finetune.unfreeze_epoch={settings.unfreeze_epoch}: nothing is frozen. Give"
            " finetune.freeze_encoder=true or finetune.freeze_levels."
        )
    if settings.unfreeze_epoch and devices > 1:
        raise MedsegError(
            "finetune.unfreeze_epoch does not work on several devices, which settle at the start whose gradients they"
            " share. Train the frozen network first, and begin a second training with that run."
        )
