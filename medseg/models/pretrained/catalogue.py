"""Which published weights a network can begin with, and what they were trained on.

Their addresses and checksums are the config's: ``conf/weights``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from medseg.errors import MedsegError, nearest
from medseg.models.pretrained.input_scale import Scale

GREY = ("grey",)
COLOURS = ("red", "green", "blue")
BRATS = ("T1c", "T1", "T2", "FLAIR")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A set of published weights.

    Args:
        dims: spatial dimensions of its kernels.
        channels: of the images that it was trained on.
        scale: how the intensities of these images lie.
        part: beginning of the names of the parameters that it has; empty: the whole network.
        head: beginnings of the names within this part that begin anew, for they hold other classes.
        stems: the convolutions that see the image.
        theirs: a parameter's name in our network to its name in the file, without ``module.``.
        needs: values of the ``model`` node that its network has.
    """

    dims: int
    channels: tuple[str, ...]
    scale: Scale
    part: str
    head: tuple[str, ...] = ()
    stems: tuple[str, ...]
    theirs: Callable[[str], str] = str
    needs: dict[str, int] = field(default_factory=dict)


def encoder_name(ours: str) -> str:
    """Return the name of an encoder's parameter as torchvision, MedicalNet and EfficientNet-PyTorch have it.

    >>> encoder_name("encoder.layer1.0.conv1.weight"), encoder_name("encoder._blocks.2.4._bn0.bias")
    ('layer1.0.conv1.weight', '_blocks.4._bn0.bias')
    """
    return re.sub(r"^_blocks\.\d+\.", "_blocks.", ours.removeprefix("encoder."))


def swinvit_name(ours: str) -> str:
    """Return a name as in Tang et al.'s ``model_swinvit.pt`` (see MONAI's ``SwinUNETR.load_from``).

    >>> swinvit_name("swinViT.layers1.0.blocks.1.mlp.linear2.bias")
    'layers1.0.blocks.1.mlp.fc2.bias'
    """
    return re.sub(r"\.mlp\.linear(?=[12]\.)", ".mlp.fc", ours.removeprefix("swinViT."))


def dae_name(ours: str) -> str:
    """Return a name as in Valanarasu et al.'s ``ssl_pretrained_weights.pth`` (see MONAI's ``filter_swinunetr``).

    >>> dae_name("swinViT.layers1.0.blocks.1.norm1.weight"), dae_name("swinViT.patch_embed.proj.bias")
    ('encoder.layers1.0.0.blocks.1.norm1.weight', 'encoder.patch_embed.proj.bias')
    """
    return re.sub(r"^swinViT\.(layers\d\.0\.)?", lambda found: f"encoder.{found[1] + '0.' if found[1] else ''}", ours)


_ENCODER: dict[str, Any] = {
    "part": "encoder.",
    "head": ("encoder._fc.", "encoder._conv_head.", "encoder._bn1."),  # a classifier's, which no U-Net uses
    "stems": ("encoder.conv1.weight", "encoder._conv_stem.weight"),
    "theirs": encoder_name,
}
_SWIN: dict[str, Any] = {"dims": 3, "channels": GREY, "scale": "unit", "needs": {"base_channels": 48}}
_SWINVIT = _SWIN | {"part": "swinViT.", "stems": ("swinViT.patch_embed.proj.weight",)}
_SEGRESNET: dict[str, Any] = {"dims": 3, "part": "", "head": ("conv_final.2.",), "stems": ("convInit.conv.weight",)}
_WHOLEBODY = _SEGRESNET | {"channels": GREY, "scale": "symmetric", "needs": {"depth": 3, "base_channels": 32}}


PUBLISHED: dict[str, dict[str, Published]] = {
    "medseg.models.monai.flexible_unet": {
        "imagenet": Published(dims=2, channels=COLOURS, scale="standard", **_ENCODER),
        "medicalnet": Published(dims=3, channels=GREY, scale="standard", **_ENCODER),
    },
    "medseg.models.monai.swin_unetr": {
        "swinvit": Published(**_SWINVIT, theirs=swinvit_name),
        "dae": Published(**_SWINVIT, theirs=dae_name),
        "btcv": Published(
            **_SWIN,
            part="",
            head=("out.",),
            stems=(
                "swinViT.patch_embed.proj.weight",
                "encoder1.layer.conv1.conv.weight",
                "encoder1.layer.conv3.conv.weight",
            ),
        ),
    },
    "medseg.models.monai.segresnet": {
        "brats_mri": Published(**_SEGRESNET, channels=BRATS, scale="standard", needs={"depth": 3, "base_channels": 16}),
        "wholebody_ct": Published(**_WHOLEBODY),
        "wholebody_ct_3mm": Published(**_WHOLEBODY),
    },
}
"""By the network's target, then by name: the values of ``model.pretrained``."""

USUAL: dict[str, dict[str, int]] = {"medseg.models.monai.swin_unetr": {"base_channels": 24}}
"""Values that are not planned and, without published weights, are these."""


def published(model: dict[str, Any]) -> Published | None:
    """Return the published weights that a ``model`` node begins with, None where it begins at random.

    Raises:
        MedsegError: the network has none of this name, or none for these dimensions.
    """
    known, name = PUBLISHED.get(model["_target_"], {}), model.get("pretrained")
    if not known or name is None:
        return None
    if name not in known:
        raise MedsegError(
            f"model.pretrained={name}: no such weights.{nearest(name, known)} There are {', '.join(known)}."
        )
    weights, dims = known[name], model.get("spatial_dims") or 3
    if weights.dims > dims:
        raise MedsegError(f"model.pretrained={name}: the weights of a 3D network; model.spatial_dims is {dims}.")
    return weights


def fixed_values(model: dict[str, Any]) -> dict[str, int]:
    """Return the values of a ``model`` node that its published weights, or else its design, leave no choice of.

    Raises:
        MedsegError: the node gives another value, or names weights wrongly.
    """
    name, weights = model.get("pretrained"), published(model)
    if name is None and model.get("weights") and model["_target_"] in PUBLISHED:
        raise MedsegError(
            f"model.weights={model['weights']}: say by model.pretrained whose weights these are: "
            f"{', '.join(PUBLISHED[model['_target_']])}. For weights of another kind there is finetune.checkpoint."
        )
    values = dict(weights.needs) if weights else {}
    for key, value in values.items():
        if model.get(key) not in (None, value):
            raise MedsegError(f"model.{key}={model[key]}: the weights model.pretrained={name} have {value}.")
    usual = USUAL.get(model["_target_"], {})
    return values | {key: value for key, value in usual.items() if key not in values and model.get(key) is None}


def without_file(model: dict[str, Any]) -> dict[str, Any]:
    """Return a ``model`` node without the path of a file of published weights, as checkpoints keep it."""
    return model | {"weights": None} if model["_target_"] in PUBLISHED else model
