"""Count the files and functions that run between a scan and its loss, and between a scan and its mask.

    python scripts/measure_paths.py [FOLDER THAT HOLDS THE PACKAGE]

A small training and a prediction run in this process, as from the command line, and every call of medseg's own is seen.
What a voxel meets is counted in the packages that handle voxels, and of a training within the functions that its scan
goes through: preprocessing, patches, the step. Then all that runs for the command is counted, and how often its config
is composed and checked. Of an earlier state: check it out elsewhere and name the folder.
"""

import os
import runpy
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

HANDLE_VOXELS = ("io", "preprocessing", "augmentation", "models", "inference", "training")
ROOTS = ("read_labelled", "Preprocessor.__call__", "__getitem__", "on_after_batch_transfer", "training_step")
"""Functions that a scan goes through on its way to the loss."""

SMALL = (
    *("train", "dataset.size=24", "dataset.cases=8", "trainer.max_epochs=1", "trainer.steps_per_epoch=1"),
    *("model.depth=2", "model.base_channels=4", "split.test=0", "split.val=0.2", "run_dir=run", "logger=none"),
)


def main() -> None:
    """Print a line for each command."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    sys.path.insert(0, str(root))
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        report("from a scan to its loss", root, SMALL)
        scan = next(iter(sorted(Path("outputs/phantom").rglob("imagesTr/*"))))
        report("from a scan to its mask", root, ("predict", "checkpoint=run", f"input={scan}", "output=masks"))


def report(title: str, root: Path, arguments: tuple[str, ...]) -> None:
    """Run a command and print what it called."""
    calls: Counter[tuple[str, str]] = Counter()
    met: set[tuple[str, str]] = set()
    package, inside = str(root / "medseg") + os.sep, threading.local()

    def see(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return"):
            return
        if code.co_filename.startswith(package) and code.co_name != "<module>":
            call = (code.co_filename.removeprefix(package), code.co_name)
            depth = getattr(inside, "depth", 0)
            is_root = code.co_name in ROOTS or code.co_qualname in ROOTS
            if is_root:
                inside.depth = depth + (1 if event == "call" else -1)
            calls[call] += event == "call"
            if call[0].partition(os.sep)[0] in HANDLE_VOXELS and (depth or is_root or arguments != SMALL):
                met.add(call)
        elif code.co_name == "load_configuration" and "hydra" in code.co_filename:
            calls["", code.co_name] += event == "call"

    sys.argv[1:] = arguments
    threading.setprofile(see)
    sys.setprofile(see)
    try:
        with suppress(SystemExit):
            runpy.run_module("medseg", run_name="__main__")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    own = {call for call in calls if call[0]}
    checks = sum(count for (_, name), count in calls.items() if name == "problems")
    print(f"{title}: {len({file for file, _ in met})} files, {len(met)} functions")
    print(f"  the whole command: {len({file for file, _ in own})} files, {len(own)} functions")
    print(f"  its config was composed {calls['', 'load_configuration']} times and checked {checks} times")


if __name__ == "__main__":
    main()
