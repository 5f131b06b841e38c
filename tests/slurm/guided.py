"""An optimizer by which a test decides what becomes of a training."""

import time
from pathlib import Path

import torch


class GuidedAdamW(torch.optim.AdamW):
    """Makes steps slowly until there is a file of the name ``until``.

    ``never`` makes the training fail instead, ``memory`` makes it ask for 3 GB.
    """

    def __init__(self, params, until: str, **options) -> None:
        super().__init__(params, **options)
        self.until = until

    def step(self, closure=None):
        """Make a step."""
        if self.until == "never":
            raise RuntimeError("this training fails")
        if self.until == "memory":
            self.held = torch.ones(3 * 2**28)
        if not Path(self.until).exists():
            time.sleep(0.5)
        return super().step(closure)
