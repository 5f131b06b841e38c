"""Write ``requirements-ci.txt``: the versions of ``constraints.txt`` with the hashes of all their files, for CI.

They stand in a file of their own, since pip then demands hashes of everything, also of medseg's own folder, which has
none. Needs ``uv`` and the package index. ``python scripts/lock.py --check`` only compares the versions of both files.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CPU_TORCH = "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
"""SHA-256 of torch 2.13.0+cpu for CPython 3.11 on Linux x86_64, which PyTorch's own index has and PyPI has not."""
HEADER = "# Made by scripts/lock.py from constraints.txt; install with: pip install --require-hashes --no-deps -r"


def pins(path: Path) -> dict[str, str]:
    """Return the pinned version of each package by its normalised name."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def locked() -> str:
    """Return the content of ``requirements-ci.txt``."""
    options = ["--no-deps", "--generate-hashes", "--no-annotate", "--no-header", "--universal"]
    command = ["uv", "pip", "compile", "-q", *options, "--python-version", "3.11", "constraints.txt"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # Of torch only the build for CPUs: pip would prefer one of PyPI's, for CUDA, whose packages are not listed here.
    torch = r"(^torch==\S+) \\\n(    --hash=\S+( \\)?\n)+"
    return f"{HEADER} requirements-ci.txt\n" + re.sub(
        torch, rf"\1 \\\n    --hash=sha256:{CPU_TORCH}\n", text, flags=re.MULTILINE
    )


if __name__ == "__main__":
    path = ROOT / "requirements-ci.txt"
    if "--check" not in sys.argv:
        path.write_text(locked(), "utf-8")
    if pins(path) != pins(ROOT / "constraints.txt"):
        sys.exit("requirements-ci.txt does not have the versions of constraints.txt: run scripts/lock.py")
