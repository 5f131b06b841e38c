"""From what ``checkpoint=`` names to models: run directories, checkpoint files, folders of folds, lists of these."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.config.instantiate import build, check_targets
from medseg.config.schema import typed
from medseg.config.settings import FirstStageSettings
from medseg.config.untrusted import SWEEP, read_json_object
from medseg.errors import MedsegError, first_line, listing
from medseg.inference.checkpoint import Checkpoint, locate, read_checkpoint
from medseg.inference.first_stage import second_stage
from medseg.inference.nnunet.folder import checkpoints, is_nnunet, read_nnunet
from medseg.inference.onnx.runtime import read_onnx
from medseg.inference.trained_model import Model, model_of
from medseg.io.damage import reading
from medseg.models.weight_checks import limit_parameters

BEST, LAST = Path("checkpoints", "best.ckpt"), Path("checkpoints", "last.ckpt")
"""Of a run, the weights that were chosen by validation, and those that it ended with, averaged where it averages."""

SELECTED = "selected.json"
"""What a selection's folder says of the runs that were selected."""


def read_models(paths: str | Path | Sequence[str | Path] | None, trust: Collection[str] = ()) -> list[Model]:
    """Read one model, or the members of an ensemble.

    Args:
        paths: run directories, ``.ckpt`` or ``.onnx`` files, folders of runs such as a sweep over folds, what ``medseg
            compare select=best`` wrote, or models that nnU-Net trained; one or several.
        trust: dotted names of network classes that checkpoints may build beside those that medseg ships, and names of
            nnU-Net's trainers (see ``medseg.inference.nnunet.folder``).

    Raises:
        MedsegError: no such checkpoint, a damaged one, one that names a class that is not trusted, or models that do
            not know the same classes.
    """
    if paths is None:
        raise MedsegError("checkpoint=null: give a run directory or a .ckpt file.")
    models = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        if is_nnunet(path):
            with reading(path, "model of nnU-Net"):
                models += read_nnunet(path, trust)
            continue
        for file in files_of(path):
            with reading(file, "model"):  # whose description of itself may be anything
                models.append(read_model(file, trust))
    if not models:
        raise MedsegError("checkpoint=[]: name at least one run directory or .ckpt file.")
    first = models[0]
    for other in models[1:]:
        for what, ours, theirs in (
            ("classes", first.label_map, other.label_map),
            ("number of channels", first.preprocessor.n_channels, other.preprocessor.n_channels),
            ("number of dimensions", len(first.patch_size), len(other.patch_size)),
        ):
            if ours != theirs:
                raise MedsegError(
                    f"checkpoint: the models of an ensemble must have the same {what}.\n{first.path}: {ours}\n"
                    f"{other.path}: {theirs}"
                )
    return models


def files_of(path: Path) -> list[Path]:
    """Return the checkpoint files that ``path`` means: its own, or the best of each run in a folder.

    Raises:
        MedsegError: there are none, or a sweep's folder holds other jobs than folds.
    """
    if is_nnunet(path):
        return checkpoints(path)
    if (path / SELECTED).is_file():
        return files_of_selection(path)
    if (path / SWEEP).is_file() and has_results(path):
        return [path / str(job) / BEST for job in folds_of_sweep(path)]
    if path.is_dir() and not (path / BEST).is_file():
        runs = sorted(run for run in path.iterdir() if (run / BEST).is_file())
        if runs:
            return [run / BEST for run in runs]
    return [locate(path)]


def files_of_selection(folder: Path) -> list[Path]:
    """Return the best checkpoints of the runs that a selection's folder names, by paths relative to it.

    Raises:
        MedsegError: it does not name runs, or some are not there.
    """
    file, cure = folder / SELECTED, "medseg compare runs=[A,B] select=best writes it anew."
    runs = read_json_object(file, cure).get("runs")
    if not isinstance(runs, list) or not runs or not all(isinstance(run, str) for run in runs):
        raise MedsegError(f"{file}: runs must be a list of run directories. {cure}")
    files = [folder / run / BEST for run in runs]
    if gone := [str(path) for path in files if not path.is_file()]:
        raise MedsegError(
            f"{file}: of the {len(files)} models that were selected, {len(gone)} are not there. Move the folder and the"
            f" runs together, or give the runs by checkpoint=[…].\n{listing(gone)}"
        )
    return files


def has_results(folder: Path) -> bool:
    """Return whether a sweep's record tells of its jobs; those of earlier versions hold its settings alone."""
    with reading(folder / SWEEP, "record of a sweep"):
        return read_json_object(folder / SWEEP).keys() != {"settings"}


def folds_of_sweep(folder: Path) -> list[int]:
    """Return the jobs of a sweep that are the complete folds of one cross-validation, and so are an ensemble.

    Raises:
        MedsegError: they are not, or not all are done: it names the jobs, ranked, and what to write instead.
    """
    with reading(folder / SWEEP, "record of a sweep"):
        content = read_json_object(folder / SWEEP)
        ensemble, best = ([int(job) for job in content.get(name) or ()] for name in ("ensemble", "best"))
        if ensemble:
            return ensemble
        lines, told = [], set()
        for ranking in content.get("rankings") or ():
            lines.append(str(ranking["title"]))
            for job in ranking["jobs"]:
                told.add(str(job["job"]))
                score = "" if job["score"] is None else f" {job['score']:.4f}"
                reason = f" ({first_line(MedsegError(job['reason']))})" if job["status"] != "done" else ""
                lines.append(f"{folder / str(job['job'])}:{score} {job['status']}{reason}, {job['overrides']}")
        begun = {path.name for path in folder.iterdir() if path.name.isdecimal()}
        for job in sorted({*begun, *content.get("jobs", {})} - told, key=int):
            lines.append(f"{folder / job}: not done: {'killed, or under way' if job in begun else 'not begun'}")
    if not content.get("has_ended"):
        lines.append(f"the sweep has not ended: medseg train resume={folder} goes on with it")
    example = folder / str(best[0] if best else 0)
    raise MedsegError(
        f"checkpoint={folder}: this sweep's jobs are not the complete folds of one cross-validation. Give the one that"
        f" is meant, as in checkpoint={example}, or several in a list, as an ensemble.\n{listing(lines)}"
    )


def read_model(path: Path, trust: Collection[str]) -> Model:
    """Read a medseg checkpoint file, or an ONNX file of ``medseg export``, as a model."""
    if path.suffix == ".onnx":
        return read_onnx(path)
    checkpoint = read_checkpoint(path)
    if not checkpoint.content["classes"]:
        raise MedsegError(
            f"{path}: it was pre-trained without masks and knows no classes to segment. Fine-tune it on labelled scans:"
            f" medseg train finetune.checkpoint={path} dataset=..."
        )
    return built(checkpoint, trust)


def built(checkpoint: Checkpoint, trust: Collection[str]) -> Model:
    """Return the model that a checkpoint holds, with those of its first stage.

    Raises:
        MedsegError: it names a class that is not trusted, or its weights do not fit its description.
    """
    path, spec = checkpoint.path, checkpoint.content["config"]["model"]
    check_targets(spec, "model", trust, f"The checkpoint {path}")
    with limit_parameters(checkpoint.weights, path):
        network = build(spec, "model", trust)
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise MedsegError(f"{path}: its weights do not fit its own description.\n{error}") from error
    model, config = model_of(checkpoint, network), checkpoint.content["config"]
    settings = typed(FirstStageSettings, config.get("first_stage") or {})
    if settings.use:
        if not checkpoint.first_stage:
            raise MedsegError(
                f"{path}: the models of its first stage are not in it. The file is damaged: give another copy."
            )
        coarse = [built(replace(each, first_stage=()), trust) for each in checkpoint.first_stage]
        preprocessor = second_stage(model.preprocessor.config, coarse, settings, model.patch_size)
        if (coarse[0].label_map, preprocessor.first.n_channels) != (model.label_map, model.preprocessor.n_channels):
            raise MedsegError(f"{path}: its first stage is of other classes or channels. The file is damaged.")
        model = replace(model, preprocessor=preprocessor, first_stage=coarse)
    corrected, added = config["plan"].get("coarse_channels"), model.preprocessor.added_channels
    if corrected not in (None, 0, added):
        raise MedsegError(
            f"{path}: it corrects {corrected} channels of a first stage that adds {added}. It is damaged."
        )
    return model
