"""Slabs of scores against the plain way: whole volumes of probabilities, resampled at once, then decided."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from medseg.inference.probabilities import NotFiniteError, Scorer, averaged, kept_on_disk
from medseg.inference.segmenter import Regions, Segmenter
from medseg.io.case import Scan
from medseg.io.labels import LabelMap
from medseg.preprocessing.preprocessor import Preprocessor

REGIONS = LabelMap({"background": 0, "edema": 1, "core": 2}, regions={"whole": ["edema", "core"], "inner": ["core"]})


def make_network(n_outputs, seed, dims=3):
    """A small convolution with a field of view, so that windows differ where they overlap."""
    torch.manual_seed(seed)
    layer = (torch.nn.Conv3d if dims == 3 else torch.nn.Conv2d)(1, n_outputs, 3, padding=1).eval()
    return lambda patches: [layer(patches) * 3]


def scan(shape=(23, 19, 40), flips=(1, -1, -1), seed=0):
    image = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    image[:, :3] = image.min()  # so that cropping has something to cut
    return Scan(image, np.diag([*flips[: len(shape)], *[1] * (4 - len(shape))]).astype(float))


def plainly(scorer, network, image, geometry):
    """All probabilities on the native grid, made by one window after the other and one resampling of the whole."""
    from medseg.inference.sliding_window import gaussian, starts

    patch = scorer.patch_size
    assert all(size >= p for size, p in zip(image.shape[1:], patch, strict=True))
    total, norm = torch.zeros(scorer.n_outputs, *image.shape[1:]), torch.zeros(image.shape[1:])
    for corner in itertools.product(
        *(starts(s, p, scorer.overlap) for s, p in zip(image.shape[1:], patch, strict=True))
    ):
        where = tuple(slice(start, start + p) for start, p in zip(corner, patch, strict=True))
        logits = network(image[(None, slice(None), *where)])[0][0]
        if scorer.averaging == "probabilities":
            logits = torch.from_numpy(expit(logits.numpy()) if scorer.regions else softmax(logits.numpy(), axis=0))
        total[(slice(None), *where)] += logits * gaussian(tuple(patch))
        norm[where] += gaussian(tuple(patch))
    fill = (
        torch.zeros(scorer.n_outputs) if scorer.averaging == "probabilities" else torch.full((scorer.n_outputs,), -99.0)
    )
    fill[0] = fill[0] if scorer.regions else 1.0 if scorer.averaging == "probabilities" else 0.0
    [(_, native)] = geometry.slabs(geometry.in_one_block(total / norm), fill, most=10**9)
    if scorer.averaging == "logits":
        native = torch.from_numpy(expit(native.numpy()) if scorer.regions else softmax(native.numpy(), axis=0))
    return native


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("averaging", ["probabilities", "logits"])
@pytest.mark.parametrize("flips", [(1, -1, -1), (-1, 1, 1)])
@pytest.mark.parametrize("spacing", [None, [1.3, 0.8, 1.7], [1.0, 1.0, 0.6]])
@torch.inference_mode()
def test_streamed_probabilities_equal_the_plain_ones(regions, averaging, flips, spacing, monkeypatch):
    monkeypatch.setattr("medseg.inference.sliding_window.CHUNK_SIZE", 2000)
    network, given = make_network(2 + (not regions), 0), scan(flips=flips)
    scorer = Scorer(
        patch_size=[8, 12, 8], n_outputs=2 + (not regions), regions=regions, batch_size=3, averaging=averaging
    )
    image, geometry = Preprocessor(normalize=["zscore"], spacing=spacing)(given)
    expected = plainly(scorer, network, image, geometry)
    slabs = list(scorer.slabs(scorer.blocks([network], image, geometry), geometry, torch.device("cpu"), most=3000))
    assert len(slabs) > 3
    found = torch.cat([scores for _, scores in slabs], -1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    if regions:
        segmenter = Segmenter(regions=Regions.of(REGIONS))
        whole, inner = expected > 0.5
        labels = torch.where(whole & inner, 2, torch.where(whole, 1, 0))
    else:
        segmenter, labels = Segmenter(), expected.argmax(0)
    indices = segmenter(iter(slabs), given.shape, spacing=(1, 1, 1), unit="mm")
    assert (indices != labels.numpy()).mean() <= 1e-4


@torch.inference_mode()
def test_an_ensemble_on_several_grids_is_the_mean_of_its_members():
    networks = [make_network(3, seed) for seed in range(3)]
    given, scorer = scan(), Scorer(patch_size=[8, 8, 8], n_outputs=3)
    prepared = [Preprocessor(normalize=["zscore"], spacing=s)(given) for s in (None, [1.2, 1.2, 1.2])]
    first = kept_on_disk(scorer.blocks(networks[:2], *prepared[0]))
    ensemble = [
        scorer.slabs(first, prepared[0][1], torch.device("cpu")),
        scorer.slabs(scorer.blocks(networks[2:], *prepared[1]), prepared[1][1], torch.device("cpu")),
    ]
    found = torch.cat([scores for _, scores in averaged(ensemble, [2, 1])], -1)
    members = [plainly(scorer, network, *prepared[place]) for network, place in zip(networks, (0, 0, 1), strict=True)]
    torch.testing.assert_close(found, sum(members) / 3, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("averaging", ["probabilities", "logits"])
@pytest.mark.parametrize("regions", [False, True])
def test_no_mask_is_made_of_output_that_is_not_finite(regions, averaging, value):
    if regions and averaging == "probabilities" and value == float("inf"):
        pytest.skip("the probability of an infinite logit is 1")
    good = make_network(2, 0)

    def odd(patches):
        logits = good(patches)[0].clone()
        logits[:, 0, 3, 4, 5] = value  # one voxel of each window
        return [logits]

    image, geometry = Preprocessor(normalize=["zscore"])(scan())
    scorer = Scorer(patch_size=(8, 8, 8), n_outputs=2, regions=regions, averaging=averaging)
    with torch.inference_mode():
        assert sum(scores.shape[-1] for _, scores in scorer([good], image, geometry)) == 40
        for networks in ([odd], [good, odd]):  # an ensemble is no better than its worst
            with pytest.raises(NotFiniteError, match="precision=fp32"):
                list(scorer(networks, image, geometry))
