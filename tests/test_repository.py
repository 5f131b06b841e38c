"""What ``make check`` refuses to have in the repository."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_files.py"


@pytest.fixture
def complaints():
    spec = importlib.util.spec_from_file_location("check_files", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.complaints


def test_large_files_and_binaries_are_refused_tracked_or_not(complaints, tmp_path):
    for name, content in {
        "wheel.whl": b"PK\0" + bytes(10),
        "large.txt": b"a" * 500_001,
        "tests/scan.bin": bytes(10),
        "docs/pictures/small.png": b"\x89PNG\0",
        "docs/pictures/large.png": b"\x89PNG\0" + bytes(200_000),
        "docs/pictures/mask.nii.gz": bytes(10),
        "fine.py": b"x = 1\n",
        "outputs/mask.bin": bytes(600_000),
        ".gitignore": b"outputs/\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "wheel.whl", "tests"], cwd=tmp_path, check=True)
    lines = complaints(tmp_path)
    refused = ["docs/pictures/large.png", "docs/pictures/mask.nii.gz", "large.txt", "wheel.whl"]
    assert [line.split(":")[0] for line in lines] == refused


def test_the_repository_is_clean(complaints):
    if not (SCRIPT.parents[1] / ".git").exists():
        pytest.skip("not a checkout: there is no list of files")
    assert complaints(SCRIPT.parents[1]) == []
