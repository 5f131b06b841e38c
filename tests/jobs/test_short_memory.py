"""Jobs in too little memory: with less at once the same result, else that case's error, and never a traceback."""

import csv
import functools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from thresholding import TARGET, blob, write_checkpoint

from medseg.cli import command_line
from medseg.errors import MedsegError
from medseg.evaluation.metrics.registry import Settings
from medseg.inference.predictor import Predictor
from medseg.io.case import Case, LabelFile
from medseg.io.labels import LabelMap
from medseg.jobs.evaluate import scoring
from medseg.jobs.predict import predict
from medseg.jobs.train import train
from medseg.preprocessing.cache import cached_cases
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.preprocessing.quality.check_dataset import examine

HERE = Path(__file__).parent
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def folder(composed, tmp_path):
    """Return ``run(output)``: predict ``tmp_path/scans``, of which the second is large, into ``tmp_path/output``."""
    write_checkpoint(tmp_path / "c.ckpt", dims=3, batch_size=8)
    (tmp_path / "scans").mkdir()
    for number in range(4):
        body = blob((40, 36, 44) if number == 1 else (20, 18, 22)).astype(np.float32)
        nib.save(nib.Nifti1Image(body, np.eye(4)), tmp_path / "scans" / f"scan{number}.nii")

    def run(output="masks"):
        config = composed("predict", "device=cpu")
        config |= {"checkpoint": str(tmp_path / "c.ckpt"), "input": str(tmp_path / "scans"), "trust": [TARGET]}
        return predict.run(config | {"output": str(tmp_path / output)})

    return run


def table(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def masks(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.nii")}


def test_predict_takes_fewer_windows_at_once(folder, tmp_path, monkeypatch, caplog):
    assert folder("plain")["status"] == "done"
    network = sys.modules["thresholding"].Threshold  # the very class that was built
    forward, batches = network.forward, []

    def narrow(self, x):
        batches.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError(CUDA)
        return forward(self, x)

    monkeypatch.setattr(network, "forward", narrow)
    assert folder("narrow")["status"] == "done"
    assert len(masks(tmp_path / "narrow")) == 4
    assert masks(tmp_path / "narrow") == masks(tmp_path / "plain")
    assert batches[0] > 1
    assert set(batches[batches.index(1) :]) == {1}  # what fitted is remembered for the scans that follow
    assert sum("memory is short" in text for text in caplog.messages) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA),
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    ],
)
def test_a_scan_that_no_shrinking_helps_fails_alone_with_cause_size_and_cure(folder, tmp_path, monkeypatch, error):
    original = Predictor.slabs

    def slabs(self, prepared):
        if prepared.scan.shape == (40, 36, 44):
            raise error
        return original(self, prepared)

    monkeypatch.setattr(Predictor, "slabs", slabs)
    result = folder()
    assert result["status"] == "some_failed"
    rows = {row["case"]: row for row in table(tmp_path / "masks")}
    assert [row["status"] for row in rows.values()].count("done") == 3
    message = rows["scan1"]["error"]
    assert str(error) in message
    assert "(40, 36, 44)" in message
    assert "more memory" in message


@pytest.mark.parametrize("where", ["medseg.io.files.scans.read_case", "medseg.jobs.predict.steps.write_classes"])
def test_reading_and_writing_are_tried_again_by_themselves(folder, tmp_path, monkeypatch, where):
    assert folder("plain")["status"] == "done"
    module, name = where.rsplit(".", 1)
    original, failed = getattr(sys.modules[module], name), []

    def short(*given, **options):
        if not failed and "scan1" in str(given[0]):
            failed.append(given[0])
            raise MemoryError("Unable to allocate 9 GiB")
        return original(*given, **options)

    monkeypatch.setattr(where, short)
    assert folder()["status"] == "done"
    assert len(failed) == 1
    assert masks(tmp_path / "masks") == masks(tmp_path / "plain")
    assert [row["case"] for row in table(tmp_path / "masks")] == [f"scan{number}" for number in range(4)]


LIMITED = """
    import os, resource, sys
    from pathlib import Path
    sys.path.insert(0, {here!r})
    import torch, medseg.cli.command_line, medseg.jobs.predict.predict, thresholding, scipy.ndimage
    torch.set_num_threads(1)
    torch.nn.functional.conv3d(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 3, 3, 3))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 700_000_000,) * 2)
    sys.exit(medseg.cli.command_line.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="how much memory is mapped is only told by Linux")
def test_of_two_scans_only_the_one_that_real_memory_cannot_hold_fails(tmp_path):
    write_checkpoint(tmp_path / "c.ckpt", dims=3)
    (tmp_path / "scans").mkdir()
    for name in ("a", "c"):
        nib.save(nib.Nifti1Image(blob((20, 18, 22)).astype(np.float32), np.eye(4)), tmp_path / "scans" / f"{name}.nii")
    header = nib.Nifti1Header()  # 256 MB in the file, which takes no space on the disk, and 1 GB in float32
    header.set_data_dtype(np.uint8)
    header.set_data_shape((1024, 1024, 256))
    header.set_sform(np.eye(4), 1)
    with (tmp_path / "scans" / "b.nii").open("wb") as file:
        header.write_to(file)
        file.truncate(352 + 1024 * 1024 * 256)
    (tmp_path / "limited.py").write_text(textwrap.dedent(LIMITED).format(here=str(HERE)))
    command = [sys.executable, str(tmp_path / "limited.py"), "predict", f"checkpoint={tmp_path / 'c.ckpt'}"]
    command += [f"input={tmp_path / 'scans'}", f"output={tmp_path / 'masks'}", "device=cpu", f"trust=[{TARGET}]"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    rows = {row["case"]: row for row in table(tmp_path / "masks")}
    assert {name: row["status"] for name, row in rows.items()} == {"a": "done", "b": "failed", "c": "done"}
    assert "not enough memory to read" in rows["b"]["error"]
    assert "268,435,456 voxels" in rows["b"]["error"]
    assert "Traceback" not in done.stderr


@pytest.fixture
def cases(tmp_path):
    """Three labelled scans."""
    made = []
    for number in range(3):
        body = np.roll(blob((20, 18, 22)), number, 0)
        image, mask = tmp_path / f"scan{number}.nii", tmp_path / f"mask{number}.nii"
        nib.save(nib.Nifti1Image(body.astype(np.float32), np.eye(4)), image)
        nib.save(nib.Nifti1Image(body.astype(np.uint8), np.eye(4)), mask)
        made.append(Case(f"case{number}", f"case{number}", (image,), (LabelFile(mask),)))
    return made


CLASSES = LabelMap({"background": 0, "thing": 1})


def short_for(monkeypatch, where, is_large, times):
    """Let what ``where`` names run out of memory for the arguments that ``is_large`` tells, as often as ``times``."""
    module, name = where.rsplit(".", 1)
    original, failed = getattr(sys.modules[module], name), []

    def short(*given, **options):
        if is_large(*given) and len(failed) < times:
            failed.append(name)
            raise MemoryError("Unable to allocate 9 GiB")
        return original(*given, **options)

    monkeypatch.setattr(where, short)
    return failed


def score(cases):
    """Evaluate masks that equal the ground truth."""
    segment = lambda case, scan: (scan.image[0] > 0.5).astype(np.uint8)  # noqa: E731
    return {case.id: found for case, found in scoring.scored(segment, cases, CLASSES, Settings(("dice",)))}


READ, MEASURE = "medseg.jobs.evaluate.scoring.read_labelled", "medseg.jobs.evaluate.scoring.measure_case"


@pytest.mark.parametrize("where", [READ, MEASURE])
def test_eval_tries_a_case_again_by_itself(cases, monkeypatch, where):
    failed = short_for(monkeypatch, where, lambda *given: True, times=1)
    scores = score(cases)
    assert [row["dice"] for rows in scores.values() for row in rows] == [1.0, 1.0, 1.0]
    assert len(failed) == 1


def test_eval_reports_a_case_that_is_too_large_and_scores_the_others(cases, monkeypatch):
    short_for(monkeypatch, READ, lambda case, label_map: case.id == "case1", times=99)
    scores = score(cases)
    assert list(scores) == ["case0", "case1", "case2"]
    assert "not enough memory to read 1 channel(s) of 7,920 voxels (Unable to allocate 9 GiB)." in scores["case1"]
    assert [rows[0]["dice"] for name, rows in scores.items() if name != "case1"] == [1.0, 1.0]


def test_the_survey_reports_a_case_that_is_too_large_and_reads_the_others(cases, monkeypatch):
    short_for(
        monkeypatch,
        "medseg.preprocessing.quality.check_dataset.cached_fingerprint",
        lambda case, *rest: case.id == "case1",
        times=99,
    )
    usable, findings = examine(cases, CLASSES)
    assert list(usable.cases) == ["case0", "case2"]
    [error] = [finding.text for finding in findings if finding.level == "error"]
    assert error.startswith("case1: not enough memory to read 1 channel(s) of 7,920 voxels")


def test_the_cache_is_made_with_fewer_cases_at_once(cases, monkeypatch, tmp_path, caplog):
    preprocessor = Preprocessor(normalize=["zscore"])
    failed = short_for(monkeypatch, "medseg.preprocessing.cache.prepare", lambda case, *rest: case.id == "case1", 1)
    files = cached_cases(cases, preprocessor, CLASSES, tmp_path / "cache")
    assert [path.is_file() for path in files] == [True] * 3
    assert len(failed) == 1
    assert "fewer cases are worked on at once" in caplog.text


def test_a_case_that_cannot_be_preprocessed_is_an_error_with_its_name_and_size(cases, monkeypatch, tmp_path):
    short_for(monkeypatch, "medseg.preprocessing.cache.prepare", lambda case, *rest: case.id == "case1", times=99)
    with pytest.raises(MedsegError, match=r"not enough memory to preprocess case1, 1 channel\(s\) of 7,920 voxels"):
        cached_cases(cases, Preprocessor(normalize=["zscore"]), CLASSES, tmp_path / "cache")


def out(*_):
    raise torch.OutOfMemoryError(CUDA)


def short_in_forward(patch):
    """Let memory hold one sample in the network."""
    from medseg.models import UNet

    original = UNet.forward

    def forward(self, x):
        if len(x) > 1 and self.training:
            raise torch.OutOfMemoryError(CUDA)
        return original(self, x)

    patch.setattr(UNet, "forward", forward)


def short_in_loss(patch):
    """Let memory hold the loss of one sample."""
    from medseg.training.losses import CrossEntropyLoss

    original = CrossEntropyLoss.forward

    def forward(self, logits, target):
        if len(logits) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return original(self, logits, target)

    patch.setattr(CrossEntropyLoss, "forward", forward)


def short_in_backward(patch):
    """Let memory run out in the middle of the backward pass of two samples: some gradients are there, some not."""
    from medseg.training.segmentation import SegmentationModule

    original, hooks = SegmentationModule.loss_of, []

    def loss_of(self, batch, step, first):
        while hooks:
            hooks.pop().remove()
        loss = original(self, batch, step, first)
        if len(batch["image"]) > 1:
            hooks.append(list(self.network.parameters())[8].register_hook(out))
        return loss

    patch.setattr(SegmentationModule, "loss_of", loss_of)


def short_in_optimizer(patch):
    """Let memory run out when the optimizer has allocated some of its moments."""
    original, failed = torch.optim.Adam._init_group, []

    def init_group(self, group, *lists):
        result = original(self, group, *lists)
        if not failed:
            failed.append(self)
            for parameter in group["params"][3:]:
                self.state[parameter].pop("exp_avg_sq")
            raise torch.OutOfMemoryError(CUDA)
        return result

    patch.setattr(torch.optim.Adam, "_init_group", init_group)


def short_in_validation(patch):
    """Let memory hold one window at a time."""
    from medseg.inference import sliding_window

    original = sliding_window.mirrored

    def mirrored(networks, patches, *rest):
        if len(patches) > 1:
            raise torch.OutOfMemoryError(CUDA)
        return original(networks, patches, *rest)

    patch.setattr(sliding_window, "mirrored", mirrored)


# The loss is a mean over samples, so that parts of a batch must give what the batch gives; Adam would make much of the
# rounding of gradients that are zero.
TRAINING = ("loss=ce", "trainer.precision=fp32", "plan.patch_size=[32,32]", "trainer.max_epochs=1", "split.test=0")
SGD, ADAM, ACCUMULATED = ("optimizer=sgd",), ("optimizer=adam",), ("optimizer=sgd", "trainer.accumulate=2")
IN_PARTS = "the 2 samples of a batch go through the network in 2 parts"


@pytest.fixture(scope="module")
def trained_weights(small, tmp_path_factory):
    """Return ``trained_weights(overrides, short)``: those that a training ends with, and its log."""

    @functools.cache
    def fit(overrides, short=lambda patch: None):
        folder = tmp_path_factory.mktemp("run")
        with pytest.MonkeyPatch.context() as patch:
            short(patch)
            assert train.run(small(2, *TRAINING, *overrides) | {"run_dir": str(folder)})["status"] == "done"
        state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        return state, (folder / "train.log").read_text()

    return fit


@pytest.mark.parametrize(
    ("overrides", "short", "said"),
    [
        (SGD, short_in_forward, IN_PARTS),
        (SGD, short_in_loss, IN_PARTS),
        (SGD, short_in_backward, IN_PARTS),
        (ACCUMULATED, short_in_backward, IN_PARTS),
        (ADAM, short_in_optimizer, None),
        (SGD, short_in_validation, "1 windows go through the network at once"),
    ],
)
def test_a_training_short_of_memory_learns_what_it_would_have_learned(trained_weights, overrides, short, said):
    weights, log = trained_weights(overrides, short)
    torch.testing.assert_close(weights, trained_weights(overrides)[0], rtol=1e-4, atol=1e-6)
    assert log.count(said or "memory") == (said is not None), log


def test_a_training_says_what_to_lower_keeps_its_last_checkpoint_and_can_go_on(small, tmp_path, monkeypatch):
    from medseg.training.segmentation import SegmentationModule

    original, run_dir = SegmentationModule.loss_of, tmp_path / "run"

    def loss_of(self, batch, step, first):
        if step == 4 and not (tmp_path / "more memory").exists():
            raise torch.OutOfMemoryError(CUDA)
        return original(self, batch, step, first)

    monkeypatch.setattr(SegmentationModule, "loss_of", loss_of)
    with pytest.raises(MedsegError) as caught:
        train.run(small(2) | {"run_dir": str(run_dir)})
    message = str(caught.value)
    assert message.startswith(f"not enough memory on cpu to train ({CUDA}).")
    for setting in (
        "trainer.memory_gb",
        "plan.batch_size (now 2)",
        "plan.patch_size (now [",
        "model.base_channels (now 4)",
    ):
        assert setting in message
    assert f"resume={run_dir}" in message
    assert json.loads((run_dir / "result.json").read_text())["reason"] == message
    (tmp_path / "more memory").touch()
    assert train.run(small(2) | {"run_dir": str(run_dir), "resume": str(run_dir)})["status"] == "done"


def test_any_job_that_runs_out_of_memory_ends_with_one_message(monkeypatch, capsys, tmp_path):
    import medseg.jobs.cache as job

    def run(config):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(job, "run", run)
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["cache"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("medseg: not enough memory for this cache ([enforce fail at alloc_cpu.cpp:127]")
    assert "Traceback" not in told


def test_a_case_that_is_too_large_to_draw_is_left_out_of_the_pictures_alone(cases, monkeypatch, tmp_path, caplog):
    short_for(monkeypatch, "medseg.jobs.evaluate.scoring.overlay", lambda scan, *rest: True, times=1)
    files = {case.id: tmp_path / "overlays" / f"{case.id}.png" for case in cases}
    segment = lambda case, scan: (scan.image[0] > 0.5).astype(np.uint8)  # noqa: E731
    scoring.draw_examples(segment, cases, cases, CLASSES, files)
    assert [file.is_file() for file in files.values()] == [False, True, True]
    assert "case0: no overlay: not enough memory to draw 1 channel(s) of 7,920 voxels" in caplog.text
