"""The annotation of a case: one label file or several, the last on top."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile, Scan, foreground_of
from medseg.io.files.read import read_case, read_mask
from medseg.io.files.read_segments import read_segments, reader_of, segment_names
from medseg.io.formats.mask_values import UNKNOWN, at_least_half, full_or_unknown, nearest_values, whole_or_unknown
from medseg.io.labels import LabelMap, number, numbers
from medseg.io.segments.segmentation import class_indices, class_of, fit_indices, merged, unique


def read_labels(case: Case, label_map: LabelMap, scan: Scan) -> NDArray[np.uint8]:
    """Return the class indices (*spatial) of a case on its scan's grid, IGNORE where the class is unknown.

    Raises:
        MedsegError: the case has no label file, one cannot be read, lies on another grid or holds undeclared values.
    """
    if not case.labels:
        raise MedsegError(f"{case.id} has no mask.")
    first, *others = case.labels
    indices = read_layer(first, case, label_map, scan)
    for file in others:
        layer = read_layer(file, case, label_map, scan)
        np.copyto(indices, layer, where=layer > 0)
    return indices


def read_layer(file: LabelFile, case: Case, label_map: LabelMap, scan: Scan) -> NDArray[np.uint8]:
    """Return the class indices (*spatial) of one label file."""
    if reader_of(file.path):  # named segments, all of one class where the file has one value
        where, names = str(file.path), segment_names(file.path)
        if file.value is None:
            indices = class_indices(names, case.segments, label_map, where)
        else:
            index = label_map.encode(np.array([number(file.value)], dtype=np.int32), where)
            indices = dict.fromkeys(names, int(index[0]))
        segmentation = read_segments(file.path, scan)
        return fit_indices(file.path, merged(segmentation, indices, where), segmentation.grid, scan, case.geometry)
    background = numbers(label_map.labels[label_map.names[0]])[0]
    if file.value is None:
        every = [value for values in label_map.labels.values() for value in numbers(values)]
        by_policy = {"error": None, "nearest": partial(nearest_values, values=every), "ignore": whole_or_unknown}
        values_of = by_policy[case.other_values]
        values = read_mask(file.path, scan, case.geometry, background, case.orientation, values_of)
        return label_map.encode(values, str(file.path), others_unknown=case.other_values == "ignore")
    values_of = {"error": None, "nearest": at_least_half, "ignore": full_or_unknown}[case.other_values]
    values = read_mask(file.path, scan, case.geometry, 0, case.orientation, values_of)
    values[(values != 0) & (values != UNKNOWN)] = number(file.value)
    values[values == 0] = background
    return label_map.encode(values, str(file.path), others_unknown=case.other_values == "ignore")


def classes_of_segments(case: Case) -> list[str]:
    """Return the classes that the named segments of a case are meant for, in order; none where masks have values."""
    names = [name for file in case.labels if file.value is None for name in segment_names(file.path)]
    classes = [class_of(name, case.segments) for name in names]
    return unique([name for name in classes if name is not None])


def values_in_masks(case: Case) -> set[int]:
    """Return the file values that occur in a case, for data sets that do not declare their classes."""
    values: set[int] = set()
    for file in case.labels:
        if file.value is None and reader_of(file.path):
            continue
        if file.value is not None:
            values |= {0, number(file.value)}
        else:
            values |= set(np.unique(read_mask(file.path, orientation=case.orientation)).tolist())
    return values


def read_labelled(case: Case, label_map: LabelMap) -> tuple[Scan, NDArray[np.uint8]]:
    """Read a case's scan and its annotation as class indices (*spatial) on the native grid, IGNORE where unknown.

    Where masks are not looked at (UNLABELLED), foreground is what differs from a channel's minimum.
    """
    scan = read_case(case)
    if not label_map.has_masks:
        return scan, foreground_of(scan.image).astype(np.uint8)
    return scan, read_labels(case, label_map, scan)
