"""Random numbers that depend on a sample's own generator alone."""

import torch

from medseg.augmentation import RandomNumbers


def drawn(*seeds: int) -> RandomNumbers:
    return RandomNumbers([torch.Generator().manual_seed(seed) for seed in seeds])


def test_a_sample_has_its_own_numbers_however_many_are_beside_it() -> None:
    together, alone = drawn(1, 2, 3), drawn(2)
    for shape in [(), (3,), (700,), (2, 5)]:
        assert torch.equal(together.standard(*shape)[1:2], alone.standard(*shape))
    assert together.seeds()[1:2] == alone.seeds()
    numbers = together.standard(1000)
    assert len(numbers.unique()) > 2990, "no two samples have the same"


def test_numbers_lie_within_their_bounds_evenly() -> None:
    draws = drawn(*range(50))
    assert 0.25 < draws.chosen(0.3, 100).float().mean() < 0.35
    uniform = draws.uniform((-2, 4), 100)
    assert -2 <= uniform.min() < -1.9
    assert 3.9 < uniform.max() < 4
    assert 0.9 < uniform.mean() < 1.1
    logs = draws.log_uniform((0.25, 4), 100).log2()
    assert abs(logs.mean()) < 0.1
    assert 1.9 < logs.abs().max() <= 2.0001


def test_factors_are_as_often_below_one_as_above() -> None:
    factors = drawn(*range(50)).factors((0.8, 3), 100)
    assert 0.47 < (factors < 1).float().mean() < 0.53
    assert 0.8 <= factors.min() < 0.81
    assert 2.95 < factors.max() < 3
    assert 1.9 < factors[factors > 1].mean() < 2.1
    above = drawn(*range(50)).factors((1.5, 2), 100)
    assert 1.5 <= above.min() < above.max() < 2


def test_seeds_differ() -> None:
    assert len({*drawn(*range(100)).seeds()}) == 100
