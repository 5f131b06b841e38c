"""What trainings of every kind do once they are set up: weights to begin with, the cache, and Lightning's loop."""

import logging
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from medseg.errors import MedsegError, first_line
from medseg.io.dataset import by_id
from medseg.jobs.beginning import Run, cache_of, file_to_begin_with, is_first_process
from medseg.jobs.terminal import on_terminal
from medseg.models.pretrained import load_published, names_in
from medseg.models.published import published
from medseg.models.torch_files import load_safely
from medseg.models.weights import warn_of_another
from medseg.preprocessing.cache import cached_cases
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.relaunch import rerunnable
from medseg.training.data import SegmentationData
from medseg.training.finetuning import FineTuning
from medseg.training.hparams import begin_session
from medseg.training.module import TrainingModule
from medseg.training.progress import Progress
from medseg.training.selection import Selection
from medseg.training.sources import REPORT, read_source
from medseg.training.transfer import announce as announce_transfer
from medseg.training.transfer import read_whole, take_over, write_report
from medseg.training.warm_start import start_of

log = logging.getLogger(__name__)


def start_from(run: Run, module: TrainingModule) -> None:
    """Give the networks the weights of ``finetune.checkpoint`` or ``model.pretrained``, and settle what learns."""
    report, whole = run.directory / REPORT, None
    if start := start_of(run.settings):
        source, label_map = read_source(start), run.label_map
        transfer = take_over(
            module.network,
            run.settings["model"],
            source,
            label_map.outputs,
            regions=bool(label_map.regions),
            trust=run.settings["trust"],
        )
        for network in (module.network, module.average):
            if network:
                transfer.put_into(network)
        whole = transfer.whole
        if is_first_process():
            announce_transfer(transfer, source)
            write_report(report, transfer, source)
    elif report.is_file():  # resumed
        whole = read_whole(report)
    elif weights := published(run.settings["model"]):
        whole = names_in(module.network, weights)
        if file := file_to_begin_with(run.settings):
            networks = [network for network in (module.network, module.average) if network]
            lines = load_published(networks, run.settings["model"], file)
            if is_first_process():
                warn_of_another(run.settings)
            for line in lines if is_first_process() else ():
                log.info("%s", line)
    module.tuning = FineTuning(module.network, run.settings.get("finetune", {}), whole)


def preprocessed(run: Run) -> tuple[list[Path], list[Path]]:
    """Return the preprocessed files to train and to validate on, made now as far as the cache does not have them."""
    preprocessor = Preprocessor(**run.settings["preprocessing"])
    cases = by_id(run.dataset.cases, run.split.train + run.split.val)
    files = cached_cases(cases, preprocessor, run.label_map, cache_of(run.settings), on_terminal)
    return files[: len(run.split.train)], files[len(run.split.train) :]


def carry_out(
    run: Run, trainer: Trainer, module: TrainingModule, data: SegmentationData
) -> tuple[dict[str, Any], list[Logger], int]:
    """Train.

    Returns:
        Why training ended and the best validation's score, of which more is better; who has logged it; steps.
    """
    settings, progress, selection = run.settings, module.progress, module.selection
    if is_first_process():
        size = sum(parameter.numel() for parameter in module.network.parameters())
        begin_session(trainer.loggers, settings)
        log.info("training on %s in %s, %s parameters", trainer.strategy.root_device, trainer.precision, f"{size:,}")
    with warnings.catch_warnings(), rerunnable(run.directory):
        warnings.filterwarnings(
            "ignore", ".*does not have many workers"
        )  # cutting patches out of the cache takes no time
        warnings.filterwarnings(
            "ignore", ".*LeafSpec", FutureWarning
        )  # Lightning 2.6 under torch 2.13, in its own code
        if settings["resume"]:
            check_last(run.last, module)
        try:
            trainer.fit(module, data, ckpt_path=run.last if settings["resume"] else None, weights_only=True)
        except SystemExit as stop:  # Lightning makes an exit of Ctrl-C
            raise KeyboardInterrupt from stop
        except MedsegError as error:  # of a process that loads data it comes with a traceback before it
            raise MedsegError(str(error).rpartition("MedsegError: ")[2]) from error
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise MedsegError(
                f"a process that loads data was killed ({first_line(error)}), mostly for lack of memory. Go on with"
                f" resume={run.directory} trainer.workers=N, with N below {settings['trainer']['workers']}."
            ) from error
    chosen = selection.report()
    if chosen and is_first_process():
        announce_choice(chosen, selection)
    found = {
        "reason": stop_reason(trainer, progress),
        "score": selection.sign * chosen["best"][selection.key] if chosen else None,
        "selection": chosen,
    }
    return found, trainer.loggers, trainer.global_step


def check_last(file: Path, module: TrainingModule) -> None:
    """Refuse a ``last.ckpt`` that is damaged, or that another network was trained to.

    Raises:
        MedsegError: what is wrong, and how to go on.
    """
    cure = (
        f" Restore it, or begin a new training with the best weights: finetune.checkpoint={file.parent / 'best.ckpt'}."
    )
    content = load_safely(file, advice=cure, mmap=True)
    needed = ("state_dict", "optimizer_states", "loops", "epoch", "global_step", "pytorch-lightning_version", "medseg")
    if not isinstance(content, dict) or any(name not in content for name in needed):
        raise MedsegError(f"{file}: not the last state of a training of medseg's.{cure}")
    theirs, ours = content["state_dict"], module.state_dict()
    is_ours = isinstance(theirs, dict) and theirs.keys() == ours.keys()
    if not is_ours or any(getattr(theirs[key], "shape", None) != value.shape for key, value in ours.items()):
        raise MedsegError(f"{file}: the last state of another network than this run's.{cure}")


def announce_choice(chosen: dict[str, Any], selection: Selection) -> None:
    """Log which weights are kept, and how far the choice can be trusted."""
    best, last, key = chosen["best"], chosen["last"], selection.key
    noise = f"; one validation varies by ±{chosen['noise']:.4f}" if chosen["noise"] is not None else ""
    log.info(
        "best.ckpt: epoch %d, validation %s %.4f (smoothed %.4f); last: epoch %d, %.4f (smoothed %.4f)%s",
        *(best["epoch"], selection.name, best[key], best["smoothed"]),
        *(last["epoch"], last[key], last["smoothed"], noise),
    )


def stop_reason(trainer: Trainer, progress: Progress) -> str:
    """Say why training ended."""
    if progress.step >= progress.max_steps:
        return "max_epochs reached"
    return "max_time reached" if progress.current >= 1 else "no further gain"
