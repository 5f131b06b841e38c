"""Which validation is chosen, worked out by hand; when checkpoints are saved, and what is written meanwhile."""

from concurrent.futures import wait
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from medseg.errors import MedsegError
from medseg.training.callbacks import checkpoints
from medseg.training.callbacks.checkpoints import CheckpointFiles, Checkpoints, Selection, copied, settle_best


def after(*scores):
    selection = Selection()
    for epoch, score in enumerate(scores, 1):
        selection.add(epoch, score)
    return selection


def test_a_lucky_score_is_not_chosen():
    selection = after(0.5, 0.9, 0.5, 0.6, 0.8, 0.8, 0.7)
    assert selection.smoothed() == pytest.approx((0.8 + 0.8 + 0.7) / 3)
    assert selection.report()["best"] == {"epoch": 7, "dice": 0.7, "smoothed": round(2.3 / 3, 6)}


def test_the_first_scores_are_smoothed_over_what_there_is():
    assert after(0.4).smoothed() == 0.4
    assert after(0.4, 0.6).smoothed() == pytest.approx(0.5)


def test_of_equal_scores_the_later_is_chosen():
    assert after(0.5, 0.5, 0.5).report()["best"]["epoch"] == 3


def test_best_and_last_are_reported_with_the_noise_of_one_score():
    report = after(0.6, 0.7, 0.8, 0.9, 0.5, 0.5, 0.5, 0.5).report()
    assert report["best"]["epoch"] == 4
    assert report["last"] == {"epoch": 8, "dice": 0.5, "smoothed": 0.5}
    assert report["noise"] == 0
    rng = np.random.default_rng(0)
    noisy = after(*(0.8 + 0.02 * rng.normal(size=4000)))
    assert noisy.report()["noise"] == pytest.approx(0.02, rel=0.05)
    assert after(0.5, 0.6).report()["noise"] is None


def test_nothing_is_reported_without_a_validation():
    assert Selection().report() is None


def test_a_resumed_run_chooses_as_an_uninterrupted_one():
    resumed = Selection()
    resumed.load_state_dict(after(0.5, 0.9, 0.7).state_dict())
    resumed.add(4, 0.1)
    assert resumed == after(0.5, 0.9, 0.7, 0.1)
    assert not resumed.is_best


def test_the_best_score_is_that_of_the_chosen_weights():
    assert np.isnan(after().best_score)
    assert after(0.5, 0.9, 0.5, 0.6, 0.8, 0.8, 0.7).best_score == 0.7


def test_of_a_loss_the_lowest_is_chosen():
    selection = Selection(name="loss", lowest=True)
    for epoch, loss in enumerate((0.5, 0.1, 0.3, 0.3, 0.4), 1):
        selection.add(epoch, loss)
    assert selection.report()["best"] == {"epoch": 4, "loss": 0.3, "smoothed": round(0.7 / 3, 6)}
    assert selection.sign == -1


class Run:
    """A training as the callback sees it, on a clock that stands still between epochs."""

    def __init__(self, folder, epochs=99):
        self.now, self.saved, self.selection = 0.0, [], Selection()
        self.files = SimpleNamespace(check=lambda: None, wait=lambda: self.saved.append("wait"), is_writing=False)
        self.callback = Checkpoints(folder, self.selection, clock=lambda: self.now)
        self.strategy = SimpleNamespace(
            broadcast=lambda value: value, reduce_boolean_decision=lambda value: value, checkpoint_io=self.files
        )
        self.should_stop, self.max_epochs, self.current_epoch, self.lightning_module = False, epochs, 0, None
        self.step_record, self.world_size = SimpleNamespace(is_last_loss_finite=True), 1

    def save_checkpoint(self, path, weights_only):
        self.saved.append(path.name)

    def epoch(self, seconds, score=None):
        """Return what is saved at the end of an epoch that lasts so long."""
        self.now += seconds
        self.saved = []
        if score is not None:
            self.selection.add(self.current_epoch + 1, score)
            self.callback.on_validation_end(self, self)
        self.callback.on_train_epoch_end(self, self)
        self.current_epoch += 1
        return self.saved


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "check_weights", lambda trainer, module: None)
    return Run(tmp_path)


def test_the_state_is_saved_first_by_the_minute_and_last(run):
    run.max_epochs = 7
    assert run.epoch(5) == ["last.ckpt", "wait"]
    assert run.epoch(40) == []
    assert run.epoch(20) == ["last.ckpt"]
    run.files.is_writing = True
    assert run.epoch(70) == [], "a disk that takes longer than a minute"
    run.files.is_writing = False
    assert run.epoch(1) == ["last.ckpt"]
    assert run.epoch(1) == []
    assert run.epoch(1) == ["last.ckpt"], "the last epoch"
    run.should_stop = True
    assert run.epoch(1) == ["last.ckpt"]


def test_the_state_is_saved_with_the_best_weights(run):
    run.epoch(1)
    assert run.epoch(1, score=0.5) == ["next_best.ckpt", "last.ckpt"]
    assert run.epoch(1, score=0.1) == []
    run.step_record.is_last_loss_finite = False
    assert run.epoch(1, score=0.9) == ["next_best.ckpt"]
    run.step_record.is_last_loss_finite = True
    assert run.epoch(1) == ["last.ckpt"], "of the epoch after, whose loss is a good one"


def test_within_an_epoch_the_state_is_saved_by_the_minute_and_between_steps(run):
    run.num_training_batches, run.accumulate_grad_batches, run.is_global_zero = 4, 2, True
    run.callback.signals.install = lambda: None
    run.callback.on_train_start(run, run)

    def batches(seconds):
        saved = []
        for batch in range(4):
            run.now, run.saved = run.now + seconds, []
            run.callback.on_train_batch_end(run, run, None, None, batch)
            saved.append(run.saved)
        return saved

    assert batches(29) == [[]] * 4
    assert batches(30) == [[], ["last.ckpt"], [], []], "at the end of the epoch all else comes first"
    run.step_record.is_last_loss_finite = False
    assert batches(60) == [[]] * 4
    run.step_record.is_last_loss_finite, run.should_stop = True, True
    assert batches(60) == [[]] * 4


@pytest.fixture
def files():
    files = CheckpointFiles()
    yield files
    files.thread.shutdown()


def test_what_is_written_is_the_state_when_it_was_saved(files, tmp_path):
    start = Event()
    files.thread.submit(start.wait)  # the disk is busy
    network = nn.BatchNorm1d(3)
    content = {"state_dict": network.state_dict(), "optimizer_states": [{"state": {0: {"step": torch.tensor(5.0)}}}]}
    files.save_checkpoint(content, tmp_path / "last.ckpt")
    with torch.no_grad():
        network.weight.add_(1.0)
        content["optimizer_states"][0]["state"][0]["step"].add_(1.0)
    assert files.is_writing
    start.set()
    files.wait()
    written = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert written["state_dict"]["weight"].tolist() == [1.0, 1.0, 1.0]
    assert written["state_dict"]._metadata == network.state_dict()._metadata
    assert written["optimizer_states"][0]["state"][0]["step"] == 5.0


def test_a_state_of_the_same_form_is_copied_into_the_same_memory():
    first = copied({"a": [torch.zeros(3), 1], "b": torch.zeros(2)})
    second = copied({"a": [torch.ones(3), 2], "b": torch.ones(3)}, first)
    assert second["a"][0].data_ptr() == first["a"][0].data_ptr()
    assert second["a"][0].tolist() == second["b"].tolist() == [1.0, 1.0, 1.0]
    assert second["a"][1] == 2


def test_a_file_that_cannot_be_written_is_an_error_of_the_training(files, tmp_path, caplog):
    (tmp_path / "folder").write_text("a file")
    for ask in (files.wait, lambda: (wait(files.writing.values()), files.check())):
        files.save_checkpoint({}, tmp_path / "folder" / "last.ckpt")
        with pytest.raises(MedsegError, match=r"cannot write .*last\.ckpt"):
            ask()
    files.save_checkpoint({}, tmp_path / "folder" / "last.ckpt")
    files.teardown()  # by another error, which is the one to be raised
    assert "cannot write" in caplog.text


def held(path):
    return torch.load(path, weights_only=True)["epoch"]


def test_the_best_weights_take_their_place_once_the_state_that_chose_them_is_whole(files, tmp_path):
    for epoch in (1, 2):
        files.save_checkpoint({"epoch": epoch}, tmp_path / "next_best.ckpt")
        if epoch == 2:
            files.wait()
            assert held(tmp_path / "best.ckpt") == 1
        files.save_checkpoint({}, tmp_path / "last.ckpt")
        files.wait()
        assert held(tmp_path / "best.ckpt") == epoch
    assert not (tmp_path / "next_best.ckpt").exists()


def test_no_state_is_written_of_best_weights_that_found_no_room(files, tmp_path):
    (tmp_path / "next_best.ckpt").mkdir()
    files.save_checkpoint({}, tmp_path / "next_best.ckpt")
    files.save_checkpoint({}, tmp_path / "last.ckpt")
    with pytest.raises(MedsegError, match=r"cannot write .*next_best\.ckpt"):
        files.wait()
    files.wait()
    assert not (tmp_path / "last.ckpt").exists()


def test_a_resumed_run_keeps_the_weights_that_its_state_has_chosen_and_no_others(tmp_path):
    settle_best(tmp_path, after())
    for epoch, kept in ((1, 1), (2, 1)):  # counted from zero; the state has chosen the second
        torch.save({"epoch": epoch}, tmp_path / "next_best.ckpt")
        settle_best(tmp_path, after(0.5, 0.9, 0.1))
        assert held(tmp_path / "best.ckpt") == kept
        assert not (tmp_path / "next_best.ckpt").exists()
    (tmp_path / "next_best.ckpt").write_bytes(b"damaged")
    with pytest.raises(MedsegError, match=r"next_best\.ckpt.*Restore it, or remove it"):
        settle_best(tmp_path, after(0.5))
