"""Take the pictures of docs/pictures anew: trainings on open data, and what they show.

    python scripts/take_pictures.py DATA [--work DIR] [--minutes 5] [--only terminal report overlay uncertainty]

DATA holds ``hippocampus`` and ``cardiac_slices``, of which docs/pictures/README.md says what they are. The terminal is
that of a training in tmux, photographed while it trains; the report is of the same run. The overlay and the map of
uncertainty are of test cases. A training that is done in DIR is not done again. Needs tmux and Chromium.
"""

import argparse
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

import medseg
from medseg.evaluation.images.overlays import overlay

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MAX_BYTES = 200_000
WIDTH = 900
"""Width of the pictures on a page, in CSS px; they have up to twice as many pixels."""
COLUMNS, ROWS = 100, 40
MOMENT = 60
"""Per cent of the training after which the terminal is photographed, at the first validation."""
DARK = TerminalTheme(
    background=(17, 21, 28),
    foreground=(214, 219, 227),
    normal=[
        *((60, 66, 77), (239, 110, 110), (120, 200, 120), (224, 190, 100)),
        *((105, 160, 245), (200, 130, 220), (90, 195, 205), (214, 219, 227)),
    ],
)
CARDIAC = {
    "images": "Images",
    "masks": "Labels",
    "labels": {"background": 0, "left ventricle": 255},
    "group": "^(.+?)-IM-",
    "modality": "mri",
}


@contextmanager
def terminal(folder: Path, command: str) -> Iterator[list[str]]:
    """Type a command in a terminal of its own, tmux's on a socket of its own; yield the command that captures it."""
    tmux = ["tmux", "-L", f"medseg-{os.getpid()}", "-f", "/dev/null"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PS1": "$ ", "TERM": "xterm-256color", "PATH": path}
    shell = ["-x", str(COLUMNS), "-y", str(ROWS), "-c", str(folder), "bash", "--norc", "--noprofile"]
    subprocess.run([*tmux, "new-session", "-d", *shell], check=True, env=environment)
    capture = [*tmux, "capture-pane", "-p", "-e", "-S", "-"]  # with what has left the screen above, and colours
    try:
        while "$" not in screen_of(capture):  # what is typed before is shown twice
            time.sleep(0.1)
        subprocess.run([*tmux, "send-keys", "-l", command], check=True)
        subprocess.run([*tmux, "send-keys", "Enter"], check=True)
        yield capture
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def screen_of(capture: list[str]) -> str:
    """Return the text of a terminal, with the escape sequences of its colours."""
    return subprocess.run(capture, check=True, capture_output=True, text=True).stdout.rstrip()


def hippocampus(work: Path, data: Path, time_limit: str) -> Path:
    """Train on the hippocampus in a terminal, and return the run directory, with the screen beside it."""
    run, screen = work / "outputs" / "hippocampus", work / "outputs" / "hippocampus.screen"
    if (run / "result.json").is_file():
        return run
    (work / "hippocampus").unlink(missing_ok=True)
    (work / "hippocampus").symlink_to(data / "hippocampus")
    settings = ["dataset=decathlon", "dataset.root=hippocampus", "dataset.group_file=hippocampus/groups.csv"]
    settings += [f"trainer.max_time={time_limit}", "run_dir=outputs/hippocampus"]
    screen.unlink(missing_ok=True)
    with terminal(work, shlex.join(["medseg", "train", *settings])) as capture:
        while not (run / "result.json").is_file():
            text = screen_of(capture)
            shares = re.findall(r"(\d+)%(?=.* left)", text)
            if shares and int(shares[-1]) >= MOMENT and "validation Dice" in text and not screen.exists():
                screen.write_text(text, "utf-8")
            time.sleep(1)
    return run


def cardiac(work: Path, data: Path, time_limit: str) -> Path:
    """Train on the left ventricle, and return the run directory."""
    run = work / "outputs" / "cardiac"
    if not (run / "result.json").is_file():
        dataset = medseg.open_dataset("folder", data / "cardiac_slices", **CARDIAC)
        medseg.train(dataset, run_dir=run, cache_dir=work / "outputs" / "cache", **{"trainer.max_time": time_limit})
    return run


def take_terminal(run: Path) -> None:
    """Draw the screen that the training has left, as a window."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in run.with_suffix(".screen").read_text("utf-8").splitlines():
        console.print(Text.from_ansi(line), no_wrap=True, crop=False)
    svg = console.export_svg(title="medseg train", theme=DARK)
    width, height = map(float, re.findall(r"[\d.]+", svg.partition('viewBox="')[2])[2:4])
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "terminal.html"
        page.write_text(f"<style>body{{margin:0}}svg{{width:{WIDTH}px;display:block}}</style>{svg}", "utf-8")
        photograph(page, PICTURES / "terminal.png", WIDTH, round(height * WIDTH / width))


def take_report(run: Path) -> None:
    """Photograph the head of the report of a run."""
    photograph(run / "test" / "report.html", PICTURES / "report.png", 1000, 1050)


def photograph(page: Path, path: Path, width: int, height: int) -> None:
    """Write a PNG file of the upper part of a page, in a window of a size in CSS px."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "taken.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        options += [f"--window-size={width},{height}", "--force-device-scale-factor=2"]
        options += ["--virtual-time-budget=10000", "--default-background-color=00000000", f"--screenshot={taken}"]
        subprocess.run([browser, *options, page.resolve().as_uri()], check=True, capture_output=True)
        save(Image.open(taken), path)


def take_overlay(run: Path, data: Path) -> None:
    """Draw the test case with the median Dice, its ground truth as a dashed contour."""
    dataset = medseg.open_dataset("decathlon", data / "hippocampus")
    case = dataset[ranked(run)[len(ranked(run)) // 2]]
    mask = medseg.Run.open(run).predictor()(case.scan)
    save(
        overlay(case.scan, mask.indices, case.label_map.names, case.mask, side=2 * WIDTH // 3), PICTURES / "overlay.png"
    )


def take_uncertainty(run: Path, data: Path) -> None:
    """Draw the worst test case with its ground truth, beside it where the network is unsure."""
    dataset, predictor = (
        medseg.open_dataset("folder", data / "cardiac_slices", **CARDIAC),
        medseg.Run.open(run).predictor(),
    )
    case = dataset[ranked(run)[0]]
    drawn = overlay(case.scan, predictor(case.scan).indices, case.label_map.names, case.mask)
    unsure = Image.fromarray((255 * predictor.uncertainty(case.scan)).astype(np.uint8))
    canvas = Image.new("RGB", (2 * drawn.width, drawn.height), (28, 28, 28))
    canvas.paste(drawn)
    canvas.paste(unsure.resize((512, 512), Image.Resampling.BICUBIC), (drawn.width + 8, 8))
    save(canvas, PICTURES / "uncertainty.png")


def ranked(run: Path) -> list[str]:
    """Return the test cases from the lowest Dice to the highest, means over the classes."""
    rows = [row for row in medseg.Run.open(run).report.rows if row["dice"] is not None]
    return sorted(
        {row["case"] for row in rows},
        key=lambda name: (float(np.mean([row["dice"] for row in rows if row["case"] == name])), name),
    )


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG file of at most ``MAX_BYTES``: in full, or in as many colours as fit."""
    for colours in (None, 256, 128, 64):
        file = io.BytesIO()
        method = Image.Quantize.FASTOCTREE if image.mode == "RGBA" else Image.Quantize.MEDIANCUT
        fitting = image if colours is None else image.quantize(colours, method, dither=Image.Dither.NONE)
        fitting.save(file, "png", optimize=True)
        if file.tell() <= MAX_BYTES:
            path.write_bytes(file.getvalue())
            print(f"{path.name}: {image.width}x{image.height}, {file.tell()} bytes, colours: {colours or 'all'}")
            return
    sys.exit(f"{path}: {file.tell()} bytes in 64 colours")


def main() -> None:
    """Train and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("terminal", "report", "overlay", "uncertainty")
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("outputs/pictures"))
    parser.add_argument("--minutes", type=int, default=5, help="of each training")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    work, data, time_limit = options.work.resolve(), options.data.resolve(), f"00:00:{options.minutes:02}:00"
    (work / "outputs").mkdir(parents=True, exist_ok=True)
    if {"terminal", "report", "overlay"} & set(options.only):
        run = hippocampus(work, data, time_limit)
        for name, take in (("terminal", take_terminal), ("report", take_report)):
            if name in options.only:
                take(run)
        if "overlay" in options.only:
            take_overlay(run, data)
    if "uncertainty" in options.only:
        take_uncertainty(cardiac(work, data, time_limit), data)


if __name__ == "__main__":
    main()
