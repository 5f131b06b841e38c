"""Batches: the same whoever loads them and whenever, and never overwritten while they are in use."""

import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from monai.transforms import Lambdad, MapTransform, RandShiftIntensityd
from torch.utils.data import default_collate

from medseg.errors import MedsegError
from medseg.training.data import loader as loader_module
from medseg.training.data.batches import Batches, BatchNumbers, batch_bytes, batch_type
from medseg.training.data.datamodule import SegmentationData
from medseg.training.data.loader import PatchLoader, on_cuda
from medseg.training.data.patches import Patches
from medseg.training.data.workers import PREFETCHED, slots_for

STEPS, BATCH = 3, 2
CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores


@pytest.fixture(params=[torch.float16, torch.float32], ids=["half", "single"])
def files(request, tmp_path):
    for number in range(3):
        label = torch.zeros(20, 30, dtype=torch.uint8)
        label[number, number] = 1
        image = torch.arange(2.0 * label.numel()).reshape(2, 20, 30) + number
        case = {
            "image": image.to(request.param),
            "label": label,
            "locations": [label.nonzero().int()],
            "annotated": torch.ones(2, dtype=torch.bool),
            "known": torch.zeros(0, 2),
            "false_positives": torch.zeros(0, 2),
        }
        torch.save(case, tmp_path / f"{number}.pt")
    return sorted(tmp_path.glob("*.pt"))


def make_patches(files, **options):
    return Patches(files, patch_size=[8, 8], foreground=0.5, seed=7, context=[2, 1], **options)


def make_loader(files, workers, slots=None, **options):
    patches = make_patches(files, **options)
    dtype = batch_type(patches, torch.device("cuda"))
    batches = Batches(patches, BATCH, slots or slots_for(workers), dtype=dtype, is_shared=workers > 0)
    return PatchLoader(batches, BatchNumbers(STEPS, BATCH), workers=workers, device=CPU)


def expected(patches, batch):
    return default_collate([patches[n] for n in range(batch * BATCH, (batch + 1) * BATCH)])


def is_same(batch, other):
    return batch.keys() == other.keys() and all(torch.equal(batch[name], other[name]) for name in batch)


def epoch_of(loader, epoch, most=STEPS):
    """The first batches of an epoch, copied, in the order of Lightning's calls."""
    iterator = iter(loader)
    loader.sampler.set_epoch(epoch)
    return [{name: tensor.clone() for name, tensor in next(iterator).items()} for _ in range(most)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_their_epoch_also_after_a_resume_a_stop_and_a_repetition(files, workers):
    loader, patches = make_loader(files, workers), make_patches(files)
    for epoch, most in [(5, STEPS), (6, STEPS), (7, 1), (7, STEPS), (7, 2), (8, STEPS), (9, STEPS)]:
        for step, batch in enumerate(epoch_of(loader, epoch, most)):
            assert is_same(batch, expected(patches, epoch * STEPS + step)), (epoch, step)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_within_an_epoch(files, workers):
    before, patches = make_loader(files, 0), make_patches(files)
    epoch_of(before, 4, 2)
    loader = make_loader(files, workers)
    loader.load_state_dict(before.state_dict())
    batches = epoch_of(loader, 4, STEPS - 2) + epoch_of(loader, 5)
    for batch, number in zip(batches, range(4 * STEPS + 2, 6 * STEPS), strict=True):
        assert is_same(batch, expected(patches, number))
    with pytest.raises(MedsegError, match=f"stopped within an epoch of {STEPS + 1} batches"):
        loader.load_state_dict({"batch": 9, "steps": STEPS + 1})


def test_workers_go_on_from_epoch_to_epoch(files, monkeypatch):
    started = []
    original = loader_module.DataLoader.__iter__
    monkeypatch.setattr(loader_module.DataLoader, "__iter__", lambda self: (started.append(1), original(self))[1])
    loader = make_loader(files, workers=0)
    for epoch in range(3):
        epoch_of(loader, epoch)
    assert len(started) == 1
    epoch_of(loader, 2)  # again
    assert len(started) == 2


@pytest.mark.parametrize("too_few", [0, 2])
def test_a_slow_consumer_keeps_its_batch_and_the_one_before(files, too_few):
    """The second case is the counterproof: with two slots less batches are overwritten."""
    workers = 1
    slots = slots_for(workers) - too_few
    loader, patches = make_loader(files, workers, slots), make_patches(files)
    kept = []
    for epoch in range(3):
        iterator = iter(loader)
        loader.sampler.set_epoch(epoch)
        for step, batch in enumerate(iterator):
            while loader._iterator._worker_result_queue.qsize() < workers * PREFETCHED:
                time.sleep(0.001)  # until the worker has done all that it may do ahead
            slot = (epoch * STEPS + step) % slots
            before = (slot - 1) % slots
            now = [{name: tensor[each] for name, tensor in loader.batches.ring.items()} for each in (before, slot)]
            wanted = [expected(patches, epoch * STEPS + step - back) for back in (1, 0) if epoch + step >= back]
            kept.append(all(map(is_same, map(as_single, now[-len(wanted) :]), wanted)) and is_same(batch, wanted[-1]))
    assert all(kept) == (not too_few)


def as_single(batch):
    return batch | {"image": batch["image"].float()}


def test_images_travel_in_the_type_of_the_cache_but_to_a_cpu(files):
    patches, stored = make_patches(files), torch.load(files[0])["image"].dtype
    assert batch_type(patches, torch.device("cuda")) == stored
    assert batch_type(patches, CPU) == torch.float32
    assert (
        batch_type(make_patches(files, transform=lambda sample, number: sample), torch.device("cuda")) == torch.float32
    )
    voxels = 12 * 10
    assert batch_bytes(patches, 3, stored) == 3 * (voxels * (2 * stored.itemsize + 1) + 2 + 8)


def test_ranks_share_an_epoch_and_epochs_differ():
    first, second = (iter(BatchNumbers(2, 2, rank=rank, ranks=2)) for rank in range(2))
    numbers = [[*next(each)] for _ in range(2) for each in (first, second)]
    assert numbers == [[0, 1], [2, 3], [4, 5], [6, 7]]
    later = BatchNumbers(2, 2, rank=1, ranks=2)
    later.set_epoch(1)
    assert [*next(iter(later))] == [10, 11]


def data_of(files, transforms, workers):
    options = {"patch_size": [8, 8], "batch_size": BATCH, "steps_per_epoch": STEPS, "seed": 7}
    return SegmentationData(files, files, transforms=transforms, workers=workers, **options)


@pytest.mark.parametrize("files", [torch.float32], indirect=True)
def test_the_users_transforms_draw_the_same_in_a_worker(files):
    shift = RandShiftIntensityd("image", offsets=0.5, prob=1.0)
    here, there = (epoch_of(data_of(files, [shift], workers).train_dataloader(), 1) for workers in (0, 1))
    assert all(map(is_same, here, there))
    plain = epoch_of(data_of(files, [], 0).train_dataloader(), 1)
    assert not any(map(is_same, here, plain))
    assert all(torch.equal(mine["label"], other["label"]) for mine, other in zip(here, plain, strict=True))


KILLED = """
import os, signal, sys, torch
from medseg.training.data.loader import Batches, BatchNumbers, PatchLoader
from medseg.training.data.patches import Patches

patches = Patches(sys.argv[1:], patch_size=[8, 8], foreground=0.5, seed=7)
batches = Batches(patches, 2, 4, dtype=torch.float32, is_shared=True)
next(iter(PatchLoader(batches, BatchNumbers(3, 2), workers=1, device=torch.device("cpu"))))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("files", [torch.float32], indirect=True)
def test_workers_of_a_killed_training_end(files):
    # It ends when nobody can write to its output any more: neither the training nor a worker.
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, files)], capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_transforms_that_cannot_be_sent_to_workers_are_one_message(files):
    local = Lambdad("image", lambda image: image + 1)
    with pytest.raises(MedsegError, match=r"augment\.transforms: Lambdad cannot be sent .* trainer\.workers=0"):
        data_of(files, [local], workers=1).train_dataloader()
    assert epoch_of(data_of(files, [local], workers=0).train_dataloader(), 0)


def test_transforms_of_the_main_script_are_not_sent_to_workers(files, monkeypatch):
    class Brighter(MapTransform):
        def __call__(self, data):
            return data

    Brighter.__module__, Brighter.__qualname__ = "__main__", "Brighter"
    monkeypatch.setattr(sys.modules["__main__"], "Brighter", Brighter, raising=False)
    with pytest.raises(MedsegError, match=r"Brighter cannot be sent .*the main script or a notebook"):
        data_of(files, [Brighter("image")], workers=1).train_dataloader()


def test_transforms_that_change_the_size_of_a_patch_are_one_message(files):
    smaller = Lambdad("image", lambda image: image[:, 1:])
    with pytest.raises(MedsegError, match=r"image of shape \(2, 7, 8\), where \(2, 8, 8\) was given"):
        epoch_of(data_of(files, [smaller], workers=0).train_dataloader(), 0)


def test_a_gpu_gets_the_next_batch_while_it_computes_and_no_slot_is_asked_for_before_it_is_copied(files, monkeypatch):
    """With streams that write down what is asked of them, on the CPU."""
    done = []

    class Stream:
        def __init__(self, *_):
            self.copies = 0

        def record_event(self):
            self.copies += 1
            number = self.copies - 1
            done.append(f"copy {number}")
            return SimpleNamespace(number=number, synchronize=lambda: done.append(f"copied {number}"))

        def wait_event(self, event):
            done.append(f"step waits for {event.number}")

        def synchronize(self):
            done.append("all copied")

    def slots():
        for number in range(99):
            done.append(f"ask for {number}")
            yield batches[range(BATCH * number, BATCH * (number + 1))]

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    batches = Batches(make_patches(files), BATCH, slots_for(0), dtype=torch.float16, is_shared=False)
    iterator = on_cuda(batches, slots(), CPU)
    for number in range(2):
        batch = next(iterator)
        assert batch["image"].dtype == torch.float32
        done.append(f"step {number}")
    iterator.close()
    assert done == [
        *("ask for 0", "copy 0", "ask for 1", "copy 1", "step waits for 0", "step 0"),
        *("copied 0", "ask for 2", "copy 2", "step waits for 1", "step 1", "all copied"),
    ]


def test_workers_that_were_chosen_by_shared_memory_are_not_refused_for_what_others_take_meanwhile(files, monkeypatch):
    data = data_of(files, [], workers=None)
    data.trainer = SimpleNamespace(
        global_rank=0, world_size=1, num_devices=1, strategy=SimpleNamespace(root_device=torch.device("meta"))
    )
    looks = iter([10**9, 0])
    monkeypatch.setattr("medseg.training.data.workers.free_bytes", lambda: next(looks))
    assert data.train_dataloader().num_workers > 0
