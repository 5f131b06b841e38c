"""The distortions of Models Genesis, against its formulas in NumPy and SciPy and against brute force."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch
from scipy.special import comb

from medseg.augmentation import Genesis, RandomNumbers
from medseg.augmentation.genesis import bezier, inside, interpolated, shuffled_within, window_numbers
from medseg.augmentation.random import seeded
from medseg.errors import MedsegError

NOTHING = {"nonlinear_probability": 0, "shuffling_probability": 0, "painting_probability": 0}


def draws(batch, seed=0):
    return RandomNumbers([seeded(seed, place) for place in range(batch)])


def images(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) - 1


def published(x, inner, *, inverted):
    """Bend intensities as Zhou et al.'s ``nonlinear_transformation`` does, of control points drawn before."""
    points = np.array([[0, 0], *inner, [1, 1]])
    t = np.linspace(0.0, 1.0, 100_000)
    bernstein = np.array([comb(3, i) * t ** (3 - i) * (1 - t) ** i for i in range(4)])
    x_values, y_values = points[:, 0] @ bernstein, points[:, 1] @ bernstein
    x_values = np.sort(x_values)
    return np.interp(x, x_values, y_values if inverted else np.sort(y_values))


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("inner", [[[0.2, 0.9], [0.5, 0.1]], [[0.9, 0.3], [0.1, 0.8]]])
def test_curves_are_those_of_the_published_code(inner, inverted):
    x = torch.rand(1, 500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    curves = bezier(torch.tensor([inner]), torch.tensor([inverted]))
    found = interpolated(x, *curves)
    np.testing.assert_allclose(found[0], published(x[0].numpy(), inner, inverted=inverted), atol=2e-3)


def test_intensities_stay_within_each_channels_range_and_keep_or_turn_their_order():
    image = images(20, 2, 12, 12)
    bent, hidden = Genesis(**NOTHING | {"nonlinear_probability": 1})(image, draws(20))
    assert hidden.all()
    order = image.flatten(2).argsort(dim=2)
    along = bent.flatten(2).gather(2, order)  # from dark to bright
    upwards = [bool((row.diff() >= -1e-4).all()) for row in along.flatten(0, 1)]
    ends = along[..., -1] > along[..., 0]
    assert 10 <= sum(upwards) <= 30  # about a half of forty
    assert upwards == ends.flatten().tolist()
    low, high = (getattr(image.flatten(2), name)(2).values for name in ("min", "max"))
    for extreme in (along[..., 0], along[..., -1]):
        assert ((extreme - low).abs().minimum((extreme - high).abs()) < 1e-4).all()


def test_windows_are_numbered():
    numbers = window_numbers((5, 4), (2, 3), (1, 0), torch.device("cpu"))
    groups = defaultdict(list)
    for place, number in zip(itertools.product(range(5), range(4)), numbers.flatten().tolist(), strict=True):
        groups[number].append(place)
    rows, columns = [[0], [1, 2], [3, 4]], [[0, 1, 2], [3]]
    assert sorted(groups.values()) == sorted(
        [(row, column) for row in some for column in others] for some in rows for others in columns
    )


@pytest.mark.parametrize("shape", [(23, 30), (11, 20, 13)])
def test_voxels_are_shuffled_within_their_windows_and_all_channels_alike(shape):
    windows = window_numbers(shape, [3] * len(shape), [2] * len(shape), torch.device("cpu"))
    image = torch.arange(windows.numel()).reshape(shape)
    numbers = torch.rand(windows.numel(), generator=torch.Generator().manual_seed(0))
    shuffled = shuffled_within(torch.stack([image, -image]), windows, numbers)
    assert torch.equal(shuffled[0], -shuffled[1])
    assert torch.equal(shuffled[0].flatten().sort().values, image.flatten())
    assert torch.equal(windows.flatten()[shuffled[0].flatten()], windows.flatten())  # each comes from its own window
    assert (shuffled[0] != image).double().mean() > 0.7


def test_shuffled_samples_keep_their_values():
    image = images(8, 1, 30, 40)
    shuffled, _ = Genesis(**NOTHING | {"shuffling_probability": 1})(image, draws(8))
    before, after = (whole.flatten(2).sort(dim=2).values for whole in (image, shuffled))
    torch.testing.assert_close(before, after)
    assert not torch.allclose(image, shuffled)


@pytest.mark.parametrize("shape", [(13, 9), (7, 9, 8), (1, 12, 6)])
def test_windows_against_brute_force(shape):
    generator = np.random.default_rng(0)
    starts, sizes = generator.random((2, 3, len(shape))), generator.uniform(0.1, 0.6, (2, 3, len(shape)))
    there = np.array([[True, False, True], [True, True, False]])
    expected = np.zeros((2, *shape), bool)
    for sample, window in np.argwhere(there):
        parts = []
        for axis, length in enumerate(shape):
            size = max(1, int(sizes[sample, window, axis] * length))
            first = int(starts[sample, window, axis] * (length - size + 1))
            parts.append(slice(first, first + size))
        expected[(sample, *parts)] = True
    found = inside(shape, torch.tensor(starts), torch.tensor(sizes), torch.tensor(there))
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("outer", [0, 1])
def test_parts_are_painted_over_and_the_rest_is_kept(outer):
    image = images(30, 2, 42, 42)
    painted, _ = Genesis(**NOTHING | {"painting_probability": 1, "outpainting_share": outer})(image, draws(30))
    changed = ((painted - image).abs() > 1e-4).any(1)
    shares = changed.double().mean((1, 2))
    low, high = (getattr(image.flatten(2), name)(2).values[..., None, None] for name in ("min", "max"))
    assert ((painted >= low - 1e-4) & (painted <= high + 1e-4)).all()
    if outer:  # one window at least is kept: 3/7 of each axis; at most five of 4/7
        assert 0.1 < shares.min() < shares.max() <= 1 - (18 / 42) ** 2 + 1e-6
    else:  # five windows at most, of at most a third of each axis
        assert 7**2 / 42**2 * 0.9 <= shares.max() <= 5 * 14**2 / 42**2
        assert shares.mean() > 0.1


def test_what_is_not_chosen_stays_as_it_is():
    image = images(3, 2, 10, 8, 6)
    distorted, hidden = Genesis(**NOTHING)(image, draws(3))
    torch.testing.assert_close(distorted, image)
    assert hidden.shape == (3, 1, 10, 8, 6)
    assert hidden.all()


@pytest.mark.parametrize("shape", [(24, 20), (12, 14, 10)])
def test_a_sample_does_not_hang_on_its_batch(shape):
    image = images(4, 2, *shape)
    four, two = (Genesis()(image[:n].clone(), draws(n))[0] for n in (4, 2))
    torch.testing.assert_close(four[:2], two)
    again, _ = Genesis()(image.clone(), draws(4))
    assert torch.equal(again, four)


def test_a_constant_channel_stays_finite():
    distorted, _ = Genesis()(torch.full((2, 1, 12, 12), 5.0), draws(2))
    torch.testing.assert_close(distorted, torch.full((2, 1, 12, 12), 5.0))


def test_a_probability_out_of_range_is_refused():
    with pytest.raises(MedsegError, match="pretext: painting_probability of Genesis is 2"):
        Genesis(painting_probability=2)
