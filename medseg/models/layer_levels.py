"""Where a parameter stands in its network: on a level of the encoder, on one of the decoder, or in the head.

Networks name their layers each in their own way; the table below says which name is where. Levels of the encoder are
numbered as an image passes them, those of the decoder from the finest, which is passed last.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from medseg.errors import MedsegError

HEAD = "head"
Part = Literal["encoder", "decoder", "rising decoder", "head"]
"""A rising decoder numbers its levels as they are passed, from the bottom; any other from the finest."""


@dataclass(frozen=True)
class Place:
    """Where the parameters are whose names begin like ``names``.

    ``names`` is a regular expression; the number in its group, plus ``more``, orders the levels of a part, and so does
    the number of times that ``counted`` occurs in a name.
    """

    names: str
    part: Part
    more: int = 0
    counted: str = ""

    def order(self, name: str) -> int | None:
        """Return the number of the level of a parameter, None for one that is elsewhere."""
        if not (found := re.match(rf"(?:{self.names})(?:\.|$)", name)):
            return None
        number = int(found[1]) if found.re.groups else 0
        return self.more + number + (name.count(self.counted) if self.counted else 0)


LAST = 99  # after all numbered levels

PLACES: dict[str, tuple[Place, ...]] = {
    "UNet": (
        Place(r"encoder\.(\d+)", "encoder"),
        Place(r"(?:up|decoder)\.(\d+)", "decoder"),
        Place("heads", "head"),
    ),
    "DynUNet": (
        Place("input_block", "encoder"),
        Place(r"downsamples\.(\d+)", "encoder", 1),
        Place("bottleneck", "encoder", LAST),
        Place(r"upsamples\.(\d+)", "rising decoder"),
        Place("output_block|deep_supervision_heads", "head"),
    ),
    "SegResNet": (
        Place("convInit", "encoder"),
        Place(r"down_layers\.(\d+)", "encoder"),
        Place(r"(?:up_layers|up_samples)\.(\d+)", "rising decoder"),
        Place("conv_final", "head"),
    ),
    "AttentionUnet": (
        Place(r"model\.[01]\..*?(?:attention|upconv|merge)", "decoder", counted="submodule"),
        Place(r"model\.[01]\..*conv", "encoder", counted="submodule"),
        Place(r"model\.2", "head"),
    ),
    "UNetPlusPlus": (
        Place(r"conv_(\d)_0", "encoder"),
        Place(r"upcat_(\d)_\d", "decoder"),
        Place(r"final_conv_0_\d", "head"),
    ),
    "UNETR": (
        Place(r"vit\.patch_embedding", "encoder"),
        Place(r"vit\.blocks\.(\d+)", "encoder"),
        Place(r"vit\.norm", "encoder", 11),
        Place(r"encoder(\d)", "decoder", 1),  # its encoder1 to encoder4 are on the skips
        Place(r"decoder(\d)", "decoder"),
        Place("out", "head"),
    ),
    "SwinUNETR": (
        Place(r"swinViT\.patch_embed", "encoder"),
        Place(r"swinViT\.layers(\d)c?", "encoder"),
        Place(r"(?:encoder|decoder)(\d+)", "decoder"),  # here, too
        Place("out", "head"),
    ),
    "MedNeXt": (
        Place("stem", "encoder"),
        Place(r"(?:enc_stages|down_blocks)\.(\d+)", "encoder"),
        Place("bottleneck", "encoder", LAST),
        Place(r"(?:up_blocks|dec_stages)\.(\d+)", "rising decoder"),
        Place("out_0|out_blocks", "head"),
    ),
    "FlexibleUNet": (
        Place(r"encoder\.(?:conv1|bn1|_conv_stem|_bn0)", "encoder"),
        Place(r"encoder\.layer(\d)", "encoder"),
        Place(r"encoder\._blocks\.(\d+)", "encoder", 1),
        Place(r"encoder\.(?:_conv_head|_bn1|_fc)", "encoder", 7),
        Place(r"encoder\.fc", "encoder", 4),
        Place(r"decoder\.blocks\.(\d+)", "rising decoder"),
        Place("segmentation_head", "head"),
    ),
    "VNet": (
        Place("in_tr", "encoder"),
        Place(r"down_tr(\d+)", "encoder"),
        Place(r"up_tr(\d+)", "decoder"),
        Place("out_tr", "head"),
    ),
}
"""By the name of the network's class, medseg's own or MONAI's."""


def stages_of(network: nn.Module) -> dict[str, str]:
    """Return the stage of each parameter, in the order in which an image passes the stages.

    Stages are called ``encoder.0`` to ``encoder.N``, ``decoder.M`` to ``decoder.0`` and ``head``.

    Raises:
        MedsegError: nobody has said where the parameters of this network are.
    """
    places = PLACES.get(type(network).__name__, ())
    found = {name: located(name, places) for name, _ in network.named_parameters()}
    if lost := [name for name, place in found.items() if place is None]:
        raise MedsegError(
            f"{type(network).__name__}: its levels are not known, nor on which {lost[0]} is, so that"
            " finetune.freeze_encoder, freeze_levels, layer_decay and head_factor do not work. Networks whose levels"
            f" are known: {', '.join(PLACES)}."
        )
    levels = {part: sorted({place[1] for place in found.values() if place and place[0] == part}) for part in ORDER}
    stages = {name: stage(*place, levels) for name, place in found.items() if place}
    return dict(sorted(stages.items(), key=lambda item: passing(item[1])))


ORDER = ("encoder", "decoder", HEAD)


def located(name: str, places: Iterable[Place]) -> tuple[str, int] | None:
    """Return a parameter's part and a number that orders the part's levels, the finest first."""
    for place in places:
        if (order := place.order(name)) is not None:
            return ("decoder", -order) if place.part == "rising decoder" else (place.part, order)
    return None


def stage(part: str, order: int, levels: dict[str, list[int]]) -> str:
    """Return the name of a stage."""
    return HEAD if part == HEAD else f"{part}.{levels[part].index(order)}"


def passing(stage: str) -> tuple[int, int]:
    """Return what sorts stages in the order in which an image passes them."""
    part, _, level = stage.partition(".")
    number = int(level or 0)
    return ORDER.index(part), -number if part == "decoder" else number
