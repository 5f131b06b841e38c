"""The annotation of a case: one label file or several, painted one over the other."""

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile, Scan
from medseg.io.files import read_mask
from medseg.io.labels import LabelMap, number, numbers


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
    background = numbers(label_map.labels[label_map.names[0]])[0]
    values = read_mask(file.path, scan, case.geometry, 0 if file.value is not None else background)
    if file.value is not None:
        values = np.where(values != 0, number(file.value), background).astype(np.int32)
    return label_map.encode(values, str(file.path))


def found_values(case: Case) -> set[int]:
    """Return the file values that occur in a case, for data sets that do not declare their classes."""
    found: set[int] = set()
    for file in case.labels:
        found |= {0, number(file.value)} if file.value is not None else set(np.unique(read_mask(file.path)).tolist())
    return found
