"""Weights & Biases: files in the run's directory for ``wandb sync``, or uploads at once; a sweep is a group."""

import os
import secrets
import shutil
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from medseg.config.schema import Setting
from medseg.training.trackers.tracker import FILES, Tracker, known_id, sweep_of


class WandB(Tracker):
    """Logs a run to Weights & Biases, whose own process is started for the first settings or scores."""

    def __init__(
        self,
        run_dir: Annotated[str, Setting("the run's directory, which gets a folder wandb")],
        project: Annotated[str, Setting("the project that runs are put in")],
        online: Annotated[bool, Setting("upload while training, by the account of wandb login")] = False,
    ) -> None:
        super().__init__()
        self.run_dir, self.project, self.online = Path(run_dir), project, online

    def connect(self) -> None:
        """Import the package."""
        if not self.online:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which goes out to the network
        import wandb.apis.public  # noqa: F401 (it takes the most, and a run imports it when it begins)

    @cached_property
    def run(self) -> Any:
        """The run of the package wandb, under the id that it had where it is resumed."""
        self.connect()
        import wandb

        sweep = sweep_of(self.run_dir)
        run = wandb.init(
            project=self.project,
            dir=str(self.run_dir),
            id=known_id(self.run_dir, "wandb", partial(secrets.token_hex, 4)),
            name=self.run_dir.name,
            group=sweep.name if sweep else None,
            resume="allow",
            reinit="create_new",  # or two runs of a process would be one
            mode="online" if self.online else "offline",
            settings=wandb.Settings(console="off", silent=True),  # medseg has a log and a display of its own
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step", step_sync=True)
        return run

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log scores."""
        self.run.log({**metrics, "step": step})

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log settings."""
        self.run.config.update(params, allow_val_change=True)

    def image(self, tag: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Log an image (H, W) or (H, W, 3)."""
        import wandb

        self.log_metrics({tag: wandb.Image(pixels)}, step)

    def text(self, tag: str, text: str, step: int) -> None:
        """Log a line of text into the summary, which shows the latest."""
        self.run.summary[f"{tag} (text)"] = text  # an image may have the tag itself

    def end(self, run_dir: Path, checkpoint: Path) -> None:
        """Log the files of a run and where its best checkpoint is, and end wandb's process."""
        self.run.summary["checkpoint"] = str(checkpoint.resolve())
        for name in filter(lambda name: (run_dir / name).is_file(), FILES):
            # Under names that neither wandb has nor those who look for reports below the run's directory
            shutil.copyfile(run_dir / name, Path(self.run.dir) / f"medseg-{name.replace('/', '-')}")
        self.run.finish()

    def finalize(self, status: str) -> None:
        """End a run that fails; one whose training is done still gets its test's scores."""
        if status != "success" and "run" in vars(self):
            self.run.finish(exit_code=1)
