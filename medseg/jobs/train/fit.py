"""What trainings of every kind do once they are set up: weights to begin with, the cache, and Lightning's loop."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from medseg.config.settings import TrainerSettings, TrainSettings
from medseg.errors import MedsegError, first_line
from medseg.io.damage import reading
from medseg.io.datasets.dataset import by_id
from medseg.jobs.train.setup import Run, cache_of, published_weights_file, weights_of
from medseg.models.pretrained.catalogue import published
from medseg.models.pretrained.download import warn_of_another
from medseg.models.pretrained.load import load_published, names_in
from medseg.preprocessing.cache import cached_cases
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.system.memory import enough_memory
from medseg.system.relaunch import leave_process_group
from medseg.system.terminal import with_progress_bar
from medseg.system.torch_files import load_safely
from medseg.training.assembly import head_factor, make_progress
from medseg.training.callbacks.checkpoints import Checkpoints, Selection, settle_best
from medseg.training.callbacks.early_end import Plateau
from medseg.training.callbacks.progress import Budget, FirstStep, Progress, drawn_cases
from medseg.training.callbacks.progress_file import ProgressTeller
from medseg.training.data.datamodule import SegmentationData
from medseg.training.images import trackers_of
from medseg.training.module import TrainingModule
from medseg.training.optim.finetuning import FineTuning, from_scratch
from medseg.training.trackers.tracker import Trackers, make_trackers
from medseg.training.transfer.sources import REPORT, read_source
from medseg.training.transfer.transfer import announce as announce_transfer
from medseg.training.transfer.transfer import read_whole, transfer_weights, write_report
from medseg.training.transfer.warm_start import start_of

log = logging.getLogger(__name__)

Fitted = tuple[dict[str, Any], Trackers, int]
"""Of a training that has ended: why, its score and what was selected (as in ``result.json``); its trackers; its steps.

The score is that of the best validation, of which more is better: Dice, or minus the loss.
"""


def load_initial_weights(run: Run[Any], module: TrainingModule) -> set[str]:
    """Load the weights of ``finetune.checkpoint`` or ``model.pretrained``, and set which parameters are trained.

    Returns:
        The names of the weights that were loaded, also of those of which only a part was.
    """
    report, whole, ranks, loaded = run.directory / REPORT, None, run.ranks, set[str]()
    if start := start_of(run.settings):
        source, label_map = read_source(start), run.label_map
        transfer = transfer_weights(
            module.network,
            run.settings.model,
            source,
            label_map.outputs,
            regions=bool(label_map.regions),
            trust=run.settings.trust,
        )
        for network in (module.network, module.average):
            if network:
                transfer.put_into(network)
        whole, loaded = transfer.whole, {*transfer.weights}
        if ranks.is_first:
            announce_transfer(transfer, source)
            write_report(report, transfer, source)
    elif report.is_file():  # resumed
        whole = read_whole(report)
    elif weights := published(run.settings.model):
        whole = names_in(module.network, weights)
        loaded = {*whole}
        if file := published_weights_file(run.settings):
            networks = [network for network in (module.network, module.average) if network]
            lines = load_published(networks, run.settings.model, file)
            if ranks.is_first:
                warn_of_another(weights_of(run.settings))
            for line in lines:
                log.info("%s", line)
    if whole is not None or run.settings.finetune.checkpoint:
        module.tuning = FineTuning(module.network, run.settings.finetune, whole)
    elif isinstance(run.settings, TrainSettings):
        module.tuning = from_scratch(module.network, head_factor(run.settings))
    return loaded


def preprocessed(
    run: Run[Any], preparations: Sequence[tuple[tuple[str, ...], Preprocessor]] = ()
) -> tuple[list[Path], list[Path]]:
    """Return the preprocessed files to train and to validate on, made now as far as the cache does not have them.

    ``preparations`` are ids of cases, and for these their preprocessor; empty: one for all.
    """
    names, ranks = run.split.train + run.split.val, run.ranks
    parts = preparations or [(names, Preprocessor(**run.resolved["preprocessing"]))]

    def make() -> list[Path]:
        files: dict[str, Path] = {}
        folder = cache_of(run.settings)
        for ids, preprocessor in parts:
            cases = by_id(run.dataset.cases, ids)
            files |= zip(ids, cached_cases(cases, preprocessor, run.label_map, folder, with_progress_bar), strict=True)
        return [files[name] for name in names]

    if ranks.is_first:
        files = make()
        ranks.tell("files", [str(file) for file in files])
    else:
        files = [Path(file) for file in ranks.hear("files")]
        if ranks.place.local_rank == 0:
            if not all(file.is_file() for file in files):  # on a machine with a cache of its own
                make()
            ranks.tell(f"files of machine/{ranks.rank}", None)
        elif ranks.rank > ranks.place.local_rank:
            ranks.hear(f"files of machine/{ranks.rank - ranks.place.local_rank}")
    return files[: len(run.split.train)], files[len(run.split.train) :]


def result_of_finished(run: Run[Any], selection: Selection) -> Fitted | None:
    """Return what ``run_trainer`` would of a resumed run that has nothing left to train; None of any other run.

    Raises:
        MedsegError: its last checkpoint, or a ``next_best.ckpt`` beside it, cannot be read.
    """
    limits = run.settings.limits
    if not run.settings.resume or not run.last.is_file():
        return None
    state, progress = read_last(run.last), make_progress(limits)
    budget = Budget(progress, interval=None, share=0.0)
    with reading(run.last, "state of a training"):
        plateau = Plateau(progress, selection, limits.min_gain)
        for callback in (budget, Checkpoints(run.last.parent, selection), plateau):
            if saved := state["callbacks"].get(callback.state_key):
                callback.load_state_dict(saved)
        stopper = next((each for name, each in state["callbacks"].items() if name.startswith("EarlyStopping")), None)
        is_without_gain = stopper is not None and limits.patience and stopper["wait_count"] >= limits.patience
        epochs = state["loops"]["fit_loop"]["epoch_progress"]["current"]
        epoch, is_within = epochs["processed"], epochs["ready"] > epochs["processed"]
    settle_best(run.last.parent, selection)
    progress.step = state["global_step"]
    is_over = progress.is_over or is_without_gain  # but within an epoch: the last weights are to be validated
    if epoch < (limits.epochs or math.inf) and not (is_over and not is_within):
        log.info("the run goes on after epoch %d, step %d, %.0f s", epoch, progress.step, progress.seconds)
        return None
    progress.current = float(progress.is_over)
    reason = stop_reason(epoch, limits, progress)
    log.info(
        "nothing is left to train after %d epochs and %.0f s (%s): the settings of the run stay as they are",
        *(epoch, progress.seconds, reason),
    )
    trackers = make_trackers(run.settings.logger, run.settings.trust)
    return outcome(reason, selection, run.split.val, budget.n_cases), trackers, progress.step


def run_trainer(
    run: Run[Any], trainer: Trainer, module: TrainingModule, data: SegmentationData, begin: Callable[[], None]
) -> Fitted:
    """Train, and call ``begin`` once when the first step is done.

    Raises:
        MedsegError: the state of a resumed run does not fit its settings.
    """
    settings, ranks, progress, selection = run.settings, run.ranks, module.progress, module.selection
    size, device = sum(parameter.numel() for parameter in module.network.parameters()), ranks.device
    has_tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    tf32 = ", float32 products in TF32" if has_tf32 and not settings.trainer.deterministic else ""
    log.info("training on %s in %s%s, %s parameters", device, trainer.precision, tf32, f"{size:,}")
    if ranks.size > 1:
        each, machines = run.plan.batch_size * settings.trainer.accumulate, ranks.size // ranks.local_size
        log.info(
            "%d processes train together, on %d machine(s): %d patches of each make a step of %d; the learning rate is"
            " as set",
            *(ranks.size, machines, each, ranks.size * each),
        )
    trackers = trackers_of(trainer)
    if ranks.is_first:
        trackers.connect()

    def begin_with_trackers() -> None:
        begin()
        if ranks.is_first:
            trackers.begin(run.resolved)

    data.step_seconds, data.processes_here = run.resolved.get("measured", {}).get("step"), ranks.local_size
    first_step = FirstStep(begin_with_trackers)
    teller = ProgressTeller(run.progress_file, progress, selection)
    trainer.callbacks[:0] = [first_step, teller]  # type: ignore[attr-defined]  # before a state may be saved
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")  # patches are cut out of the cache in no time
        warnings.filterwarnings("ignore", "The `srun` command is available")  # its absence is ours to judge (``Place``)
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # of Lightning 2.6's own code under torch 2.13
        try:
            memory = enough_memory(f"on {trainer.strategy.root_device} to train", lambda: less_memory(run))
            with memory, interruption_as_it_is():
                ranks.form_group()
                trainer.fit(module, data, ckpt_path=run.last if run.last.is_file() else None, weights_only=True)
        except MedsegError as error:
            if not str(error).startswith("Caught MedsegError in DataLoader worker"):
                raise  # what follows has the traceback of another process before it
            raise MedsegError(str(error).rpartition("MedsegError: ")[2].strip()) from error
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, MisconfigurationException) as error:
            ranks.explain(error)
            if str(error).startswith("DataLoader worker"):
                workers = trainer.train_dataloader.num_workers  # type: ignore[union-attr]
                fewer = 0 if workers == 1 else f"N, with N below {workers}"
                raise MedsegError(
                    f"a process that loads data was killed ({first_line(error)}), mostly for lack of memory. Go on with"
                    f" resume={run.directory} trainer.workers={fewer}."
                ) from error
            if "does not have a deterministic implementation" in str(error):
                operation, network = str(error).split()[0], type(module.network).__name__
                raise MedsegError(
                    f"trainer.deterministic=true: {operation}, a part of {network} or of the loss, does not give the"
                    f" same result on every run on {trainer.strategy.root_device}. Train with"
                    " trainer.deterministic=false, another model or loss, or trainer.accelerator=cpu."
                ) from error
            if first_step.step is not None or not settings.resume:
                raise
            raise MedsegError(
                f"resume={run.directory}: {run.last.name} does not fit these settings, with which the run cannot go on."
                f" Leave out what is new, or start anew. What does not fit: {first_line(error)}"
            ) from error
    leave_process_group()
    reason = stop_reason(trainer.current_epoch, settings.limits, progress)
    if chosen := selection.report():
        best, last, key = chosen["best"], chosen["last"], selection.key
        noise = f"; one validation varies by ±{chosen['noise']:.4f}" if chosen["noise"] is not None else ""
        log.info(
            "best.ckpt: epoch %d, validation %s %.4f (smoothed %.4f); last: epoch %d, %.4f (smoothed %.4f)%s",
            *(best["epoch"], selection.name, best[key], best["smoothed"]),
            *(last["epoch"], last[key], last["smoothed"], noise),
        )
    return outcome(reason, selection, run.split.val, len(data.validated)), trackers, trainer.global_step


@contextmanager
def interruption_as_it_is() -> Iterator[None]:
    """Raise what has interrupted Lightning, which makes an exit of it, or trips over what it had not begun."""
    try:
        yield
    except BaseException as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


def outcome(reason: str, selection: Selection, names: Sequence[str], n_validated: int | None) -> dict[str, Any]:
    """Return why training ended and what its validations chose, as ``result.json`` has it.

    ``names`` are the ids of the validation cases. Where only so many of them validated, ``validated_on`` says which.
    ``unlearned`` names the classes that were not learned, where there are any.
    """
    chosen = selection.report()
    ended = {"reason": reason, **best_so_far(selection)}
    ended |= {"unlearned": selection.unlearned.names} if selection.unlearned.names else {}
    drawn = drawn_cases(len(names), n_validated or len(names))
    if not chosen or len(drawn) == len(names):
        return ended
    ended["selection"] = chosen | {"cases": f"{len(drawn)} of {len(names)}"}
    return ended | {"validated_on": [names[index] for index in drawn]}


def best_so_far(selection: Selection) -> dict[str, Any]:
    """Return the score of the best validation, and what was selected, of a training that goes on or has ended."""
    chosen = selection.report()
    return {"score": selection.sign * chosen["best"][selection.key] if chosen else None, "selection": chosen}


def read_last(file: Path) -> dict[str, Any]:
    """Return the last state of a run, its tensors left on disk.

    Raises:
        MedsegError: it is damaged, or a file of another kind.
    """
    cure = (
        f" Restore it, or begin a new training with the best weights: finetune.checkpoint={file.parent / 'best.ckpt'}."
    )
    content = load_safely(file, advice=cure, mmap=True)
    kinds: dict[str, type] = {"state_dict": dict, "optimizer_states": list, "loops": dict, "callbacks": dict}
    kinds |= {"medseg": dict, "epoch": int, "global_step": int, "pytorch-lightning_version": str}
    if not isinstance(content, dict) or not all(isinstance(content.get(name), kinds[name]) for name in kinds):
        raise MedsegError(f"{file}: not the last state of a training of medseg's.{cure}")
    return content


def less_memory(run: Run[Any]) -> str:
    """Return advice: the settings that make a training take less memory, with the run's values, and how to go on."""
    plan, model = run.plan, run.settings.model
    width = f" or model.base_channels (now {model['base_channels']})" if "base_channels" in model else ""
    saved = f" {run.last} is kept: resume={run.directory} goes on from it where more memory is free."
    return (
        "Train anew with a lower trainer.memory_gb, to which the plan is fitted, or with a lower plan.batch_size (now "
        f"{plan.batch_size}), plan.patch_size (now {plan.patch_size}){width}."
        f"{saved if run.last.is_file() else ''}"
    )


def stop_reason(epoch: int, limits: TrainerSettings, progress: Progress) -> str:
    """Return why training ended after so many epochs."""
    if progress.step >= progress.max_steps or epoch >= (limits.epochs or math.inf):
        return "max_epochs reached"
    if progress.early_end and progress.step >= progress.early_end.step:
        return "no further gain"
    return "max_time reached" if max(progress.current, progress.fraction) >= 1 else "no further gain"
