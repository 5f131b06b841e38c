"""A process and all its descendants on Linux: their CPU seconds, their memory; stopping and ending them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmark_report import ROOT

PROC = Path("/proc")


def members(root: int) -> list[int]:
    """Return the ids of a process and of its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:  # grows on the way
        found += children.get(pid, [])
    return found


def stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/<pid>/stat`` from the state on; none where the process has ended."""
    with suppress(OSError):
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []


def cpu_seconds(root: int) -> float:
    """Return the CPU seconds of a process and its descendants, those that have ended included."""
    ticks = sum(int(value) for pid in members(root) for value in stat(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_gb(root: int) -> float:
    """Return the largest resident memory of a process so far, and what each descendant has for itself, in GB."""
    own, *others = members(root)
    private = sum(kilobytes(pid, "smaps_rollup", "Private_") for pid in others)
    return (kilobytes(own, "status", "VmHWM") + private) / 2**20


def kilobytes(pid: int, file: str, name: str) -> int:
    """Return the sum of the lines of a file of ``/proc`` that begin with ``name``."""
    with suppress(OSError):
        found = re.findall(rf"^{name}\w*:\s+(\d+) kB", (PROC / str(pid) / file).read_text(), re.MULTILINE)
        return sum(map(int, found))
    return 0


def send(root: int, number: signal.Signals) -> None:
    """Send a signal to a process and all its descendants."""
    for pid in members(root):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def measured(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """Run a command; return wall and CPU seconds and the peak of its memory. The seconds of one that fails are NaN.

    A small process starts it: on Linux the peak of a process begins at what the one that started it has held.
    """
    code = (
        "import json, resource, subprocess, sys;"
        "status = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL).returncode;"
        "usage = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "json.dump([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20], open(sys.argv[1], 'w'))"
    )
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, str(report), *command], check=True, env=environment, cwd=ROOT)
        wall = time.perf_counter() - began
        status, cpu, peak = json.loads(report.read_text())
    return {"wall_seconds": float("nan") if status else wall, "cpu_seconds": cpu, "peak_gb": peak}
