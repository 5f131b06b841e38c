"""Options of single classes and regions: what they may be, and what a command line gives over what is saved.

By class there are ``postprocess.classes``, such as ``{liver: {largest: true}}``, and by region
``inference.thresholds``, such as ``{WT: 0.4}``. An option for all holds where a class has none of its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from medseg.config.check import wrong
from medseg.config.schema import KEYS
from medseg.errors import MedsegError, listing, nearest
from medseg.inference.regions import Regions
from medseg.io.labels import LabelMap

Options = Mapping[str, Any]

OF_CLASSES = ("largest", "min_ml", "min_voxels", "fill_holes")
"""What may differ between classes; smoothing weighs them against each other."""


def inference_over(given: Options, saved: Options) -> dict[str, Any]:
    """Return the ``inference`` options that hold: those given, where they are not None, over those saved.

    A threshold given for all regions takes the place of saved ones of single regions.
    """
    new = {name: value for name, value in given.items() if value is not None}
    return {**saved, **({"thresholds": {}} if "threshold" in new else {}), **new}


def postprocess_over(given: Options, saved: Options) -> dict[str, Any]:
    """Return the ``postprocess`` options that hold, likewise: one given for all replaces saved ones of classes."""
    new = {name: value for name, value in given.items() if value is not None}
    classes = {
        name: {option: value for option, value in own.items() if option not in new}
        for name, own in saved.get("classes", {}).items()
    }
    return {**saved, "classes": classes, **new}


def by_number(postprocess: Options, label_map: LabelMap) -> dict[str, Any]:
    """Return ``postprocess`` options with the classes by the number that each has when it is cleaned.

    That is the class index; of regions that overlap, which are cleaned one by one, their place, counted from one.

    Raises:
        MedsegError: an option of a class that there is not, or a value that it cannot have.
    """
    classes = postprocess.get("classes") or {}
    if problems := list(_class_problems(classes, label_map)):
        raise MedsegError(f"these options of classes are wrong:\n{listing(problems)}")
    numbers = dict(zip(label_map.reported, _numbers(label_map), strict=True))
    return {**postprocess, "classes": {numbers[name]: own for name, own in classes.items()}}


def cuts(inference: Options, label_map: LabelMap, even: float) -> tuple[float, ...]:
    """Return the probability above which each region is there, ``even`` where none is given; nothing without regions.

    Raises:
        MedsegError: a threshold of a region that there is not, or one that is no probability.
    """
    own = inference.get("thresholds") or {}
    if problems := list(_threshold_problems(own, label_map)):
        raise MedsegError(f"these thresholds of regions are wrong:\n{listing(problems)}")
    of_all: float = even if inference["threshold"] is None else inference["threshold"]
    return tuple(own.get(name, of_all) for name in label_map.regions or ())


def _numbers(label_map: LabelMap) -> tuple[int, ...]:
    regions = Regions.of(label_map)
    if regions is None:
        return tuple(range(1, len(label_map.names)))
    return regions.painted if regions.are_disjoint else tuple(range(1, len(regions.members) + 1))


def _class_problems(classes: Mapping[str, Any], label_map: LabelMap) -> Iterator[str]:
    for name, own in classes.items():
        where = f"postprocess.classes.{name}"
        if name not in label_map.reported:
            yield f"{where}: {_unknown(name, label_map)}"
        elif not isinstance(own, Mapping):
            yield f"{where}={own!r}: must be a mapping, such as {{largest: true}}."
        else:
            for option, value in own.items():
                key = KEYS[f"postprocess.{option}"] if option in OF_CLASSES else None
                allowed = f" Options of a class are {', '.join(OF_CLASSES)}." if key is None else ""
                yield from (f"{text}{allowed}" for text in [wrong(f"{where}.{option}", key, value)] if text)


def _threshold_problems(thresholds: Mapping[str, Any], label_map: LabelMap) -> Iterator[str]:
    for name, value in thresholds.items():
        where = f"inference.thresholds.{name}"
        if not label_map.regions:
            yield f"{where}: the model has classes that exclude each other, and no regions."
        elif name not in label_map.regions:
            yield f"{where}: {_unknown(name, label_map)}"
        elif text := wrong(where, KEYS["inference.threshold"], value):
            yield text


def _unknown(name: str, label_map: LabelMap) -> str:
    known = list(label_map.reported)
    return f"no class or region of the model.{nearest(str(name), known)} There are {', '.join(known)}."
