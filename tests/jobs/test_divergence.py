"""Trainings whose loss, gradient or weights become NaN: what ends them, what they leave, what comes after."""

import csv
import json
import shutil
from itertools import pairwise

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from medseg.errors import MedsegError
from medseg.jobs import export
from medseg.jobs.evaluate import evaluate
from medseg.jobs.predict import predict
from medseg.jobs.train import pretrain, train
from medseg.training import assembly
from medseg.training.module import TrainingModule
from medseg.training.pretraining.module import ReconstructionModule
from medseg.training.segmentation import SegmentationModule

NAN = float("nan")
SMALL = ("trainer.precision=fp32", "logger=none")


def rows_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def result_of(run):
    return json.loads((run / "result.json").read_text())


def all_finite(file):
    """Tell whether every number in a checkpoint is finite, the optimizer's included; looked at one by one."""
    content = torch.load(file, weights_only=True)
    content.get("callbacks", {}).pop("StepMetrics", None)  # which has losses as they were
    waiting, tensors = [content], []
    while waiting:
        node = waiting.pop()
        if isinstance(node, torch.Tensor):
            tensors.append(node)
        elif isinstance(node, dict | list | tuple):
            waiting += node.values() if isinstance(node, dict) else node
    assert len(tensors) > 10
    return all(bool(torch.isfinite(tensor.double()).all()) for tensor in tensors)


def spoil(monkeypatch, steps, how=lambda loss: loss * NAN, kind=SegmentationModule):
    """Let the losses of some steps, counted over the whole run from 0, be what ``how`` makes of them."""
    loss_of = kind.loss_of

    def spoilt(self, batch, step, first):
        loss = loss_of(self, batch, step, first)
        return how(loss) if step in steps else loss

    monkeypatch.setattr(kind, "loss_of", spoilt)


@pytest.fixture
def run_small(small, tmp_path):
    """Return ``run_small(*overrides)``: train for two epochs of three steps on pictures of the phantom."""

    def run(*overrides):
        return train.run(small(2, *SMALL, *overrides) | {"run_dir": str(tmp_path / "run")})

    return run


@pytest.mark.parametrize("how", [lambda loss: loss * NAN, lambda loss: loss + NAN, lambda loss: loss * float("inf")])
def test_a_loss_that_is_never_finite_ends_the_training_as_failed(run_small, tmp_path, monkeypatch, how):
    spoil(monkeypatch, range(100), how)
    with pytest.raises(MedsegError, match=r"none of the 3 steps .*(?s:.)*optimizer\.lr"):
        run_small()
    result = result_of(tmp_path / "run")
    assert result["status"] == "failed"
    assert "diverged" in result["reason"]
    assert "optimizer.lr" in (tmp_path / "run" / "train.log").read_text()
    assert not list((tmp_path / "run").rglob("*.ckpt"))
    assert not (tmp_path / "run" / "test").exists()


def test_the_learning_rate_of_an_optimist_ends_the_training(run_small, tmp_path):
    rate_as_set = r"diverged(?s:.)*a lower optimizer\.lr \(at this step it was [\d.]+e\+(2\d|30)\)"
    with pytest.raises(MedsegError, match=rate_as_set):
        run_small("optimizer=sgd", "optimizer.lr=1e30", "trainer.head_factor=1000")
    assert result_of(tmp_path / "run")["status"] == "failed"
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_weights_that_overflow_are_never_written(run_small, tmp_path, monkeypatch):
    def overflow(self, *args):
        if self.trainer.global_step == 5:
            next(self.network.parameters()).data.flatten()[0] = float("inf")
        original(self, *args)

    original = TrainingModule.on_train_batch_end
    monkeypatch.setattr(TrainingModule, "on_train_batch_end", overflow)
    with pytest.raises(MedsegError, match=r"diverged(?s:.)*best.ckpt and last.ckpt"):
        run_small("trainer.max_epochs=3")
    checkpoints = tmp_path / "run" / "checkpoints"
    assert all_finite(checkpoints / "best.ckpt")
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["global_step"] == 3
    assert all_finite(checkpoints / "last.ckpt")


@pytest.mark.parametrize("averaging", ["null", "0.5"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_single_step_is_left_out(run_small, tmp_path, monkeypatch, caplog, averaging, optimizer):
    spoil(monkeypatch, [1])
    result = run_small(f"optimizer={optimizer}", f"trainer.averaging={averaging}")
    assert result["status"] == "done"
    assert "1 of 3 steps left out" in caplog.text
    checkpoints = tmp_path / "run" / "checkpoints"
    assert all_finite(checkpoints / "best.ckpt")
    assert all_finite(checkpoints / "last.ckpt")
    assert [row["train_loss"] == "nan" for row in rows_of(tmp_path / "run")] == [True, False]


def test_running_statistics_survive_a_batch_of_nan(run_small, tmp_path, monkeypatch):
    task = SegmentationModule.augment

    def spoilt(self, image, label, step, rank=0):
        image, label = task(self, image, label, step, rank)
        return (image * NAN if step == 4 and self.training and torch.is_grad_enabled() else image), label

    monkeypatch.setattr(SegmentationModule, "augment", spoilt)
    assert run_small("model.norm=batch", "trainer.averaging=null")["status"] == "done"
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = tmp_path / "run" / "checkpoints" / name
        assert any("running_var" in key for key in torch.load(checkpoint, weights_only=True)["state_dict"])
        assert all_finite(checkpoint)


def test_many_steps_in_a_row_end_the_training_within_an_epoch(run_small, tmp_path, monkeypatch):
    spoil(monkeypatch, range(7, 1000))
    with pytest.raises(MedsegError, match=r"the last 33 steps was finite \(epoch 1, step 40\)"):
        run_small("trainer.steps_per_epoch=100", "trainer.max_epochs=1")
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_a_state_whose_loss_is_lost_does_not_replace_the_last_good_one(run_small, tmp_path, monkeypatch):
    spoil(monkeypatch, range(4, 1000))  # the last two steps of the second epoch, all of the third
    with pytest.raises(MedsegError, match="none of the 3 steps"):
        run_small("trainer.max_epochs=4")
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3


def test_a_run_that_diverged_goes_on_from_its_last_good_state(run_small, small, tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        spoil(context, range(3, 1000))
        with pytest.raises(MedsegError, match=r"to go on from it: resume="):
            run_small()
    run = tmp_path / "run"
    rest = {"resume": str(run), "run_dir": str(run)}
    assert train.run(small(2, *SMALL, "optimizer.lr=1e-4") | rest)["status"] == "done"
    assert result_of(run)["status"] == "done"
    assert [row["epoch"] for row in rows_of(run)] == ["1", "2"]
    assert all_finite(run / "checkpoints" / "best.ckpt")


@pytest.fixture
def scaled(monkeypatch):
    """Let trainings on the CPU compute in fp16 with loss scaling, for which Lightning wants a GPU."""

    def with_scaler(*args):
        trainer = assembly.make_trainer(*args)
        trainer.strategy._precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
        return trainer

    monkeypatch.setattr(train, "make_trainer", with_scaler)


def overflowing(loss):
    """A finite loss whose gradient is too large for fp16 until the scale has been halved a few times."""
    return loss + (loss - loss.detach()) * 2.0**8


@pytest.mark.usefixtures("scaled")
def test_loss_scaling_may_overflow_at_first(run_small, tmp_path, monkeypatch, caplog):
    spoil(monkeypatch, range(100), overflowing)
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU"):
        assert run_small("trainer.precision=fp16", "trainer.max_epochs=4")["status"] == "done"
    assert "left out" not in caplog.text
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["MixedPrecision"]["scale"] < 2**16
    assert all_finite(tmp_path / "run" / "checkpoints" / "last.ckpt")


@pytest.mark.usefixtures("scaled")
def test_no_loss_scaling_mends_a_loss_of_nan(run_small, tmp_path, monkeypatch):
    spoil(monkeypatch, range(100))
    refused = pytest.raises(MedsegError, match=r"trainer.precision=bf16 or fp32 \(it is fp16\)")
    with refused, pytest.warns(UserWarning, match="fp16 is not supported on CPU"):
        run_small("trainer.precision=fp16")
    assert not list((tmp_path / "run").rglob("*.ckpt"))


@pytest.mark.usefixtures("scaled")
def test_a_gradient_that_no_scaling_mends_ends_the_training(run_small, tmp_path, monkeypatch):
    spoil(monkeypatch, range(100), lambda loss: loss + (loss - loss.detach()) * NAN)
    refused = pytest.raises(MedsegError, match="none of the 3 steps")
    with refused, pytest.warns(UserWarning, match="fp16 is not supported on CPU"):
        run_small("trainer.precision=fp16")
    assert result_of(tmp_path / "run")["status"] == "failed"


@pytest.mark.usefixtures("scaled")
def test_a_step_that_scaling_leaves_out_is_not_averaged(run_small, monkeypatch):
    spoil(monkeypatch, [4])
    averages, begin = [], TrainingModule.on_train_batch_start

    def begin_step(self, batch, batch_idx):
        averages.append([parameter.clone() for parameter in self.average.parameters()])
        begin(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "on_train_batch_start", begin_step)
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU"):
        run_small("trainer.precision=fp16")
    unchanged = [all(map(torch.equal, *pair)) for pair in pairwise(averages)]
    assert unchanged == [False, False, False, False, True]


def test_gradients_are_clipped_by_their_norm_without_the_scale(run_small, tmp_path, request):
    run_small("optimizer.lr=1e-9")
    (first, _) = (float(row["grad_norm"]) for row in rows_of(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run")
    request.getfixturevalue("scaled")
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU"):
        run_small("trainer.precision=fp16", "optimizer.lr=1e-9")
    assert float(rows_of(tmp_path / "run")[0]["grad_norm"]) == pytest.approx(first, rel=0.02)


def test_an_optimizer_that_unscales_after_clipping_is_refused(run_small):
    with pytest.raises(MedsegError, match=r"optimizer\.fused=true.*trainer\.precision=bf16 or fp32"):
        run_small("trainer.precision=fp16", "+optimizer.fused=true")


def test_output_that_is_not_finite_in_validation_ends_the_training(run_small, tmp_path, monkeypatch):
    logits = SegmentationModule.validation_step

    def spoilt(self, batch, batch_idx):
        final, self.final_logits = self.final_logits, lambda patches: [final(patches)[0] * NAN]
        try:
            return logits(self, batch, batch_idx)
        finally:
            self.final_logits = final

    monkeypatch.setattr(SegmentationModule, "validation_step", spoilt)
    with pytest.raises(MedsegError, match=r"output for a validation case is NaN(?s:.)*optimizer\.lr"):
        run_small()
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_pre_training_ends_so_too(composed, workplace, tmp_path, monkeypatch):
    options = ("model.depth=2", "model.base_channels=4", "trainer.max_epochs=2", "trainer.steps_per_epoch=2")
    options += ("dataset.dims=2", "dataset.cases=10", "dataset.size=64", "trainer.accelerator=cpu", *SMALL)
    config = composed("pretrain", *options) | {"cache_dir": str(workplace / "cache"), "run_dir": str(tmp_path / "run")}
    config["dataset"]["root"] = str(workplace / "phantom")
    spoil(monkeypatch, range(100), kind=ReconstructionModule)
    with pytest.raises(MedsegError, match="diverged"):
        pretrain.run(config)
    assert result_of(tmp_path / "run")["status"] == "failed"
    assert not list((tmp_path / "run").rglob("*.ckpt"))


@pytest.fixture
def poisoned(trained, tmp_path):
    """A copy of a run with one weight of NaN in both its checkpoints, as older versions wrote them."""
    run = tmp_path / "poisoned"
    shutil.copytree(trained, run)
    for file in (run / "checkpoints").iterdir():
        raw = torch.load(file, weights_only=True)
        for prefix in ("network.", "average."):
            names = [name for name in raw["state_dict"] if name.startswith(prefix)]
            if names:
                raw["state_dict"][names[0]].view(-1)[0] = NAN
        torch.save(raw, file)
    return run


def test_no_command_takes_weights_that_are_not_finite(poisoned, trained, composed, small, tmp_path):
    output, written, wrong = tmp_path / "out", {"run_dir": str(tmp_path / "new")}, {"checkpoint": str(poisoned)}
    predicting, exporting = (composed(command, f"output={output}/a.onnx") for command in ("predict", "export"))
    predicting |= {"input": str(tmp_path), "output": str(output)}
    training = small(3 if "3d" in trained.name else 2, *SMALL, "trainer.max_epochs=3")
    tuning = training | {"finetune": training["finetune"] | wrong}
    attempts = {
        "predict": (predict, predicting | wrong),
        "an ensemble": (predict, predicting | {"checkpoint": [str(trained), str(poisoned)]}),
        "eval": (evaluate, composed("eval", "subset=val") | wrong | written),
        "tune": (evaluate, composed("eval", "subset=val", "tune=postprocess") | wrong | written),
        "export": (export, exporting | wrong),
        "fine-tuning": (train, tuning | written),
    }
    for name, (job, config) in attempts.items():
        with pytest.raises(MedsegError, match="hold NaN or infinity") as error:
            job.run(config)
        assert "best.ckpt" in str(error.value), name
        assert not output.exists(), name
        assert not (tmp_path / "new").exists(), name
    with pytest.raises(MedsegError, match=r"last\.ckpt hold NaN or infinity"):
        train.run(training | {"resume": str(poisoned), "run_dir": str(poisoned)})
    assert result_of(poisoned) == result_of(trained)  # a resumed run that is refused stays as it was
