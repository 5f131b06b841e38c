"""The GPUs of the machine as the operating system and the driver know them, whether or not PyTorch can use them."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

PROC, SYS = Path("/proc"), Path("/sys")

DISPLAY_CLASSES = ("0x03", "0x12")
"""How the PCI classes of GPUs begin: display controllers and processing accelerators."""

VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD"}

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Variables that choose among the GPUs; the first counts for NVIDIA's and AMD's."""


def vendor_of_gpu() -> str | None:
    """Return who made the GPU of this machine, "NVIDIA" or "AMD"; None where PyTorch could use none.

    AMD's count where ROCm's part of the kernel is loaded, and NVIDIA's without a PCI bus, as in WSL, where the driver
    tells of them.
    """
    found = set()
    for device in (SYS / "bus/pci/devices").glob("*"):
        try:
            kind, vendor = ((device / name).read_text("ascii").strip() for name in ("class", "vendor"))
        except (OSError, ValueError):
            continue
        if kind.startswith(DISPLAY_CLASSES) and vendor in VENDORS:
            found.add(VENDORS[vendor])
    if "NVIDIA" in found or driver_version():
        return "NVIDIA"
    return "AMD" if "AMD" in found and (SYS / "class/kfd").is_dir() else None


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver, such as "580.65.06"; None where none is loaded."""
    try:
        text = kernel_module().read_text("ascii", "replace")
    except OSError:  # Windows and WSL
        return next((line.strip() for line in ask_driver("driver_version") if re.match(r"\d+\.", line)), None)
    match = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return match[0] if match else None


def kernel_module() -> Path:
    """Return the file in which the driver's kernel module tells of itself, where it is loaded."""
    return PROC / "driver/nvidia/version"


def major(driver: str | None) -> int:
    """Return the first number of a driver's version, 0 without a driver."""
    return int((driver or "0").partition(".")[0])


def free_memory_by_uuid() -> dict[str, int]:
    """Return the free bytes of each of NVIDIA's GPUs by its UUID; empty where the driver's tool is not there.

    PyTorch would set up a context on each GPU to ask, which takes some 400 MB of each until the process ends.
    """
    pairs = (line.split(", ") for line in ask_driver("uuid,memory.free"))
    return {pair[0].removeprefix("GPU-"): int(pair[1]) << 20 for pair in pairs if pair[-1].isdigit()}


def ask_driver(fields: str) -> list[str]:
    """Return what nvidia-smi says of each GPU, a line each; nothing where there is no nvidia-smi, or no driver."""
    program = shutil.which("nvidia-smi")
    return answer(program, fields) if program else []


@cache  # of a driver in trouble it takes as long as is waited for
def answer(program: str, fields: str) -> list[str]:
    """Return what a program, such as nvidia-smi, answers; nothing where it fails."""
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode("ascii", "replace").splitlines()
