"""nnU-Net's checkpoints and networks, against networks made anew with nnU-Net's names and files with traps in them."""

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.inference.nnunet.network import make_network, read_trained
from medseg.inference.nnunet.plans import Plan, with_architecture


def plan_of(architecture):
    arguments = architecture["arch_kwargs"]
    settings = {"architecture": architecture, "patch_size": [8] * len(arguments["strides"][0])}
    return Plan(Path("model/plans.json"), "3d_fullres", settings, (0, 1, 2), "SimpleITKIO", {}, False)


def made(architecture, weights, **options):
    return make_network(plan_of(architecture), 2, 3, weights, **{"batch_norm": False, **options}).eval()


def outputs(network, dims, **options):
    image = torch.randn(2, 2, *[8] * dims, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return network(image, **options)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True], ids=["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("changes", [{}, {"conv_bias": False}], ids=["", "without biases"])
def test_same_logits(nnunet, dims, residual, changes):
    architecture = nnunet.architecture(dims, residual=residual, **changes)
    reference = nnunet.network(architecture["arch_kwargs"], 2, 3)
    (found,) = outputs(made(architecture, reference.state_dict()), dims)
    expected = outputs(reference, dims)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_batch_norm_of_its_trainer(nnunet):
    architecture = nnunet.architecture()
    own = nnunet.architecture(norm="batchnorm.BatchNorm")  # the plan says InstanceNorm, the trainer made it this
    reference = nnunet.network(own["arch_kwargs"], 2, 3)
    (found,) = outputs(made(architecture, reference.state_dict(), batch_norm=True), 3)
    torch.testing.assert_close(found, outputs(reference, 3), atol=1e-5, rtol=1e-5)


def test_plans_before_2_4(nnunet):
    architecture = nnunet.architecture(features_per_stage=[4, 8, 9])
    given = architecture["arch_kwargs"]
    old = {
        "UNet_class_name": "PlainConvUNet",
        "patch_size": [8, 8, 8],
        "UNet_base_num_features": 4,
        "unet_max_num_features": 9,
        "n_conv_per_stage_encoder": given["n_conv_per_stage"],
        "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
        "pool_op_kernel_sizes": given["strides"],
        "conv_kernel_sizes": given["kernel_sizes"],
    }
    reference = nnunet.network(given, 2, 3)
    read = with_architecture(old, Path("plans.json"))["architecture"]
    torch.testing.assert_close(outputs(made(read, reference.state_dict()), 3)[0], outputs(reference, 3))


def left_over(weights):
    return {**weights, "encoder.stages.2.0.convs.2.conv.weight": torch.zeros(8, 8, 3, 3, 3)}


def missing(weights):
    return {key: value for key, value in weights.items() if "seg_layers.0" not in key}


def missing_bias(weights):
    return {key: value for key, value in weights.items() if "transpconvs.0.bias" not in key}


def strange(weights):
    return {**weights, "encoder.attention.weight": torch.zeros(1)}


def contradicting(weights):
    return {**weights, "encoder.stages.0.0.convs.0.all_modules.0.weight": torch.zeros(4, 2, 1, 3, 3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (left_over, "encoder.2.2.0.weight has no place"),
        (missing, "heads.1.weight is missing"),
        (missing_bias, "up.1.bias is missing"),
        (strange, "encoder.attention.weight has no place"),
        (contradicting, "all_modules.0.weight differs from encoder.stages.0.0.convs.0.conv.weight"),
    ],
)
def test_every_weight_has_its_place(nnunet, change, words):
    architecture = nnunet.architecture()
    weights = nnunet.network(architecture["arch_kwargs"], 2, 3).state_dict()
    with pytest.raises(MedsegError, match=words):
        made(architecture, change(weights))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nonlin_first": True}, "nonlin_first=True"),
        ({"nonlin": "torch.nn.ELU"}, "nonlin=torch.nn.ELU"),
        ({"nonlin_kwargs": {"negative_slope": 0.2}}, "nonlin_kwargs.negative_slope=0.2"),
        ({"norm_op_kwargs": {"eps": 0.001, "affine": True}}, "norm_op_kwargs.eps=0.001"),
        ({"norm_op": "torch.nn.GroupNorm"}, "norm_op=torch.nn.GroupNorm"),
        ({"squeeze_excitation": True}, "squeeze_excitation=True"),
        ({"strides": [[2, 2, 2], [1, 2, 2], [2, 2, 2]]}, "strides of the first stage"),
    ],
)
def test_options_that_the_u_net_lacks(nnunet, changes, words):
    with pytest.raises(MedsegError, match=words):
        made(nnunet.architecture(**changes), {})


def test_options_that_are_missing(nnunet):
    architecture = nnunet.architecture()
    del architecture["arch_kwargs"]["n_stages"]
    with pytest.raises(MedsegError, match="n_stages is missing"):
        made(architecture, {})


def test_other_networks(nnunet):
    architecture = nnunet.architecture() | {"network_class_name": "mine.PlainConvUNet"}
    with pytest.raises(MedsegError, match=r"the network is mine.PlainConvUNet; .* are read"):
        made(architecture, {})


CONTENT = {
    "network_weights": {"a.weight": torch.arange(3.0)},
    "trainer_name": "nnUNetTrainer",
    "init_args": {"configuration": "2d"},
    "inference_allowed_mirroring_axes": (0, 1),
    "logging": {"dice": [np.float64(0.5), np.float32(0.25)]},
}


class Evil:
    def __reduce__(self):
        return print, ("code of the file was run",)


def saved(folder, content):
    torch.save(content, folder / "checkpoint_final.pth")
    return folder / "checkpoint_final.pth"


def test_read(tmp_path):
    found = read_trained(saved(tmp_path, CONTENT))
    assert (found.trainer, found.configuration, found.mirror_axes) == ("nnUNetTrainer", "2d", (0, 1))
    assert found.weights["a.weight"].tolist() == [0, 1, 2]


def test_numbers_of_numpy_1(tmp_path):
    path = saved(tmp_path, CONTENT)
    with ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert any(b"numpy._core.multiarray" in data for data in members.values())
    with ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_trained(path).trainer == "nnUNetTrainer"


@pytest.mark.parametrize("place", ["logging", "anything"])
def test_no_code_is_run(tmp_path, capsys, place):
    with pytest.raises(MedsegError, match="not a checkpoint that can be loaded safely"):
        read_trained(saved(tmp_path, {**CONTENT, place: Evil()}))
    assert capsys.readouterr().out == ""


def test_other_files(tmp_path):
    with pytest.raises(MedsegError, match="no checkpoint of nnU-Net v2"):
        read_trained(saved(tmp_path, {"state_dict": {}}))
    (tmp_path / "checkpoint_best.pth").write_bytes(b"no zip")
    with pytest.raises(MedsegError, match="not a checkpoint"):
        read_trained(tmp_path / "checkpoint_best.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    path = saved(tmp_path, CONTENT | {"network_weights": {"a.weight": torch.tensor([1.0, value])}})
    with pytest.raises(MedsegError, match=r"1 of its 1 weights hold NaN or infinity \(a.weight\)"):
        read_trained(path)
