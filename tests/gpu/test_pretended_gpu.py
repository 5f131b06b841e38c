"""medseg on a GPU that is not there: no mixed devices, no host that waits, no operation that the device cannot do.

What is expected stands in docs/reference/gpu.md.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from device_kernels import SOURCES, documented, has_mps_kernel, not_deterministic

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "reference/gpu.md").read_text("utf-8")
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or not sys.platform.startswith("linux"),
    reason="the pretended GPU is compiled with g++ on Linux",
)


def run_parts(folder, *groups, kind="cuda", only=""):
    """Run groups of parts in a process of their own; return by name what each part did."""
    paths = [ROOT, ROOT / "tests", ROOT / "tests" / "gpu"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PRETEND": kind, "ONLY": only}
    command = [sys.executable, str(ROOT / "tests" / "gpu" / "gpu_parts.py"), str(folder / "parts.json"), *groups]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    parts = json.loads((folder / "parts.json").read_text())
    assert parts, "there is such a group"
    assert {name: part["error"] for name, part in parts.items() if part["error"]} == {}
    return parts


def expected_waits(part):
    """Return the waits of a step that docs/reference/gpu.md tells of a part."""
    waits = {name: int(count) for name, count in re.findall(r"^\| `([\w.=]+)` \| (\d+)", DOCUMENT, re.MULTILINE)}
    if part.startswith("boundary"):
        samples, channels = 2, 3 if part.endswith("regions") else 2
        return waits["loss=boundary"] * samples * channels
    return waits["trainer.precision=fp16"] if part.endswith("fp16") else 0


def check_waits(parts):
    """Compare with the document; boundary's distance maps are left out where a class has no voxel."""
    waits = {name: sum(part["waits"].values()) for name, part in parts.items()}
    fewest = {name: 1 if name.startswith("boundary") else expected_waits(name) for name in parts}
    wrong = [name for name, count in waits.items() if not fewest[name] <= count <= expected_waits(name)]
    assert wrong == [], {name: parts[name]["waits"] for name in wrong}


@needs_compiler
def test_commands_run_on_a_gpu_and_their_steps_wait_for_nothing(tmp_path):
    parts = run_parts(tmp_path, "commands")
    assert set(parts) == {"train by classes", "train by regions", "predict"}
    check_waits(parts)
    assert parts["train by regions"]["peak"] > 10**6, "bytes are counted"


@needs_compiler
@pytest.mark.gpu
@pytest.mark.parametrize("group", ["networks", "losses", "augmentations", "pretexts", "precision", "layouts"])
def test_steps_wait_as_the_table_says(tmp_path, group):
    check_waits(run_parts(tmp_path, group))


def listed(title):
    """Return what docs/reference/gpu.md lists below a title: operation, and the parts that use it."""
    section = DOCUMENT.split(f"## {title}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(aten\.[\w.]+)` \| (.+?) \|", section, re.MULTILINE))


@needs_compiler
@pytest.mark.gpu
def test_operations_without_a_deterministic_form_are_those_listed(tmp_path):
    used = {}
    for name, part in run_parts(tmp_path, "deterministic").items():
        for operation in filter(not_deterministic, part["operations"]):
            used.setdefault(operation, []).append(name)
    assert {operation: ", ".join(names) for operation, names in used.items()} == listed("The same result on every run")


@needs_compiler
@pytest.mark.gpu
def test_operations_without_an_mps_kernel_are_those_listed(tmp_path):
    used = {}
    for name, part in run_parts(tmp_path, "networks", "losses", "augmentations", "pretexts", kind="mps").items():
        lacking = [operation for operation in part["operations"] if not has_mps_kernel(operation)]
        for operation in {*lacking, *part["doubles"]}:
            used.setdefault(operation, []).append(name)
    assert {operation: ", ".join(names) for operation, names in used.items()} == listed("Apple's MPS")


@needs_compiler
@pytest.mark.gpu
def test_memory_is_never_estimated_below_what_a_step_takes(tmp_path):
    parts = run_parts(tmp_path, "memory")
    ratios = {name: part["estimate"] / part["peak"] for name, part in parts.items() if part["estimate"] is not None}
    assert {name: f"{ratio:.2f}" for name, ratio in ratios.items() if ratio < 1} == {}


def test_every_operation_that_pytorch_documents_as_not_deterministic_is_known():
    assert documented() == set(SOURCES)
