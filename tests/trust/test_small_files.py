"""Tiny files that ask for much memory or time: each is refused within seconds, with little memory taken."""

import json
import os
import resource
import shutil
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_run import PREDICT, TRAIN

from medseg.cli import command_line
from medseg.cli.arguments import value_of
from medseg.cli.quoting import quote
from medseg.cli.sweep import report
from medseg.config.check import escape, resolve
from medseg.errors import MedsegError
from medseg.evaluation.pages.page import NUMBER
from medseg.evaluation.pages.plots import coordinate
from medseg.evaluation.statistics.cases import read_rows
from medseg.inference.nnunet.network import numbers_of_numpy
from medseg.io.case import Case
from medseg.io.csv_files import cell_of
from medseg.io.dicom.polygons import fill
from medseg.io.files.read import read_case
from medseg.io.labels import LabelMap
from medseg.io.layouts import groups
from medseg.sweeps.record import read
from medseg.system.torch_files import load_safely
from medseg.training.transfer.sources import read_source

GB = 1 << 20  # of what the operating system counts in
HUGE = 10**12


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(autouse=True)
def little():
    """Measure what a test takes, whatever runs beside it: 5 s and 1 GB."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GB


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little")


def name(module, attribute):
    return b"c" + f"{module}\n{attribute}\n".encode()


def group(*items):
    return b"(" + b"".join(items) + b"t"


def call(function, *items):
    return function + group(*items) + b"R"


def mapping(**items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def tensor(shape, strides, stored):
    storage = group(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(stored)) + b"Q"
    sizes = (group(*map(number, values)) for values in (shape, strides))
    rest = (b"\x89", call(name("collections", "OrderedDict")))
    return call(name("torch._utils", "_rebuild_tensor_v2"), storage, number(0), *sizes, *rest)


def without_numbers(shape):
    sizes = (group(*map(number, values)) for values in (shape, [1] * len(shape)))
    return call(name("torch._utils", "_rebuild_meta_tensor_no_storage"), name("torch", "float32"), *sizes, b"\x89")


def encoded_again(times):
    encode = name("_codecs", "encode")
    value = call(encode, text("a" * 1000), text("latin1"))
    for _ in range(times):
        value = call(encode, value, text("hex"))
    return value


def encoded_often(times):
    """A long text once, and its encodings in a list."""
    long = text("\u1234" * 100_000) + b"q\x01"
    each = name("_codecs", "encode") + b"(h\x01" + text("unicode_escape") + b"tR"
    return b"]q\x02(" + long + each * times + b"e"


def save(path, content, numbers=bytes(4), packing=zipfile.ZIP_STORED):
    """Write a file as ``torch.save`` does, of a pickle that it would never write."""
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", numbers)


PICKLES = {
    "one number for many": mapping(w=tensor([HUGE], [0], 1)),
    "no numbers at all": mapping(w=without_numbers([HUGE])),
    "storage longer than the file": mapping(w=tensor([HUGE], [1], HUGE)),
    "bytearray": mapping(a=call(name("builtins", "bytearray"), number(HUGE // 200))),
    "bytearray of Python 2": mapping(a=call(name("__builtin__", "bytearray"), number(HUGE // 200))),
    "tensor by its size": mapping(a=call(name("torch", "Tensor"), number(HUGE // 200))),
    "tensor of a kind by its size": mapping(a=call(name("torch", "FloatTensor"), number(HUGE // 200))),
    "storage by its size": mapping(a=call(name("torch.storage", "UntypedStorage"), number(HUGE // 200))),
    "texts encoded again and again": mapping(a=encoded_again(24)),
    "a text encoded often": mapping(a=encoded_often(5000)),
    "views of the same numbers": mapping(**{f"w{i}": tensor([1000], [1], 1000) for i in range(20)}),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_file_of_pytorch_s_is_no_larger_than_it_is(tmp_path, kind):
    numbers = bytes(4000) if kind.startswith("views") else bytes(4)
    save(tmp_path / "a.pt", PICKLES[kind], numbers)
    with pytest.raises(MedsegError, match="not a checkpoint that can be loaded safely"):
        load_safely(tmp_path / "a.pt")


def test_packed_records_are_refused(tmp_path):
    count = 10**8
    save(tmp_path / "a.pt", mapping(w=tensor([count], [1], count)), bytes(4 * count), zipfile.ZIP_DEFLATED)
    with pytest.raises(MedsegError, match="packed"):
        load_safely(tmp_path / "a.pt")


def test_old_files_are_looked_through_likewise(tmp_path):
    torch.save({"w": torch.ones(128), "v": torch.nn.Parameter(torch.ones(2))}, tmp_path / "good.pt")
    torch.save(torch.load(tmp_path / "good.pt"), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load_safely(tmp_path / "old.pt")["w"].shape == (128,)
    content = (tmp_path / "old.pt").read_bytes()
    place = content.rindex(b"\x80\x02", 0, content.index(b"_rebuild_tensor_v2"))
    bomb = b"\x80\x02" + PICKLES["bytearray"] + b"."
    (tmp_path / "bomb.pt").write_bytes(content[:place] + bomb + content[place:])
    with pytest.raises(MedsegError, match="bytearray"):
        load_safely(tmp_path / "bomb.pt")


def test_numpy_s_types_in_files_of_nnunet_s_are_numbers(tmp_path):
    torch.save({"a": np.float64(3.5), "b": np.float32(1)}, tmp_path / "good.pt")
    scalar = "numpy._core.multiarray" if np.__version__ >= "2" else "numpy.core.multiarray"
    huge = call(name("numpy", "dtype"), text("V2000000000"), b"\x89", b"\x88")
    save(tmp_path / "bomb.pt", mapping(a=call(name(scalar, "scalar"), huge)))
    with torch.serialization.safe_globals(numbers_of_numpy()):
        assert load_safely(tmp_path / "good.pt") == {"a": 3.5, "b": 1}
        with pytest.raises(MedsegError, match="V2000000000"):
            load_safely(tmp_path / "bomb.pt")


def test_weights_that_hold_themselves_are_no_weights(tmp_path):
    save(tmp_path / "a.pt", b"}q\x01" + text("state_dict") + b"h\x01s")
    with pytest.raises(MedsegError, match="no weights in it"):
        read_source(tmp_path / "a.pt")


def refused(capsys, *arguments, saying):
    """Run a command line that must end with one message."""
    capsys.readouterr()
    assert command_line.main(list(arguments)) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("medseg: ") == 1
    assert saying in said, said


IN_DESCRIPTION = {
    "config.plan.patch_size": ([100_000, 100_000], "a window of its network is an array"),
    "config.preprocessing.resize": ([200_000, 200_000], "preprocessing.resize makes an array"),
    "config.postprocess.smooth_mm": (1e9, "wider than the mask"),
    "config.preprocessing.denoise_strength": (1e6, "denoise_strength"),
    "config.plan.mirror_axes": ([0, 1] * 14, "each axis of a window once"),
    "training_data": ({"a": [1, {}], "b": "x"}, "training_data.a"),
    "channels": ([[1, 2]], "channels.0"),
}


@pytest.mark.parametrize("keys", IN_DESCRIPTION)
def test_a_checkpoint_s_description_asks_for_nothing_huge(place, capsys, keys):
    path, (value, saying) = Path("run/checkpoints/best.ckpt"), IN_DESCRIPTION[keys]
    content = torch.load(path, weights_only=True)
    node = content["medseg"]
    for key in keys.split(".")[:-1]:
        node = node[key]
    node[keys.rpartition(".")[2]] = value
    torch.save(content, path)
    refused(capsys, *PREDICT, saying=saying)


def test_many_classes_and_regions_are_counted_first():
    names = {f"c{index}": index for index in range(100_000)}
    with pytest.raises(MedsegError, match="100000 classes; 2 to"):
        LabelMap(names)
    with pytest.raises(MedsegError, match="100000 regions"):
        LabelMap({"background": 0, "a": 1}, {name: ["b"] for name in names})


def test_weights_to_begin_with_are_no_larger_than_their_file(place, capsys):
    save("a.pt", PICKLES["one number for many"])
    refused(capsys, *TRAIN, "finetune.checkpoint=a.pt", "run_dir=other", saying="a.pt: not a checkpoint")


def test_yaml_does_not_grow_by_merges(place, capsys):
    lines = ["a0: &a0 {a: 1, b: 1, c: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 9)]
    Path("run/config.yaml").write_text("\n".join(lines))
    refused(capsys, "eval", "checkpoint=run", "device=cpu", saying="merges (<<) are not read")


@pytest.mark.parametrize("name", ["splits.json", "plan.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_not_read(place, capsys, name, kind):
    path = Path("run") / name
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    refused(capsys, "train", "resume=run", "trainer.max_epochs=2", saying=f"{name}: cannot be read as JSON (it is no")


def test_pipes_in_a_sweep_are_not_waited_for(tmp_path, caplog):
    for job in ("0", "1"):
        (tmp_path / job).mkdir()
    os.mkfifo(tmp_path / "0/.lock")
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": ["a=1"], "jobs": {"0": ["a=1"], "1": ["a=2"]}}))
    (tmp_path / "1/result.json").write_text(json.dumps(RESULT))
    os.mkfifo(tmp_path / "1/metrics.csv")
    assert report(tmp_path) == 0


def test_a_pipe_in_the_place_of_cases_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "cases.csv")
    with pytest.raises(MedsegError, match="it is no plain file"):
        read_rows(tmp_path / "cases.csv")


def test_contours_do_not_grow_into_gigabytes():
    zigzag = np.stack([np.tile([0.0, 2000.0], 2000), np.linspace(0, 50, 4000)], axis=1)
    with pytest.raises(ValueError, match="cross its rows"):
        fill([zigzag], (2001, 50))
    assert fill([zigzag[:4]], (2001, 50)).any()


LONG = 100_000


@pytest.mark.parametrize(
    "work",
    [
        lambda: escape("\\" * LONG),
        lambda: quote("\\" * LONG),
        lambda: cell_of(f"+{'1' * LONG}x"),
        lambda: coordinate("a", [f"{'1' * LONG}x", "2"], is_choice=False),
        lambda: NUMBER.fullmatch(f"{'1' * LONG}x"),
    ],
)
def test_long_texts_take_no_longer_than_they_are(work):
    work()


def test_what_is_escaped_stays_as_it_is():
    for text in ("\\", "a\\", "\\${a}", "\\\\${a}", "'", "\\'", "a\\\\' ${b}"):
        assert resolve({"a": escape(text)}) == {"a": text}
        assert value_of("a", [f"a={quote(text)}"]) == escape(text)


@pytest.mark.parametrize("name", ["%" * LONG, "LIST\n" + "a\n" * (LONG + 1)])
def test_names_of_data_files_take_no_longer_than_they_are(tmp_path, name):
    path = tmp_path / "a.mhd"
    path.write_text(f"NDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = {name}\n")
    with pytest.raises(MedsegError, match=r"a\.mhd: .*(names no file|lists 100002 files)"):
        read_case(Case("a", "a", (path,)))


def test_a_search_that_would_not_end_is_ended(monkeypatch):
    monkeypatch.setattr(groups, "LONGEST_SEARCH", 1)
    cases = [Case(f"case_{number:03d}", "", ()) for number in range(8)]
    with pytest.raises(MedsegError, match=r"not found in 8 case ids within 1 s"):
        groups.assign_groups(cases, pattern="^(.*.*.*.*.*)*x$")
    found = groups.assign_groups(cases, pattern=r"_(\d)")
    assert [case.group for case in found] == ["0"] * 8
    with pytest.raises(MedsegError, match="no regular expression"):
        groups.assign_groups(cases, pattern="(" * 50_000)


LAST = {
    "callbacks": {"Checkpoints": {"epochs": ["x"], "scores": [{}]}},
    "callbacks.Budget": {"seconds": "x"},
    "loops": {"fit_loop": 3},
    "optimizer_states": [3],
    "tuning": "x",
    "state_dict": {"a": 1},
}


@pytest.mark.parametrize("keys", LAST)
def test_a_last_state_of_other_kinds_is_refused(place, capsys, keys):
    path = Path("run/checkpoints/last.ckpt")
    content = torch.load(path, weights_only=True)
    node, last = (content, keys) if "." not in keys else (content["callbacks"], "Budget")
    node[last] = LAST[keys]
    torch.save(content, path)
    refused(capsys, "train", "resume=run", "trainer.max_epochs=2", saying="last.ckpt")


RESULT = {"status": "done", "reason": "", "score": 0.5, "seconds": 1.0, "overrides": ["loss=ce"]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score", "x"),
        ("seconds", [1]),
        ("overrides", 3),
        ("overrides", [{}]),
        ("status", ["done"]),
        ("validated", {"n_cases": "x"}),
    ],
)
def test_results_of_a_sweep_are_checked(tmp_path, name, value):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text(json.dumps(RESULT))
    assert report(tmp_path) == 0
    (tmp_path / "0" / "result.json").write_text(json.dumps({**RESULT, name: value}))
    with pytest.raises(MedsegError, match=f"no result of a job: {name}="):
        read(tmp_path)


def test_numbers_that_no_machine_has_are_refused(place, capsys):
    long, huge = f"0x{'f' * 5000}", "1" + "0" * 400
    for name, old, value in (
        ("config.yaml", "seed: 0", f"seed: {long}"),
        ("config.yaml", "max_epochs: 1", f"max_epochs: {huge}"),
        ("config.yaml", "overlap: 0.5", f"overlap: {long}"),
        ("plan.json", '"batch_size": 2', f'"batch_size": {huge}'),
    ):
        path = Path("run") / name
        before = path.read_text("utf-8")
        assert before.count(old)
        path.write_text(before.replace(old, value, 1), "utf-8")
        refused(capsys, "train", "resume=run", "trainer.max_epochs=2", saying="bits, over 64")
        path.write_text(before, "utf-8")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("workers", 5000, "trainer.workers: 5000 processes"),
        ("devices", 5000, "trainer.devices: 5000 processes"),
        ("workers", "${dataset.cases}", "is no number of processes"),
    ],
)
def test_a_run_does_not_ask_for_thousands_of_processes(place, capsys, key, value, said):
    path = Path("run/config.yaml")
    content = yaml.safe_load(path.read_text("utf-8"))
    content["trainer"][key] = value
    path.write_text(yaml.safe_dump(content))
    refused(capsys, "train", "resume=run", "trainer.max_epochs=2", saying=said)


TEN_OF_EACH = ", ".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 10)}]" for n in range(9))


@pytest.mark.parametrize("text", [TEN_OF_EACH, "a: 2001-99-99", "a: !!bool x", "a: !!float ''", "a: !!timestamp x"])
def test_a_mapping_that_a_run_has_as_text_is_read_as_its_other_values_are(place, capsys, text):
    path = Path("run/config.yaml")
    content = yaml.safe_load(path.read_text("utf-8"))
    content["dataset"]["labels"] = f"{{{text}}}"
    path.write_text(yaml.safe_dump(content))
    refused(capsys, "train", "resume=run", "trainer.max_epochs=2", saying="must be a mapping")


@pytest.mark.parametrize("value", ["!!bool x", "!!float ''", "!!timestamp x"])
def test_a_tag_of_yaml_that_its_value_does_not_fit_is_refused(place, capsys, value):
    path = Path("run/config.yaml")
    path.write_text(f"{path.read_text('utf-8')}\nmore: {value}\n")
    refused(capsys, "train", "resume=run", "trainer.max_epochs=2", saying="cannot be read as YAML")


def test_a_plan_of_voxels_without_a_size_is_refused(place, capsys):
    path = Path("run/plan.json")
    plan = json.loads(path.read_text("utf-8"))
    plan["preprocessing"]["spacing"] = [1e-300, 1e-300]
    path.write_text(json.dumps(plan))
    refused(capsys, "train", "resume=run", "trainer.max_epochs=2", saying="more than 100 times apart")


def test_reports_of_other_kinds_are_compared_or_refused(place, capsys):
    for name in ("a", "b"):
        shutil.copytree("run", f"runs/{name}")
    path = Path("runs/a/test/metrics.json")
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**content, "settings": {"nsd_mm": {"a": 1}}}))
    assert command_line.main(["compare", "runs=runs", "run_dir=compared"]) == 0
    path = Path("runs/a/test/cases.csv")
    path.write_text(path.read_text("utf-8").replace("0.0", "9" * 500))
    refused(capsys, "compare", "runs=runs", "run_dir=again", saying="is infinite in a row")
