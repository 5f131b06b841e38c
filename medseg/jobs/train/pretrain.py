"""``medseg pretrain``: learn from scans without masks, to begin a training with what was learned.

It does what ``train`` does: check the data, split, plan, preprocess, fit. No mask is read, nothing is tested, and the
checkpoint is for ``finetune.checkpoint`` of ``train``.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from medseg.config.check import read_settings
from medseg.config.settings import PretrainSettings
from medseg.errors import MedsegError, listing
from medseg.inference.checkpoint import describe
from medseg.io.datasets.dataset import open_scans
from medseg.io.labels import UNLABELLED
from medseg.jobs.train.fit import Fitted, load_initial_weights, preprocessed, run_trainer
from medseg.jobs.train.session import train_in_run_directory, train_together
from medseg.jobs.train.setup import Run, reopen
from medseg.system.distributed.ranks import Ranks
from medseg.system.terminal import interactive_terminal
from medseg.training.assembly import make_callbacks, make_data, make_progress, make_reconstruction, make_trainer
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.pretraining.data import ReconstructionData
from medseg.training.pretraining.images import ReconstructionImages

log = logging.getLogger(__name__)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Pre-train as the composed config says; return status, reason, score (minus the validation loss) and seconds.

    Raises:
        MedsegError: the data or the config cannot be used; nothing has been written then.
    """
    return train_together(config, pretrain, follow)


def pretrain(config: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Pre-train into a run directory that has been made, as the first of the processes."""
    settings, selection = read_settings(PretrainSettings, config), Selection(name="loss", lowest=True)
    if settings.trainer.head_factor not in (None, 1.0):
        raise MedsegError(
            f"trainer.head_factor={settings.trainer.head_factor:g} is for medseg train: what pretrain trains learns at"
            " one rate. Leave it out."
        )
    dataset = open_scans(settings.dataset, settings.trust, may_write=not settings.resume)
    if dataset.problems:
        log.warning("%d problems in the data set:\n%s", len(dataset.problems), listing(dataset.problems))
    scans = replace(dataset, problems=())
    return train_in_run_directory(config, settings, scans, UNLABELLED, ranks, fit, selection, finish)


def follow(config: dict[str, Any], ranks: Ranks, is_trained: bool) -> None:
    """Train with the first process in the run that it has set up."""
    settings = read_settings(PretrainSettings, config)
    scans = replace(open_scans(settings.dataset, settings.trust, may_write=False), problems=())
    if not is_trained:
        selection = Selection(name="loss", lowest=True)
        fit(reopen(config, settings, scans, UNLABELLED, ranks), selection, lambda: None)


def finish(run: Run[PretrainSettings], result: dict[str, Any]) -> dict[str, float]:
    """Log where the checkpoint is: nothing is tested."""
    result["status"] = "done"
    log.info("run directory: %s", run.directory)
    log.info("to go on with labelled scans: medseg train finetune.checkpoint=%s dataset=...", run.directory)
    return {}


def fit(run: Run[PretrainSettings], selection: Selection, begin: Callable[[], None]) -> Fitted:
    """Train until the time or the epochs are used up, and call ``begin`` when the first step is done."""
    settings, plan = run.settings, run.plan
    torch.manual_seed(settings.seed)  # the network's first weights; no other draw uses global state
    progress = make_progress(settings.limits)
    description = describe(run.resolved, None, run.dataset.endings)
    module = make_reconstruction(settings, plan, description, progress, selection, run.ranks.device)
    load_initial_weights(run, module)
    module.configure_optimizers()  # wrong arguments show before the data is preprocessed
    pictures = ReconstructionImages(run.directory / "reconstruction.png", plan.slice_axis, progress)
    console = interactive_terminal()
    callbacks = make_callbacks(settings.trainer, run.directory, [], pictures, progress, selection, console)
    trainer = make_trainer(settings, run.directory, callbacks, run.ranks)
    data = make_data(settings, plan, *preprocessed(run), kind=ReconstructionData)
    return run_trainer(run, trainer, module, data, begin)
