"""A training that begins where another ended: what of the other's config, plan and split it takes.

What the user chose stays, be it the default or not (``explicit_keys``). Of the rest the network is the source's, so
that the weights fit, and so are spacing and normalisation, unless ``finetune.preprocessing=own``; patch and batch are
planned for the data. A training on the same cases, classes and channels, as in the correction loop, takes the whole
plan.
"""

import logging
from collections.abc import Collection, Mapping
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from medseg.config.check import escape, is_chosen, is_explicit, is_interpolation
from medseg.config.instantiate import locate
from medseg.config.schema import CONF
from medseg.config.settings import TrainingSettings
from medseg.config.untrusted import read_yaml
from medseg.errors import MedsegError, listing
from medseg.io.labels import LabelMap
from medseg.preprocessing.fingerprint.fingerprint import Fingerprint
from medseg.training.transfer.sources import Source

log = logging.getLogger(__name__)

Config = dict[str, Any]
Node = dict[str, Any]

DEFAULT_MODEL = "medseg.models.UNet"
"""The network of a command line that names none."""


def start_of(settings: TrainingSettings) -> Path | None:
    """Return what a new training begins with; None: its own weights."""
    return None if settings.resume else settings.finetune.checkpoint


def config_from_source(
    config: Config, settings: TrainingSettings, source: Source, learned: Fingerprint, *, is_same: bool
) -> Config:
    """Return the config with what it leaves open taken from a source.

    Args:
        config: unresolved.
        settings: the same, resolved.
        source: what the training begins with.
        learned: the cases to learn from.
        is_same: whether cases, classes and channels are the source's.

    Raises:
        MedsegError: the source's network is 3D, the images are not.
    """
    if not source.settings:
        log.info("%s contains only weights; network and preprocessing follow the config and plan", source.path)
        return config
    network, plan = source.settings["model"], source.settings["plan"]
    is_own = settings.finetune.preprocessing == "own"
    dims = settings.model.get("spatial_dims") or network.get("spatial_dims") or learned.spatial_dims
    if settings.model.get("spatial_dims") is None and dims > learned.spatial_dims:
        raise MedsegError(
            f"finetune.checkpoint={source.path}: its network is {dims}D, the images are {learned.spatial_dims}D."
        )
    has_plan = bool(settings.plan.file)
    chosen = {key for key in config["model"] if is_explicit(config, f"model.{key}")}
    config = {**config, "model": model_of(config["model"], network, nulls=not has_plan, chosen=chosen)}
    if has_plan:
        return config
    is_whole = is_same and not is_own and config["model"].get("depth") == network.get("depth")
    if is_whole and source.plan_file:
        # Unless the user chose another preprocessing than the source's plan has, or a null in its place.
        nodes = {name: config[name] for name in ("model", "plan", "trainer")}
        nulls = [f"{name}.{key}" for name, node in nodes.items() for key, value in node.items() if value is None]
        if not any(is_explicit(config, key) for key in ("preprocessing", *nulls)):
            return {**config, "plan": {**config["plan"], "file": escape(str(source.plan_file))}}
    if network.get("spatial_dims", dims) == dims:
        config = {**config, **layout_of(config, network, plan, learned)}
    if is_own:
        return config
    chosen = {key for key in config["preprocessing"] if is_explicit(config, f"preprocessing.{key}")}
    return {**config, "preprocessing": preprocessing_of(config["preprocessing"], source, learned, chosen)}


@cache
def shipped(target: str) -> Node:
    """Return the ``model`` node of a network that medseg ships, empty for others; the plain one before presets."""
    files = [read_yaml(path) for path in sorted((CONF / "model").glob("*.yaml"))]
    nodes: list[Node] = [*files, *(file.get("model", {}) for file in files)]
    return next((node for node in nodes if node.get("_target_") == target), {})


def model_of(given: Node, theirs: Node, *, nulls: bool, chosen: Collection[str] = ()) -> Node:
    """Return the ``model`` node with the source's value for what is at its default; nulls only if ``nulls``.

    ``chosen`` keys stay, be they at their defaults or not. Another network is taken if the node as a whole is the
    default and the network has the chosen keys, and then only one that medseg ships: a checkpoint may not choose which
    code runs.
    """
    if given["_target_"] != theirs["_target_"]:
        other = shipped(theirs["_target_"])
        is_default = given == shipped(DEFAULT_MODEL) and "_target_" not in chosen
        if not is_default or not other or not {*chosen} <= other.keys():
            return given
        given = {**other, **{key: given[key] for key in chosen}}
    default, result = shipped(given["_target_"]), dict(given)
    # What an older source, or nnU-Net's, does not name is as the network has it by default.
    arguments = signature(locate(given["_target_"])).parameters if default else {}
    unnamed = {key: each.default for key, each in arguments.items() if each.default is not each.empty}
    theirs = {key: unnamed[key] for key in unnamed if default.get(key) is not None} | theirs
    if (given.get("base_channels") or {"base_channels", "max_channels"} & {*chosen}) and "channels" in theirs:
        theirs = {**theirs, "channels": None}  # which would go before them
    for key, value in theirs.items():
        own = given.get(key)
        is_open = key not in chosen and own == default.get(key) and not is_interpolation(own)
        if is_open and (nulls or own is not None):
            result[key] = escape(value)
    return result


def layout_of(config: Config, network: Node, plan: Node, learned: Fingerprint) -> Config:
    """Return the ``model`` and ``plan`` nodes with the source's levels, of which another depth keeps the finest."""
    model, depth = dict(config["model"]), config["model"].get("depth")
    own, axes = dict(config["plan"]), learned.spatial_dims
    strides, kernels = plan.get("strides"), plan.get("kernel_sizes")
    if depth is None and is_explicit(config, "model.depth"):  # planned for the data, and so are the levels
        model |= {} if is_explicit(config, "model.channels") else {"channels": None}
        return {"model": model, "plan": own}
    if depth is not None and strides and depth < len(strides):
        strides, kernels = strides[:depth], kernels[: depth + 1] if kernels else None
    if depth is None or not strides or depth == len(strides):
        own |= {"strides": own["strides"] or strides, "kernel_sizes": own["kernel_sizes"] or kernels}
    own["divisor"] = own["divisor"] or plan.get("divisor")
    if model.get("channels") and depth is not None:
        model["channels"] = model["channels"][: depth + 1] if depth < len(model["channels"]) else None
    if network.get("spatial_dims", axes) < axes:
        own["slice_axis"] = plan.get("slice_axis") if own["slice_axis"] is None else own["slice_axis"]
        own["context"] = own["context"] or plan.get("context", 0)
    stays = {key: value for key, value in config["plan"].items() if is_explicit(config, f"plan.{key}")}
    return {"model": model, "plan": own | stays}


def preprocessing_of(given: Node, source: Source, learned: Fingerprint, chosen: Collection[str] = ()) -> Node:
    """Return the ``preprocessing`` node with the source's grid, filters and normalisation for what is not given.

    ``chosen`` keys stay, be they at their defaults or not; spacing and size are one choice.
    """
    theirs, result = source.settings["preprocessing"], dict(given)
    grid = {key: theirs.get(key) for key in ("spacing", "resize")}
    if learned.unit == "px" and not any(grid.values()):
        grid["spacing"] = [1.0] * learned.spatial_dims  # as it is, where a plan might make it coarser
    if not given["spacing"] and not given["resize"] and not {"spacing", "resize"} & {*chosen}:
        fits = all(len(values) == learned.spatial_dims for values in grid.values() if values)
        result |= grid if fits else {}
    result["normalize"] = given["normalize"] or per_channel(theirs.get("normalize"), learned.channels)
    if result["normalize"] is None and theirs.get("normalize"):
        log.info(
            "the source normalises %d channels by %s, and these images have %d: planned anew",
            *(len(theirs["normalize"]), ", ".join(theirs["normalize"]), learned.channels),
        )
    if given["denoise"] is None and theirs.get("denoise"):
        result |= {key: theirs[key] for key in ("denoise", "denoise_strength")}
    result |= {"crop": theirs.get("crop", given["crop"])} if given["crop"] else {}
    return result | {key: given[key] for key in chosen}


def per_channel(values: list[Any] | None, channels: int) -> list[Any] | None:
    """Return values for so many channels: one by one where there are as many, or the same for all; else None."""
    if not values or len(values) == channels:
        return values
    return values[:1] * channels if all(value == values[0] for value in values) else None


def with_windows(plan: Config, settings: TrainingSettings, source: Source) -> Config:
    """Return a plan with the source's CT windows, which a config has no place for, unless the config gives its own."""
    theirs, ours = source.settings.get("preprocessing", {}), plan["preprocessing"]
    is_own = (
        settings.finetune.preprocessing == "own"
        or settings.plan.file is not None
        or is_chosen(settings.explicit_keys, "preprocessing.window")
    )
    windows = per_channel(theirs.get("window"), len(ours["normalize"]))
    is_theirs = per_channel(theirs.get("normalize"), len(ours["normalize"])) == ours["normalize"]
    if is_own or not windows or not is_theirs or settings.preprocessing.window or not ours["window"]:
        return plan
    return {**plan, "preprocessing": {**ours, "window": windows}}


def is_same_data(source: Source, fingerprint: Fingerprint, added: set[str], label_map: LabelMap) -> bool:
    """Tell whether cases, classes and channels are the source's, but for cases that came with corrections."""
    hashes, own = fingerprint.hashes, source.split or {}
    same_cases = bool(own) and own.keys() <= set(hashes.values())
    same_cases = same_cases and all(code in own or name in added for name, code in hashes.items())
    channels = len(source.settings.get("preprocessing", {}).get("normalize") or ())
    return same_cases and source.outputs == label_map.outputs and channels == fingerprint.channels


def parts_seen(source: Source, fingerprint: Fingerprint) -> dict[str, str]:
    """Return the subset that cases were in when the source was trained, recognised by their voxels; by case id."""
    return {name: source.seen[code] for name, code in fingerprint.hashes.items() if code in source.seen}


def warn_of_seen(source: Source, seen: Mapping[str, str], tested: tuple[str, ...]) -> None:
    """Warn of test cases that the source has learned from: their scores are optimistic."""
    if source.split is None:
        log.warning(
            "%s: its training scans are unknown, since its directory has no splits.json of medseg. Make sure that none"
            " of them is in the test subset (split.file).",
            source.path,
        )
    if learned := [f"{name} ({seen[name]})" for name in tested if seen.get(name) in ("train", "val")]:
        log.warning(
            "%d cases of the test subset were used to train %s, or to choose its checkpoint:\n%s\nTest scores will be"
            " optimistic. Give a split.file without them.",
            *(len(learned), source.path, listing(learned)),
        )
