"""ONNX files against onnxruntime and NumPy alone, and against the checkpoints that they were made of."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import medseg
from medseg.config.instantiate import build
from medseg.errors import MedsegError
from medseg.inference.checkpoint import read_checkpoint
from medseg.inference.loading import read_models
from medseg.inference.onnx import export
from medseg.inference.onnx.agreement import Agreement, agreement
from medseg.inference.onnx.export import write_onnx
from medseg.inference.onnx.runtime import open_session, read_onnx
from medseg.inference.predictor import Predictor
from medseg.io.case import Scan
from medseg.io.labels import LabelMap
from medseg.models import UNet
from medseg.preprocessing.preprocessor import Preprocessor

CLASSES = {"background": 0, "organ": 7, "Läsion": 255}
REGIONS = {"all": ["organ", "Läsion"], "core": ["Läsion"]}
PREPROCESSING = {
    "resize": None, "crop": True, "normalize": ["zscore", "none"], "window": None, "denoise": None,
    "denoise_strength": 1.0,
}  # fmt: skip


def network_of(kind, seed):
    """A U-Net of two levels with random weights, which has deep supervision in training."""
    torch.manual_seed(seed)
    dims = 3 if kind == "3d" else 2
    channels = 2 * 3 if kind == "2.5d" else 2
    outputs = 2 if kind == "regions" else 3
    arguments = {
        "spatial_dims": dims, "in_channels": channels, "out_channels": outputs, "depth": 2, "base_channels": 4,
        "deep_supervision": True,
    }  # fmt: skip
    return UNet(**arguments), {"_target_": "medseg.models.UNet", **arguments}


def write_checkpoint(path, kind, seed=0, loud=1.0, patch=16, **changes):
    """A checkpoint as medseg writes it, of a network with random weights whose logits are ``loud`` times as large."""
    network, model = network_of(kind, seed)
    with torch.no_grad():
        network.heads[0].weight.mul_(loud)
    dims = 2 if kind in ("2d", "regions") else 3  # of the images
    config = {
        "model": model,
        "preprocessing": PREPROCESSING | {"spacing": [1.0, 1.2, 1.5][:dims]},
        "inference": {"overlap": 0.5, "tta": True, "threshold": None, "batch_size": 3},
        "postprocess": {"largest": False, "min_ml": 0.0, "min_voxels": 0, "fill_holes": False, "smooth_mm": 0.0},
        "trainer": {"precision": "fp32"},
        "plan": {"patch_size": [patch, 16, 8][: model["spatial_dims"]], "mirror_axes": [0], "slice_axis": None}
        | {"context": 0},
        "dataset": {"name": "test", "geometry": "error", "reference": 0},
    }
    config["plan"] |= {"slice_axis": 2, "context": 1} if kind == "2.5d" else {}
    content = {
        "format": 2, "version": "0", "config": config | changes, "channels": [["_t1"], ["_t2"]], "classes": CLASSES,
        "regions": REGIONS if kind == "regions" else None, "region_order": None,
    }  # fmt: skip
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "medseg": content}, path)
    return path


def scan_of(kind):
    shape = (30, 21) if kind in ("2d", "regions") else (20, 18, 9)
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    return Scan(image, np.diag([1.0, 1.2, 1.5, 1.0]))


def patches_of(kind, count):
    return np.random.default_rng(count).normal(size=(count, *SHAPES[kind])).astype(np.float32)


SHAPES = {"2d": (2, 16, 16), "2.5d": (6, 16, 16), "3d": (2, 16, 16, 8), "regions": (2, 16, 16)}


@pytest.fixture(scope="module", params=["2d", "2.5d", "3d"])
def single(request, tmp_path_factory):
    """(kind, checkpoint, ONNX file) of one network."""
    folder = tmp_path_factory.mktemp("single")
    checkpoint = write_checkpoint(folder / "a.ckpt", request.param)
    write_onnx(read_models(checkpoint), folder / "a.onnx")
    return request.param, checkpoint, folder / "a.onnx"


@pytest.fixture(scope="module", params=["3d", "regions"])
def ensemble(request, tmp_path_factory):
    """(kind, checkpoints, ONNX file) of two networks, one of which is very sure of itself."""
    folder = tmp_path_factory.mktemp("ensemble")
    checkpoints = [
        write_checkpoint(folder / f"{seed}.ckpt", request.param, seed=seed, loud=loud)
        for seed, loud in enumerate((1.0, 300.0))
    ]
    write_onnx(read_models(checkpoints), folder / "both.onnx")
    return request.param, checkpoints, folder / "both.onnx"


def run_alone(path, patches):
    """What a program gets that knows onnxruntime only."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": patches})
    return logits


def logits_of(checkpoint, kind, patches):
    """What the network itself says."""
    network, _ = network_of(kind, seed=99)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("network."): value for name, value in state.items()})
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(patches))[0]


def test_the_file_is_valid_whole_and_tells_nothing_of_this_machine(single):
    kind, checkpoint, path = single
    onnx.checker.check_model(path, full_check=True)
    file = onnx.load(path)
    assert {entry.domain for entry in file.opset_import} == {""}  # no operators beyond ONNX's own
    assert not any(onnx.external_data_helper.uses_external_data(tensor) for tensor in file.graph.initializer)
    given, made = (
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (file.graph.input[0], file.graph.output[0])
    )
    assert given == ["batch", *SHAPES[kind]]
    assert made == ["batch", 3, *SHAPES[kind][1:]]
    for folder in (Path(medseg.__file__).parents[1], Path(torch.__file__).parents[1], checkpoint.parent):
        assert str(folder).encode() not in path.read_bytes()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnxruntime_alone_gives_the_networks_logits(single, count):
    kind, checkpoint, path = single
    patches = patches_of(kind, count)
    np.testing.assert_allclose(run_alone(path, patches), logits_of(checkpoint, kind, patches), atol=1e-4)


def test_the_metadata_describe_the_whole_model(single):
    kind, checkpoint, path = single
    entries = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert set(entries) == {"medseg"}
    found, expected = entries["medseg"], read_checkpoint(checkpoint).content  # in the present format
    assert found | {"config": None} == expected | {"config": None, "models": 1, "activation": "softmax"}
    assert found["config"] == expected["config"] | {"trainer": {"precision": "fp32"}}
    model = read_onnx(path)
    assert model.label_map == LabelMap(CLASSES)
    assert model.endings == [["_t1"], ["_t2"]]
    dims = 2 if kind == "2d" else 3
    assert model.preprocessor == Preprocessor(**PREPROCESSING, spacing=[1.0, 1.2, 1.5][:dims])


def test_the_file_predicts_what_the_checkpoint_does(single):
    kind, checkpoint, path = single
    expected = Predictor.load(checkpoint, device="cpu")(scan_of(kind))
    found = Predictor.load(path, device="cpu")(scan_of(kind))
    assert len(np.unique(expected.indices)) == 3
    assert np.mean(found.indices != expected.indices) <= 1e-4
    np.testing.assert_array_equal(found.values, found.label_map.decode(found.indices))


def test_an_ensemble_gives_the_mean_of_probabilities(ensemble):
    kind, checkpoints, path = ensemble
    patches = patches_of(kind, 3)
    logits = torch.from_numpy(run_alone(path, patches))
    each = torch.stack([logits_of(checkpoint, kind, patches) for checkpoint in checkpoints]).double()
    assert each[1].abs().max() > 100  # float32 has no probability of e^-100
    if kind == "regions":
        expected, found = each.sigmoid().mean(0), logits.sigmoid()
    else:
        expected, found = each.softmax(2).mean(0), logits.softmax(1)
    assert logits.isfinite().all()
    np.testing.assert_allclose(found, expected, atol=5e-4)  # float32, of logits 300 times as large


def test_an_ensemble_predicts_what_its_checkpoints_do(ensemble):
    kind, checkpoints, path = ensemble
    one, other = (Predictor.load(models, device="cpu") for models in (checkpoints, path))
    found = agreement(one, other, one.prepare(scan_of(kind)))
    assert found, str(found)
    assert found.voxels == scan_of(kind).image[0].size
    assert json.loads(onnx.load(path).metadata_props[0].value)["models"] == 2


@pytest.mark.parametrize("kind", ["2d", "regions"])
def test_agreement_finds_what_differs(tmp_path, kind):
    """Against whole volumes of probabilities."""
    files = [write_checkpoint(tmp_path / f"{seed}.ckpt", kind, seed=seed) for seed in range(2)]
    one, other = (Predictor.load(file, device="cpu", inference={"tta": False}) for file in files)
    prepared = one.prepare(scan_of(kind))
    with torch.inference_mode():
        first, second = (
            np.concatenate([slab.numpy() for _, slab in predictor.slabs(prepared)], -1) for predictor in (one, other)
        )
    found = agreement(one, other, prepared)
    assert not found
    assert found.score == pytest.approx(np.abs(first - second).max())
    differ = (first > 0.5) != (second > 0.5) if kind == "regions" else [first.argmax(0) != second.argmax(0)]
    assert found.unequal == np.any(differ, axis=0).sum() > 0
    assert found.voxels == scan_of(kind).image[0].size


@pytest.mark.parametrize(
    ("score", "unequal", "is_close"),
    [(1e-3, 1, True), (2e-3, 0, False), (0.0, 2, False), (float("nan"), 0, False)],
)
def test_what_is_close_enough(score, unequal, is_close):
    assert bool(Agreement(score, unequal, voxels=10_000)) == is_close


def test_a_network_of_monai(tmp_path):
    """It stacks the outputs of deep supervision, which it has in training only."""
    model = {
        "_target_": "medseg.models.monai.dynunet", "spatial_dims": 2, "in_channels": 2, "out_channels": 3, "depth": 2,
        "base_channels": 4, "strides": [2, 2], "kernel_sizes": [3, 3, 3], "deep_supervision": True,
    }  # fmt: skip
    write_checkpoint(tmp_path / "a.ckpt", "2d", model=model)
    network = build(model, "model", ())
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    raw = torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.save(raw | {"state_dict": state}, tmp_path / "a.ckpt")
    write_onnx(read_models(tmp_path / "a.ckpt"), tmp_path / "a.onnx")
    patches = patches_of("2d", 3)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(patches))
    np.testing.assert_allclose(run_alone(tmp_path / "a.onnx", patches), expected, atol=1e-4)


def test_the_example_of_the_documentation(single, tmp_path, monkeypatch, capsys):
    kind, checkpoint, path = single
    text = (Path(__file__).parents[2] / "docs" / "how-to/export.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shutil.copy(path, tmp_path / "model.onnx")
    patches = patches_of(kind, 1)
    np.save(tmp_path / "window.npy", patches[0])
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    expected = logits_of(checkpoint, kind, patches).softmax(1)
    np.testing.assert_allclose(names["probabilities"], expected, atol=1e-5)
    assert capsys.readouterr().out.startswith("{'background': ")


def test_other_grids_are_refused(tmp_path):
    first = write_checkpoint(tmp_path / "a.ckpt", "2d")
    others = {
        "plan.patch_size": write_checkpoint(tmp_path / "b.ckpt", "2d", patch=24),
        "preprocessing": write_checkpoint(
            tmp_path / "c.ckpt", "2d", preprocessing=PREPROCESSING | {"spacing": [2.0, 2.0]}
        ),
        "inference.overlap": write_checkpoint(
            tmp_path / "d.ckpt", "2d", inference={"overlap": 0.6, "tta": True, "threshold": None, "batch_size": 3}
        ),
    }
    for name, other in others.items():
        with pytest.raises(MedsegError, match=f"same {name} only") as error:
            write_onnx(read_models([first, other]), tmp_path / "x.onnx")
        assert other.name in str(error.value)
    assert not (tmp_path / "x.onnx").exists()


def test_more_weights_than_a_file_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MOST_BYTES", 1000)
    with pytest.raises(MedsegError, match="fewer models"):
        write_onnx(read_models(write_checkpoint(tmp_path / "a.ckpt", "2d")), tmp_path / "x.onnx")


def test_an_onnx_file_is_not_exported_again(single, tmp_path):
    with pytest.raises(MedsegError, match="an ONNX file already"):
        write_onnx(read_models(single[2]), tmp_path / "x.onnx")


ODD = """
import torch

class Odd(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x, x], 1) if x.sum() > 0 else torch.cat([x, -x], 1)
"""


def test_a_network_that_cannot_be_exported_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "odd_network.py").write_text(ODD)
    write_checkpoint(tmp_path / "a.ckpt", "2d", model={"_target_": "odd_network.Odd"})
    raw = torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.save(raw | {"state_dict": {}}, tmp_path / "a.ckpt")
    models = read_models(tmp_path / "a.ckpt", trust=["odd_network.Odd"])
    with pytest.raises(MedsegError, match=r"odd_network\.Odd cannot be exported to ONNX: .*data-dependent"):
        write_onnx(models, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named_before_anything_is_computed(single, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MedsegError, match=rf"need {package}, .* pip install 'medseg\[onnx\]'"):
        write_onnx(read_models(single[1]), tmp_path / "x.onnx")
    if package == "onnxruntime":
        with pytest.raises(MedsegError, match=r"pip install 'medseg\[onnx\]'"):
            read_models(single[2])
    else:
        read_models(single[2])  # reading takes onnxruntime alone


def rewritten(path, folder, entry):
    """The same file with other metadata."""
    file = onnx.load(path)
    del file.metadata_props[:]
    onnx.helper.set_model_props(file, {} if entry is None else {"medseg": entry})
    onnx.save(file, folder / "other.onnx")
    return folder / "other.onnx"


def test_foreign_damaged_and_newer_files_are_refused(single, tmp_path):
    _, _, path = single
    content = json.loads(onnx.load(path).metadata_props[0].value)
    plan = content["config"]["plan"]
    larger = {**content, "config": {**content["config"], "plan": plan | {"patch_size": [4, *plan["patch_size"][1:]]}}}
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(MedsegError, match="not an ONNX file that can be run"):
        read_models(tmp_path / "text.onnx")
    for entry, message in (
        (None, "an ONNX file, but not a medseg checkpoint"),
        ('{"format": ', "metadata is damaged"),
        (json.dumps(content | {"format": 99}), "format 99"),
        (json.dumps(larger), "does not fit its own description"),
    ):
        with pytest.raises(MedsegError, match=message):
            read_models(rewritten(path, tmp_path, entry))


def test_other_precisions_are_told_not_to_count(single, caplog):
    kind, _, path = single
    predictor = Predictor.load(path, device="cpu", precision="bf16")
    exact = Predictor.load(path, device="cpu", precision="fp32")(scan_of(kind))
    np.testing.assert_array_equal(predictor(scan_of(kind)).indices, exact.indices)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: ONNX files compute in fp32, whatever the precision"
    ]


def test_a_device_that_onnxruntime_lacks_is_told(single, caplog):
    _, place = open_session(single[2], torch.device("mps"))
    assert place == torch.device("cpu")
    assert "cannot use mps here, so it computes on the CPU" in caplog.text


def test_a_file_with_a_weight_of_nan_is_refused_and_one_of_infinity_gives_no_mask(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", "2d")
    write_onnx(read_models(checkpoint), tmp_path / "a.onnx")
    for value in (np.nan, np.inf):
        file = onnx.load(tmp_path / "a.onnx")
        weight = next(each for each in file.graph.initializer if len(each.dims) == 4)
        array = onnx.numpy_helper.to_array(weight).copy()
        array.flat[5] = value
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        onnx.save(file, tmp_path / f"{value}.onnx")
    with pytest.raises(MedsegError, match=r"nan\.onnx: 1 of its"):
        read_onnx(tmp_path / "nan.onnx")
    with pytest.raises(MedsegError, match="not finite"):
        Predictor([read_onnx(tmp_path / "inf.onnx")], device="cpu")(scan_of("2d"))
    with pytest.raises(MedsegError, match="not finite"):  # nor does an ensemble of which it is a part
        Predictor.load([tmp_path / "a.onnx", tmp_path / "inf.onnx"], device="cpu")(scan_of("2d"))
