"""``dataset=nnunet``: raw data sets of nnU-Net v2 (Isensee et al. 2021), taken as they are.

What nnU-Net's ``verify_dataset_integrity`` (2.8.1) refuses is refused here too, so that a data set is of use to both,
but for macOS's hidden files, which are skipped, and for several channels in one volume. Beyond it these are
refused, since nobody could learn from them: two classes of one value, no class beside the background, a case whose
channels have other numbers than those of the rest, NaN and infinite voxels, constant images, and masks that are all
empty.
"""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.io.case import Case, Dataset, FileValues, LabelFile
from medseg.io.files.read import FILES
from medseg.io.files.sizes import size_of
from medseg.io.layouts.channels import endings_of, modalities_of
from medseg.io.layouts.decathlon_json import FILE, in_order, read_description, whole

log = logging.getLogger(__name__)

REQUIRED = ("channel_names", "labels", "numTraining", "file_ending")
SPLIT = "splits_final.json"


@dataclass(frozen=True)
class Files:
    """Images by case, with the number of each channel where names have one, the label file, and what is amiss."""

    images: Mapping[str, list[Path]]
    labels: Mapping[str, Path]
    numbers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def nnunet(root: str | Path) -> Dataset:
    """Read ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz`` and ``dataset.json`` with its regions.

    Where ``dataset.json`` has the key "dataset" it names the files instead. Regions are learned as nnU-Net does, and
    written in the order of ``regions_class_order``; a value that is a region of its own is a class of the same name,
    any other value v is the class ``label_v``. ``splits_final.json`` in the folder is the data set's own split.

    Raises:
        MedsegError: ``dataset.json`` is missing or does not say what is needed, or no file can be read. Cases that are
            not whole, and what nnU-Net refuses, are in the data set's ``problems``.
    """
    root = Path(root)
    content = read_description(root, "nnunet")
    check(content, root)
    channels = in_order(content["channel_names"]) or ()
    labels, regions, order = classes_of(content, root)
    files = (
        listed_files(root, content["dataset"]) if "dataset" in content else named_files(root, content["file_ending"])
    )
    cases, problems = cases_of(files, channels)
    count = len(files.images)
    if count != content["numTraining"]:
        problems.append(f"{root / FILE}: numTraining is {content['numTraining']!r}, there are {count} cases")
    split = root / SPLIT
    others = unlabelled(root, content["file_ending"], {case.id for case in cases}, len(channels))
    return Dataset(
        tuple(cases),
        labels,
        regions=regions,
        region_order=order,
        channels=channels,
        endings=endings_of(cases),
        modality=modalities_of(channels),
        split_file=split if split.is_file() else None,
        problems=(*files.problems, *problems, *value_problems(labels, root)),
        unlabelled=others,
    )


def unlabelled(root: Path, ending: str, known: Collection[str], channels: int) -> tuple[Case, ...]:
    """Return the scans of ``imagesTs``, where there is such a folder, with all channels, and not ``known`` by name."""
    images = numbered(files_in(root / "imagesTs", ending), ending)[0] if (root / "imagesTs").is_dir() else {}
    return tuple(
        Case(name, name, tuple(path for _, path in several))
        for name, several in sorted(images.items())
        if name not in known and len(several) in (1, channels)
    )


def check(content: Mapping[str, Any], root: Path) -> None:
    """Reject a ``dataset.json`` that lacks a key, or whose files are of a kind that is not read."""
    missing = [key for key in REQUIRED if key not in content]
    if missing and {"training", "modality"} <= content.keys():
        raise MedsegError(
            f"{root / FILE} lists its cases under 'training' as the Decathlon does: use dataset=decathlon."
        )
    if missing:
        raise MedsegError(f"{root / FILE} needs {', '.join(REQUIRED)}; missing is {' and '.join(missing)}.")
    for key in ("channel_names", "labels", "dataset"):
        if not isinstance(content.get(key, {}), dict) or not content.get(key, {0: 0}):
            raise MedsegError(f"{root / FILE}: {key} must be a mapping, not {content[key]!r}.")
    if str(content["file_ending"]).lower() not in FILES:
        ending = content["file_ending"]
        raise MedsegError(f"{root / FILE}: file_ending={ending!r} is not read. Convert to one of {', '.join(FILES)}.")


def classes_of(
    content: Mapping[str, Any], root: Path
) -> tuple[dict[str, FileValues], dict[str, list[str]] | None, list[str] | None]:
    """Return the classes' values, background first; where labels are unions, the regions and their order, too.

    Raises:
        MedsegError: a label is neither a whole number nor a list of them, background is not 0, "ignore" is a union, or
            ``regions_class_order`` does not fit.
    """
    parts = {name: values_of(name, value, root) for name, value in content["labels"].items()}
    if parts.get("background") != [0] or isinstance(content["labels"]["background"], list):
        raise MedsegError(f"{root / FILE}: labels needs the entry 'background': 0.")
    if len(parts.get("ignore", [0])) > 1 or isinstance(content["labels"].get("ignore"), list):
        raise MedsegError(f"{root / FILE}: the label 'ignore' must be one whole number.")
    ignored: dict[str, FileValues] = {"ignore": parts["ignore"][0]} if "ignore" in parts else {}
    named = {name: values for name, values in parts.items() if name != "ignore" and set(values) != {0}}
    if all(len(values) == 1 for values in named.values()):
        plain: dict[str, FileValues] = {name: values[0] for name, values in sorted(named.items(), key=lambda i: i[1])}
        return {"background": 0} | plain | ignored, None, None
    name_of = region_classes(named)
    regions = {name: [name_of[value] for value in values if value] for name, values in named.items()}
    labels: dict[str, FileValues] = {name: value for value, name in sorted(name_of.items())}
    order = content.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(regions) or not set(order) <= name_of.keys():
        raise MedsegError(
            f"{root / FILE}: regions_class_order={order} must give one label value for each of the {len(regions)}"
            f" regions {', '.join(regions)}."
        )
    return {"background": 0} | labels | ignored, regions, [name_of[value] for value in order]


def values_of(name: str, label: Any, root: Path) -> list[int]:
    """Return the values of a label."""
    values = [whole(value) for value in (label if isinstance(label, list) else [label])]
    numbers = [value for value in values if value is not None]
    if not values or len(numbers) < len(values):
        raise MedsegError(f"{root / FILE}: the label {name!r} must be a whole number or a list of them, not {label!r}.")
    return numbers


def region_classes(named: Mapping[str, list[int]]) -> dict[int, str]:
    """Name the class of each value: as the region that is this value alone, or else ``label_<value>``.

    >>> region_classes({"whole tumour": [1, 2], "core": [2]})
    {1: 'label_1', 2: 'core'}
    """
    alone = {values[0]: name for name, values in reversed([*named.items()]) if len(values) == 1}
    values = sorted({value for several in named.values() for value in several if value})
    return {value: alone.get(value, f"label_{value}") for value in values}


def value_problems(labels: Mapping[str, FileValues], root: Path) -> list[str]:
    """Return a line for each rule of nnU-Net that is broken: values must be consecutive, "ignore" being the highest."""
    values = sorted(value for name, value in labels.items() if name != "ignore" and isinstance(value, int))
    ignored = labels.get("ignore")
    hint = (
        "; for other values use dataset=folder dataset.images=imagesTr dataset.masks=labelsTr dataset.channels=[_0000]"
    )
    problems = []
    if set(values) != set(range(len(set(values)))):
        problems.append(f"{root / FILE}: label values must be 0, 1, 2, ... without gaps, not {values}{hint}")
    if ignored is not None and ignored != max(values) + 1:
        problems.append(f"{root / FILE}: 'ignore' must be the highest label, {max(values) + 1}, not {ignored}{hint}")
    return problems


def named_files(root: Path, ending: str) -> Files:
    """Find ``imagesTr/CASE_0000<ending>`` and ``labelsTr/CASE<ending>``; hidden files are skipped."""
    files_of, problems = numbered(files_in(root / "imagesTr", ending), ending)
    images = {name: [path for _, path in several] for name, several in files_of.items()}
    numbers = {name: tuple(number for number, _ in several) for name, several in files_of.items()}
    labels = {path.name.removesuffix(ending): path for path in files_in(root / "labelsTr", ending)}
    if spare := sorted(labels.keys() - images.keys()):
        log.info("%d label files have no image and are skipped: %s", len(spare), ", ".join(spare[:5]))
    missing = {name: root / "labelsTr" / f"{name}{ending}" for name in images.keys() - labels.keys()}
    return Files(images, labels | missing, numbers, tuple(problems))


def numbered(files: Sequence[Path], ending: str) -> tuple[dict[str, list[tuple[str, Path]]], list[str]]:
    """Return the files of each case with their channel numbers, and a line for each file whose name has none."""
    files_of, problems = defaultdict(list), []
    for path in files:
        match = re.fullmatch(r"(.+)_(\d{4})", path.name.removesuffix(ending))
        if match is None:
            problems.append(f"{path}: the name has no channel number; nnU-Net's are CASE_0000{ending}")
        else:
            files_of[match[1]].append((match[2], path))
    return files_of, problems


def files_in(folder: Path, ending: str) -> list[Path]:
    """Return the visible files of a folder by name; MedsegError where there is no such folder."""
    if not folder.is_dir():
        raise MedsegError(f"{folder}: there is no such folder; dataset=nnunet needs imagesTr and labelsTr.")
    return sorted(path for path in folder.iterdir() if path.name.endswith(ending) and not path.name.startswith("."))


def listed_files(root: Path, listed: Mapping[str, Any]) -> Files:
    """Return the files that ``dataset.json`` itself lists, relative to it or in full."""
    images, labels, problems = {}, {}, []
    for name, entry in listed.items():
        if (
            isinstance(entry, dict)
            and isinstance(entry.get("label"), str)
            and isinstance(entry.get("images"), list)
            and len(entry["images"]) > 0
            and all(isinstance(file, str) for file in entry["images"])
        ):
            images[name], labels[name] = [root / file for file in entry["images"]], root / entry["label"]
        else:
            problems.append(f"{root / FILE}: {name}: {entry!r} is no {{'images': [FILE, ...], 'label': FILE}}")
    return Files(images, labels, problems=tuple(problems))


def cases_of(files: Files, channels: Iterable[str]) -> tuple[list[Case], list[str]]:
    """Return the cases that are whole, and a line for what is missing of the others."""
    count, per_file = len(tuple(channels)), 1  # colour images and 4D volumes have several channels in a file
    if first := next(iter(sorted(path for images in files.images.values() for path in images if path.is_file())), None):
        per_file = size_of(Case("", "", (first,))).channels or 1  # damage is reported where every file is read
    usual = Counter(files.numbers.values()).most_common(1)[0][0] if files.numbers else ()
    cases, problems = [], []
    for name, images in sorted(files.images.items()):
        missing = [path for path in (*images, files.labels[name]) if not path.is_file()]
        numbers = files.numbers.get(name, usual)
        if missing:
            problems += [f"{name}: {path} is missing" for path in missing]
        elif len(images) * per_file != count:
            problems.append(
                f"{name} has {len(images)} image file(s) of {per_file} channel(s), dataset.json names {count}:"
                f" {', '.join(map(str, images))}"
            )
        elif numbers != usual:
            problems.append(f"{name} has the channel numbers {' '.join(numbers)}, the others have {' '.join(usual)}")
        else:
            cases.append(Case(name, name, tuple(images), (LabelFile(files.labels[name]),)))
    return cases, problems
