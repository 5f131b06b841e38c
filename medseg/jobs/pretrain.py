"""``medseg pretrain``: learn from scans without masks, to begin a training with what was learned.

It goes the way of ``train``: check the data, split, plan, preprocess, fit. No mask is looked at, nothing is tested, and
the checkpoint is for ``finetune.checkpoint`` of ``train``.
"""

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from medseg.build import own_targets
from medseg.config import resolve
from medseg.errors import listing
from medseg.io.dataset import open_scans
from medseg.io.labels import UNLABELLED
from medseg.io.lock import locked
from medseg.jobs.beginning import Run, announce, begin, is_first_process, reopen
from medseg.jobs.fitting import carry_out, preprocessed, start_from
from medseg.jobs.rundir import logged_to, recorded, write_config
from medseg.jobs.terminal import watched
from medseg.training.assembly import make_callbacks, make_data, make_progress, make_reconstruction, make_trainer
from medseg.training.hparams import end_session
from medseg.training.reconstruction_data import ReconstructionData
from medseg.training.reconstruction_pictures import ReconstructionPictures
from medseg.training.selection import Selection

log = logging.getLogger(__name__)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Pre-train as the composed config says; return status, reason, score (minus the validation loss) and seconds.

    Raises:
        MedsegError: the data or the config cannot be used; nothing has been written then.
    """
    config = config | {"trust": [*config.get("trust", ()), *own_targets(config)]}  # before files add to it
    settings = resolve(config)
    dataset = open_scans(settings["dataset"], settings["trust"], may_write=not settings["resume"])
    if not is_first_process():  # one of several, started by the first
        return {"status": "done", **fit(reopen(config, settings, dataset, UNLABELLED))[0]}
    if dataset.problems:
        log.warning("not all of the data set is as it should be:\n%s", listing(dataset.problems))
    dataset = replace(dataset, problems=())
    with ExitStack() as stack:
        if settings["resume"]:
            stack.enter_context(locked(Path(settings["run_dir"]), f"resume={settings['resume']}"))
            this = reopen(config, settings, dataset, UNLABELLED)
        else:
            this = begin(config, settings, dataset, UNLABELLED)
            stack.enter_context(locked(this.directory, f"run_dir={this.directory}"))
        stack.enter_context(logged_to(this.directory / "train.log"))
        result = stack.enter_context(recorded(this.directory))
        announce(this)
        if settings["resume"]:
            write_config(this.directory / "config.yaml", config)
        fitted, loggers, step = fit(this)
        result |= {"status": "done", **fitted}
        end_session(loggers, {}, step)
        log.info("run directory: %s", this.directory)
        log.info("to go on with labelled scans: medseg train finetune.checkpoint=%s dataset=...", this.directory)
    return result


def fit(run: Run) -> tuple[dict[str, Any], list[Logger], int]:
    """Train until the budget is used up.

    Returns:
        Why training ended and minus the best validation loss, who has logged it, and the number of steps.
    """
    settings = run.settings
    torch.manual_seed(settings["seed"])  # the network's first weights; no other draw uses global state
    progress, selection = make_progress(settings["trainer"]), Selection(name="loss", lowest=True)
    module = make_reconstruction(settings, run.dataset.endings, progress, selection)
    start_from(run, module)
    module.configure_optimizers()  # wrong arguments show before the data is preprocessed
    picture = run.directory / "reconstruction.png"
    pictures = ReconstructionPictures(picture, settings["plan"]["slice_axis"], progress)
    callbacks = make_callbacks(settings, run.directory, [], pictures, progress, selection, watched())
    trainer = make_trainer(settings, run.directory, callbacks)
    data = make_data(settings, *preprocessed(run), kind=ReconstructionData)
    return carry_out(run, trainer, module, data)
