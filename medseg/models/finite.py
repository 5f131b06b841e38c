"""NaN and infinity in the weights of a network, which make every prediction worthless without any error."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from medseg.errors import MedsegError

MAX_LISTED = 3


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the floating-point tensors that hold NaN or infinity; a GPU is waited for once.

    The smallest and the largest value are NaN where any value is, so that one pass over each tensor is enough.
    """
    names = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()]
    if not names:
        return []
    device = tensors[names[0]].device
    are_finite = [torch.stack(torch.aminmax(tensors[name].detach())).isfinite().all().to(device) for name in names]
    return [name for name, is_finite in zip(names, torch.stack(are_finite).tolist(), strict=True) if not is_finite]


def check_finite(file: Path, weights: Mapping[str, Tensor], key: str = "") -> None:
    """Check the weights of a network that a file holds.

    ``key`` is the option that names the file, if its name shall stand before it.

    Raises:
        MedsegError: some are NaN or infinite.
    """
    if wrong := not_finite(weights):
        listed = ", ".join(wrong[:MAX_LISTED]) + (", ..." if len(wrong) > MAX_LISTED else "")
        raise MedsegError(
            f"{key}{'=' if key else ''}{file}: {len(wrong)} of its {len(weights)} weights hold NaN or infinity "
            f"({listed}): the training that wrote them diverged. Nothing that such a network predicts means anything. "
            "Use another checkpoint of that training, or train again with a lower optimizer.lr or "
            "trainer.precision=fp32."
        )
