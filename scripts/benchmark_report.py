"""What the benchmarks write down beside their numbers: the machine, versions, the date."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "lightning", "monai")


def circumstances(venv: Path | None = None) -> dict[str, Any]:
    """Return date, machine and versions, those of the peers' environment too where there is one."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "python": platform.python_version(),
        "commit": commit(),
        **{package: version(package) for package in PACKAGES},
    }
    return found | (peer_versions(venv) if venv else {})


def machine() -> dict[str, Any]:
    """Return processor, instructions for bf16, cores, memory in GB and GPU."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    abilities = [name for name, has in torch.cpu.get_capabilities().items() if has is True and "16" in name]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": processor(), "abilities": abilities, "cores": os.cpu_count(), "gb": round(memory, 1), "gpu": gpu}


def processor() -> str:
    """Return the processor's name as Linux tells it, or else the platform's."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def commit() -> str:
    """Return the commit of the working tree, with a + where files differ from it."""
    answers = [
        subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    ]
    return answers[0] + ("+" if answers[1] else "")


def peer_versions(venv: Path) -> dict[str, str]:
    """Return the versions of nnU-Net and torch in an environment."""
    code = "from importlib.metadata import version; print(version('nnunetv2'), version('torch'))"
    done = subprocess.run([venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    nnunet, its_torch = done.stdout.split()
    return {"nnunetv2": nnunet, "torch of the peers": its_torch}


def add_results(path: Path, results: list[dict[str, Any]], key: tuple[str, ...]) -> list[dict[str, Any]]:
    """Add results to a JSON file, in place of those that agree in all of ``key``; return what the file holds then."""
    before = json.loads(path.read_text())["results"] if path.is_file() else []
    new = {tuple(result[name] for name in key) for result in results}
    kept = [result for result in before if tuple(result[name] for name in key) not in new]
    merged = sorted(kept + results, key=lambda result: [str(result[name]).zfill(8) for name in key])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1, "results": merged}, indent=1))
    return merged


def peers_at(venv: Path | None) -> Path | None:
    """Return the peers' environment, or None, saying so, where it is absent."""
    if venv is not None and (venv / "bin" / "nnUNetv2_predict").is_file():
        return venv
    print(f"nnU-Net is left out: no environment with it at --peers {venv}", file=sys.stderr)
    return None
