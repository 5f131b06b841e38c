"""ResNets in torchvision's form, as encoders of MONAI's FlexibleUNet.

MONAI's own ResNet-18 and 34 shorten the way past a block without weights (He et al., arXiv 1512.03385, option A), as
MedicalNet's do; the ImageNet weights have a 1 x 1 convolution there (option B). Importing this file registers them.
"""

from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from monai.networks.nets.resnet import ResNet, ResNetEncoder, resnet_params

SUFFIX = "-torchvision"
WIDTHS = [64, 128, 256, 512]
DEPTHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


class TorchvisionResNetEncoder(ResNetEncoder):
    """A ResNet whose parameters have torchvision's names and shapes: (B, C, *spatial) to five maps, halved each time.

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
