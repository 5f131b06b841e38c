"""MONAI's networks by name, with medseg's words for what they have in common.

Each function returns MONAI's own network, which maps (B, in_channels, *spatial) to logits (B, out_channels, *spatial).
``depth`` is the number of halvings, ``base_channels`` the channels of the finest level, ``input_size`` the patch.
``pretrained`` names published weights that training begins with, of the file ``weights`` where one is given. Building
loads none: it gives the network the form that they have, and lets it take images normalised by ``normalize``, a method
for each channel of the images. Further arguments go to MONAI's class under its own names, and take the place of what is
set here.
"""

from collections.abc import Sequence
from math import gcd
from pathlib import Path
from typing import Annotated, Any

from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from monai.networks.nets.resnet import ResNet, ResNetEncoder, resnet_params
from torch import Tensor, nn

from medseg.config.instantiate import construct
from medseg.config.schema import PLANNED, Setting
from medseg.config.settings import NORMALISATIONS
from medseg.errors import MedsegError
from medseg.models.pretrained.catalogue import published
from medseg.models.pretrained.input_scale import factors, scale_input
from medseg.models.unet import MaxChannels, SpatialDims, per_level, widths

NETS = "monai.networks.nets."
SUFFIX = "-torchvision"
WIDTHS = [64, 128, 256, 512]
DEPTHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

Sizes = Sequence[Sequence[int] | int]
"""A number a level, or one for each of its axes."""

BaseChannels = Annotated[int, Setting("channels of the finest level", "[1, inf)", PLANNED)]
Halvings = Annotated[int, Setting("how often every axis is halved", "[1, 7]", PLANNED)]
DeepSupervision = Annotated[bool, Setting("a loss on several decoder levels")]
WeightsFile = Annotated[
    str | Path | None, Setting("a file of the weights that model.pretrained names", null="downloaded")
]
Normalize = Annotated[
    Sequence[str] | None,
    Setting("how the images are normalised, for weights that expect another scale", NORMALISATIONS, PLANNED),
]


def dynunet(
    *,
    spatial_dims: SpatialDims,
    in_channels: int,
    out_channels: int,
    depth: Annotated[int, Setting("number of strided levels", "[2, 7]", PLANNED)],
    base_channels: BaseChannels,
    strides: Sizes,
    kernel_sizes: Sizes,
    max_channels: MaxChannels = None,
    deep_supervision: DeepSupervision = False,
    **options: Any,
) -> nn.Module:
    """nnU-Net's U-Net as MONAI rebuilt it: Isensee et al. (Nature Methods 2021); Futrega et al. (arXiv 2110.03352).

    ``strides`` has ``depth`` entries, ``kernel_sizes`` one more. With deep supervision every level but the bottom has
    an output in training, of the input's size: stacked into (B, depth, out_channels, *spatial), finest first.

    Raises:
        MedsegError: the depth is 1, or MONAI refuses an argument.
    """
    if depth < 2:
        raise MedsegError("model.depth=1: DynUNet halves twice at least. Give model.depth=2, or model=unet.")
    arguments = {
        "kernel_size": kernel_sizes,
        "strides": [1, *strides],
        "upsample_kernel_size": strides,
        "filters": widths(spatial_dims, depth, base_channels, max_channels),
        "deep_supervision": deep_supervision,
        "deep_supr_num": max(1, depth - 1),
    }
    return _network("DynUNet", spatial_dims, in_channels, out_channels, arguments | options)


def segresnet(
    *,
    spatial_dims: SpatialDims,
    in_channels: int,
    out_channels: int,
    depth: Halvings,
    base_channels: BaseChannels,
    input_size: Sequence[int],
    blocks: Annotated[Sequence[int] | int, Setting("residual blocks of each encoder level", "[1, 64]")] = (
        1,
        2,
        2,
        4,
        4,
        4,
        4,
        4,
    ),
    pretrained: Annotated[
        str | None,
        Setting("published weights to begin with", ("brats_mri", "wholebody_ct", "wholebody_ct_3mm"), "random ones"),
    ] = None,
    weights: WeightsFile = None,
    normalize: Normalize = None,
    **options: Any,
) -> nn.Module:
    """The winner of BraTS 2018 without its autoencoder: Myronenko (arXiv 1810.11654).

    ``blocks`` are the residual blocks of each encoder level, of which the first ``depth + 1`` count. Group norm has
    eight groups, or as many as divide the channels.

    Raises:
        MedsegError: ``input_size`` cannot be halved ``depth`` times, there are no such weights, or MONAI refuses an
            argument.
    """
    _check_size("SegResNet", input_size, 2**depth)
    arguments = {
        "init_filters": base_channels,
        "blocks_down": per_level("blocks", blocks, depth + 1),
        "blocks_up": [1] * depth,
        "norm": ("GROUP", {"num_groups": gcd(8, base_channels)}),
    }
    network = _network("SegResNet", spatial_dims, in_channels, out_channels, arguments | options)
    return _for_weights(network, "segresnet", spatial_dims, in_channels, pretrained, normalize)


def attention_unet(
    *,
    spatial_dims: SpatialDims,
    in_channels: int,
    out_channels: int,
    depth: Annotated[int, Setting("number of strided levels", "[1, 7]", PLANNED)],
    base_channels: Annotated[int, Setting("channels of the finest level", "[2, inf)", PLANNED)],
    strides: Sizes,
    max_channels: MaxChannels = None,
    **options: Any,
) -> nn.Module:
    """A U-Net whose skips are weighted by attention gates: Oktay et al. (arXiv 1804.03999).

    Raises:
        MedsegError: MONAI refuses an argument.
    """
    arguments = {"channels": widths(spatial_dims, depth, base_channels, max_channels), "strides": strides}
    return _network("AttentionUnet", spatial_dims, in_channels, out_channels, arguments | options)


def basic_unet_plus_plus(
    *,
    spatial_dims: SpatialDims,
    in_channels: int,
    out_channels: int,
    base_channels: BaseChannels,
    deep_supervision: DeepSupervision = False,
    **options: Any,
) -> nn.Module:
    """UNet++, whose skips are nested U-Nets, of depth 4: Zhou et al. (arXiv 1807.10165).

    With deep supervision, in training, there are four outputs of the input's size, that of the deepest U-Net first.

    Raises:
        MedsegError: MONAI refuses an argument.
    """
    features = [base_channels * factor for factor in (1, 1, 2, 4, 8, 1)]
    arguments = {"features": features, "deep_supervision": deep_supervision} | options
    return _network(f"{__name__}.UNetPlusPlus", spatial_dims, in_channels, out_channels, arguments)


def unetr(
    *,
    spatial_dims: SpatialDims,
    in_channels: int,
    out_channels: int,
    base_channels: BaseChannels,
    input_size: Sequence[int],
    **options: Any,
) -> nn.Module:
    """A vision transformer as encoder, convolutions as decoder: Hatamizadeh et al. (arXiv 2103.10504).

    Its position embedding has an entry for each cube of 16 voxels of ``input_size``: it takes no other size.

    Raises:
        MedsegError: ``input_size`` is no multiple of 16, or MONAI refuses an argument.
    """
    _check_size("UNETR", input_size, 16)
    arguments = {"img_size": input_size, "feature_size": base_channels}
    network = _network("UNETR", spatial_dims, in_channels, out_channels, arguments | options)
    return _freeze_unused(network, "norm_cross_attn")


def swin_unetr(
    *,
    spatial_dims: SpatialDims,
    in_channels: int,
    out_channels: int,
    base_channels: Annotated[
        int,
        Setting("channels of the finest level, a multiple of 12", "[12, inf)", "24, or as the weights have it"),
    ],
    input_size: Sequence[int],
    pretrained: Annotated[
        str | None, Setting("published weights to begin with", ("swinvit", "dae", "btcv"), "random ones")
    ] = None,
    weights: WeightsFile = None,
    normalize: Normalize = None,
    **options: Any,
) -> nn.Module:
    """A transformer of shifted windows as encoder, convolutions as decoder: Hatamizadeh et al. (arXiv 2201.01266).

    Raises:
        MedsegError: ``base_channels`` is no multiple of 12, ``input_size`` of 32, there are no such weights, or MONAI
            refuses an argument.
    """
    if base_channels % 12:
        raise MedsegError(f"model.base_channels={base_channels}: SwinUNETR needs a multiple of 12, such as 24 or 48.")
    _check_size("SwinUNETR", input_size, 32)
    arguments = {"feature_size": base_channels}
    network = _network("SwinUNETR", spatial_dims, in_channels, out_channels, arguments | options)
    return _for_weights(network, "swin_unetr", spatial_dims, in_channels, pretrained, normalize)


def mednext(
    *,
    spatial_dims: SpatialDims,
    in_channels: int,
    out_channels: int,
    depth: Halvings,
    base_channels: BaseChannels,
    input_size: Sequence[int],
    kernel_size: Annotated[int, Setting("size of the depthwise convolutions", (3, 5, 7))] = 3,
    blocks: Annotated[Sequence[int] | int, Setting("blocks of each level above the bottom", "[1, 64]")] = 2,
    expansion: Annotated[
        Sequence[int] | int, Setting("how much wider the blocks of each level are inside", "[1, inf)")
    ] = 2,
    deep_supervision: DeepSupervision = False,
    **options: Any,
) -> nn.Module:
    """ConvNeXt blocks in a U-Net: Roy et al. (MICCAI 2023, arXiv 2303.09975).

    ``blocks`` and ``expansion`` are a number, or one for each level above the bottom: the decoder has them too, the
    bottom the last. The paper's networks, of depth 4, are S: blocks 2 and expansion 2; B: expansion [2, 3, 4, 4];
    M: that and blocks [3, 4, 4, 4]; L: both [3, 4, 8, 8]. With deep supervision every level has an output in training.

    Raises:
        MedsegError: ``input_size`` cannot be halved ``depth`` times, or MONAI refuses an argument.
    """
    _check_size("MedNeXt", input_size, 2**depth)
    counts, ratios = per_level("blocks", blocks, depth), per_level("expansion", expansion, depth)
    arguments = {
        "init_filters": base_channels,
        "kernel_size": kernel_size,
        "blocks_down": counts,
        "blocks_bottleneck": counts[-1],
        "blocks_up": counts[::-1],
        "encoder_expansion_ratio": ratios,
        "bottleneck_expansion_ratio": ratios[-1],
        "decoder_expansion_ratio": ratios[::-1],
        "use_residual_connection": True,
        "deep_supervision": deep_supervision,
    }
    return _network("MedNeXt", spatial_dims, in_channels, out_channels, arguments | options)


def flexible_unet(
    *,
    spatial_dims: SpatialDims,
    in_channels: int,
    out_channels: int,
    base_channels: BaseChannels,
    input_size: Sequence[int],
    backbone: Annotated[str, Setting("encoder: efficientnet-b0 to -b8, -l2, or resnet10, 18, 34, 50, 101, 152, 200")],
    pretrained: Annotated[
        str | None, Setting("published weights to begin with", ("imagenet", "medicalnet"), "random ones")
    ] = None,
    weights: WeightsFile = None,
    normalize: Normalize = None,
    **options: Any,
) -> nn.Module:
    """A U-Net decoder on a classification network, an EfficientNet (arXiv 1905.11946) or a ResNet (arXiv 1512.03385).

    ResNets have MONAI's form, that of MedicalNet's weights, and with ``pretrained="imagenet"`` torchvision's.

    Raises:
        MedsegError: ``input_size`` is no multiple of 32, there are no such weights, or MONAI refuses an argument.
    """
    _check_size("FlexibleUNet", input_size, 32)
    if pretrained == "imagenet" and backbone in DEPTHS:
        backbone += SUFFIX
    arguments = {"backbone": backbone, "decoder_channels": [base_channels * 2**level for level in (4, 3, 2, 1, 0)]}
    network = _network("FlexibleUNet", spatial_dims, in_channels, out_channels, arguments | options)
    network = _freeze_unused(network, "encoder._conv_head", "encoder._bn1", "encoder._fc", "encoder.fc")
    return _for_weights(network, "flexible_unet", spatial_dims, in_channels, pretrained, normalize)


def vnet(
    *, spatial_dims: SpatialDims, in_channels: int, out_channels: int, input_size: Sequence[int], **options: Any
) -> nn.Module:
    """The V-Net, of 5 x 5 x 5 convolutions, 16 channels and depth 4: Milletari et al. (arXiv 1606.04797).

    Raises:
        MedsegError: ``in_channels`` does not divide 16, ``input_size`` is no multiple of 16, or MONAI refuses an
            argument.
    """
    if 16 % in_channels:
        raise MedsegError(
            f"model=vnet: VNet repeats the image's channels to fill 16, so it takes 1, 2, 4, 8 or 16 of them; these "
            f"images have {in_channels}. Choose another network, such as model=unet."
        )
    _check_size("VNet", input_size, 16)
    network = _network("VNet", spatial_dims, in_channels, out_channels, options)
    return network if spatial_dims == 3 else _drop_channels_in_2d(network)


def _network(name: str, spatial_dims: int, in_channels: int, out_channels: int, arguments: dict[str, Any]) -> nn.Module:
    """Build a class of MONAI, or of medseg by its full name, with the usual errors for wrong arguments."""
    arguments = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels} | arguments
    network: nn.Module = construct(name if "." in name else NETS + name, **arguments)
    return network


def _for_weights(
    network: nn.Module,
    name: str,
    spatial_dims: int,
    in_channels: int,
    pretrained: str | None,
    normalize: Sequence[str] | None,
) -> nn.Module:
    """Let a network take images as they are preprocessed where its published weights expect another scale."""
    target = {"_target_": f"{__name__}.{name}", "spatial_dims": spatial_dims, "pretrained": pretrained}
    weights = published(target)
    if weights is None or not normalize:
        return network
    in_colour = weights.dims == 2 and in_channels == len(weights.channels)
    factor, shift = factors(normalize, weights.scale, in_channels, in_colour=in_colour)
    if set(factor) != {1} or set(shift) != {0}:
        scale_input(network, factor, shift, spatial_dims)
    return network


def _check_size(name: str, size: Sequence[int], divisor: int) -> None:
    if any(voxels % divisor for voxels in size):
        raise MedsegError(
            f"{name} needs patches whose axes are multiples of {divisor}; they are {' x '.join(map(str, size))}. "
            f"Give plan.divisor={divisor}, and a plan.patch_size of such multiples or none."
        )


def _freeze_unused(network: nn.Module, *parts: str) -> nn.Module:
    """Freeze parameters that the network has but never uses: distributed training waits for the gradients of all."""
    for name, parameter in network.named_parameters():
        if any(part in name for part in parts):
            parameter.requires_grad_(False)
    return network


def _drop_channels_in_2d(network: nn.Module) -> nn.Module:
    """Replace MONAI 1.6's dropout in 3D, which takes the images of a 2D batch for channels and drops whole images."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout3d):
                setattr(module, name, nn.Dropout2d(child.p))
    return network


class UNetPlusPlus(BasicUNetPlusPlus):
    """MONAI's UNet++ with the output of its deepest U-Net first, and in evaluation alone."""

    def __init__(self, *, deep_supervision: bool = False, **arguments: Any) -> None:
        super().__init__(deep_supervision=deep_supervision, **arguments)
        if not deep_supervision:  # without outputs of their own the shallower U-Nets need no heads
            self.final_conv_0_1 = self.final_conv_0_2 = self.final_conv_0_3 = nn.Identity()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, *spatial) -> [logits (B, out_channels, *spatial)], in training one a nested U-Net."""
        outputs: list[Tensor] = super().forward(x)
        return outputs[::-1] if self.training else outputs[-1:]


class TorchvisionResNetEncoder(ResNetEncoder):
    """A ResNet whose parameters have torchvision's names and shapes: (B, C, *spatial) to five maps, halved each time.

    MONAI's own ResNet-18 and 34 shorten the way past a block without weights (He et al., arXiv 1512.03385, option A),
    as MedicalNet's do; the ImageNet weights have a 1 x 1 convolution there (option B).

    Args:
        model_name: such as ``resnet34-torchvision``.
        pretrained: not used: weights are loaded by ``medseg.models.pretrained.load``.
        spatial_dims: 2 or 3.
        in_channels: of the image.
    """

    backbone_names = [name + SUFFIX for name in ResNetEncoder.backbone_names]  # noqa: RUF012 - as MONAI has it

    def __init__(self, model_name: str, pretrained: bool, spatial_dims: int, in_channels: int) -> None:
        block, layers, *_ = resnet_params[model_name.removesuffix(SUFFIX)]
        ResNet.__init__(
            self,
            block,
            layers,
            WIDTHS,
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            feed_forward=False,
            shortcut_type="B",
            bias_downsample=False,
        )


FLEXUNET_BACKBONE.register_class(TorchvisionResNetEncoder)
