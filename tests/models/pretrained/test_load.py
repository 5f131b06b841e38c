"""Published weights in their own formats: against MONAI's own loaders, and by names and shapes at full size."""

from typing import Any

import pytest
import torch
import yaml
from monai.networks import nets
from monai.networks.nets import efficientnet, resnet
from monai.networks.nets.swin_unetr import SwinTransformer, filter_swinunetr
from monai.networks.utils import copy_model_state
from published_files import LAYERS, drawn, torchvision_shapes
from torch import Tensor, nn

from medseg.config.instantiate import build
from medseg.config.schema import CONF, arguments
from medseg.errors import MedsegError
from medseg.models.pretrained.catalogue import PUBLISHED, published
from medseg.models.pretrained.load import fitted, folded, inflated, load_published, read_weights

TARGET = "medseg.models.monai."


def model(name: str, dims: int, channels: int = 1, **given: Any) -> dict[str, Any]:
    usual = {"spatial_dims": dims, "in_channels": channels, "out_channels": 2, "input_size": [32] * dims}
    return {"_target_": f"{TARGET}{name}", **usual, "base_channels": 12, "normalize": ["zscore"] * channels, **given}


def flexible(backbone: str, pretrained: str, dims: int, channels: int = 3, **given: Any) -> dict[str, Any]:
    return model("flexible_unet", dims, channels, backbone=backbone, pretrained=pretrained, **given)


def saved(tmp_path, content) -> Any:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    return path


def loaded(node: dict[str, Any], file) -> tuple[nn.Module, list[str]]:
    torch.manual_seed(0)
    network = build(node, "model", ())
    return network, load_published([network], node, file)


def begun(node: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: value.clone() for name, value in build(node, "model", ()).state_dict().items()}


# Against MONAI's own loaders


def test_resnets_of_imagenet_have_torchvision_s_names(tmp_path):
    state = drawn(torchvision_shapes("resnet18"))
    network, _ = loaded(flexible("resnet18", "imagenet", 2), saved(tmp_path, state))
    ours = network.encoder.state_dict()
    taken = {name: value for name, value in state.items() if not name.startswith("fc.")}
    assert {name for name in ours if "num_batches" not in name} == taken.keys()
    for name, value in taken.items():
        assert torch.equal(ours[name], value), name


def test_a_resnet_of_imagenet_computes_what_a_resnet_does(tmp_path):
    """He et al., arXiv 1512.03385: written down with PyTorch's functions, from the names of the file alone."""
    state = drawn(torchvision_shapes("resnet18"))
    network, _ = loaded(flexible("resnet18", "imagenet", 2), saved(tmp_path, state))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def conv(x, name, stride=1, padding=0):
        return nn.functional.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    def norm(x, name):
        values = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return nn.functional.batch_norm(x, *values, eps=1e-5)

    maps = [norm(conv(image, "conv1", 2, 3), "bn1").relu()]
    x = nn.functional.max_pool2d(maps[0], 3, 2, 1)
    for stage in range(1, 5):
        for block in range(2):
            place, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(conv(x, f"{place}.conv1", stride, 1), f"{place}.bn1").relu()
            y = norm(conv(y, f"{place}.conv2", 1, 1), f"{place}.bn2")
            way = f"{place}.downsample"
            x = (y + (norm(conv(x, f"{way}.0", stride), f"{way}.1") if stride == 2 else x)).relu()
        maps.append(x)
    with torch.no_grad():
        found = network.eval().encoder(image)
    for ours, expected in zip(found, maps, strict=True):
        torch.testing.assert_close(ours, expected)


def test_efficientnets_are_loaded_as_monai_does(tmp_path, monkeypatch):
    def theirs(name):  # EfficientNet-PyTorch counts blocks through, MONAI puts them into stages
        parts = name.split(".")
        return ".".join([parts[0], *parts[2:]] if parts[0] == "_blocks" else parts)

    own = nets.EfficientNetBN("efficientnet-b0", pretrained=False).state_dict()
    state = drawn({theirs(name): tuple(value.shape) for name, value in own.items() if value.is_floating_point()})
    monkeypatch.setattr(efficientnet.model_zoo, "load_url", lambda *_, **__: state)
    expected = nets.EfficientNetBN("efficientnet-b0", pretrained=True).state_dict()
    network, _ = loaded(flexible("efficientnet-b0", "imagenet", 2), saved(tmp_path, state))
    for name, value in network.encoder.state_dict().items():
        if value.is_floating_point() and not name.startswith(("_fc", "_conv_head", "_bn1")):
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("backbone", ["resnet10", "resnet18"])
def test_medicalnet_is_loaded_as_monai_does(tmp_path, monkeypatch, backbone):
    own = resnet.ResNetFeatures(backbone, pretrained=False).state_dict()
    state = {f"module.{name}": torch.full_like(value, 0.01 * place) for place, (name, value) in enumerate(own.items())}
    if backbone == "resnet10":
        assert len(state) == 72  # of the published file
    monkeypatch.setattr(resnet, "get_pretrained_resnet_medicalnet", lambda *_, **__: dict(state))
    expected = resnet.ResNetFeatures(backbone, pretrained=True).state_dict()
    file = saved(tmp_path, {"state_dict": state, "epoch": 3, "optimizer": {}})
    network, lines = loaded(flexible(backbone, "medicalnet", 3, 1), file)
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert "first convolution: as it is, for grey" in lines


def test_swinvit_is_loaded_as_monai_does(tmp_path):
    own = nets.SwinUNETR(1, 2, feature_size=12).swinViT.state_dict()
    shapes = {f"module.{name.replace('linear', 'fc')}": tuple(value.shape) for name, value in own.items()}
    state = drawn(shapes | {"module.rotation_head.weight": (4, 192)})
    state |= {f"module.{name}": value for name, value in own.items() if name.endswith("position_index")}
    file = saved(tmp_path, {"epoch": 0, "state_dict": state, "optimizer": {"param_groups": []}})
    reference = nets.SwinUNETR(1, 2, feature_size=12)
    reference.load_from({"state_dict": state})
    network, _ = loaded(model("swin_unetr", 3, pretrained="swinvit"), file)
    for name, value in network.swinViT.state_dict().items():
        assert torch.equal(value, reference.swinViT.state_dict()[name]), name


def test_disruptive_autoencoders_are_loaded_as_monai_does(tmp_path):
    own = nets.SwinUNETR(1, 2, feature_size=12).swinViT.state_dict()

    def theirs(name):
        return f"encoder.{name}" if "patch_embed" in name else f"encoder.{name[:10]}0.{name[10:]}"

    state = drawn({theirs(name): tuple(value.shape) for name, value in own.items() if value.is_floating_point()})
    state |= {"encoder.mask_token": torch.zeros(1), "encoder.norm.weight": torch.zeros(192)}
    reference = nets.SwinUNETR(1, 2, feature_size=12)
    expected, _, _ = copy_model_state(reference, state, filter_func=filter_swinunetr)
    network, _ = loaded(model("swin_unetr", 3, pretrained="dae"), saved(tmp_path, {"model": state}))
    for name, value in network.swinViT.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, expected[f"swinViT.{name}"]), name


@pytest.mark.parametrize(
    ("name", "pretrained", "theirs", "head"),
    [
        ("swin_unetr", "btcv", nets.SwinUNETR(1, 14, feature_size=12), "out."),
        (
            "segresnet",
            "brats_mri",
            nets.SegResNet(init_filters=16, in_channels=4, out_channels=3, dropout_prob=0.2),
            "conv_final.2.",
        ),
        (
            "segresnet",
            "wholebody_ct",
            nets.SegResNet(init_filters=16, in_channels=1, out_channels=105, dropout_prob=0.2),
            "conv_final.2.",
        ),
    ],
    ids=["btcv", "brats_mri", "wholebody_ct"],
)
def test_bundles_give_all_but_the_head(tmp_path, name, pretrained, theirs, head):
    channels = 4 if pretrained == "brats_mri" else 1
    size = {"depth": 3, "base_channels": 16} if name == "segresnet" else {}
    node = model(name, 3, channels, pretrained=pretrained, **size)
    network, _ = loaded(node, saved(tmp_path, theirs.state_dict()))
    before = begun(node)
    for key, value in network.state_dict().items():
        assert torch.equal(value, (before if key.startswith(head) else theirs.state_dict())[key]), key


# At full size, by names and shapes


@pytest.mark.parametrize(
    ("backbone", "weights"),
    [  # as torchvision's documentation counts them
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ],
)
@pytest.mark.parametrize(("dims", "channels"), [(2, 3), (2, 1), (3, 4)])
def test_every_weight_of_imagenet_s_resnets_has_a_place(backbone, weights, dims, channels):
    shapes = torchvision_shapes(backbone)
    learned = [shape for name, shape in shapes.items() if "running" not in name]
    assert sum(torch.Size(shape).numel() for shape in learned) == weights
    taken = fitted_on_meta(flexible(backbone, "imagenet", dims, channels), shapes)
    used = {published(flexible(backbone, "imagenet", dims)).theirs(name) for name in taken}
    assert shapes.keys() - used == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("backbone", [f"efficientnet-b{size}" for size in range(8)])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_weight_of_imagenet_s_efficientnets_has_a_place(backbone, dims):
    with torch.device("meta"):
        own = nets.EfficientNetBN(backbone, pretrained=False).state_dict()
    shapes = {"_blocks." + name.split(".", 2)[2] if name.startswith("_blocks.") else name: tuple(value.shape)
              for name, value in own.items() if value.is_floating_point()}  # fmt: skip
    taken = fitted_on_meta(flexible(backbone, "imagenet", dims, 2), shapes)
    used = {published(flexible(backbone, "imagenet", dims)).theirs(name) for name in taken}
    assert {name.split(".")[0] for name in shapes.keys() - used} == {"_fc", "_conv_head", "_bn1"}


@pytest.mark.parametrize("backbone", list(resnet.resnet_params))
def test_every_weight_of_medicalnet_has_a_place(backbone):
    with torch.device("meta"):
        own = resnet.ResNetFeatures(backbone, pretrained=False).state_dict()
    shapes = {name: tuple(value.shape) for name, value in own.items() if value.is_floating_point()}
    assert len(fitted_on_meta(flexible(backbone, "medicalnet", 3, 2), shapes)) == len(shapes)


def test_every_weight_of_swinvit_has_a_place():
    size = {"embed_dim": 48, "window_size": (7,) * 3, "patch_size": (2,) * 3}
    own = SwinTransformer(1, depths=(2,) * 4, num_heads=(3, 6, 12, 24), **size).state_dict()
    state = {name.replace("linear", "fc"): value for name, value in own.items()}
    node = model("swin_unetr", 3, pretrained="swinvit", base_channels=48)
    taken = fitted(build(node, "model", ()), published(node), state, "test")
    assert {published(node).theirs(name) for name in taken} == state.keys()


def fitted_on_meta(node: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    with torch.device("meta"):
        network, state = build(node, "model", ()), {name: torch.empty(shape) for name, shape in shapes.items()}
    return fitted(network, published(node), state, "test")


def test_the_table_names_what_the_code_knows():
    table = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "weights").glob("*.yaml")}
    named = {network: set(names) for file in table.values() for network, names in file["published"].items()}
    encoders = {name: names for name, names in named.items() if name not in ("swin_unetr", "segresnet")}
    assert named.keys() - encoders.keys() == {"swin_unetr", "segresnet"}
    for network in ("swin_unetr", "segresnet"):
        assert named[network] == set(PUBLISHED[TARGET + network])
    assert set().union(*encoders.values()) == set(PUBLISHED[f"{TARGET}flexible_unet"])
    for target, names in PUBLISHED.items():
        assert arguments()[target]["pretrained"].allowed == tuple(names)


def test_addresses_are_those_of_the_sources():
    table = yaml.safe_load((CONF / "weights" / "encoders.yaml").read_text())["published"]
    for name, url in efficientnet.url_map.items():
        if name.startswith("efficientnet"):
            assert table[name]["imagenet"]["url"] == url
    for name in LAYERS:  # PyTorch's names end in the beginning of the checksum
        entry = table[name]["imagenet"]
        assert entry["url"].endswith(f"{name}-{entry['checksum'].removeprefix('sha256:')}.pth")
    for name, (*_, has_more) in resnet.resnet_params.items():  # trained on 23 data sets where there is such a file
        depth, ending = name.removeprefix("resnet"), "_23dataset" if has_more else ""
        base = f"{resnet.MEDICALNET_HUGGINGFACE_REPO_BASENAME}{depth}/resolve/main/"
        file = f"{resnet.MEDICALNET_HUGGINGFACE_FILES_BASENAME}{depth}{ending}.pth"
        assert table[name]["medicalnet"]["url"] == f"https://huggingface.co/{base}{file}"


# Channels and dimensions


def test_folded_by_hand():
    kernel = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    assert folded(kernel, 3) is kernel
    assert folded(kernel, 1).flatten().tolist() == [9.0]
    assert folded(kernel, 2).flatten().tolist() == [4.5, 4.5]
    assert folded(kernel, 4).flatten().tolist() == [2.25] * 4


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_folded_convolution_sees_equal_channels_as_a_grey_picture(channels):
    kernel, grey = torch.randn(5, 3, 3, 3), torch.randn(1, 1, 8, 8)
    expected = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), kernel)
    found = nn.functional.conv2d(grey.expand(-1, channels, -1, -1), folded(kernel, channels))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 3, 7])
def test_an_inflated_convolution_sees_a_volume_constant_in_depth_as_a_picture(depth):
    kernel, picture = torch.randn(5, 2, 3, 3), torch.randn(1, 2, 8, 8)
    volume = picture.unsqueeze(-1).expand(*picture.shape, depth + 2)
    expected = nn.functional.conv2d(picture, kernel, padding=1).unsqueeze(-1)
    found = nn.functional.conv3d(volume, inflated(kernel, depth), padding=(1, 1, 0))
    torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-4, atol=1e-4)


def test_what_was_done_is_said(tmp_path):
    file = saved(tmp_path, drawn(torchvision_shapes("resnet18")))
    _, lines = loaded(flexible("resnet18", "imagenet", 3, 4, normalize=["zscore", "zscore", "unit", "unit"]), file)
    assert lines == [
        "weights: imagenet for 87% of the network, all of encoder",
        "first convolution: the mean over red, green, blue, times 3/4, for each of 4 channels",
        "2D kernels inflated to 3D: repeated along the last axis, divided by their depth",
        "input: normalised by zscore, unit; brought to the scale 'standard' of the weights by "
        "1.000 x +0.000, 4.425 x -1.987",
    ]


def test_the_decoder_begins_at_random(tmp_path):
    node = flexible("resnet18", "imagenet", 2)
    network, _ = loaded(node, saved(tmp_path, drawn(torchvision_shapes("resnet18"))))
    before = begun(node)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) != (name.startswith("encoder.") and value.is_floating_point()), name


# Refusals


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            drawn({"layer1.0.conv1.weight": (64, 64, 3, 3), "conv9.weight": (1, 1, 3, 3)}),
            "(?s)do not fit.*has no conv1",
        ),
        (drawn(torchvision_shapes("resnet50")), r"(?s)do not fit.*layer1.0.conv1.weight: \(64, 64, 1, 1\) in the file"),
        ([1, 2], "without weights by name"),
        ({"epoch": 3}, "without weights by name"),
        ({"state_dict": {"a": nn.Linear(1, 1)}}, "not a checkpoint that can be loaded safely"),
    ],
    ids=["other names", "other depth", "a list", "no weights", "code"],
)
def test_another_file_is_refused(tmp_path, content, says):
    with pytest.raises(MedsegError, match=says):
        loaded(flexible("resnet18", "imagenet", 2), saved(tmp_path, content))


def test_a_file_that_is_no_pytorch_file_is_refused(tmp_path):
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(MedsegError, match=r"page\.pth: not a checkpoint that can be loaded safely"):
        read_weights(tmp_path / "page.pth")


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (flexible("resnet18", "medicalnet", 2, 1), "the weights of a 3D network; model.spatial_dims is 2"),
        (flexible("resnet18", "imagnet", 2), "Did you mean 'imagenet'"),
        (model("swin_unetr", 2, pretrained="swinvit"), "the weights of a 3D network"),
    ],
)
def test_weights_that_the_network_cannot_have_are_refused(node, says):
    with pytest.raises(MedsegError, match=says):
        build(node, "model", ())
