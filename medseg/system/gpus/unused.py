"""Why PyTorch cannot use a GPU that is in the machine, and what to do."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from medseg.errors import first_line
from medseg.system.gpus.driver import VISIBLE, driver_version, kernel_module, major, vendor_of_gpu

DEV = Path("/dev")

OLDEST_DRIVER = {"11": 450, "12": 525, "13": 580}
"""The first driver for each major version of CUDA (NVIDIA, "CUDA Compatibility", minor version compatibility)."""

HIDING = ("", "-1", "NoDevFiles")
"""Values of ``VISIBLE`` that choose none; the last is Slurm's."""

INSTALL = "pytorch.org/get-started/locally has the command that installs"


@dataclass(frozen=True)
class UnusedGpu:
    """Why PyTorch cannot use the GPU of this machine, and what to do; nothing where none is meant to be used."""

    reason: str
    cure: str = ""

    @property
    def is_meant(self) -> bool:
        """Whether somebody chose that no GPU is used."""
        return not self.cure


def unused_gpu() -> UnusedGpu | None:
    """Return why PyTorch, to which no GPU is available, cannot use that of this machine; None where there is none."""
    vendor, driver, version = vendor_of_gpu(), driver_version(), torch.version
    if vendor is None:
        return None
    if hiding := [name for name in VISIBLE if os.environ.get(name, "all") in HIDING]:
        return UnusedGpu(f"{hiding[0]}={os.environ[hiding[0]]!r} hides all GPUs")
    built = f"torch {torch.__version__}, built for {'CUDA ' + version.cuda if version.cuda else 'no CUDA'}"
    if vendor == "AMD":
        if version.hip:
            return UnusedGpu(own_words(), "See whether rocminfo lists the GPU, and whether you may open /dev/kfd.")
        return UnusedGpu(f"torch {torch.__version__} was built without ROCm", f"{INSTALL} PyTorch for ROCm.")
    found = f"driver {driver or 'not found'}; {built}"
    if not version.cuda:
        newest = max((int(cuda) for cuda, oldest in OLDEST_DRIVER.items() if major(driver) >= oldest), default=None)
        return UnusedGpu(
            f"PyTorch was installed without CUDA ({found})",
            f"{INSTALL} PyTorch for CUDA{f' {newest}' if newest and newest < max(map(int, OLDEST_DRIVER)) else ''}.",
        )
    if driver is None:
        return UnusedGpu(
            f"no NVIDIA driver is loaded ({found})",
            "Install the driver; in a container, which needs the host's, start it with --gpus all (Docker) or --nv"
            " (Apptainer).",
        )
    if major(driver) < (oldest := OLDEST_DRIVER.get(version.cuda.partition(".")[0], 0)):
        return UnusedGpu(
            f"the driver is too old ({found}, which needs driver {oldest} or newer)",
            f"Update the driver, or install PyTorch for an older CUDA: {INSTALL} it.",
        )
    if "SLURM_JOB_ID" in os.environ and not {"SLURM_JOB_GPUS", "SLURM_STEP_GPUS"} & {*os.environ}:
        return UnusedGpu("this Slurm job has none; --gres=gpu:1 asks for one")
    if kernel_module().is_file() and not (DEV / "nvidiactl").exists():
        return UnusedGpu(
            f"there are no device files /dev/nvidia* ({found})",
            "Start the container with --gpus all (Docker) or --nv (Apptainer); outside one, run nvidia-smi once as"
            " root.",
        )
    return UnusedGpu(
        f"{own_words()} ({found})",
        "See whether nvidia-smi lists the GPU. After an update of the driver, or a suspension, restart the machine.",
    )


def own_words() -> str:
    """Return what PyTorch says when it is to use a GPU."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f"PyTorch says: {first_line(error).rstrip('.')}"
    return "PyTorch finds none"
