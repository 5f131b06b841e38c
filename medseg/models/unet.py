"""The U-Net, in 2D and 3D.

Ronneberger et al., "U-Net" (MICCAI 2015); Çiçek et al., "3D U-Net" (MICCAI 2016). The options span nnU-Net's networks:
Isensee et al., "nnU-Net" (Nature Methods 2021) and "nnU-Net Revisited" (MICCAI 2024), as ``nnunet`` below shows.

    nnunet = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "depth": 5, "downsampling": "strided"}
    UNet(**nnunet)                                                                              # PlainConvUNet
    UNet(**nnunet, residual=True, blocks=[1, 3, 4, 6, 6, 6], decoder_blocks=1)                  # ResEnc
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import gcd, prod
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.config.schema import PLANNED, Setting
from medseg.errors import MedsegError, listing, nearest
from medseg.models.layer_levels import LayerRule

Axes = tuple[int, ...]
"""One number an axis."""

SpatialDims = Annotated[int, Setting("dimensions of the images", (2, 3), PLANNED)]
MaxChannels = Annotated[int | None, Setting("cap on the channels of a level", "[1, inf)", "320 in 3D, 512 in 2D")]

NORMS = ("instance", "batch", "group", "none")
DOWNSAMPLINGS = ("max_pool", "strided")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {  # in place where the gradient can be had from the output
    "leaky_relu": partial(nn.LeakyReLU, 0.01, inplace=True),
    "relu": partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

_MOST_CHANNELS = {2: 512, 3: 320}


@dataclass(frozen=True)
class Layers:
    """The kinds of layer that a network is made of: 2D or 3D, and what follows its convolutions."""

    dims: int
    norm: str
    activation: str
    dropout: float

    def of_torch(self, kind: str) -> type[nn.Module]:
        """Return PyTorch's layer of a kind, such as "Conv", in 2D or 3D."""
        layer: type[nn.Module] = getattr(nn, f"{kind}{self.dims}d")
        return layer

    def conv(self, inputs: int, outputs: int, kernel: Axes, stride: Axes | int = 1, *, bias: bool = True) -> nn.Module:
        """A convolution that keeps the size, or divides it by the stride where the stride divides it."""
        return self.of_torch("Conv")(inputs, outputs, kernel, stride, padding=tuple(k // 2 for k in kernel), bias=bias)

    def normalise(self, channels: int) -> nn.Module:
        """The norm, or nothing. Groups are eight, or as many as divide the channels."""
        if self.norm == "instance":
            return self.of_torch("InstanceNorm")(channels, affine=True)
        if self.norm == "batch":
            return self.of_torch("BatchNorm")(channels)
        return nn.GroupNorm(gcd(8, channels), channels) if self.norm == "group" else nn.Identity()

    def block(self, inputs: int, outputs: int, kernel: Axes, stride: Axes | int = 1) -> nn.Module:
        """Convolution, dropout (of whole channels), norm, activation."""
        dropout = [self.of_torch("Dropout")(self.dropout)] if self.dropout else []
        convolution = self.conv(inputs, outputs, kernel, stride)
        return nn.Sequential(convolution, *dropout, self.normalise(outputs), ACTIVATIONS[self.activation]())

    def shortcut(self, inputs: int, outputs: int, stride: Axes | int) -> nn.Module:
        """Mean pooling where the size changes, a 1x1 convolution where the channels do."""
        strides = (stride,) * self.dims if isinstance(stride, int) else stride
        pool = [Pool("avg", strides)] if strides != (1,) * self.dims else []
        if inputs == outputs:
            return nn.Sequential(*pool)
        one = (1,) * self.dims
        return nn.Sequential(*pool, self.conv(inputs, outputs, one, bias=False), self.normalise(outputs))

    def stage(
        self, count: int, inputs: int, outputs: int, kernel: Axes, stride: Axes | int = 1, *, residual: bool = False
    ) -> list[nn.Module]:
        """``count`` blocks in a row, of which the first changes channels and size."""
        block: Callable[..., nn.Module] = partial(ResidualBlock, self) if residual else self.block
        return [block(inputs, outputs, kernel, stride), *(block(outputs, outputs, kernel) for _ in range(count - 1))]


class Pool(nn.Module):
    """The mean ("avg") or the maximum ("max") of each block of ``stride`` voxels, in inputs that the stride divides."""

    def __init__(self, kind: Literal["avg", "max"], stride: Axes) -> None:
        super().__init__()
        self.kind, self.stride = kind, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C, *spatial / stride)."""
        dims = len(self.stride)
        if dims == 3 and x.is_cuda and torch.are_deterministic_algorithms_enabled():
            # Gradients of PyTorch's own differ from run to run there: of means, and before 2.13 of maxima.
            return pooled_by_blocks(x, self.kind, self.stride)
        pooled: Tensor = getattr(F, f"{self.kind}_pool{dims}d")(x, self.stride)
        return pooled


def pooled_by_blocks(x: Tensor, kind: Literal["avg", "max"], stride: Axes) -> Tensor:
    """Pool by operations whose gradient is the same on every run; equal maxima share theirs."""
    blocks = [(size // length, length) for size, length in zip(x.shape[2:], stride, strict=True)]
    blocked = x.reshape(*x.shape[:2], *chain.from_iterable(blocks))
    within = [*range(3, blocked.ndim, 2)]
    return blocked.mean(within) if kind == "avg" else blocked.amax(within)


class ResidualBlock(nn.Module):
    """convolution-norm-activation, convolution-norm, added to the shortcut, activation.

    The basic block of ResNet-D: He et al., "Bag of Tricks for Image Classification" (CVPR 2019), figure 2c.
    """

    def __init__(self, layers: Layers, inputs: int, outputs: int, kernel: Axes, stride: Axes | int = 1) -> None:
        super().__init__()
        self.first = layers.block(inputs, outputs, kernel, stride)
        self.second = layers.conv(outputs, outputs, kernel)
        self.norm = layers.normalise(outputs)
        self.shortcut = layers.shortcut(inputs, outputs, stride)
        self.activation = ACTIVATIONS[layers.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *spatial) -> (B, outputs, *spatial / stride)."""
        # In place: neither the norm nor the convolution needs its output to find its gradient.
        return self.activation(self.norm(self.second(self.first(x))).add_(self.shortcut(x)))


class UNet(nn.Module):
    """A U-Net of ``depth`` poolings: (B, in_channels, *spatial) -> [logits (B, out_channels, *spatial)].

    Level 0 is the input's resolution, level ``depth`` the bottom. Lists have their finest level first.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, background included.
        depth: number of poolings, 1 to 7.
        base_channels: channels of level 0; they double from level to level.
        max_channels: no level has more channels than this. None: 320 in 3D and 512 in 2D, as nnU-Net.
        channels: of each level, ``depth + 1`` numbers that take the place of those two. None: theirs.
        strides: by how much each pooling shrinks each axis: ``depth`` entries, each a number or one an axis. None: 2.
        kernel_sizes: odd kernel sizes of each level: ``depth + 1`` entries, each a number or one an axis. None: 3.
        blocks: convolutions (residual blocks if ``residual``) of each encoder level: a number, or a list whose first
            ``depth + 1`` count.
        decoder_blocks: convolutions of each decoder level: a number, or a list whose first ``depth`` count.
        norm: ``instance``, ``batch``, ``group`` or ``none``.
        activation: ``leaky_relu`` (slope 0.01), ``relu``, ``gelu`` or ``silu``.
        dropout: the share of channels dropped after a convolution in training.
        residual: residual blocks in the encoder, after a stem of one convolution.
        downsampling: ``max_pool``, or ``strided``: the first convolution of a level has the stride.
        deep_supervision: in training, logits of every level but the bottom, finest first.
        last_activation: whether an activation follows the last convolution. Without it the head is given positive and
            negative values alike. Behind a leaky ReLU the voxels of a rare class can end where all channels are
            negative and nearly 0: then hardly any gradient passes, and the class is never learned.

    Raises:
        MedsegError: an argument is out of its range, or an input does not fit; see ``divisor`` and ``smallest``.
    """

    layer_rules = (
        LayerRule(r"encoder\.(\d+)", "encoder"),
        LayerRule(r"(?:up|decoder)\.(\d+)", "decoder"),
        LayerRule("heads", "head"),
    )

    def __init__(
        self,
        *,
        spatial_dims: SpatialDims,
        in_channels: int,
        out_channels: int,
        depth: Annotated[int, Setting("number of poolings; depth 4 has five levels", "[1, 7]", PLANNED)],
        base_channels: Annotated[
            int, Setting("channels of the finest level, doubled per level", "[1, inf)", PLANNED)
        ] = 32,
        max_channels: MaxChannels = None,
        channels: Annotated[
            Sequence[int] | None,
            Setting("channels of each level", "[1, inf)", "base_channels, doubled per level to the cap"),
        ] = None,
        strides: Sequence[Sequence[int] | int] | None = None,
        kernel_sizes: Sequence[Sequence[int] | int] | None = None,
        blocks: Annotated[
            Sequence[int] | int, Setting("convolutions, or residual blocks, of each encoder stage", "[1, 64]")
        ] = 2,
        decoder_blocks: Annotated[Sequence[int] | int, Setting("convolutions of each decoder stage", "[1, 64]")] = 2,
        norm: Annotated[str, Setting("normalisation", NORMS)] = "instance",
        activation: Annotated[str, Setting("activation", tuple(ACTIVATIONS))] = "leaky_relu",
        dropout: Annotated[float, Setting("share of the feature maps dropped", "[0, 1)")] = 0.0,
        residual: Annotated[bool, Setting("residual blocks in the encoder")] = False,
        downsampling: Annotated[str, Setting("how a level halves the map", DOWNSAMPLINGS)] = "max_pool",
        deep_supervision: Annotated[bool, Setting("a loss on every decoder level")] = False,
        last_activation: Annotated[bool, Setting("an activation before the head")] = True,
    ) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "out_channels": out_channels, "base_channels": base_channels}
        counts |= {} if max_channels is None else {"max_channels": max_channels}
        problems = [
            f"model.{key} is {value}; allowed: {allowed}."
            for key, value, fits, allowed in (
                ("spatial_dims", spatial_dims, spatial_dims in (2, 3), "2 or 3"),
                ("depth", depth, depth in range(1, 8), "1 to 7"),
                *((key, count, isinstance(count, int) and count >= 1, "1 or more") for key, count in counts.items()),
                ("dropout", dropout, 0 <= dropout < 1, "from 0 to below 1"),
            )
            if not fits
        ]
        problems += [
            f"model.{key} is {name!r}; allowed: {', '.join(allowed)}.{nearest(str(name), allowed)}"
            for key, name, allowed in (
                ("norm", norm, NORMS),
                ("activation", activation, tuple(ACTIVATIONS)),
                ("downsampling", downsampling, DOWNSAMPLINGS),
            )
            if name not in allowed
        ]
        _raise_for(problems)
        self.strides = _per_axis("strides", strides, depth, spatial_dims, default=2)
        self.kernel_sizes = _per_axis("kernel_sizes", kernel_sizes, depth + 1, spatial_dims, default=3)
        _raise_for(
            [
                f"model.kernel_sizes of level {level} is {list(kernel)}; allowed: odd sizes, which keep the grid."
                for level, kernel in enumerate(self.kernel_sizes)
                if any(size % 2 == 0 for size in kernel)
            ]
        )
        if channels is None:
            channels = widths(spatial_dims, depth, base_channels, max_channels)
        self.channels = channels = per_level("channels", channels, depth + 1)
        self.spatial_dims, self.in_channels, self.depth, self.norm = spatial_dims, in_channels, depth, norm
        encoder_blocks = per_level("blocks", blocks, depth + 1)
        layers = Layers(spatial_dims, norm, activation, dropout)

        stem = [layers.block(in_channels, channels[0], self.kernel_sizes[0])] if residual else []
        inputs = channels[0] if residual else in_channels
        first = layers.stage(encoder_blocks[0], inputs, channels[0], self.kernel_sizes[0], residual=residual)
        self.encoder = nn.ModuleList([nn.Sequential(*stem, *first)])
        for level, stride in enumerate(self.strides, start=1):
            pool = [Pool("max", stride)] if downsampling == "max_pool" else []
            stage = layers.stage(
                encoder_blocks[level],
                channels[level - 1],
                channels[level],
                self.kernel_sizes[level],
                1 if pool else stride,
                residual=residual,
            )
            self.encoder.append(nn.Sequential(*pool, *stage))

        # Each level of the decoder: the transposed convolution into it, and the stage that merges that with the skip.
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, count in enumerate(per_level("decoder_blocks", decoder_blocks, depth)):
            stride, outputs = self.strides[level], channels[level]
            self.up.append(layers.of_torch("ConvTranspose")(channels[level + 1], outputs, stride, stride))
            stage = layers.stage(count, 2 * outputs, outputs, self.kernel_sizes[level])
            if level == 0 and not last_activation:
                stage[-1] = nn.Sequential(*[*stage[-1].children()][:-1])
            self.decoder.append(nn.Sequential(*stage))

        heads = channels[: depth if deep_supervision else 1]
        self.heads = nn.ModuleList(layers.conv(count, out_channels, (1,) * spatial_dims) for count in heads)
        self.initialise()

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew, from ``generator`` (None: torch's own, as every module does when it is made).

        He et al., "Delving Deep into Rectifiers" (ICCV 2015), with nnU-Net's slope. The last norm of a residual block
        starts at zero, so that each block starts as its shortcut: Goyal et al. 2017 (arXiv 1706.02677), section 5.1.
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
                nn.init.kaiming_normal_(module.weight, a=0.01, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ResidualBlock):
                for weight in module.norm.parameters():
                    nn.init.zeros_(weight)

    @property
    def divisor(self) -> Axes:
        """What each axis of an input must be a multiple of."""
        return tuple(prod(along) for along in zip(*self.strides, strict=True))

    @property
    def smallest(self) -> Axes:
        """The shape of the fewest voxels that works. A norm needs two at the bottom: one alone has no variance."""
        double = self.divisor.index(min(self.divisor)) if self.norm != "none" else None
        return tuple(size * 2 if axis == double else size for axis, size in enumerate(self.divisor))

    def check(self, shape: Sequence[int]) -> None:
        """Raise MedsegError unless the network can take an input of ``shape``, (B, C, *spatial)."""
        rank, spatial = self.spatial_dims, tuple(shape[2:])
        if len(shape) != rank + 2 or shape[1] != self.in_channels:
            raise MedsegError(
                f"The U-Net was given an input of shape {tuple(shape)}. It takes (batch, {self.in_channels} channels, "
                f"{rank} spatial axes): see model.in_channels and model.spatial_dims."
            )
        divisible = all(size % divisor == 0 for size, divisor in zip(spatial, self.divisor, strict=True))
        if not divisible or prod(spatial) < prod(self.smallest):
            raise MedsegError(
                f"The U-Net of depth {self.depth} was given an input of {_times(spatial)}. Each axis must be a "
                f"multiple of {_times(self.divisor)}, and the smallest input that works is {_times(self.smallest)}. "
                "Pad the input, or lower model.depth."
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, *spatial) -> logits, finest first; one entry unless training with deep supervision."""
        self.check(x.shape)
        skips = []
        for stage in self.encoder:
            x = stage(x)  # (B, channels[level], *spatial / strides so far)
            skips.append(x)
        skips.pop()  # the bottom has no skip
        outputs = []
        for level in reversed(range(self.depth)):
            x = torch.cat([self.up[level](x), skips.pop()], dim=1)  # (B, 2 channels[level], *)
            x = self.decoder[level](x)  # (B, channels[level], *)
            if level == 0 or (self.training and level < len(self.heads)):
                outputs.append(self.heads[level](x))  # (B, out_channels, *)
        return outputs[::-1]


def widths(spatial_dims: int, depth: int, base_channels: int, max_channels: int | None = None) -> list[int]:
    """Return the channels of each of the ``depth + 1`` levels, doubled up to the cap (None: nnU-Net's)."""
    most = _MOST_CHANNELS[spatial_dims] if max_channels is None else max_channels
    return [min(base_channels * 2**level, most) for level in range(depth + 1)]


def per_level(name: str, counts: Sequence[int] | int, levels: int) -> list[int]:
    """Return one count a level; of a longer list the first count, so that one list serves networks of any depth.

    Raises:
        MedsegError: the list ``model.<name>`` is too short, or a count that is used is below 1.
    """
    used = [counts] * levels if isinstance(counts, int) else list(counts)[:levels]
    if len(used) != levels or min(used) < 1:
        raise MedsegError(f"model.{name} is {counts}; this depth needs {levels} numbers or more, each 1 or more.")
    return used


def _times(shape: Axes) -> str:
    return " x ".join(map(str, shape))


def _raise_for(problems: list[str]) -> None:
    """Raise all problems at once, if there are any."""
    if problems:
        raise MedsegError("The U-Net cannot be built as asked:\n" + listing(problems))


def _per_axis(
    name: str, sizes: Sequence[Sequence[int] | int] | None, levels: int, dims: int, *, default: int
) -> list[Axes]:
    """One size a level and axis."""
    entries = [default] * levels if sizes is None else sizes
    levelled = [(size,) * dims if isinstance(size, int) else tuple(size) for size in entries]
    if len(levelled) != levels or {len(axes) for axes in levelled} != {dims} or min(chain(*levelled)) < 1:
        raise MedsegError(
            f"model.{name} is {sizes}; this depth needs {levels} entries, "
            f"each a number or a list of {dims}, all 1 or more."
        )
    return levelled
