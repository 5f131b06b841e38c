"""``medseg pretrain``: learn from scans without masks, to begin a training with what was learned.

It goes the way of ``train``: check the data, split, plan, preprocess, fit. No mask is looked at, nothing is tested, and
the checkpoint is for ``finetune.checkpoint`` of ``train``.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from medseg.config.check import resolve
from medseg.config.instantiate import own_targets
from medseg.errors import listing
from medseg.io.datasets.dataset import open_scans
from medseg.io.labels import UNLABELLED
from medseg.jobs.rundir import run_directory
from medseg.jobs.train.fit import carry_out, end_of, preprocessed, start_from
from medseg.jobs.train.session import session
from medseg.jobs.train.setup import Run, announce, begin, cache_of, is_first_process, reopen
from medseg.preprocessing.cache_files import in_use
from medseg.system.terminal import watched
from medseg.training.assembly import make_callbacks, make_data, make_progress, make_reconstruction, make_trainer
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.callbacks.hparams import end_session
from medseg.training.pretraining.data import ReconstructionData
from medseg.training.pretraining.images import ReconstructionPictures

log = logging.getLogger(__name__)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Pre-train as the composed config says; return status, reason, score (minus the validation loss) and seconds.

    Raises:
        MedsegError: the data or the config cannot be used; nothing has been written then.
    """
    config = config | {"trust": [*config.get("trust", ()), *own_targets(config)]}  # before files add to it
    settings = resolve(config)
    if not is_first_process():
        return pretrain(config)
    with run_directory(config, settings["dataset"]["name"]) as named:
        return pretrain(named)


def pretrain(config: dict[str, Any]) -> dict[str, Any]:
    """Pre-train into a run directory that has been made."""
    settings = resolve(config)
    dataset = open_scans(settings["dataset"], settings["trust"], may_write=not settings["resume"])
    if not is_first_process():  # one of several, started by the first
        return {"status": "done", **fit(reopen(config, settings, dataset, UNLABELLED), lambda: None)[0]}
    if dataset.problems:
        log.warning("not all of the data set is as it should be:\n%s", listing(dataset.problems))
    with ExitStack() as stack:
        stack.enter_context(in_use(cache_of(settings)))
        start = reopen if settings["resume"] else begin
        this = start(config, settings, replace(dataset, problems=()), UNLABELLED)
        kept = stack.enter_context(session(this))
        announce(this)
        if ended := end_of(this, Selection(name="loss", lowest=True)):
            kept.open()
        fitted, loggers, step = ended or fit(this, kept.begin)
        result = kept.result
        result |= {"status": "done", **fitted}
        end_session(loggers, {}, step)
        log.info("run directory: %s", this.directory)
        log.info("to go on with labelled scans: medseg train finetune.checkpoint=%s dataset=...", this.directory)
    return result


def fit(run: Run, begin: Callable[[], None]) -> tuple[dict[str, Any], list[Logger], int]:
    """Train until the budget is used up, and call ``begin`` when the first step is done.

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
    return carry_out(run, trainer, module, data, begin)
