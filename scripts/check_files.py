"""Check the repository's files: none above 500 kB, and binary ones only as test data, and as pictures of 200 kB."""

import subprocess
import sys
from pathlib import Path

MAX_BYTES = 500_000
PICTURES = "docs/pictures/"
MAX_PICTURE = 200_000


def complaints(root: Path) -> list[str]:
    """Return a line for each file, tracked or about to be, that does not belong into the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    lines = []
    for name in sorted({name for name in names if name and (root / name).is_file()}):
        content = (root / name).read_bytes()
        is_picture = name.startswith(PICTURES) and content.startswith(b"\x89PNG")
        most = MAX_PICTURE if is_picture else MAX_BYTES
        if len(content) > most:
            lines.append(f"{name}: {len(content) / 1000:.0f} kB; at most {most / 1000:.0f} kB are allowed")
        if b"\0" in content and not name.startswith("tests/") and not is_picture:
            lines.append(f"{name}: a binary file; these belong into tests/, as test data, or into no repository")
    return lines


if __name__ == "__main__":
    sys.exit("\n".join(complaints(Path(__file__).parents[1])) or 0)
