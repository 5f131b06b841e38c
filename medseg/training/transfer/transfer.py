"""Weights of one network put into another: what fits by name and shape, and what can be made to fit.

A convolution that the image enters is made to fit other channels: each of ours gets the mean over theirs, times theirs
/ ours, so that an image with identical channels gives the same output as before (as with ImageNet's weights on
grey images in timm). Of a head the rows of classes with the same name are transferred, the others keep their
initialisation. U-Nets number their levels from the finest, so that between two depths these are transferred.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medseg.config.instantiate import build
from medseg.config.untrusted import read_json_object
from medseg.errors import MedsegError, listing
from medseg.models.pretrained.load import folded
from medseg.system.files import write_json
from medseg.training.transfer.sources import REPORT, Source

log = logging.getLogger(__name__)

PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "net.")
"""What wrappers put before the names of a network's weights."""
FEW = 0.5
"""Fraction of the parameters below which a warning is logged."""

Shape = tuple[int, ...]
Axes = dict[str, tuple[int, ...]]
"""Of each weight whose size depends on some number, the axes along which it does."""


@dataclass(frozen=True)
class Misfit:
    """A weight that was not transferred: its shape on either side, None where it is not there, and why."""

    key: str
    theirs: Shape | None
    ours: Shape | None
    reason: str

    def __str__(self) -> str:
        """The misfit in a line."""
        return f"{self.key}: {self.theirs or 'none'} in the checkpoint, {self.ours or 'none'} here ({self.reason})"


@dataclass(frozen=True)
class Transferred:
    """A weight of ours with what it has of a source's: how many numbers, and how these were made to fit, if so."""

    value: Tensor
    numbers: int
    how: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left of the initialisation."""
        return self.numbers == self.value.numel()


@dataclass(frozen=True)
class Transfer:
    """What of a source goes into a network, and what does not. ``share`` is of the network's parameters, by number."""

    weights: dict[str, Transferred]
    skipped: list[Misfit]
    share: float

    @property
    def whole(self) -> list[str]:
        """The weights that are entirely the source's."""
        return [key for key, weight in self.weights.items() if weight.is_whole]

    def put_into(self, network: nn.Module) -> None:
        """Load the weights; those that were not transferred stay as they are."""
        network.load_state_dict({key: weight.value for key, weight in self.weights.items()}, strict=False)


def transfer_weights(
    network: nn.Module,
    spec: Mapping[str, Any],
    source: Source,
    outputs: Sequence[str],
    *,
    regions: bool,
    trust: Collection[str] = (),
) -> Transfer:
    """Return what of a source's weights a network can take; the network is left as it is.

    Args:
        network: with first weights of its own.
        spec: what it was built from: a mapping with ``_target_``, and, for first convolutions and heads to be known,
            ``in_channels`` and ``out_channels``.
        source: holds the weights.
        outputs: the classes or regions that the network's outputs stand for.
        regions: whether these are regions.
        trust: names of networks that may be built beside medseg's own.

    Raises:
        MedsegError: nothing fits.
    """
    ours = network.state_dict()
    theirs: dict[str, Tensor] = {}  # under our names, where they have these but for what wrappers put before them
    for name, weight in source.weights.items():
        candidates = [*stripped(name)]
        theirs.setdefault(next((each for each in candidates if each in ours), candidates[-1]), weight)
    inputs, heads = (axes_along(spec, argument, ours, trust) for argument in ("in_channels", "out_channels"))
    rows = shared_rows(outputs, source, regions=regions)
    transferred: dict[str, Transferred] = {}
    skipped: list[Misfit] = []
    for key, own in ours.items():
        if key not in theirs:
            skipped.append(Misfit(key, None, tuple(own.shape), "the checkpoint has no such weight"))
            continue
        fit = fitted(own, theirs[key], inputs.get(key), heads.get(key), rows)
        if isinstance(fit, Transferred):
            transferred[key] = fit
        else:
            skipped.append(Misfit(key, tuple(theirs[key].shape), tuple(own.shape), fit))
    for key, weight in theirs.items():
        if key not in ours:
            skipped.append(Misfit(key, tuple(weight.shape), None, "this network has no such weight"))
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    share = sum(transferred[name].numbers for name in sizes if name in transferred) / sum(sizes.values())
    if not share:
        sides = ([m for m in skipped if m.ours is None], [m for m in skipped if m.ours is not None])
        lines = [line for side in sides for line in summed_up(side)[:5]]
        raise MedsegError(
            f"finetune.checkpoint={source.path}: none of its {len(theirs)} weights fits this network, a"
            f" {type(network).__name__}:\n{listing(lines)}\n"
            "Give the network that they are of, by model=... and its options."
        )
    return Transfer(transferred, skipped, share)


def stripped(name: str) -> Iterator[str]:
    """Yield a name, and what is left of it as prefixes are removed.

    >>> list(stripped("module.model.0.conv.weight"))
    ['module.model.0.conv.weight', 'model.0.conv.weight', '0.conv.weight']
    """
    yield name
    for prefix in PREFIXES:
        if name.startswith(prefix):
            yield from stripped(name.removeprefix(prefix))


def axes_along(spec: Mapping[str, Any], argument: str, ours: Mapping[str, Tensor], trust: Collection[str] = ()) -> Axes:
    """Return which weights grow with an argument of the network, and along which of their axes.

    Found by building it with another number; empty where it has no such argument, or takes no other number.
    """
    number = spec.get(argument)
    others = (number + 1, 2 * number, number // 2) if isinstance(number, int) else ()
    for other in others:
        try:
            with torch.random.fork_rng(devices=[]):
                network: nn.Module = build({**spec, argument: other}, "model", trust)
        except MedsegError:
            continue
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        return {
            key: tuple(axis for axis, size in enumerate(own.shape) if size != shapes[key][axis])
            for key, own in ours.items()
            if key in shapes and own.shape != shapes[key]
        }
    return {}


@dataclass(frozen=True)
class Rows:
    """The outputs that two networks share by name: how many each has, and the indices of the shared ones."""

    counts: tuple[int, int]
    ours: list[int]
    theirs: list[int]
    names: list[str]


def shared_rows(outputs: Sequence[str], source: Source, *, regions: bool) -> Rows | None:
    """Return the outputs that are the source's as well; None: what the source's stand for is not known.

    A class is none of the regions, even if it is called the same: the one competes with others, the other does not.
    """
    if source.outputs is None:
        return None
    known = list(source.outputs) if source.regions == regions else []
    names = [name for name in outputs if name in known]
    counts = (len(outputs), len(source.outputs))
    return Rows(counts, [list(outputs).index(name) for name in names], [known.index(name) for name in names], names)


def fitted(
    own: Tensor, weight: Tensor, of_image: tuple[int, ...] | None, of_head: tuple[int, ...] | None, rows: Rows | None
) -> Transferred | str:
    """Return our weight with what it can have of theirs, or why it can have nothing.

    Args:
        own: our weight.
        weight: the source's of the same name.
        of_image: axes along which ours grows with the image's channels; None: it does not.
        of_head: axes along which ours grows with the outputs; None: it does not.
        rows: the outputs that are shared; None: not known, and equal shapes count as equal outputs.
    """
    if of_head and rows is not None:  # their rows of the shared outputs, among our own rows of the others
        counts = rows.counts
        expected = [counts[1] if axis in of_head else size for axis, size in enumerate(own.shape)]
        if not rows.names or list(weight.shape) != expected or any(own.shape[axis] != counts[0] for axis in of_head):
            return "other outputs"
        ours, theirs = (
            np.ix_(*(indices if axis in of_head else range(size) for axis, size in enumerate(own.shape)))
            for indices in (rows.ours, rows.theirs)
        )
        value = own.detach().clone()
        value[ours] = weight[theirs].to(own.dtype)
        is_whole = rows.ours == rows.theirs and counts == (len(rows.names),) * 2
        how = "" if is_whole else f"of {', '.join(rows.names)} alone, in our order"
        return Transferred(value, weight[theirs].numel(), how)
    if own.shape == weight.shape:
        return Transferred(weight.to(own.dtype), own.numel())
    but_channels = own.shape[:1] == weight.shape[:1] and own.shape[2:] == weight.shape[2:]
    if of_image == (1,) and but_channels:
        count, channels = weight.shape[1], own.shape[1]
        how = f"{count} channels to {channels}, each the mean of theirs times {count}/{channels}"
        return Transferred(folded(weight, channels).to(own.dtype), own.numel(), how)
    return "other outputs" if of_head else "another shape"


def announce(transfer: Transfer, source: Source) -> None:
    """Log what was transferred, and what was not, in a few lines."""
    log.info("weights of %s to begin with: %.2f %% of the parameters", source.path, 100 * transfer.share)
    for key, weight in transfer.weights.items():
        if weight.how:
            log.info("%s: %s", key, weight.how)
    if transfer.skipped:
        lines = listing(summed_up(transfer.skipped), most=12)
        log.info("%d weights do not fit; %s lists them:\n%s", len(transfer.skipped), REPORT, lines)
    if transfer.share < FEW:
        log.warning(
            "less than half of the network begins with the weights of %s. If that is not meant, give the network that"
            " they are of, by model=... and its options.",
            source.path,
        )


def summed_up(skipped: Iterable[Misfit]) -> list[str]:
    """Return a line for each part of the network and reason, with the first weight of several."""
    groups: dict[tuple[str, str], list[Misfit]] = {}
    for misfit in skipped:
        groups.setdefault((".".join(misfit.key.split(".")[:2]), misfit.reason), []).append(misfit)
    return [f"{each[0]}" + (f", and {len(each) - 1} more" if each[1:] else "") for each in groups.values()]


def write_report(path: Path, transfer: Transfer, source: Source) -> None:
    """Write what was transferred, what was not, and the scans that the source has seen, into ``finetune.json``."""
    write_json(
        path,
        {
            "checkpoint": str(source.path),
            "share": transfer.share,
            "whole": transfer.whole,
            "adapted": {key: weight.how for key, weight in transfer.weights.items() if weight.how},
            "not_taken": [asdict(misfit) for misfit in transfer.skipped],
            "seen": source.seen,
        },
    )


def read_whole(path: Path) -> list[str]:
    """Return the weights that a run took over whole, by its ``finetune.json``."""
    whole = read_json_object(path, "Restore it, or begin anew.").get("whole")
    if not isinstance(whole, list) or not all(isinstance(name, str) for name in whole):
        raise MedsegError(f"{path}: whole must be a list of the names of weights. Restore the file, or begin anew.")
    return whole
