"""Draw the figures of the documentation: ``python scripts/draw_figures.py`` writes them to ``docs/figures``.

Narrow drawings of boxes and arrows, so that a phone shows them in readable letters, on white and without a script.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

FIGURES = Path(__file__).parents[1] / "docs" / "figures"

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1c2a2a; text-anchor: middle; }
.small { font-size: 11.5px; fill: #4a5a5a; }
.left { text-anchor: start; }
.box { fill: #e3f2f1; stroke: #00796b; }
.plain { fill: #f5f5f5; stroke: #8a9a9a; }
.strong { fill: #00796b; stroke: #00796b; }
.onstrong { fill: white; font-weight: 600; }
.held { fill: #ffe0b2; stroke: #ef6c00; }
.window { fill: #00796b; fill-opacity: .18; stroke: #00796b; stroke-width: 1.5; }
.arrow { fill: none; stroke: #4a5a5a; stroke-width: 1.4; marker-end: url(#head); }
"""

HEAD = (
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#4a5a5a"/></marker>'
)


class Figure:
    """A drawing of a given size, in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def box(self, x: float, y: float, width: float, lines: Sequence[str], kind: str = "box") -> None:
        """Draw a box whose first line is a title; ``x`` is its middle, ``y`` its upper edge."""
        height = 14 + 17 * len(lines)
        self.parts.append(
            f'<rect class="{kind}" x="{x - width / 2}" y="{y}" width="{width}" height="{height}" rx="5"/>'
        )
        for number, line in enumerate(lines):
            style = "onstrong" if kind == "strong" else "small" if number else ""
            self.text(x, y + 21 + 17 * number, line, style)

    def text(self, x: float, y: float, line: str, style: str = "") -> None:
        """Write a line about ``x``, its base at ``y``."""
        self.parts.append(f'<text x="{x}" y="{y}"{f" class={style!r}" if style else ""}>{escape(line)}</text>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draw an arrow through points."""
        path = " ".join(f"{x} {y}" for x, y in points)
        self.parts.append(f'<path class="arrow" d="M{path}"/>')

    def rectangle(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """Draw a rectangle without text."""
        self.parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}"/>')

    def svg(self) -> str:
        """Return the drawing."""
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        head = f"<title>{escape(self.title)}</title><style>{STYLE}</style><defs>{HEAD}</defs>"
        body = "\n".join([f'<rect width="{self.width}" height="{self.height}" fill="white"/>', *self.parts])
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{head}\n{body}\n</svg>\n'


def training() -> Figure:
    """From files to a tested checkpoint."""
    figure = Figure(440, 624, "The road of a training")
    middle, width = 200, 290
    figure.box(middle, 10, width, ["scans and masks, as they lie"], "plain")
    figure.arrow((middle, 41), (middle, 62))
    figure.box(middle, 62, width, ["survey", "checks, statistics and hashes of each case"])
    figure.arrow((middle, 110), (middle, 131))
    figure.box(middle, 131, width, ["split", "patients to training, validation and test"])
    figure.arrow((middle, 179), (middle, 200))
    figure.box(middle, 200, width, ["plan", "spacing, patch, batch, depth, width"])
    figure.arrow((middle, 248), (middle, 269))
    figure.box(middle, 269, width, ["preprocess", "orient, crop, resample, normalise"])
    figure.arrow((middle, 317), (middle, 338))
    figure.box(middle, 338, width, ["train", "patches, augmentation, optimizer steps", "averaged weights"])
    figure.arrow((middle, 403), (middle, 424))
    figure.box(middle, 424, width, ["validate", "whole cases, as predict does"])
    figure.arrow((345, 448), (400, 448), (400, 370), (347, 370))
    figure.text(398, 490, "until the time", "small")
    figure.text(398, 505, "is used up", "small")
    figure.arrow((middle, 472), (middle, 493))
    figure.box(middle, 493, width, ["best.ckpt", "best smoothed validation Dice"])
    figure.arrow((middle, 541), (middle, 562))
    figure.box(middle, 562, width, ["test: the report", "cases that training never saw"], "strong")
    return figure


def plan() -> Figure:
    """What each decision is made of."""
    rows = [
        (["spacings, shapes"], ["spacing", "median of each axis"]),
        (["shapes, device"], ["patch", "median shape, cut to the device"]),
        (["spacing, patch"], ["depth, strides, kernels", "until voxels are isotropic"]),
        (["patch, all voxels"], ["batch", "2 to 16 patches, 5 % of the data"]),
        (["time, measured speed"], ["width", "the widest that makes enough steps"]),
        (["memory of the device"], ["does a step fit?", "counted, on a GPU tried"]),
    ]
    figure = Figure(440, 512, "How the plan decides")
    for number, (inputs, decided) in enumerate(rows):
        y = 34 + 80 * number
        kind = "strong" if number == len(rows) - 1 else "box"
        figure.box(88, y + 8, 160, inputs, "plain")
        figure.box(302, y, 220, decided, kind)
        figure.arrow((168, y + 24), (192, y + 24))
        if number < len(rows) - 1:
            figure.arrow((302, y + 48), (302, y + 80))
    figure.text(88, 20, "measured", "small")
    figure.text(302, 20, "decided", "small")
    figure.arrow((412, 458), (428, 458), (428, 138), (412, 138))
    figure.text(302, 500, "if not: a smaller patch or batch", "small")
    return figure


def windows() -> Figure:
    """How far windows along the last axis are held, and where labels are done."""
    figure = Figure(440, 250, "Windows along the last axis of a scan")
    left, top, height = 20, 52, 110
    figure.rectangle(left, top, 400, height, "plain")
    figure.rectangle(left, top, 150, height, "strong")
    figure.rectangle(left + 150, top, 100, height, "held")
    for row in (0, 50):
        figure.rectangle(left + 150, top + row, 100, 60, "window")
    figure.text(left + 50, 112, "label map", "onstrong")
    figure.text(left + 325, 112, "not seen yet", "small")
    figure.text(left + 75, 40, "done", "small")
    figure.text(left + 200, 40, "probabilities held", "small")
    figure.arrow((left, 186), (left + 400, 186))
    figure.text(220, 206, "last axis of the scan, on the network's grid", "small")
    figure.text(220, 232, "Memory depends on the cross-section, not on the length.", "small")
    return figure


def architecture() -> Figure:
    """The data flow through the code."""
    nodes = [
        ("files", (115, 10), ["files on disk"], "plain"),
        ("layouts", (115, 62), ["io/layouts", "which files form a case"], "box"),
        ("read", (115, 131), ["io/files/read.py", "Scan: (C, *native) and affine"], "box"),
        ("alignment", (115, 200), ["io/grids/alignment.py", "channels and masks on one grid"], "box"),
        ("annotations", (115, 269), ["io/datasets/annotations.py", "class indices, 255 unknown"], "box"),
        ("preprocessor", (115, 338), ["preprocessing/preprocessor.py", "(C, *network grid), Geometry"], "box"),
        ("cache", (115, 407), ["preprocessing/cache.py", "one mapped file a case"], "box"),
        ("patches", (115, 476), ["training/data/patches.py", "patch n of a run"], "box"),
        ("loader", (115, 545), ["training/data/loader.py", "batches in shared memory"], "box"),
        ("augmentation", (115, 614), ["augmentation", "by batch, on the device"], "box"),
        ("network", (115, 683), ["models/unet.py", "logits (B, K, *patch)"], "box"),
        ("losses", (115, 752), ["training/losses", "over all resolutions"], "box"),
        ("module", (115, 821), ["training/module.py", "step, averaged weights"], "box"),
        ("fingerprint", (355, 269), ["preprocessing/fingerprint", "what the cases are like"], "box"),
        ("plan", (355, 338), ["preprocessing/planning/plan.py", "spacing, patch, levels, width"], "box"),
        ("report", (355, 407), ["evaluation/report", "metrics.json, report.html"], "strong"),
        ("metrics", (355, 476), ["evaluation/metrics", "counts, distances, lesions"], "box"),
        ("write", (355, 545), ["io/files/write_masks.py", "a mask in the scan's form"], "strong"),
        ("segmenter", (355, 614), ["inference/segmenter.py", "class indices (*native)"], "box"),
        ("geometry", (355, 683), ["preprocessing/geometry.py", "back to the native grid, by slabs"], "box"),
        ("window", (355, 752), ["inference/sliding_window.py", "probabilities, in blocks"], "box"),
        ("checkpoint", (355, 821), ["inference/checkpoint.py", "best.ckpt, last.ckpt"], "box"),
    ]
    figure = Figure(480, 884, "The data flow")
    for _, (x, y), lines, kind in nodes:
        figure.box(x, y, 212, lines, kind)
    figure.arrow((115, 41), (115, 62))
    for y in range(110, 801, 69):
        figure.arrow((115, y), (115, y + 21))
    figure.arrow((221, 293), (249, 293))
    figure.arrow((355, 317), (355, 338))
    figure.arrow((249, 362), (221, 362))
    figure.arrow((221, 845), (249, 845))
    for y in (821, 752, 683):
        figure.arrow((355, y), (355, y - 21))
    figure.arrow((355, 476), (355, 455))
    figure.arrow((355, 614), (355, 593))
    figure.arrow((461, 638), (472, 638), (472, 500), (463, 500))
    figure.arrow((221, 376), (235, 376), (235, 776), (249, 776))
    return figure


def main() -> None:
    """Write every figure."""
    FIGURES.mkdir(exist_ok=True)
    for draw in (training, plan, windows, architecture):
        (FIGURES / f"{draw.__name__}.svg").write_text(draw().svg(), "utf-8")


if __name__ == "__main__":
    main()
