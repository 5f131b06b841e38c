"""Take the pictures of docs/pictures anew: trainings on open data, and what they show.

    python scripts/take_pictures.py DATA [--work DIR] [--minutes 5]

DATA holds ``hippocampus``, of which docs/pictures/README.md says what it is. The terminal is that of a training in
tmux, photographed while it trains; report, overlay and map of uncertainty are of the same run. A run that is done in
DIR is taken as it is. Needs tmux and Chromium, and a machine with nothing else to do.
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
from dataclasses import replace
from pathlib import Path

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
"""Per cent of the training after which the terminal is photographed, as soon as there has been a validation."""
DARK = TerminalTheme(
    background=(17, 21, 28),
    foreground=(214, 219, 227),
    normal=[
        *((60, 66, 77), (239, 110, 110), (120, 200, 120), (224, 190, 100)),
        *((105, 160, 245), (200, 130, 220), (90, 195, 205), (214, 219, 227)),
    ],
)


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
    """Train in a terminal; return the run directory, beside which the terminal's screen is."""
    run, screen = work / "outputs" / "hippocampus", work / "outputs" / "hippocampus.screen"
    if is_done(run):
        return run
    (work / "hippocampus").unlink(missing_ok=True)
    (work / "hippocampus").symlink_to(data / "hippocampus")
    settings = ["dataset=decathlon", "dataset.root=hippocampus", "dataset.group_file=hippocampus/groups.csv"]
    settings += [f"trainer.max_time={time_limit}", "run_dir=outputs/hippocampus"]
    validated = False
    with terminal(work, shlex.join(["medseg", "train", *settings])) as capture:
        while not re.search(r"\n(\x1b\[[\d;]*m)*\$$", text := screen_of(capture)):  # the prompt again
            shares = re.findall(r"(\d+)%(?=.* left)", text)
            if shares and int(shares[-1]) >= MOMENT and not validated:
                screen.write_text(text, "utf-8")  # which stays the last one where nothing is validated before the end
                validated = "validation Dice" in text
            time.sleep(1)
    if not is_done(run):
        sys.exit(text)
    return run


def is_done(run: Path) -> bool:
    """Return whether a training has ended, its test included."""
    return (run / "config.yaml").is_file() and medseg.Run.open(run).result["status"] == "done"


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
    photograph(run / "test" / "report.html", PICTURES / "report.png", 1000, 1000)


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


def take_overlays(run: Path, data: Path) -> None:
    """Draw the test case with the median Dice, its ground truth dashed; and in white where the network is unsure."""
    rows = [row for row in medseg.Run.open(run).report.rows if row["dice"] is not None]
    dice = {row["case"]: [each["dice"] for each in rows if each["case"] == row["case"]] for row in rows}
    median = sorted(dice, key=lambda name: (sum(dice[name]) / len(dice[name]), name))[len(dice) // 2]
    case = medseg.open_dataset("decathlon", data / "hippocampus")[median]
    predictor = medseg.Run.open(run).predictor()
    mask, names = predictor(case.scan), case.label_map.names
    save(overlay(case.scan, mask.indices, names, case.mask), PICTURES / "overlay.png")
    unsure = replace(case.scan, image=predictor.uncertainty(case.scan)[None])
    save(overlay(unsure, mask.indices, names), PICTURES / "uncertainty.png")


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG file of at most ``MAX_BYTES``, in 256 colours, as large as fits."""
    method = Image.Quantize.FASTOCTREE if image.mode == "RGBA" else Image.Quantize.MEDIANCUT
    for part in (1, 0.9, 0.8, 0.7, 0.65, 0.6, 0.55, 0.5):
        size = (round(part * image.width), round(part * image.height))
        file = io.BytesIO()
        smaller = image.resize(size, Image.Resampling.LANCZOS) if part < 1 else image
        smaller.quantize(256, method, kmeans=8, dither=Image.Dither.NONE).save(file, "png", optimize=True)
        if file.tell() <= MAX_BYTES:
            path.write_bytes(file.getvalue())
            print(f"{path.name}: {size[0]}x{size[1]}, {file.tell()} bytes")
            return
    sys.exit(f"{path}: {file.tell()} bytes at half its size")


def main() -> None:
    """Train and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("outputs/pictures"))
    parser.add_argument("--minutes", type=int, default=5, help="of the training")
    options = parser.parse_args()
    work, data = options.work.resolve(), options.data.resolve()
    (work / "outputs").mkdir(parents=True, exist_ok=True)
    run = hippocampus(work, data, f"00:00:{options.minutes:02}:00")
    take_terminal(run)
    take_report(run)
    take_overlays(run, data)


if __name__ == "__main__":
    main()
