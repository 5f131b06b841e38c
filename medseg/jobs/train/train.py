"""``medseg train``: check the data, split, plan, preprocess, fit, and test the best checkpoint."""

import logging
from collections.abc import Callable
from typing import Any

import torch

from medseg.config.check import read_settings
from medseg.config.schema import CONF, typed
from medseg.config.settings import MetricsSettings, TrainSettings
from medseg.config.untrusted import read_yaml
from medseg.evaluation.metrics.registry import settings_of
from medseg.inference.checkpoint import describe
from medseg.inference.predictor import Predictor
from medseg.inference.segmenter import make_segmenter
from medseg.io.datasets.dataset import by_id, label_map, open_dataset
from medseg.jobs.evaluate.candidates import from_predictor
from medseg.jobs.evaluate.scoring import ReportOptions, evaluate_cases, log_output_paths
from medseg.jobs.train.fit import Fitted, load_initial_weights, preprocessed, run_trainer
from medseg.jobs.train.session import train_in_run_directory
from medseg.jobs.train.setup import Run, in_run_directory, is_first_process
from medseg.sweeps.record import is_job
from medseg.system.device import pick_device
from medseg.system.files import write_json
from medseg.system.terminal import interactive_terminal
from medseg.training.assembly import make_callbacks, make_data, make_module, make_progress, make_trainer
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.images import CaseImages
from medseg.training.optim.finetuning import check as check_tuning

log = logging.getLogger(__name__)

METRICS = CONF / "metrics" / "default.yaml"


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train as the composed config says; return status, reason, scores and seconds.

    ``score`` is the validation Dice of the best checkpoint, by which trainings may be ranked; ``test_score`` its mean
    test Dice, which chooses nothing.

    Raises:
        MedsegError: the data or the config cannot be used; nothing has been written then.
    """
    return in_run_directory(config, train)


def train(config: dict[str, Any]) -> dict[str, Any]:
    """Train into a run directory that has been made."""
    settings = read_settings(TrainSettings, config)
    # What is wrong with the device is said before the data are read
    pick_device(settings.trainer.accelerator, settings.trainer.devices)
    check_tuning(settings.finetune, settings.model, settings.trainer.devices)
    dataset = open_dataset(settings.dataset, settings.trust, may_write=not settings.resume)
    classes = label_map(dataset)
    make_segmenter(settings.inference, settings.postprocess, classes)  # wrong options show at once

    def finish(run: Run[TrainSettings], result: dict[str, Any]) -> dict[str, float]:
        write_json(run.directory / "result.json", result)  # the report tells why training ended
        result |= test(run)
        log_output_paths(run.directory)
        return {} if result["test_score"] is None else {"best/test_dice": result["test_score"]}

    return train_in_run_directory(config, settings, dataset, classes, fit, Selection(), finish)


def fit(run: Run[TrainSettings], begin: Callable[[], None]) -> Fitted:
    """Train until the time or the epochs are used up, and call ``begin`` when the first step is done."""
    settings, plan = run.settings, run.plan
    torch.manual_seed(settings.seed)  # the network's first weights; no other draw uses global state
    progress, selection = make_progress(settings.trainer), Selection()
    description = describe(run.resolved, run.label_map, run.dataset.endings, run.training_data)
    module = make_module(settings, plan, run.label_map, description, progress, selection)
    load_initial_weights(run, module)
    optimizer = module.configure_optimizers()  # wrong arguments show before the data is preprocessed
    is_new = is_first_process() and not settings.resume  # of a run that goes on, more may learn by now
    for line in module.tuning.describe(optimizer) if is_new else ():
        log.info("%s", line)
    pictures = CaseImages(run.split.val, run.label_map, progress) if settings.logger else None
    classes, console = list(run.label_map.reported), interactive_terminal()
    callbacks = make_callbacks(settings.trainer, run.directory, classes, pictures, progress, selection, console)
    trainer = make_trainer(settings, run.directory, callbacks)
    data = make_data(settings, plan, *preprocessed(run))
    return run_trainer(run, trainer, module, data, begin)


def test(run: Run[TrainSettings]) -> dict[str, Any]:
    """Test the best checkpoint as ``medseg eval`` would; return status and ``test_score``, None where it is not tested.

    Jobs of a sweep wait for its end: only the best by validation is to be tested.
    """
    cases = by_id(run.dataset.cases, run.split.test)
    if is_job(run.directory) and run.settings.sweep.test != "all":
        log.info("no test report: it is not for each job of a sweep (sweep.test=%s)", run.settings.sweep.test)
        return {"status": "done", "test_score": None}
    if not cases:
        log.info("no test report: the split has no test part")
        return {"status": "done", "test_score": None}
    device = str(pick_device(run.settings.trainer.accelerator))
    predictor = Predictor.load(run.directory, device=device, trust=run.settings.trust)
    folder = run.directory / "test"
    metrics = run.settings.metrics or typed(MetricsSettings, read_yaml(METRICS))  # of a run older than the key
    options = ReportOptions(settings_of(metrics), "test", metrics.strata, runs={"training": run.directory})
    candidate = from_predictor(run.directory.name, predictor)
    summary, problems = evaluate_cases(candidate.segment, cases, run.label_map, folder, options)
    return {"status": "some_failed" if problems else "done", "test_score": summary["mean"]["dice"]}
