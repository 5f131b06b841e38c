"""How many cores this process may use, asked without importing PyTorch."""

import math
import os
import sys
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux tells a container its limits, in the files of version 2 or those of version 1."""


def cores() -> int:
    """Return how many cores this process may use: those it is bound to, within the container's limit of their time."""
    return max(1, min(len(bound_cores()), quota()))


def bound_cores() -> list[int]:
    """Return the numbers of the cores that this process is bound to; of all where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def quota() -> int:
    """Return the cores whose whole time the container may use, rounded up; as many as there may be where unlimited."""
    try:
        if (file := CGROUPS / "cpu.max").is_file():
            time, period = file.read_text("ascii").split()
        else:  # version 1
            files = (CGROUPS / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
            time, period = (file.read_text("ascii").strip() for file in files)
        return sys.maxsize if time in ("max", "-1") else math.ceil(float(time) / float(period))
    except (OSError, ValueError, ZeroDivisionError):
        return sys.maxsize
