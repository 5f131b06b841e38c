"""Weights put into another network: what fits, what is made to fit, and that nothing else is taken."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import conv3d

from medseg.config.instantiate import build
from medseg.errors import MedsegError
from medseg.training.transfer.sources import Source
from medseg.training.transfer.transfer import read_whole, transfer_weights, write_report

CLASSES = ("background", "edema", "core", "enhancing")


def spec_of(**changes):
    common = {"_target_": "medseg.models.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 4, "depth": 2}
    return {**common, "base_channels": 4, **changes}


def source_of(spec, outputs=CLASSES, *, regions=False, prefix=""):
    torch.manual_seed(1)
    weights = {
        prefix + name: torch.randn_like(value) if value.is_floating_point() else value + 7
        for name, value in build(spec, "model", ()).state_dict().items()
    }
    return Source(Path("there.ckpt"), weights, outputs, regions)


def taken(spec, source, outputs=CLASSES, *, regions=False):
    torch.manual_seed(2)
    network = build(spec, "model", ())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    transfer = transfer_weights(network, spec, source, outputs, regions=regions)
    transfer.put_into(network)
    return transfer, network.state_dict(), before


def test_the_same_network_takes_everything():
    source = source_of(spec_of())
    transfer, after, _ = taken(spec_of(), source)
    assert transfer.share == 1
    assert not transfer.skipped
    assert all(torch.equal(after[name], value) for name, value in source.weights.items())


@pytest.mark.parametrize(("theirs", "ours"), [(2, 1), (4, 3), (1, 3)])
def test_other_channels_answer_alike_to_channels_that_are_alike(theirs, ours):
    key = "encoder.0.0.0.weight"
    source = source_of(spec_of(in_channels=theirs))
    transfer, after, _ = taken(spec_of(in_channels=ours), source)
    image = torch.randn(1, 1, 6, 6, 6)
    there = conv3d(image.expand(1, theirs, 6, 6, 6), source.weights[key])
    here = conv3d(image.expand(1, ours, 6, 6, 6), after[key])
    torch.testing.assert_close(here, there)
    assert transfer.share == 1
    assert f"{theirs} channels to {ours}" in transfer.weights[key].how


def test_rows_of_a_head_follow_the_names_of_classes():
    source = source_of(spec_of())
    outputs = ("background", "enhancing", "cyst")
    transfer, after, before = taken(spec_of(out_channels=3), source, outputs)
    for kind in ("weight", "bias"):
        theirs, here, drawn = (state[f"heads.0.{kind}"] for state in (source.weights, after, before))
        assert torch.equal(here[0], theirs[0])
        assert torch.equal(here[1], theirs[3])
        assert torch.equal(here[2], drawn[2])
    assert "heads.0.weight" not in transfer.whole
    assert 0.99 < transfer.share < 1


@pytest.mark.parametrize(
    ("outputs", "theirs", "regions"),
    [
        (("a", "b", "c", "d"), CLASSES, False),  # as many, but others
        (CLASSES, CLASSES, True),  # regions of the same names
        (CLASSES, (), False),  # pre-trained without classes
    ],
)
def test_a_head_of_nothing_in_common_stays_as_it_was_drawn(outputs, theirs, regions):
    transfer, after, before = taken(spec_of(), source_of(spec_of(), theirs), outputs, regions=regions)
    assert torch.equal(after["heads.0.weight"], before["heads.0.weight"])
    assert [(misfit.key, misfit.reason) for misfit in transfer.skipped] == [
        ("heads.0.weight", "other outputs"),
        ("heads.0.bias", "other outputs"),
    ]


def test_without_names_of_classes_a_head_is_taken_by_its_shape():
    assert taken(spec_of(), source_of(spec_of(), None))[0].share == 1
    left = taken(spec_of(out_channels=3), source_of(spec_of(), None), ("a", "b", "c"))[0].skipped
    assert {misfit.key for misfit in left} == {"heads.0.weight", "heads.0.bias"}


def test_a_head_of_two_layers_is_cut_along_both_axes():
    spec = {"_target_": "medseg.models.monai.vnet", "spatial_dims": 2, "in_channels": 1, "input_size": [16, 16]}
    source = source_of(spec | {"out_channels": 3}, ("a", "b", "c"))
    key = "out_tr.conv2.weight"  # from classes to classes
    _, after, before = taken(spec | {"out_channels": 2}, source, ("c", "new"))
    assert torch.equal(after[key][0, 0], source.weights[key][2, 2])
    assert torch.equal(after[key][1], before[key][1])
    assert torch.equal(after[key][0, 1], before[key][0, 1])


@pytest.mark.parametrize(("theirs", "ours"), [(2, 3), (3, 2)])
def test_of_two_depths_the_finest_levels_are_taken(theirs, ours):
    source = source_of(spec_of(depth=theirs))
    transfer, after, _ = taken(spec_of(depth=ours), source)
    for name in ("encoder.0", "encoder.2", "up.1", "decoder.0", "heads.0"):
        keys = [key for key in after if key.startswith(f"{name}.")]
        assert keys
        assert all(torch.equal(after[key], source.weights[key]) for key in keys)
    odd = [misfit for misfit in transfer.skipped if misfit.key.startswith("encoder.3.")]
    assert odd
    assert all((misfit.theirs is None) == (theirs < ours) for misfit in odd)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "network.", "model.", "module._orig_mod.network."])
@pytest.mark.parametrize("model", ["unet", "attention_unet"])  # the latter's own names begin with "model."
def test_prefixes_of_wrappers_are_taken_off(prefix, model):
    attention = {"_target_": "medseg.models.monai.attention_unet", "strides": [2, 2]}
    spec = spec_of(**attention) if model == "attention_unet" else spec_of()
    transfer, *_ = taken(spec, source_of(spec, prefix=prefix))
    assert transfer.share == 1
    assert not transfer.skipped


def test_what_does_not_fit_is_written_down(tmp_path):
    source = source_of(spec_of(base_channels=8))
    source.weights["encoder.0.0.1.bias"] = torch.zeros(4)
    transfer, *_ = taken(spec_of(), source)
    write_report(tmp_path / "finetune.json", transfer, source)
    assert read_whole(tmp_path / "finetune.json") == ["encoder.0.0.1.bias", "heads.0.bias"]
    misfit = next(each for each in transfer.skipped if each.key == "encoder.0.0.0.weight")
    assert misfit.theirs == (8, 1, 3, 3, 3)
    assert misfit.ours == (4, 1, 3, 3, 3)


def test_nothing_taken_is_an_error_that_says_what_there_is():
    source = Source(Path("other.pth"), {"fc.weight": torch.zeros(3, 3)})
    with pytest.raises(MedsegError, match=r"(?s)other\.pth: none of its 1 weights fits .*UNet.*fc\.weight"):
        transfer_weights(build(spec_of(), "model", ()), spec_of(), source, CLASSES, regions=False)


def test_looking_at_other_networks_draws_no_random_numbers():
    network, source = build(spec_of(), "model", ()), source_of(spec_of())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    transfer_weights(network, spec_of(), source, CLASSES, regions=False)
    assert torch.equal(torch.rand(1), expected)


def test_running_statistics_are_taken_and_half_precision_is_widened():
    spec = spec_of(norm="batch")
    source = source_of(spec)
    halved = {key: value.half() if value.is_floating_point() else value for key, value in source.weights.items()}
    _, after, _ = taken(spec, Source(source.path, halved, CLASSES))
    key = "encoder.0.0.1.running_mean"
    assert torch.equal(after[key], source.weights[key].half().float())
    assert isinstance(build(spec, "model", ()).get_submodule("encoder.0.0.1"), nn.BatchNorm3d)
