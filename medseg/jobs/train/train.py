"""``medseg train``: check the data, split, plan, preprocess, fit, and test the best checkpoint."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch.loggers import Logger

from medseg.config.check import resolve
from medseg.config.instantiate import CONF, own_targets
from medseg.config.untrusted import read_yaml
from medseg.evaluation.metrics.registry import settings_of
from medseg.inference.predictor import Predictor
from medseg.inference.trained_model import make_segmenter
from medseg.io.datasets.dataset import by_id, label_map, open_dataset
from medseg.jobs.evaluate.candidates import from_predictor
from medseg.jobs.evaluate.scoring import Wanted, evaluate_cases, tell_places
from medseg.jobs.rundir import run_directory
from medseg.jobs.train.fit import carry_out, end_of, preprocessed, start_from
from medseg.jobs.train.session import session
from medseg.jobs.train.setup import Run, announce, begin, cache_of, is_first_process, reopen
from medseg.preprocessing.cache_files import in_use
from medseg.system.device import pick_device
from medseg.system.files import write_json
from medseg.system.terminal import watched
from medseg.training.assembly import make_callbacks, make_data, make_module, make_progress, make_trainer
from medseg.training.callbacks.checkpoints import Selection
from medseg.training.callbacks.hparams import end_session
from medseg.training.images import Pictures
from medseg.training.optim.finetuning import check as check_tuning

log = logging.getLogger(__name__)

METRICS = CONF / "metrics" / "default.yaml"


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train as the composed config says; return status, reason, score (mean test Dice, or validation Dice) and seconds.

    Raises:
        MedsegError: the data or the config cannot be used; nothing has been written then.
    """
    config = config | {"trust": [*config.get("trust", ()), *own_targets(config)]}  # before files add to it
    settings = resolve(config)
    if not is_first_process():
        return train(config)
    with run_directory(config, settings["dataset"]["name"]) as named:
        return train(named)


def train(config: dict[str, Any]) -> dict[str, Any]:
    """Train into a run directory that has been made."""
    settings = resolve(config)
    check_tuning(settings)
    dataset = open_dataset(settings["dataset"], settings["trust"], may_write=not settings["resume"])
    classes = label_map(dataset)
    make_segmenter(settings["inference"], settings["postprocess"], classes)  # wrong options show at once
    if not is_first_process():  # one of several, started by the first
        return {"status": "done", **fit(reopen(config, settings, dataset, classes), lambda: None)[0]}
    with ExitStack() as stack:
        stack.enter_context(in_use(cache_of(settings)))
        start = reopen if settings["resume"] else begin
        this = start(config, settings, dataset, classes)
        kept = stack.enter_context(session(this))
        announce(this)
        if ended := end_of(this, Selection()):
            kept.open()
        fitted, loggers, step = ended or fit(this, kept.begin)
        result = kept.result
        result |= fitted
        write_json(this.directory / "result.json", result)  # the report tells why training ended
        result |= test(this, result["score"])
        is_tested = this.split.test and result["score"] is not None
        end_session(loggers, {"best/test_dice": result["score"]} if is_tested else {}, step)
        tell_places(this.directory)
    return result


def fit(run: Run, begin: Callable[[], None]) -> tuple[dict[str, Any], list[Logger], int]:
    """Train until the budget is used up, and call ``begin`` when the first step is done.

    Returns:
        Why training ended and the best validation Dice, who has logged it, and the number of steps.
    """
    settings = run.settings
    torch.manual_seed(settings["seed"])  # the network's first weights; no other draw uses global state
    progress, selection = make_progress(settings["trainer"]), Selection()
    module = make_module(settings, run.label_map, run.dataset.endings, progress, selection, run.training_data)
    start_from(run, module)
    optimizer = module.configure_optimizers()  # wrong arguments show before the data is preprocessed
    is_new = is_first_process() and not settings["resume"]  # of a run that goes on, more may learn by now
    for line in module.tuning.describe(optimizer) if is_new else ():
        log.info("%s", line)
    pictures = Pictures(run.split.val, run.label_map, progress) if settings["logger"] else None
    classes = list(run.label_map.reported)
    callbacks = make_callbacks(settings, run.directory, classes, pictures, progress, selection, watched())
    trainer = make_trainer(settings, run.directory, callbacks)
    data = make_data(settings, *preprocessed(run))
    return carry_out(run, trainer, module, data, begin)


def test(run: Run, score: float | None) -> dict[str, Any]:
    """Test the best checkpoint as ``medseg eval`` would; ``score`` stays where no case was kept for testing."""
    cases = by_id(run.dataset.cases, run.split.test)
    if not cases:
        log.info("no test report: the split has no test part")
        return {"status": "done", "score": score}
    device = str(pick_device(run.settings["trainer"]["accelerator"]))
    predictor = Predictor.load(run.directory, device=device, trust=run.settings["trust"])
    folder = run.directory / "test"
    node = run.settings.get("metrics") or read_yaml(METRICS)  # of a run older than the key
    wanted = Wanted(settings_of(node), "test", node["strata"], runs={"training": run.directory})
    candidate = from_predictor(run.directory.name, predictor)
    summary, problems = evaluate_cases(candidate.segment, cases, run.label_map, folder, wanted)
    return {"status": "some_failed" if problems else "done", "score": summary["mean"]["dice"]}
