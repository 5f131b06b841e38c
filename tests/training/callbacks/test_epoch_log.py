"""What an epoch's steps are said to be like, against numbers worked out beside it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from medseg.training.callbacks.epoch_log import StepMetrics, mean_and_largest, rates_of
from medseg.training.data.batches import BatchNumbers
from medseg.training.data.loader import PatchLoader
from medseg.training.optim.divergence import StepRecord
from medseg.training.segmentation import SegmentationModule


class Clock:
    """Stands still but for ``sleep``, so that no test depends on how busy the machine is."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def network_with_gradients():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2))
    network[:2](torch.randn(5, 3)).square().sum().backward()  # the last layer has no gradient
    return network


def test_rates_are_the_one_that_is_set_and_those_of_groups_with_another():
    def rates(*groups):
        return rates_of(SimpleNamespace(optimizers=[SimpleNamespace(param_groups=groups)]))

    assert rates({"lr": 0.5}) == {"train/lr": 0.5}
    assert rates({"lr": 1.5, "factor": 3.0, "name": "head"}) == {"train/lr": 0.5, "train/lr/head": 1.5}
    body, head = {"lr": 0.5, "factor": 1.0, "name": "body"}, {"lr": 1.5, "factor": 3.0, "name": "head"}
    assert rates(body, head) == {"train/lr": 0.5, "train/lr/body": 0.5, "train/lr/head": 1.5}


@pytest.mark.parametrize("limit", [None, 0.5, 1e6])
def test_the_norm_is_that_before_clipping(limit):
    network, twin = network_with_gradients(), network_with_gradients()
    trainer = SimpleNamespace(precision_plugin=None)
    module = SimpleNamespace(network=network, step_record=StepRecord(), trainer=trainer)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    SegmentationModule.configure_gradient_clipping(module, optimizer, limit)
    flat = np.concatenate([each.grad.numpy().ravel() for each in twin.parameters() if each.grad is not None])
    assert module.gradient_norm.item() == pytest.approx(np.linalg.norm(flat), rel=1e-6)
    if limit:
        nn.utils.clip_grad_norm_(twin.parameters(), limit)
    for mine, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert mine.grad is None if other.grad is None else torch.equal(mine.grad, other.grad)


def test_steps_that_overflowed_are_left_out():
    assert mean_and_largest([torch.tensor(value) for value in (1.0, math.inf, 4.0, math.nan)]) == (2.5, 4.0)
    assert all(math.isnan(value) for value in mean_and_largest([torch.tensor(math.inf)]))
    assert all(math.isnan(value) for value in mean_and_largest([]))


class Slow(Dataset):
    def __init__(self, clock):
        self.clock, self.ring = clock, {"image": torch.zeros(1, 2)}

    def __getitem__(self, numbers):
        self.clock.sleep(4.0)
        self.ring["image"][0] = torch.tensor(numbers)
        return 0


def test_a_loader_counts_what_its_batches_take_and_not_what_is_done_between(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(PatchLoader, "clock", clock)
    loader = PatchLoader(Slow(clock), BatchNumbers(2, 2), workers=0, device=torch.device("cpu"))
    seen = []
    for batch in loader:
        seen += batch["image"].tolist()
        clock.sleep(10.0)
    assert seen == [0, 1, 2, 3]
    assert loader.waited == 2 * 4.0
    assert len(list(loader)) == len(loader) == 2
    assert loader.waited == 4 * 4.0


def epoch(metrics, *, accumulate=1, batches=4, wait=0.0, work=0.0):
    """An epoch with batches that take ``wait`` to come and ``work`` to use; return what is logged of it."""
    loader = SimpleNamespace(waited=7.0)
    trainer = SimpleNamespace(
        train_dataloader=loader, global_step=10, accumulate_grad_batches=accumulate, num_training_batches=batches
    )
    module = SimpleNamespace(gradient_norm=None)
    metrics.on_train_epoch_start(trainer, module)
    for batch in range(batches):
        metrics.clock.sleep(wait + work)
        loader.waited += wait
        if (batch + 1) % accumulate == 0:
            trainer.global_step += 1
            module.gradient_norm = torch.tensor(float(trainer.global_step))
        outputs = {"loss": torch.tensor((batch + 1.0) / accumulate)}
        metrics.on_train_batch_end(trainer, module, outputs, None, batch)
    metrics.on_validation_start(trainer, module)
    metrics.clock.sleep(100.0)  # of a validation
    return metrics.finish()


def test_an_epoch_in_numbers():
    metrics = StepMetrics(Clock())
    for _ in range(2):  # the second epoch knows nothing of the first
        logged = epoch(metrics, wait=1.0, work=3.0)
        assert logged["train/grad_norm"] == pytest.approx((11 + 12 + 13 + 14) / 4)
        assert logged["train/grad_norm_max"] == 14
        assert logged["train/loss"] == (1 + 2 + 3 + 4) / 4
        assert logged["train/step_seconds"] == 4.0
        assert logged["train/data_share"] == 0.25


def test_a_step_of_the_optimizer_counts_once_while_gradients_are_accumulated():
    logged = epoch(StepMetrics(Clock()), accumulate=2, work=3.0)
    assert logged["train/grad_norm"] == pytest.approx((11 + 12) / 2)
    assert logged["train/step_seconds"] == 6.0
    assert logged["train/data_share"] == 0
