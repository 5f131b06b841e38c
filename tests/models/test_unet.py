"""The U-Net: the source document's worked examples, its shape, its size, its paths and its refusals."""

import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from medseg.errors import MedsegError
from medseg.models import UNet
from medseg.models.unet import ACTIVATIONS, NORMS, Pool, ResidualBlock, pooled_by_blocks, widths


def unet(dims: int = 2, depth: int = 2, **options: Any) -> UNet:
    """A narrow U-Net, of one channel and three classes."""
    defaults = {"in_channels": 1, "out_channels": 3, "base_channels": 2, "max_channels": 8}
    network = UNet(spatial_dims=dims, depth=depth, **(defaults | options))
    network.initialise(torch.Generator().manual_seed(0))
    return network


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# The worked examples of the source document, sections 4.1 to 4.3, through the layers of a U-Net of one channel.


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def single(request: pytest.FixtureRequest) -> UNet:
    """In 3D the layers work within slices, so that the document's matrices are slices."""
    dims = request.param
    flat: dict[str, Any] = {"strides": [[1, 2, 2]], "kernel_sizes": [[1, 3, 3]] * 2} if dims == 3 else {}
    return unet(dims, 1, base_channels=1, max_channels=1, norm="none", out_channels=1, **flat)


@torch.no_grad()
def through(layer: nn.Module, rows: list[list[int]], kernel: list[list[int]] | None = None) -> list[list[float]]:
    """A matrix in, a matrix out, by a layer of one channel whose weight is ``kernel``."""
    if kernel is not None:
        layer.weight.copy_(torch.tensor(kernel).reshape(layer.weight.shape))
        layer.bias.zero_()
    dims = len(layer.stride)
    matrix = torch.tensor(rows, dtype=torch.float32)
    output = layer(matrix.reshape((1,) * dims + matrix.shape))  # (1, 1, [1,] height, width)
    return output.reshape(output.shape[-2:]).tolist()


def test_convolution_of_the_document(single: UNet) -> None:
    # Its 2x2 kernel, put into the lower right of a 3x3 one, reads I(i, j) to I(i + 1, j + 1).
    out = through(single.encoder[0][0][0], [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[0, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert [row[:2] for row in out[:2]] == [[6, 8], [12, 14]]


def test_max_pooling_of_the_document(single: UNet) -> None:
    rows = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]
    assert through(single.encoder[1][0], rows) == [[6, 8], [14, 16]]


def test_transposed_convolution_of_the_document(single: UNet) -> None:
    out = through(single.up[0], [[1, 2], [3, 4]], [[1, 2], [3, 4]])
    assert out == [[1, 2, 2, 4], [3, 4, 6, 8], [3, 6, 4, 8], [9, 12, 12, 16]]


# Shapes


@pytest.mark.parametrize(("dims", "depth"), [*((2, depth) for depth in range(1, 8)), *((3, d) for d in range(1, 5))])
def test_any_depth_keeps_the_input_size(dims: int, depth: int) -> None:
    network = unet(dims, depth, max_channels=4)
    assert network.divisor == (2**depth,) * dims
    assert network.smallest == (2 ** (depth + 1), *(2**depth,) * (dims - 1))
    outputs = network(noise(1, 1, *network.smallest))
    assert [tuple(output.shape) for output in outputs] == [(1, 3, *network.smallest)]


def test_channels_double_up_to_the_cap() -> None:
    assert unet(depth=4, base_channels=32, max_channels=320).channels == [32, 64, 128, 256, 320]


def test_the_cap_is_nnunet_s_where_none_is_given() -> None:
    assert widths(3, 5, 32) == [32, 64, 128, 256, 320, 320]
    assert widths(2, 5, 32) == [32, 64, 128, 256, 512, 512]
    assert unet(2, 3, base_channels=128, max_channels=None).channels == [128, 256, 512, 512]


def test_channels_of_each_level_may_be_given() -> None:
    network = unet(3, 2, channels=[3, 7, 5])
    assert [stage[0][0].out_channels for stage in network.encoder[:1]] == [3]
    assert [head.in_channels for head in network.heads] == [3]
    assert network.channels == [3, 7, 5]
    assert network(noise(1, 1, 8, 8, 8))[0].shape == (1, 3, 8, 8, 8)


def test_lists_may_be_longer_than_the_depth_needs() -> None:
    network = unet(depth=2, blocks=[1, 3, 2, 6, 6], decoder_blocks=[2, 1, 6], residual=True)
    residual = [sum(isinstance(module, ResidualBlock) for module in stage) for stage in network.encoder]
    assert residual == [1, 3, 2]
    assert [len(stage) for stage in network.decoder] == [2, 1]


@pytest.mark.parametrize("preset", ["resenc_m", "resenc_l"])
def test_presets_have_the_residual_encoder_of_nnunet(preset: str) -> None:
    """Depth 5 in 3D and 7 in 2D, the weights as dynamic-network-architectures 0.4.4 counts them."""
    config = OmegaConf.load(Path(__file__).parents[2] / f"conf/model/{preset}.yaml")
    model = OmegaConf.to_container(OmegaConf.masked_copy(config.model, set(config.model) - {"_target_"}))
    given = {"in_channels": 1, "out_channels": 2, "strides": None, "kernel_sizes": None}
    with torch.device("meta"):
        deep = UNet(**(model | given | {"spatial_dims": 3, "depth": 5}))
        flat = UNet(**(model | given | {"spatial_dims": 2, "depth": 7}))
    blocks = [sum(isinstance(module, ResidualBlock) for module in stage) for stage in flat.encoder]
    assert blocks == [1, 3, 4, 6, 6, 6, 6, 6]
    assert deep.channels == [32, 64, 128, 256, 320, 320]
    assert flat.channels == [32, 64, 128, 256, 512, 512, 512, 512]
    assert [len(stage) for stage in deep.decoder] == [1] * 5
    assert len(deep.heads) == 5
    assert (counted(deep), counted(flat)) == (102_349_770, 140_017_038)


def test_presets_differ_in_their_budget_alone() -> None:
    folder = Path(__file__).parents[2] / "conf/model"
    medium, large = OmegaConf.load(folder / "resenc_m.yaml"), OmegaConf.load(folder / "resenc_l.yaml")
    assert medium.model == large.model
    assert (medium.plan, large.plan) == ({"budget": 1.0}, {"budget": 2.4})


@pytest.mark.parametrize("downsampling", ["max_pool", "strided"])
@pytest.mark.parametrize("residual", [False, True])
def test_anisotropic_strides_and_kernels(downsampling: str, residual: bool) -> None:
    network = unet(
        3,
        3,
        strides=[[1, 2, 2], [2, 2, 2], [1, 4, 2]],
        kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 1, 5]],
        downsampling=downsampling,
        residual=residual,
        deep_supervision=True,
    )
    assert network.divisor == (2, 16, 8)
    assert [tuple(output.shape[2:]) for output in network(noise(2, 1, 4, 16, 8))] == [(4, 16, 8), (4, 8, 4), (2, 4, 2)]


def test_deep_supervision_is_for_training_alone() -> None:
    network = unet(depth=3, deep_supervision=True)
    image = noise(2, 1, 16, 16)
    outputs = network.train()(image)
    assert [tuple(output.shape) for output in outputs] == [(2, 3, 16, 16), (2, 3, 8, 8), (2, 3, 4, 4)]
    (finest,) = network.eval()(image)
    torch.testing.assert_close(finest, outputs[0])


# Size


def counted(network: UNet) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def plain_formula(taps: int, corners: int, image: int, classes: int, channels: list[int]) -> int:
    """Two convolutions a level, transposed convolutions of ``corners`` taps, a head for every decoder level."""

    def conv(a: int, b: int) -> int:
        return taps * a * b + b + 2 * b  # weight, bias, scale and shift of the norm

    total = 0
    for a, b in zip([image, *channels], channels, strict=False):
        total += conv(a, b) + conv(b, b)
    for b, below in pairwise(channels):
        total += corners * below * b + b + conv(2 * b, b) + conv(b, b) + classes * (b + 1)
    return total


@pytest.mark.parametrize("blocks", [1, 2])
def test_without_the_last_activation_the_head_sees_what_it_would_be_given(blocks: int) -> None:
    usual, bare = (unet(decoder_blocks=blocks, last_activation=last) for last in (True, False))
    seen: list[Tensor] = []
    bare.heads[0].register_forward_hook(lambda module, args, output: seen.append(args[0]))
    image = noise(1, 1, 8, 8)
    with torch.no_grad():
        bare(image)
        assert (seen[0] < -0.1).any()
        torch.testing.assert_close(usual(image)[0], usual.heads[0](nn.functional.leaky_relu(seen[0], 0.01)))


def test_size_of_the_plan_of_nnunet_for_hippocampus() -> None:
    network = unet(3, 3, base_channels=32, max_channels=320, downsampling="strided", deep_supervision=True)
    assert plain_formula(27, 8, 1, 3, [32, 64, 128, 256]) == 5_603_177  # as dynamic-network-architectures 0.4.4 counts
    assert counted(network) == 5_603_177


def test_size_of_a_plan_of_nnunet_in_2d() -> None:
    network = unet(2, 5, in_channels=3, out_channels=2, base_channels=32, max_channels=512, deep_supervision=True)
    assert plain_formula(9, 4, 3, 2, [32, 64, 128, 256, 512, 512]) == 20_619_658
    assert counted(network) == 20_619_658


def test_size_of_a_residual_encoder_of_nnunet() -> None:
    network = unet(
        3,
        3,
        in_channels=2,
        base_channels=8,
        max_channels=32,
        strides=[[1, 2, 2], [2, 2, 2], [2, 2, 2]],
        kernel_sizes=[[1, 3, 3], 3, 3, 3],
        blocks=[1, 3, 4, 2],
        decoder_blocks=1,
        residual=True,
        downsampling="strided",
        deep_supervision=True,
    )
    assert counted(network) == 442_985  # as dynamic-network-architectures 0.4.4 counts


# Paths


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_skip_reaches_the_output(level: int) -> None:
    network, image = unet(depth=3), noise(1, 1, 16, 16)

    def without_skip(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        half = inputs[0].shape[1] // 2
        return torch.cat([inputs[0][:, :half], torch.zeros_like(inputs[0][:, half:])], dim=1)

    before = network(image)[0]
    with network.decoder[level].register_forward_pre_hook(without_skip):
        assert (network(image)[0] - before).abs().max() > 1e-3
    torch.testing.assert_close(network(image)[0], before)


def test_a_corner_pixel_reaches_the_output_through_the_skip_alone() -> None:
    network, image = unet(depth=2, norm="none"), noise(1, 1, 16, 16)
    network.up[0].register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    moved = image.clone()
    moved[0, 0, 0, 0] += 1
    change = (network(moved)[0] - network(image)[0]).abs().amax((0, 1))
    assert change[0, 0] > 0
    assert change[5:].max() == 0, "four 3x3 convolutions reach four pixels far, and no further"
    assert change[:, 5:].max() == 0


@pytest.mark.parametrize("residual", [False, True])
def test_gradients_reach_every_parameter(residual: bool) -> None:
    network = unet(3, 2, residual=residual, deep_supervision=True, norm="none")
    sum(output.square().sum() for output in network(noise(2, 1, 8, 8, 8))).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_a_residual_network_starts_as_its_shortcuts() -> None:
    block = unet(depth=1, residual=True, base_channels=4).encoder[0][1]
    features = noise(1, 4, 8, 8)
    torch.testing.assert_close(block(features), nn.functional.leaky_relu(features, 0.01))


def test_the_shortcut_pools_and_projects() -> None:
    block = unet(depth=1, residual=True, downsampling="strided").encoder[1][0]
    pool, projection, norm = block.shortcut
    assert (pool.stride, projection.bias) == ((2, 2), None)
    assert isinstance(norm, nn.InstanceNorm2d)


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 4)])
def test_pooling_by_blocks_is_pooling(kind: str, stride: tuple[int, ...]) -> None:
    image = noise(2, 3, 4, 6, 8).requires_grad_()
    theirs = (nn.AvgPool3d if kind == "avg" else nn.MaxPool3d)(stride)(image)
    for pooled in (pooled_by_blocks(image, kind, stride), Pool(kind, stride)(image)):
        torch.testing.assert_close(pooled, theirs)
        weights = torch.linspace(-1, 1, pooled.numel()).reshape(pooled.shape)
        gradients = [torch.autograd.grad((each * weights).sum(), image, retain_graph=True) for each in (pooled, theirs)]
        torch.testing.assert_close(*gradients)


# Options


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_norm_and_activation_trains(norm: str, activation: str) -> None:
    network = unet(norm=norm, activation=activation, residual=True)
    network(noise(2, 1, 16, 16))[0].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_dropout_acts_in_training_alone() -> None:
    network, image = unet(dropout=0.5), noise(1, 1, 16, 16)
    torch.manual_seed(0)
    assert not torch.equal(network(image)[0], network(image)[0])
    network.eval()
    assert torch.equal(network(image)[0], network(image)[0])


def test_weights_come_from_the_generator_and_have_the_variance_of_he() -> None:
    first, second = unet(base_channels=32, max_channels=64), unet(base_channels=32, max_channels=64)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weight = first.encoder[1][2][0].weight  # (64, 64, 3, 3)
    assert weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (64 * 9)) ** 0.5, rel=0.03)


def test_half_precision_and_whole_graph_compilation() -> None:
    network, image = unet(deep_supervision=True), noise(1, 1, 16, 16)
    expected = network(image)
    compiled = torch.compile(network, backend="eager", fullgraph=True)(image)
    torch.testing.assert_close(compiled, expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(image)[0].float(), expected[0], atol=0.1, rtol=0.1)


# Refusals


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 1, 16, 12), ["16 x 12", "multiple of 8 x 8", "16 x 8"]),
        ((1, 1, 8, 8), ["8 x 8", "smallest input that works is 16 x 8", "Pad the input, or lower model.depth"]),
        ((1, 1, 4, 4), ["depth 3", "4 x 4"]),
        ((1, 2, 16, 16), ["(1, 2, 16, 16)", "1 channels"]),
        ((1, 1, 16, 16, 16), ["2 spatial axes"]),
    ],
)
def test_an_input_that_does_not_fit_is_refused(shape: tuple[int, ...], words: list[str]) -> None:
    with pytest.raises(MedsegError) as refused:
        unet(depth=3)(torch.zeros(shape))
    assert [word for word in words if word not in str(refused.value)] == []


def test_without_a_norm_one_voxel_at_the_bottom_is_enough() -> None:
    network = unet(depth=3, norm="none")
    assert network.smallest == (8, 8)
    assert network(noise(1, 1, 8, 8))[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": 4, "depth": 8, "in_channels": 0}, ["dims is 4", "depth is 8; allowed: 1 to 7", "channels is 0"]),
        ({"depth": None}, ["depth is None"]),
        ({"dropout": 1.0}, ["dropout is 1.0"]),
        ({"norm": "instnce"}, ["'instnce'", "Did you mean 'instance'?"]),
        ({"activation": "tanh", "downsampling": "mean"}, ["leaky_relu", "max_pool, strided"]),
        ({"strides": [[2, 2]]}, ["model.strides", "2 entries"]),
        ({"strides": [[2, 2, 2], [2, 2, 2]]}, ["a list of 2"]),
        ({"kernel_sizes": [3, 3, 2]}, ["level 2", "odd"]),
        ({"blocks": [1, 2]}, ["model.blocks", "3 numbers"]),
        ({"decoder_blocks": 0}, ["model.decoder_blocks"]),
        ({"channels": [4, 8]}, ["model.channels", "3 numbers"]),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(MedsegError) as refused:
        unet(**options)
    assert [word for word in words if word not in str(refused.value)] == []


def test_the_config_names_every_argument_and_no_other() -> None:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf/model/unet.yaml")
    assert set(config) - {"_target_"} == set(inspect.signature(UNet).parameters)
