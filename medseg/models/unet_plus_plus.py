"""UNet++ whose outputs have medseg's order."""

from typing import Any

from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from torch import Tensor, nn


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
