"""What a checkpoint holds for prediction, and reading it without trusting it.

A medseg checkpoint is a Lightning checkpoint with one key more: ``checkpoint["medseg"]``, plain containers only. It is
loaded with ``weights_only=True``, which runs no code of the file, with no fall-back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from medseg import __version__
from medseg.config.untrusted import checked_description
from medseg.errors import MedsegError
from medseg.io.labels import LabelMap
from medseg.models.pretrained.catalogue import without_file
from medseg.models.weight_checks import check_finite
from medseg.system.files import remove_leftovers_of, write_torch
from medseg.system.torch_files import load_safely

FORMAT = 3
PREFIX = "network."  # where the LightningModule keeps the network
AVERAGE = "average."  # and its average over the last steps


@dataclass(frozen=True)
class Checkpoint:
    """A model at rest: its description and its weights, none where its network holds them already.

    ``first_stage`` are the coarse models whose result it uses, if it does.
    """

    path: Path
    content: dict[str, Any]
    weights: dict[str, Tensor]
    first_stage: tuple["Checkpoint", ...] = ()

    @property
    def label_map(self) -> LabelMap:
        """The classes and regions that the model knows."""
        return LabelMap(*(self.content[name] for name in ("classes", "regions", "region_order")))

    @property
    def portable(self) -> dict[str, Any]:
        """What a checkpoint holds of a model of its first stage."""
        return {"medseg": self.content, "state_dict": {f"{PREFIX}{name}": each for name, each in self.weights.items()}}


def describe(
    config: dict[str, Any],
    label_map: LabelMap | None,
    endings: Sequence[Sequence[str]] | None,
    training_data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what is stored under ``checkpoint["medseg"]``.

    Args:
        config: the run's config with the plan filled in; what only concerns its machine stays behind.
        label_map: the classes with their values in mask files, and the regions; None: it was trained without any.
        endings: file-name endings of the channels where each has a file of its own.
        training_data: what scans were like that the model was trained on (see
            ``medseg.inference.out_of_distribution``).
    """
    dataset = {name: config["dataset"][name] for name in ("name", "geometry", "reference")}
    dataset["orientation"] = config["dataset"].get("orientation", "apply")  # runs of older versions have none
    nodes = (
        "model",
        "pretext",
        "loss",
        "optimizer",
        "scheduler",
        "augment",
        "preprocessing",
        "inference",
        "postprocess",
        "plan",
        "first_stage",
        "seed",
    )
    return {
        "format": FORMAT,
        "version": __version__,
        "config": {key: config[key] for key in nodes if key in config}
        | {"model": without_file(config["model"])}
        | {"dataset": dataset, "trainer": {"precision": config["trainer"]["precision"]}},
        "classes": dict(label_map.labels) if label_map else {},
        "regions": label_map.regions if label_map else None,
        "region_order": label_map.region_order if label_map else None,
        "channels": [list(channel) for channel in endings] if endings else None,
        "training_data": dict(training_data) if training_data else None,
    }


def locate(path: str | Path, key: str = "checkpoint") -> Path:
    """Return the checkpoint file that ``path``, given by ``key``, means: itself, or a run directory's best one.

    Raises:
        MedsegError: there is none; the message lists what is there.
    """
    path = Path(path)
    if not path.exists():
        raise MedsegError(f"{key}={path}: no such file or directory. Give a run directory or a .ckpt file.")
    if path.is_file():
        return path
    best = path / "checkpoints" / "best.ckpt"
    if not best.is_file():
        files = sorted(str(file.relative_to(path)) for file in path.rglob("*.ckpt"))
        raise MedsegError(
            f"{key}={path}: no checkpoints/best.ckpt in this directory. Checkpoints found: {files or 'none'}."
        )
    return best


def locate_to_write(path: str | Path) -> Path:
    """Return the checkpoint file to be written anew, which a link that the user names may lead to.

    Raises:
        MedsegError: there is none, or a link in a run's directory leads to it; such a link may come from an
            untrusted archive.
    """
    file = locate(path).resolve()
    if Path(path).is_dir() and not file.is_relative_to(Path(path).resolve()):
        raise MedsegError(
            f"checkpoint={path}: a link in this directory leads to {file}, and nothing outside it is written to. Give"
            " that file itself, if it is meant."
        )
    return file


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a medseg checkpoint.

    Raises:
        MedsegError: the file is missing, damaged, no checkpoint, not medseg's, of a newer format, or holds weights that
            are not finite.
    """
    file = locate(path)
    raw, content = load(file)
    first_stage = [
        (
            checked(entry.get("medseg"), file, "an entry of its first stage"),
            network_weights(entry.get("state_dict", {})),
        )
        for entry in raw.get("first_stage", ())
    ]
    for weights in (own := network_weights(raw.get("state_dict", {})), *(weights for _, weights in first_stage)):
        check_finite(file, weights)
    return Checkpoint(file, content, own, tuple(Checkpoint(file, *each) for each in first_stage))


def rewrite(path: str | Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Give a checkpoint another description, whole or not at all; its weights stay the same bit for bit.

    ``change`` takes the description, in the present format, and returns the new one.

    Raises:
        MedsegError: as ``read_checkpoint``, or the file cannot be written.
    """
    file = locate_to_write(path)  # a link stays one
    raw, content = load(file)
    raw["medseg"] = {**change(content), "format": FORMAT}
    remove_leftovers_of(file)
    write_torch(file, raw)


def load(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all that a checkpoint file holds, checked to be medseg's, and its description in the present format."""
    raw = load_safely(file)
    return raw, checked(raw.get("medseg") if isinstance(raw, dict) else None, file, "a PyTorch file")


def checked(content: Any, file: Path, kind: str) -> dict[str, Any]:
    """Return a description that a file holds as one of the present format.

    Args:
        content: what the file, such as "a PyTorch file", has as its entry "medseg".
        file: its path.
        kind: what the file is.

    Raises:
        MedsegError: it is no description, or of a newer format.
    """
    if not isinstance(content, dict) or not {"format", "version", "config", "classes", "channels"} <= content.keys():
        raise MedsegError(f"{file}: {kind}, but not a medseg checkpoint (it has no 'medseg' entry).")
    if not isinstance(content["format"], int) or content["format"] < 1:
        raise MedsegError(f"{file}: format {content['format']!r} is none of a medseg checkpoint. The file is damaged.")
    if content["format"] > FORMAT:
        raise MedsegError(
            f"{file}: checkpoint format {content['format']}, written by medseg {content['version']}; "
            f"this is medseg {__version__}, which reads formats up to {FORMAT}. Update medseg."
        )
    try:
        content = upgraded(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise MedsegError(f"{file}: its description as format {content['format']} is damaged ({error!r}).") from error
    return checked_description(content, file)


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Return the description of an older format as one of the present format."""
    if content["format"] == FORMAT:
        return content
    later: dict[str, dict[str, Any]] = {  # format 1 knew neither slices of volumes nor other grids,
        "plan": {"slice_axis": None, "context": 0},
        "dataset": {"geometry": "error", "reference": 0},
        "inference": {"thresholds": {}},  # and format 2 no options of single classes
        "postprocess": {"classes": {}},
    }
    config = content["config"] | {node: {**values, **content["config"][node]} for node, values in later.items()}
    if content["format"] == 2:
        return {**content, "format": FORMAT, "config": config}
    channels = [[ending] for ending in content["channels"]] if content["channels"] else None
    added = {"format": FORMAT, "config": config, "channels": channels, "regions": None, "region_order": None}
    return {**content, **added}


def network_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pick the network's weights out of a LightningModule's state, the averaged ones where there are any.

    They are free of a compiled module's prefix.
    """
    prefix = AVERAGE if any(key.startswith(AVERAGE) for key in state) else PREFIX
    return {
        key.removeprefix(prefix).replace("_orig_mod.", ""): value
        for key, value in state.items()
        if key.startswith(prefix)
    }
