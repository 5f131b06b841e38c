"""``medseg train``: check the data, split, plan, preprocess, fit, and test the best checkpoint."""

import logging
from collections.abc import Callable
from typing import Any

import torch

from medseg.config.check import read_settings
from medseg.config.schema import CONF, typed
from medseg.config.settings import MetricsSettings, TrainSettings
from medseg.config.untrusted import read_yaml
from medseg.evaluation.metrics.registry import Settings, settings_of
from medseg.inference.checkpoint import describe
from medseg.inference.predictor import Predictor
from medseg.inference.segmenter import make_segmenter
from medseg.io.case import Case
from medseg.io.datasets.dataset import by_id, label_map, open_dataset
from medseg.jobs.evaluate.candidates import Candidate, from_predictor
from medseg.jobs.evaluate.scoring import ReportOptions, evaluate_cases, log_output_paths, measured
from medseg.jobs.train.first_stage import check as check_first_stage
from medseg.jobs.train.first_stage import log_regions, preparations, train_first_stage
from medseg.jobs.train.fit import Fitted, load_initial_weights, preprocessed, run_trainer
from medseg.jobs.train.session import train_in_run_directory, train_together
from medseg.jobs.train.setup import Run, reopen
from medseg.sweeps.record import is_job
from medseg.system.distributed.ranks import Ranks
from medseg.system.files import write_json
from medseg.system.terminal import interactive_terminal
from medseg.training.assembly import make_callbacks, make_data, make_module, make_progress, make_trainer
from medseg.training.callbacks.checkpoints import BEST, Selection
from medseg.training.class_prior import begin_at, class_frequencies
from medseg.training.data.datamodule import SegmentationData
from medseg.training.images import CaseImages
from medseg.training.optim.finetuning import changed
from medseg.training.optim.finetuning import check as check_tuning
from medseg.training.segmentation import SegmentationModule
from medseg.training.transfer.transfer import axes_along

log = logging.getLogger(__name__)

METRICS = CONF / "metrics" / "default.yaml"


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Train as the composed config says; return status, reason, scores and seconds.

    ``score`` is the validation Dice of the best checkpoint, by which trainings may be ranked; ``test_score`` its mean
    test Dice, which chooses nothing.

    Raises:
        MedsegError: the data or the config cannot be used; nothing has been written then.
    """
    return train_together(config, train, follow)


def train(config: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Train into a run directory that has been made, as the first of the processes."""
    settings = read_settings(TrainSettings, config)
    check_tuning(settings.finetune, settings.model, ranks.size, settings.trainer.head_factor)
    check_first_stage(settings, ranks.size)
    dataset = open_dataset(settings.dataset, settings.trust, may_write=not settings.resume)
    classes = label_map(dataset)
    make_segmenter(settings.inference, settings.postprocess, classes)  # wrong options show at once

    def finish(run: Run[TrainSettings], result: dict[str, Any]) -> dict[str, float]:
        # the report tells why training ended
        write_json(run.directory / "result.json", {**result, "status": "testing"})
        result |= test(run)
        log_output_paths(run.directory)
        return {} if result["test_score"] is None else {"best/test_dice": result["test_score"]}

    return train_in_run_directory(config, settings, dataset, classes, ranks, fit, Selection(), finish)


def follow(config: dict[str, Any], ranks: Ranks, is_trained: bool) -> None:
    """Train with the first process in the run that it has set up, and test a share of the cases."""
    settings = read_settings(TrainSettings, config)
    dataset = open_dataset(settings.dataset, settings.trust, may_write=False)
    run = reopen(config, settings, dataset, label_map(dataset), ranks)
    if not is_trained:
        fit(run, Selection(), lambda: None)
    if cases := cases_to_test(run):
        run.ranks.hear("test")  # the best checkpoint is whole
        measured(best_of(run).segment, cases, run.label_map, metrics_of(run), run.ranks)


def fit(run: Run[TrainSettings], selection: Selection, begin: Callable[[], None]) -> Fitted:
    """Train until the time or the epochs are used up, and call ``begin`` when the first step is done."""
    settings, plan = run.settings, run.plan
    torch.manual_seed(settings.seed)  # the network's first weights; no other draw uses global state
    progress = make_progress(settings.limits)
    description = describe(run.resolved, run.label_map, run.dataset.endings, run.training_data)
    module = make_module(settings, plan, run.label_map, description, progress, selection, run.ranks.device)
    loaded = load_initial_weights(run, module)
    optimizer = module.configure_optimizers()  # wrong arguments show before the data is preprocessed
    for line in () if settings.resume else module.tuning.describe(optimizer):  # by now more may learn in a resumed run
        log.log(logging.INFO if changed(settings.finetune) else logging.DEBUG, "%s", line)
    pictures = CaseImages(run.split.val, run.label_map, progress) if settings.logger else None
    classes, console = list(run.label_map.reported), interactive_terminal()
    callbacks = make_callbacks(settings.trainer, run.directory, classes, pictures, progress, selection, console)
    trainer = make_trainer(settings, run.directory, callbacks, run.ranks)
    prepared = []
    if settings.first_stage.use:
        coarse = train_first_stage(run, fit, begin)
        module.first_stage = [checkpoint.portable for checkpoint in coarse]
        prepared = preparations(run, coarse)
    train, val = preprocessed(run, prepared)
    if settings.first_stage.use == "region":
        log_regions(dict(zip(run.split.train + run.split.val, train + val, strict=True)))
    data = make_data(settings, plan, train, val)
    if settings.trainer.class_prior and not plan.coarse_channels and not run.last.is_file():
        begin_at_class_frequencies(run, module, data, loaded)
    return run_trainer(run, trainer, module, data, begin)


def begin_at_class_frequencies(
    run: Run[TrainSettings], module: SegmentationModule, data: SegmentationData, trained: set[str]
) -> None:
    """Let the network predict each class as often as it is in some batches; see ``medseg.training.class_prior``.

    A head among the weights that were ``trained`` elsewhere stays as it is.
    """
    targets = (module.target(batch["label"], batch["annotated"]) for batch in data.examples(transformed=False))
    frequencies = class_frequencies(targets, len(run.label_map.outputs))
    networks = [network for network in (module.network, module.average) if network]
    axes = axes_along(run.settings.model, "out_channels", module.network.state_dict(), run.settings.trust)
    begin_at(frequencies, networks, axes, regions=bool(run.label_map.regions), trained=trained)


def test(run: Run[TrainSettings]) -> dict[str, Any]:
    """Test the best checkpoint as ``medseg eval`` would; return status and ``test_score``, None where it is not tested.

    Each of the processes that train together segments and measures a share of the cases.
    """
    if not (cases := cases_to_test(run)):
        if run.split.test:
            log.info("no test report: it is not for each job of a sweep (sweep.test=%s)", run.settings.sweep.test)
        else:
            log.info("no test report: the split has no test part")
        return {"status": "done", "test_score": None}
    run.ranks.tell("test", None)
    folder, metrics = run.directory / "test", metrics_of(run)
    strata = run.settings.metrics.strata if run.settings.metrics else []
    best = run.directory / "checkpoints" / BEST
    options = ReportOptions(metrics, "test", strata, runs={"training": run.directory}, models=[best])
    summary, problems = evaluate_cases(best_of(run).segment, cases, run.label_map, folder, options, ranks=run.ranks)
    return {"status": "some_failed" if problems else "done", "test_score": summary["mean"]["dice"]}


def cases_to_test(run: Run[TrainSettings]) -> list[Case]:
    """Return the test cases; none of a sweep's job, for only the best by validation is to be tested, at the end."""
    is_left_out = is_job(run.directory) and run.settings.sweep.test != "all"
    return [] if is_left_out else by_id(run.dataset.cases, run.split.test)


def best_of(run: Run[Any]) -> Candidate:
    """Return the best checkpoint of a run as what predicts, on this process's device."""
    predictor = Predictor.load(run.directory, device=str(run.ranks.device), trust=run.settings.trust)
    return from_predictor(run.directory.name, predictor)


def metrics_of(run: Run[TrainSettings]) -> Settings:
    """Return what is measured; the default in a run older than the key."""
    return settings_of(run.settings.metrics or typed(MetricsSettings, read_yaml(METRICS)))
