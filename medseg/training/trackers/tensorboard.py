"""TensorBoard: scores, images, and the page HPARAMS, where the runs of a sweep are compared.

TensorBoard makes the page of what each run says of itself, so runs of different networks, with different settings,
stand side by side. A run without an end is one that still goes on, or was stopped. The page shows the first few
scores in the order of the alphabet, so those that runs are compared by are called ``best/…``.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch.utils.tensorboard.summary import hparams

from medseg.config.schema import Setting
from medseg.training.trackers.tracker import Tracker


class TensorBoard(TensorBoardLogger, Tracker):
    """Lightning's logger for TensorBoard, with images and settings. ``options`` are those of its ``SummaryWriter``."""

    def __init__(
        self,
        save_dir: Annotated[str, Setting("the folder of TensorBoard's files")],
        name: Annotated[str, Setting("a folder in it")] = "",
        version: Annotated[str, Setting("a folder in that")] = "",
        **options: Any,
    ) -> None:
        super().__init__(save_dir, name, version, **options)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log settings; Lightning's way wants the scores now, and calls the run ended."""
        _, start, _ = hparams(params, {})  # type: ignore[no-untyped-call]
        self.experiment._get_file_writer().add_summary(start)

    def image(self, tag: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Log an image (H, W) or (H, W, 3)."""
        self.experiment.add_image(tag, pixels, step, dataformats="HWC"[: pixels.ndim])

    def text(self, tag: str, text: str, step: int) -> None:
        """Log a line of text."""
        self.experiment.add_text(tag, text, step)

    def end(self, run_dir: Path, checkpoint: Path) -> None:
        """Log that a run has come to its end; its files lie beside TensorBoard's."""
        _, _, end = hparams({}, {})  # type: ignore[no-untyped-call]
        self.experiment._get_file_writer().add_summary(end)
