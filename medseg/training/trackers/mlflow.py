"""MLflow: a database in a folder of this machine, or a server; a sweep is a run whose children are its jobs."""

import logging
import os
import re
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from medseg.config.schema import Setting
from medseg.training.trackers.tracker import FILES, Tracker, known_id, sweep_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # which would go out to the network, of a local database too
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's own would hold up a training for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""What MLflow reads from the environment, where the user has not set it."""


class MLFlow(Tracker):
    """Logs a run to MLflow. Nothing is written before the first settings or scores."""

    def __init__(
        self,
        run_dir: Annotated[str, Setting("the run's directory")],
        experiment: Annotated[str, Setting("the experiment that runs are put in")],
        folder: Annotated[str, Setting("where the database and the runs' files are, without a server")],
        server: Annotated[str | None, Setting("the address of a server", null="the database in the folder")] = None,
    ) -> None:
        super().__init__()
        self.run_dir, self.experiment, self.folder, self.server = Path(run_dir), experiment, Path(folder), server

    def connect(self) -> None:
        """Import the package, and make the database where there is none."""
        self.client  # noqa: B018

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        if self.server:
            return MlflowClient(self.server)
        self.folder.mkdir(parents=True, exist_ok=True)
        return MlflowClient(f"sqlite:///{self.folder.resolve() / 'mlflow.db'}")

    @cached_property
    def run(self) -> str:
        """The id of this run, which goes on where it is resumed."""
        parent = {}
        if sweep := sweep_of(self.run_dir):
            parent["mlflow.parentRunId"] = known_id(sweep, "mlflow", lambda: self.begun(sweep, {}, "FINISHED"))
        run = known_id(self.run_dir, "mlflow", lambda: self.begun(self.run_dir, parent))
        self.client.update_run(run, "RUNNING")
        return run

    def begun(self, folder: Path, tags: dict[str, str], status: str = "RUNNING") -> str:
        """Begin the run of a folder, in the experiment, and return its id."""
        found = self.client.get_experiment_by_name(self.experiment)
        place = None if self.server else (self.folder.resolve() / "artifacts").as_uri()
        experiment = found.experiment_id if found else self.client.create_experiment(self.experiment, place)
        tags = {"folder": str(folder.resolve()), **tags}
        run: str = self.client.create_run(experiment, tags=tags, run_name=folder.name).info.run_id
        if status != "RUNNING":
            self.client.set_terminated(run, status)
        return run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scores."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        scores = [Metric(plain(name), float(value), now, step or 0) for name, value in metrics.items()]
        self.client.log_batch(self.run, metrics=scores)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log settings. MLflow's never change: those that a resumed run changes become tags."""
        from mlflow.entities import Param, RunTag

        values = {plain(name): str(value) for name, value in params.items()}
        before = self.client.get_run(self.run).data.params
        new = [Param(name, value) for name, value in values.items() if name not in before]
        changed = [RunTag(name, value) for name, value in values.items() if before.get(name, value) != value]
        for first in range(0, len(new), 100):  # at once, at most
            self.client.log_batch(self.run, params=new[first : first + 100])
        self.client.log_batch(self.run, tags=changed[:100])

    def image(self, tag: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Log an image (H, W) or (H, W, 3)."""
        self.client.log_image(self.run, pixels, key=plain(tag), step=step)

    def text(self, tag: str, text: str, step: int) -> None:
        """Log a line of text as a tag, which shows the latest."""
        self.client.set_tag(self.run, plain(tag), text)

    def end(self, run_dir: Path, checkpoint: Path) -> None:
        """Log the files of a run and where its best checkpoint is."""
        self.client.set_tag(self.run, "checkpoint", str(checkpoint.resolve()))
        for name in filter(lambda name: (run_dir / name).is_file(), FILES):
            self.client.log_artifact(self.run, str(run_dir / name), "test" if name.startswith("test/") else None)

    def finalize(self, status: str) -> None:
        """End a session; one that fails before the first scores has nothing to end."""
        if "run" in vars(self):
            self.client.set_terminated(self.run, "FINISHED" if status == "success" else "FAILED")


def plain(name: str) -> str:
    """Return a name with the letters that MLflow takes."""
    return re.sub(r"[^\w/.: -]", "_", name)
