"""nnU-Net's checkpoints: what they say of the training, and the weights, read without running code of the file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg.errors import MedsegError
from medseg.models.weight_checks import check_finite
from medseg.system.torch_files import load_safely

NUMBERS = ("f2", "f4", "f8", "i4", "i8", "b1")
"""Types of numbers in nnU-Net's log, as pickles name them."""

NEEDED = ("network_weights", "trainer_name", "init_args")


@dataclass(frozen=True)
class Trained:
    """A fold: its file, trainer and configuration, the network's axes that may be mirrored, and its weights."""

    path: Path
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    weights: dict[str, Tensor]


def read_trained(path: Path) -> Trained:
    """Read ``checkpoint_final.pth`` or the like. The optimizer's state, twice as large, stays on disk.

    Raises:
        MedsegError: the file is damaged, holds objects that are not loaded, is no checkpoint of nnU-Net v2, or its
            weights are not finite.
    """
    with torch.serialization.safe_globals(numbers_of_numpy()):
        content = load_safely(path, mmap=True)
    if not isinstance(content, dict) or any(key not in content for key in NEEDED):
        raise MedsegError(f"{path}: a PyTorch file, but no checkpoint of nnU-Net v2 (it needs {', '.join(NEEDED)}).")
    check_finite(path, content["network_weights"])
    return Trained(
        path,
        content["trainer_name"],
        content["init_args"]["configuration"],
        tuple(content.get("inference_allowed_mirroring_axes") or ()),
        content["network_weights"],
    )


def numbers_of_numpy() -> list[Any]:
    """Return NumPy's numbers, in which nnU-Net's log is kept, as the classes that a file may name.

    Their module is called differently by NumPy 1 and 2.
    """
    scalar: Any = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, (number_type, "numpy.dtype"), *(type(np.dtype(kind)) for kind in NUMBERS)]


def number_type(name: str, *options: bool) -> np.dtype[Any]:
    """Return the type of a number, in the place of ``numpy.dtype``, whose texts can ask for one of any size.

    Raises:
        ValueError: it is none of ``NUMBERS``.
    """
    if name not in NUMBERS:
        raise ValueError(f"{name!r} is no type of a number")
    return np.dtype(name, *options)
