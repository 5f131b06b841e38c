"""Random draws that depend on numbers, never on global state."""

import numpy as np
import torch


def seeded(*key: int) -> torch.Generator:
    """Return a generator fixed by ``key``, such as (seed, epoch, index); unlike keys give independent draws."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
