"""The random numbers of a batch: each sample has its own stream, so it does not matter what else is in the batch.

They depend on numbers such as seed and step, never on global state.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_AHEAD = 256
"""Numbers fetched at once from each stream: one call serves many small requests."""


class RandomNumbers:
    """Random numbers for B samples, each from its own generator; all on the CPU, float32.

    What a sample gets depends on its generator and on what was drawn before, never on the samples beside it.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)
        self._ahead = torch.empty(len(self.generators), 0)

    def __len__(self) -> int:
        return len(self.generators)

    def standard(self, *shape: int) -> Tensor:
        """Numbers from 0 to 1, 1 excluded: (B, *shape)."""
        count = math.prod(shape)
        if self._ahead.shape[1] < count:
            size = -(-count // _AHEAD) * _AHEAD
            more = [torch.rand(size, generator=generator) for generator in self.generators]
            self._ahead = torch.cat([self._ahead, torch.stack(more)], dim=1)
        taken, self._ahead = self._ahead[:, :count], self._ahead[:, count:]
        return taken.reshape(len(self), *shape)

    def chosen(self, probability: float, *shape: int) -> Tensor:
        """Whether something happens, each with ``probability``: bool (B, *shape)."""
        return self.standard(*shape) < probability

    def uniform(self, bounds: Sequence[float], *shape: int) -> Tensor:
        """Numbers between the ``bounds`` [low, high]: (B, *shape)."""
        low, high = bounds
        return self.standard(*shape) * (high - low) + low

    def log_uniform(self, bounds: Sequence[float], *shape: int) -> Tensor:
        """Factors between the ``bounds`` [low, high], of which a half is as likely as a double: (B, *shape)."""
        return self.uniform([math.log(bound) for bound in bounds], *shape).exp()

    def factors(self, bounds: Sequence[float], *shape: int) -> Tensor:
        """Factors between the ``bounds`` [low, high], as often below 1 as above where they lie about it: (B, *shape).

        Uniform on either side, as in nnU-Net.
        """
        low, high = bounds
        if not low < 1 < high:
            return self.uniform(bounds, *shape)
        side = self.uniform((-1, 1), *shape)
        return 1 + torch.where(side < 0, side * (1 - low), side * (high - 1))

    def seeds(self) -> list[int]:
        """A seed of 48 bits for each sample, for generators on another device."""
        halves = (self.standard(2) * 2**24).long().tolist()
        return [first << 24 | second for first, second in halves]


def seeded(*key: int) -> torch.Generator:
    """Return a generator fixed by ``key``, such as (seed, epoch, index); unlike keys give independent draws."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def random_numbers(count: int, first: int, *key: int) -> RandomNumbers:
    """Return the random numbers of samples ``first`` and following: each one's depend on ``key`` and its number."""
    return RandomNumbers([seeded(*key, first + index) for index in range(count)])
