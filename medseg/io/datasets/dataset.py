"""From the settings of a data set to its cases and classes."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from medseg.config.instantiate import build
from medseg.config.settings import DatasetSettings
from medseg.errors import MedsegError, listing, nearest
from medseg.io.case import Case, Dataset, FileValue, FileValues
from medseg.io.datasets.annotations import classes_of_segments, values_in_masks
from medseg.io.datasets.corrections import with_corrections
from medseg.io.dicom.headers import header, is_dicom
from medseg.io.files.read import on_disk
from medseg.io.labels import BETWEEN, GIVE, IGNORE_NAME, MOST_FOUND, LabelMap, as_list, class_values, few
from medseg.io.layouts import SYNTHETIC, phantom_is_there
from medseg.io.layouts.channels import modalities_of
from medseg.io.layouts.groups import assign_groups
from medseg.io.segments.segmentation import unique
from medseg.io.tables import read_annotated
from medseg.io.warnings import collected


def open_dataset(settings: DatasetSettings, trust: Collection[str] = (), *, may_write: bool = True) -> Dataset:
    """Find the cases of a data set and their groups; what the settings say of it goes before what the files say.

    Args:
        settings: of the data set.
        trust: names of layouts that may be built beside medseg's own.
        may_write: whether a synthetic data set is made where it is not there, as no file may ask for.

    Raises:
        MedsegError: nothing is found, or groups or classes are not right.
    """
    dataset = dataset_of_layout(settings, trust, may_write=may_write)
    if not dataset.cases:
        raise MedsegError(no_cases(dataset, settings))
    cases = assign_groups(dataset.cases, pattern=settings.group, file=settings.group_file)
    cases = read_annotated(cases, settings.annotated_file)
    for folder in settings.corrections:
        cases = with_corrections(cases, folder)
    labels = labels_by_value(settings.labels, dataset.labels) if settings.labels else dataset.labels
    regions = dataset.regions if settings.regions is None else settings.regions  # {} is none, null the layout's
    check_order(regions or {}, settings.region_order or [])
    if settings.labels and settings.regions is None:
        members = {name for several in (dataset.regions or {}).values() for name in several}
        if missing := sorted(members - {*(labels or {})}):
            raise MedsegError(
                f"dataset.labels has no {', '.join(missing)}, of which the data set's regions"
                f" {', '.join(dataset.regions or {})} are made. Give dataset.regions={{}} to learn classes, or regions"
                " of your classes."
            )
    return replace(
        dataset,
        cases=tuple(as_configured(case, settings, labels, dataset.labels) for case in cases),
        labels=labels,
        regions=regions or None,
        region_order=settings.region_order or (dataset.region_order if settings.regions is None else None),
        modality=modalities(settings, dataset),
    )


def open_scans(settings: DatasetSettings, trust: Collection[str] = (), *, may_write: bool = True) -> Dataset:
    """Find the scans of a data set, of labelled cases and of those without a mask; no mask is looked at.

    Labelled cases are what a split is drawn from, as in training, so that the same ones are left for the test; the
    others only train (``Case.added``), unless there are no labelled ones. Arguments are those of ``open_dataset``.

    Raises:
        MedsegError: nothing is found, or groups are not right.
    """
    dataset = dataset_of_layout(settings, trust, may_write=may_write)
    if not dataset.cases and not dataset.unlabelled:
        raise MedsegError(no_cases(dataset, settings))
    others = tuple(replace(case, added=bool(dataset.cases)) for case in dataset.unlabelled)
    cases = assign_groups((*dataset.cases, *others), pattern=settings.group, file=settings.group_file)
    geometry, reference, orientation = settings.geometry, settings.reference, settings.orientation

    def as_scan(case: Case) -> Case:
        reading = replace(case, geometry=geometry, reference=reference, orientation=orientation)
        return replace(reading, labels=(), annotated=None)

    return Dataset(
        tuple(map(as_scan, cases)),
        channels=dataset.channels,
        endings=dataset.endings,
        modality=modalities(settings, dataset),
        split_file=dataset.split_file,
        problems=dataset.problems,
    )


def dataset_of_layout(settings: DatasetSettings, trust: Collection[str], *, may_write: bool) -> Dataset:
    """Return what a layout finds, as ``open_dataset`` says."""
    layout = settings.layout
    if not may_write and layout.get("_target_") == SYNTHETIC and not phantom_is_there(layout):
        raise MedsegError(
            f"dataset.root={layout.get('root')}: the synthetic data set of this run is not there, and no file has it"
            " written. Make it again where it was: medseg inspect dataset=phantom, with the run's dataset.* keys."
        )
    dataset: Dataset = build(layout, "dataset.layout", trust)
    return dataset


def no_cases(dataset: Dataset, settings: DatasetSettings) -> str:
    """Return the message that a data set has no case, and why."""
    scans = len(dataset.unlabelled)
    hint = f" {scans} scans have no mask: medseg pretrain learns from them, medseg predict segments them."
    problems = listing(dataset.problems)
    return f"dataset.root={settings.root}: no cases found.{hint if scans else ''}\n{problems}".rstrip()


def modalities(settings: DatasetSettings, dataset: Dataset) -> tuple[str, ...] | None:
    """Return the modality of the channels: the user's word for it, else the layout's, else that of DICOM files."""
    return settings.modality or tuple(dataset.modality or ()) or modalities_in_headers(dataset)


def modalities_in_headers(dataset: Dataset) -> tuple[str, ...] | None:
    """Return the modality of each channel, one where it is the same, if all images are DICOM files that agree on it."""
    known: tuple[str, ...] | None = None
    for case in (*dataset.cases, *dataset.unlabelled):
        names = modalities_of([modality_of(path) for path in case.images])
        if names is None or known not in (None, names):
            return None
        known = names
    return known[:1] if known and len({*known}) == 1 else known


def modality_of(path: Path) -> str:
    """Return what the first DICOM file of an image says of its modality; "" of an image of another kind."""
    with suppress(MedsegError):  # whoever reads the image says what is wrong
        first = next(iter(on_disk(path)), None)
        if first and is_dicom(first):
            return header(first).modality
    return ""


def label_map(dataset: Dataset) -> LabelMap:
    """Return the classes of a data set, read off its masks where nothing names them.

    Where some cases were annotated for some classes only, each class is a region of its own: the reference is known
    class by class then, which a choice between all of them could not be learned from.
    """
    classes = LabelMap(dataset.labels) if dataset.labels else labels_of_masks(dataset.cases)
    regions = dataset.regions
    if regions is None and any(case.annotated is not None for case in dataset.cases):
        regions = {name: [name] for name in classes.names[1:]}
    return replace(classes, regions=regions, region_order=dataset.region_order if regions else None)


def labels_of_masks(cases: tuple[Case, ...]) -> LabelMap:
    """Return the classes that masks hold: as their segments are named, with the values 1, 2, ..., or by value.

    Raises:
        MedsegError: some masks name their segments and others have values, or there are too few or too many.
    """
    names: list[str] = []
    for case in cases:
        with suppress(MedsegError):  # reported where every case is checked
            names += classes_of_segments(case)
    names, values = unique(names), values_of(cases)
    if values and (policies := {case.other_values for case in cases} - {"error"}):
        raise MedsegError(f"dataset.other_values={policies.pop()} needs the classes whose values are right. {GIVE}.")
    if not names:
        return LabelMap.from_values(values)
    if values:
        raise MedsegError(
            f"some masks name their segments {', '.join(names)}, others hold the values {few(values)}. {GIVE}."
        )
    return LabelMap(class_values([name for name in names if name.casefold() not in ("background", IGNORE_NAME)]))


def check_order(regions: Mapping[str, list[str]], order: Sequence[str]) -> None:
    """Reject an order of regions, as the user gave it, that spoils regions; nnU-Net's own is taken as it is."""
    if order and not regions:
        raise MedsegError(f"dataset.region_order={list(order)}: there are no regions to paint. Give dataset.regions.")
    wrong = [
        f"{region} is painted as {name!r}, which is none of its classes"
        for (region, members), name in zip(regions.items(), order, strict=False)
        if name not in members
    ]
    wrong += [
        f"{larger} is painted over {smaller}, a part of it"
        for (smaller, part), (larger, members) in combinations(regions.items() if order else (), 2)
        if set(part) < set(members)
    ]
    if wrong:
        raise MedsegError(
            f"dataset.region_order={list(order)} spoils the regions {', '.join(regions)}:\n{listing(wrong)}\n"
            "Put larger regions first, and name one of its own classes for each."
        )


def by_id(cases: tuple[Case, ...], ids: tuple[str, ...]) -> list[Case]:
    """Pick cases by id, in the order of ``ids``."""
    known = {case.id: case for case in cases}
    return [known[name] for name in ids]


def values_of(cases: tuple[Case, ...]) -> set[int]:
    """Return the values in all masks; MedsegError as soon as they are too many to be classes."""
    values: set[int] = set()
    unread = []
    for case in cases:
        try:
            with collected():  # said where every case is checked
                values |= values_in_masks(case)
        except MedsegError as error:  # named again with all others where every case is checked
            unread.append(f"{case.id}: {error}")
        if len(values) > MOST_FOUND:
            files = ", ".join(str(label.path) for label in case.labels)
            raise MedsegError(
                f"{case.id}: over {MOST_FOUND} values in its mask {files} and those before it: {few(values)}. {GIVE}."
                f" {BETWEEN}"
            )
    if unread and not values:
        raise MedsegError(f"no mask can be read:\n{listing(unread)}")
    return values


def labels_by_value(labels: Mapping[str, Any], known: Mapping[str, FileValues] | None) -> dict[str, FileValues]:
    """Bring ``dataset.labels`` to file values: names of the layout's classes may stand for their values.

    >>> labels_by_value({"background": ["background", "cyst"], "tumour": 2}, {"background": 0, "cyst": 1, "core": 2})
    {'background': [0, 1], 'tumour': 2}
    """
    result: dict[str, FileValues] = {}
    for name, values in labels.items():
        items = [by_name(item, known or {}) for item in as_list(values)]
        flat = [value for item in items for value in as_list(item)]
        result[name] = flat if len(flat) != 1 else flat[0]
    return result


def by_name(item: Any, known: Mapping[str, FileValues]) -> FileValues:
    """Return the value of a class that the layout names, and anything else as it is."""
    if not isinstance(item, str) or item.startswith("#"):
        value: FileValue = item
        return value
    if item not in known:
        there = f"are {', '.join(known)}" if known else "have no names of their own: give values"
        raise MedsegError(f"dataset.labels: {item!r} is no class of the data, which {there}.{nearest(item, known)}")
    return known[item]


def as_configured(
    case: Case,
    settings: DatasetSettings,
    labels: Mapping[str, FileValues] | None,
    before: Mapping[str, FileValues] | None,
) -> Case:
    """Return a case with the reading that the settings want, and its annotated classes under their final names."""
    annotated = None if case.annotated is None else renamed(case, labels or {}, before or {})
    if annotated is not None and {*annotated, IGNORE_NAME} >= {*(labels or {})} - {next(iter(labels or {}), "")}:
        annotated = None  # all of them
    return replace(
        case,
        geometry=settings.geometry,
        reference=settings.reference,
        segments=settings.segments or {},
        orientation=settings.orientation,
        other_values=settings.other_values,
        annotated=annotated,
    )


def renamed(case: Case, labels: Mapping[str, FileValues], before: Mapping[str, FileValues]) -> tuple[str, ...]:
    """Return which classes are annotated in a case: of a merged class, all that went into it must be.

    Raises:
        MedsegError: the case names a class that does not exist.
    """
    named = set(case.annotated or ())
    if not labels:
        raise MedsegError(f"{case.id}: only some classes are annotated, so give the classes by dataset.labels.")
    if unknown := sorted(named - {*labels, *before}):
        raise MedsegError(
            f"{case.id}: annotated names {', '.join(unknown)}; the classes are {', '.join(labels or before)}."
            f"{nearest(unknown[0], [*labels, *before])}"
        )
    seen = {value for name in named & {*before} for value in as_list(before[name])}
    new = named - {*before}
    return tuple(name for name, value in labels.items() if name in new or (before and set(as_list(value)) <= seen))
