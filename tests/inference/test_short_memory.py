"""Where memory runs out while a scan is segmented: smaller batches, sums on the CPU, and the same result."""

import numpy as np
import pytest
import torch

from medseg.inference.probabilities import Scorer, slabs_within_memory
from medseg.inference.segmenter import Segmenter
from medseg.inference.sliding_window import MemoryLimits, SliceSums, sliding_window
from medseg.inference.uncertainty import UncertaintyMap
from medseg.io.case import Scan
from medseg.preprocessing.preprocessor import Preprocessor

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Narrow:
    """A network on a device with memory for so many windows at once; what it makes depends on the place in a window."""

    def __init__(self, windows):
        self.windows, self.passes = windows, []

    def __call__(self, x):
        self.passes.append(len(x))
        if len(x) > self.windows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        ramp = torch.linspace(-1, 2, x.shape[-1])
        return [torch.cat([x * ramp, x.square() - ramp, ramp.expand_as(x)], 1)]


def windows_of(network, image, **options):
    rows = sliding_window([network], image, n_outputs=3, main_axis=1, **options)
    return torch.cat([block.clone() for block in rows], 2)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("fits", [1, 2, 3, 5])
def test_fewer_windows_at_once_give_the_same(fits, backwards, caplog):
    image = torch.randn(1, 20, 31, generator=torch.Generator().manual_seed(0))
    options = {"patch_size": [8, 8], "batch_size": 7, "from_end": backwards, "mirror_axes": [0]}
    expected = windows_of(Narrow(7), image, **options)
    network = Narrow(fits)
    torch.testing.assert_close(windows_of(network, image, **options), expected, atol=1e-6, rtol=1e-6)
    halvings = sum(count > fits for count in network.passes)
    assert 1 <= halvings <= 3  # until it fits, and not tried again
    assert len(caplog.messages) == halvings
    assert "inference.batch_size" in caplog.text


def test_windows_of_which_not_even_one_fits_are_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        windows_of(Narrow(0), torch.zeros(1, 20, 31), patch_size=[8, 8], batch_size=4)


def test_an_error_of_another_kind_is_not_tried_again():
    def network(x):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        windows_of(network, torch.zeros(1, 20, 31), patch_size=[8, 8], batch_size=4)


def test_later_scans_begin_with_the_batch_that_fitted():
    scorer, network = Scorer(patch_size=[8, 8], n_outputs=3, batch_size=8), Narrow(2)
    for _ in range(2):
        scan = Scan(np.random.default_rng(0).normal(size=(1, 20, 31)).astype(np.float32), np.eye(4))
        list(scorer([network], *Preprocessor(normalize=["zscore"])(scan)))
    assert network.passes[:3] == [8, 4, 2]
    assert max(network.passes[3:]) == 2
    assert scorer.limits == MemoryLimits(2)


def slabs_of(failing_slab=None, tried=None):
    """Return slabs for ``slabs_within_memory``; on a GPU memory runs out at the slab of this number."""
    probs = torch.rand(3, 6, 10, generator=torch.Generator().manual_seed(0)).softmax(0)

    def slabs_on(place):
        for number, start in enumerate(range(0, 10, 3)):
            if tried is not None:
                tried.append((place.type, number))
            if place.type != "cpu" and number == failing_slab:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            yield slice(start, min(start + 3, 10)), probs[..., start : start + 3]

    return slabs_on, probs


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_sums_move_to_the_cpu_and_every_slice_comes_once(failing, caplog):
    tried = []
    slabs_on, probs = slabs_of(failing, tried)
    places, seen = [], []
    labels = Segmenter().predict_labels(
        slabs_within_memory(slabs_on, GPU, MemoryLimits()),
        (6, 10),
        [lambda place, scores: (places.append(place), seen.append(scores))],
    )
    assert [place.start for place in places] == [0, 3, 6, 9]
    torch.testing.assert_close(torch.cat(seen, -1), probs)
    np.testing.assert_array_equal(labels, probs.argmax(0).numpy())
    assert tried == [("cuda", n) for n in range(failing + 1)] + [("cpu", n) for n in range(4)]
    assert len(caplog.messages) == 1
    assert "CPU" in caplog.text


def test_of_a_full_device_the_user_is_told_once_by_each_scorer(caplog):
    for _ in range(2):
        limits = MemoryLimits()
        for _ in range(3):
            list(slabs_within_memory(slabs_of(0)[0], GPU, limits))
    assert len(caplog.messages) == 2


def test_with_enough_memory_nothing_is_made_twice(caplog):
    tried = []
    slabs_on, _ = slabs_of(tried=tried)
    assert len(list(slabs_within_memory(slabs_on, GPU, MemoryLimits()))) == 4
    assert tried == [("cuda", n) for n in range(4)]
    assert not caplog.messages


def test_on_the_cpu_there_is_no_further_place():
    def slabs_on(place):
        raise MemoryError
        yield

    with pytest.raises(MemoryError):
        list(slabs_within_memory(slabs_on, CPU, MemoryLimits()))


def test_windows_are_brought_to_the_networks_and_scores_to_the_sums(monkeypatch):
    """Whatever is on a device, seen by the ``to`` that tensors are moved with and the sums' own device."""
    moves, sums = [], []
    monkeypatch.setattr(torch.Tensor, "to", lambda x, place, *rest: moves.append(place) or x)
    original = SliceSums.__init__
    monkeypatch.setattr(
        SliceSums, "__init__", lambda self, *given: sums.append(given[-1]) or original(self, *given[:-1], CPU)
    )
    image = torch.randn(1, 8, 8)
    list(sliding_window([Narrow(9)], image, patch_size=[8, 8], n_outputs=3, main_axis=0, device=GPU))
    assert sums == [CPU]
    assert moves == [CPU, GPU, CPU]  # the weights, the windows, their scores


class OnGpu(torch.Tensor):
    """Says that it is on a GPU, whose memory is short."""

    device = GPU

    def argmax(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_labels_and_uncertainty_of_a_slab_are_made_on_the_cpu_where_the_device_is_full(monkeypatch):
    probs = torch.rand(3, 6, 10, generator=torch.Generator().manual_seed(0)).softmax(0)
    labels = Segmenter().predict_labels(iter([(slice(0, 10), probs.as_subclass(OnGpu))]), (6, 10))
    np.testing.assert_array_equal(labels, probs.argmax(0).numpy())

    import medseg.inference.uncertainty as module

    expected, found = UncertaintyMap((6, 10), regions=False), UncertaintyMap((6, 10), regions=False)
    expected(slice(0, 10), probs)
    entropy = module.entropy

    def full(scores, *, regions):
        if isinstance(scores, OnGpu):
            raise RuntimeError("CUDA error: out of memory")
        return entropy(scores, regions=regions)

    monkeypatch.setattr(module, "entropy", full)
    found(slice(0, 10), probs.as_subclass(OnGpu))
    np.testing.assert_array_equal(found.values, expected.values)
