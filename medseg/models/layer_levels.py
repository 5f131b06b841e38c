"""On which level of its network a parameter is: one of the encoder, one of the decoder, or the head.

A network tells on which level its layers are by an attribute ``layer_rules``, a sequence of ``LayerRule``; for MONAI's
there is a table below. Levels of the encoder are numbered as an image passes them, those of the decoder from the
finest, which is passed last.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from medseg.errors import MedsegError

HEAD = "head"
PARTS = ("encoder", "decoder", HEAD)
Part = Literal["encoder", "decoder", "decoder from bottom", "head"]
"""A decoder from the bottom numbers its levels as they are passed; any other from the finest."""


@dataclass(frozen=True)
class LayerRule:
    """On which level the parameters are whose names begin like ``names``.

    ``names`` is a regular expression; the number in its group, plus ``more``, orders the levels of a part, and so does
    the number of times that ``counted`` occurs in a name.
    """

    names: str
    part: Part
    more: int = 0
    counted: str = ""

    def order(self, name: str) -> int | None:
        """Return the number of the level of a parameter, None for one that is elsewhere."""
        if not (match := re.match(rf"(?:{self.names})(?:\.|$)", name)):
            return None
        number = int(match[1]) if match.re.groups else 0
        return self.more + number + (name.count(self.counted) if self.counted else 0)


LAST = 99  # after all numbered levels

MONAI_RULES: dict[str, tuple[LayerRule, ...]] = {
    "DynUNet": (
        LayerRule("input_block", "encoder"),
        LayerRule(r"downsamples\.(\d+)", "encoder", 1),
        LayerRule("bottleneck", "encoder", LAST),
        LayerRule(r"upsamples\.(\d+)", "decoder from bottom"),
        LayerRule("output_block|deep_supervision_heads", "head"),
    ),
    "SegResNet": (
        LayerRule("convInit", "encoder"),
        LayerRule(r"down_layers\.(\d+)", "encoder"),
        LayerRule(r"(?:up_layers|up_samples)\.(\d+)", "decoder from bottom"),
        LayerRule("conv_final", "head"),
    ),
    "AttentionUnet": (
        LayerRule(r"model\.[01]\..*?(?:attention|upconv|merge)", "decoder", counted="submodule"),
        LayerRule(r"model\.[01]\..*conv", "encoder", counted="submodule"),
        LayerRule(r"model\.2", "head"),
    ),
    "UNetPlusPlus": (
        LayerRule(r"conv_(\d)_0", "encoder"),
        LayerRule(r"upcat_(\d)_\d", "decoder"),
        LayerRule(r"final_conv_0_\d", "head"),
    ),
    "UNETR": (
        LayerRule(r"vit\.patch_embedding", "encoder"),
        LayerRule(r"vit\.blocks\.(\d+)", "encoder"),
        LayerRule(r"vit\.norm", "encoder", 11),
        LayerRule(r"encoder(\d)", "decoder", 1),  # its encoder1 to encoder4 are on the skips
        LayerRule(r"decoder(\d)", "decoder"),
        LayerRule("out", "head"),
    ),
    "SwinUNETR": (
        LayerRule(r"swinViT\.patch_embed", "encoder"),
        LayerRule(r"swinViT\.layers(\d)c?", "encoder"),
        LayerRule(r"(?:encoder|decoder)(\d+)", "decoder"),  # here, too
        LayerRule("out", "head"),
    ),
    "MedNeXt": (
        LayerRule("stem", "encoder"),
        LayerRule(r"(?:enc_stages|down_blocks)\.(\d+)", "encoder"),
        LayerRule("bottleneck", "encoder", LAST),
        LayerRule(r"(?:up_blocks|dec_stages)\.(\d+)", "decoder from bottom"),
        LayerRule("out_0|out_blocks", "head"),
    ),
    "FlexibleUNet": (
        LayerRule(r"encoder\.(?:conv1|bn1|_conv_stem|_bn0)", "encoder"),
        LayerRule(r"encoder\.layer(\d)", "encoder"),
        LayerRule(r"encoder\._blocks\.(\d+)", "encoder", 1),
        LayerRule(r"encoder\.(?:_conv_head|_bn1|_fc)", "encoder", 7),
        LayerRule(r"encoder\.fc", "encoder", 4),
        LayerRule(r"decoder\.blocks\.(\d+)", "decoder from bottom"),
        LayerRule("segmentation_head", "head"),
    ),
    "VNet": (
        LayerRule("in_tr", "encoder"),
        LayerRule(r"down_tr(\d+)", "encoder"),
        LayerRule(r"up_tr(\d+)", "decoder"),
        LayerRule("out_tr", "head"),
    ),
}
"""Those of MONAI's networks, which tell none, by the name of the class."""


def stages_of(network: nn.Module) -> dict[str, str]:
    """Return the stage of each parameter, in the order in which an image passes the stages.

    Stages are called ``encoder.0`` to ``encoder.N``, ``decoder.M`` to ``decoder.0`` and ``head``.

    Raises:
        MedsegError: the network does not tell them.
    """
    rules: Sequence[LayerRule] = getattr(network, "layer_rules", MONAI_RULES.get(type(network).__name__, ()))
    located: dict[str, tuple[str, int]] = {}  # the part of each parameter, and a number that orders the part's levels
    for name, _ in network.named_parameters():
        matches = ((rule, order) for rule in rules if (order := rule.order(name)) is not None)
        rule, order = next(matches, (None, 0))
        if rule is None:
            raise MedsegError(
                f"{type(network).__name__}: its levels are not known, nor on which {name} is, so that"
                " finetune.freeze_encoder, freeze_levels, layer_decay and head_factor do not work. Networks whose"
                f" levels are known: UNet, {', '.join(MONAI_RULES)}; one of your own tells them by an attribute"
                " layer_rules (see medseg.models.layer_levels)."
            )
        # From the finest level on, whichever way the network counts.
        located[name] = ("decoder", -order) if rule.part == "decoder from bottom" else (rule.part, order)
    numbers = {part: sorted({order for other, order in located.values() if other == part}) for part in PARTS}

    def passing(name: str) -> tuple[int, int]:
        part, order = located[name]
        return PARTS.index(part), -order if part == "decoder" else order

    stages = {}
    for name in sorted(located, key=passing):
        part, order = located[name]
        stages[name] = HEAD if part == HEAD else f"{part}.{numbers[part].index(order)}"
    return stages
