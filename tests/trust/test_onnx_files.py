"""ONNX files by strangers: neither graph nor metadata runs code, reads other files or takes more than a network."""

import json
import shutil
import time

import numpy as np
import pytest
from small_run import PREDICT

from medseg.cli import command_line

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

COMMAND = ("predict", "checkpoint=x.onnx", *PREDICT[2:])


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    pytest.importorskip("onnxscript")
    place = tmp_path_factory.mktemp("exported") / "work"
    shutil.copytree(trained, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert command_line.main(["export", "checkpoint=run", "output=x.onnx", "device=cpu"]) == 0
    return place


@pytest.fixture
def place(exported, tmp_path, monkeypatch):
    shutil.copytree(exported, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def refused(capsys, saying):
    """Predict, which must end with one message, soon."""
    capsys.readouterr()
    began = time.process_time()
    assert command_line.main(list(COMMAND)) == 1
    said = capsys.readouterr().err
    assert time.process_time() - began < 5
    assert "Traceback" not in said
    assert said.count("medseg: ") == 1
    assert saying in said, said


def with_node(file, name, inputs, **options):
    """Let a node's output, of one number, be added to the logits."""
    graph, output = file.graph, file.graph.output[0].name
    for node in graph.node:
        node.output[:] = ["before" if each == output else each for each in node.output]
    graph.node.append(onnx.helper.make_node(name, inputs, ["made"], **options))
    graph.node.append(onnx.helper.make_node("ReduceMax", ["made"], ["most"], keepdims=0))
    graph.node.append(onnx.helper.make_node("Add", ["before", "most"], [output]))


def constant(file, name, value):
    file.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))


def loop(file):
    constant(file, "times", np.int64(10**15))
    constant(file, "yes", np.bool_(True))
    constant(file, "zero", np.float32(0))
    make = onnx.helper.make_tensor_value_info
    kinds = onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.FLOAT
    given = [make(name, kind, []) for name, kind in zip("icn", kinds, strict=True)]
    made = [make(name, kind, []) for name, kind in zip(("d", "m"), kinds[1:], strict=True)]
    steps = [onnx.helper.make_node("Identity", ["c"], ["d"]), onnx.helper.make_node("Add", ["n", "n"], ["m"])]
    with_node(file, "Loop", ["times", "yes", "zero"], body=onnx.helper.make_graph(steps, "body", given, made))


def huge(file):
    constant(file, "shape", np.array([3 * 10**9], np.int64))
    with_node(file, "ConstantOfShape", ["shape"])


def elsewhere(file):
    weight = onnx.TensorProto(name="far", data_type=onnx.TensorProto.FLOAT, dims=[1])
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "/dev/zero"), ("length", str(10**10))):
        weight.external_data.add(key=key, value=value)
    file.graph.initializer.append(weight)
    with_node(file, "Identity", ["far"])


@pytest.mark.parametrize(
    ("change", "saying"), [(loop, "loops"), (huge, "its graph makes an array"), (elsewhere, "lie elsewhere")]
)
def test_a_graph_is_the_layers_of_a_network(place, capsys, change, saying):
    file = onnx.load("x.onnx")
    change(file)
    (place / "x.onnx").write_bytes(file.SerializeToString())
    refused(capsys, saying)


def description(change):
    """Change the description in the metadata of the file."""
    file = onnx.load("x.onnx")
    entry = next(each for each in file.metadata_props if each.key == "medseg")
    entry.value = change(entry.value)
    onnx.save(file, "x.onnx")


def put(keys, value):
    def change(text):
        content = json.loads(text)
        node = content
        *path, last = keys.split(".")
        for key in path:
            node = node[key]
        node[last] = value
        return json.dumps(content)

    return change


ENTRIES = {
    "config.model.norm": {"_target_": "os.mkdir", "path": "mark"},
    "config.preprocessing.denoise": "${oc.env:HOME}",
    "config.plan.patch_size": [10**6, 10**6],
    "config.plan.mirror_axes": [0, 1] * 14,
    "training_data": {"a": ["x"]},
    "channels": [[1]],
}


@pytest.mark.parametrize("keys", ENTRIES)
def test_the_description_is_checked_like_a_checkpoint_s(place, capsys, keys):
    description(put(keys, ENTRIES[keys]))
    refused(capsys, "x.onnx")
    assert not (place / "mark").exists()


@pytest.mark.parametrize("text", ["[" * 100_000, "[1, 2]", "{", "null"])
def test_metadata_of_another_kind_is_refused(place, capsys, text):
    description(lambda _: text)
    refused(capsys, "x.onnx")


def test_a_target_in_the_description_is_not_built(place):
    description(put("config.model", {"_target_": "os.mkdir", "path": "mark"}))
    assert command_line.main(list(COMMAND)) == 0
    assert not (place / "mark").exists()


def test_names_of_classes_are_no_paths(place):
    names = ("background", "../../outside/a", "\x1b[2J<script>alert(1)</script>", "=cmd|' /C calc'!A0")
    description(put("classes", {name: value for value, name in enumerate(names)}))
    assert command_line.main([*COMMAND, "save_probabilities=true"]) == 0
    assert not (place.parent / "outside").exists()
    assert "\x1b" not in (place / "masks" / "predictions.csv").read_text("utf-8")
