"""A newcomer's path from a clone to masks of pictures of one's own, each step as it is written in the README.

``make newcomer`` walks it, and prints the seconds of each step. It installs a fresh environment from the package index.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from browser import BROWSER, visit
from PIL import Image

ROOT = Path(__file__).parents[2]
ONE_MINUTE = "00:00:01:00"


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print how long a step takes."""
    started = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def run(*command: str | Path, folder: Path) -> str:
    """Return what a command prints, in an environment that has nothing of this one's Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "MAKE"))}
    words = list(map(str, command))
    done = subprocess.run(words, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def blobs(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey picture of some bright discs, and its mask, 255 inside them."""
    rng = np.random.default_rng(number)
    mask = np.zeros((128, 128), np.uint8)
    for _ in range(6):
        down, right = np.indices(mask.shape) - rng.uniform(0, 128, (2, 1, 1))
        mask[np.hypot(down, right) < rng.uniform(8, 16)] = 255
    return np.clip(rng.normal(np.where(mask, 150, 90), 25), 0, 255).astype(np.uint8), mask


def dice(mask: Path, reference: np.ndarray) -> float:
    predicted, true = np.asarray(Image.open(mask)) == 255, reference == 255
    return 2 * np.count_nonzero(predicted & true) / (np.count_nonzero(predicted) + np.count_nonzero(true))


def five_lines(readme: Path) -> str:
    """The README's session in Python, its training cut to a minute."""
    (code,) = re.findall(r"```python\n(.*?)```", readme.read_text("utf-8"), re.DOTALL)
    short, cut = re.subn(r"\d\d:\d\d:\d\d:\d\d", ONE_MINUTE, code)
    assert cut == 1
    return short


def test_from_a_clone_to_masks_of_pictures_of_ones_own(tmp_path, capfd):
    with capfd.disabled():
        print()
        here = tmp_path / "medseg"
        with step("git clone"):
            run("git", "clone", "--quiet", ROOT, here, folder=tmp_path)
        with step("make demo, with its environment"):
            printed = run("make", "demo", folder=here)
        assert "report.html" in printed
        (report,) = here.glob("outputs/train/phantom/*/test/report.html")
        if BROWSER is None:
            print("the report in a browser: left out, there is no Chromium")
        else:
            with step("the report in a browser"):
                heading, text = visit(
                    report.read_text("utf-8"),
                    tmp_path,
                    "return [document.querySelector('h1').innerText, document.body.innerText];",
                )
            assert "phantom" in heading
            assert "Dice" in text

        for number in range(24):
            picture, mask = blobs(number)
            for name, pixels in (("images", picture), ("masks", mask)):
                (here / "data/cells" / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(here / "data/cells" / name / f"{number}.png")
        new, true = blobs(100)
        (here / "data/new_cells").mkdir()
        Image.fromarray(new).save(here / "data/new_cells/new_10.png")
        medseg = here / ".venv" / "bin" / "medseg"
        with step("a folder of pictures of one's own: train"):
            data = ["dataset=folder", "dataset.root=data/cells"]
            run(medseg, "train", *data, f"trainer.max_time={ONE_MINUTE}", "run_dir=outputs/own", folder=here)
        with step("and predict"):
            run(medseg, "predict", "checkpoint=outputs/own", "input=data/new_cells", "output=masks", folder=here)
        assert dice(here / "masks" / "new_10.png", true) > 0.7
        (here / "session.py").write_text(five_lines(here / "README.md"), "utf-8")
        with step("a Python session of five lines"):
            run(here / ".venv" / "bin" / "python", "session.py", folder=here)
        assert dice(here / "mask.png", true) > 0.7
