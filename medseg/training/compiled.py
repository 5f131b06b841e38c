"""A network that is compiled where that works, and runs as it is where it does not."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import first_line
from medseg.system.memory import is_out_of_memory

log = logging.getLogger(__name__)


class Compiled:
    """Calls a network compiled to one graph; from a first call that fails on, as it is.

    A network that breaks into several graphs is not compiled: each of them costs time, and less can be fused. What
    fails otherwise is the machine, which lacks a C compiler or Python's headers. PyTorch keeps what it has compiled on
    disk (``TORCHINDUCTOR_CACHE_DIR``), so that a training takes seconds to compile what the probe, or the run that is
    resumed, has compiled before.

    Its weights and its mode remain the network's own; a copy of the network, and calls to it, are not compiled.
    """

    def __init__(self, network: nn.Module) -> None:
        torch.compiler.reset()  # forgets earlier trainings of this process, which PyTorch would count against this one
        self.network, self.compiled = network, torch.compile(network, fullgraph=True)
        self.is_tried = False
        self.failure: str | None = None

    def __call__(self, x: Tensor) -> Any:
        """Return what the network makes of ``x``."""
        if self.failure is None:
            try:
                output = self.compiled(x)
            except Exception as error:
                is_compilers = not self.is_tried or isinstance(error, torch._dynamo.exc.TorchDynamoException)
                if is_out_of_memory(error) or not is_compilers:
                    raise
                cause = first_line(getattr(error, "inner_exception", error))
                is_broken = isinstance(error, torch._dynamo.exc.Unsupported)
                self.failure = f"it breaks into several graphs ({cause})" if is_broken else cause
                log.warning("the network is not compiled, which makes training slower: %s", self.failure)
            else:
                self.is_tried = True
                return output
        return self.network(x)
