"""Masks that are not what they seem: values between the classes, lossy formats, transparency, turned pictures.

Where nobody declared the classes, values that are no classes would be learned as such: an error. Else a warning.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from medseg.io.labels import LabelMap, few
from medseg.io.mask_values import rgb
from medseg.preprocessing.finding import Finding
from medseg.preprocessing.fingerprint import CaseFingerprint

RIM = 0.5
"""Share of a class's voxels between lower and higher values from which on it is a rim."""
THIN = 0.05
"""Share of a class's voxels that may be inside it where it is a rim; of noise a fifth of that."""
LARGER = 20
"""How many times larger a class is that another is only noise around."""
CLOSE = 0.1
"""How far the value of noise is from that of such a class, as a share of all values' range."""
GREY = 100
"""Range of values from which on they are grey levels rather than numbers of classes."""

Cases = Mapping[str, CaseFingerprint]


def doubtful_masks(cases: Cases, label_map: LabelMap) -> Iterator[Finding]:
    """Yield what is doubtful in the masks of some cases, errors and warnings."""
    lossy = tuple(name for name, case in cases.items() if case.lossy)
    doubtful = not_structures(cases, label_map)
    read_off = label_map.is_inferred and len(label_map.names) > 2
    if lossy and read_off:
        found = few(label_map.values)
        text = f"{len(lossy)} masks are JPEG or of another lossy format, so some of the values {found} may be noise"
        yield Finding("error", f"{text}. {cure(label_map, doubtful)}", lossy, "lossy mask")
    elif lossy:
        text = "masks are JPEG or of another lossy format, which changes values at edges. Save masks as PNG, or give"
        yield Finding("warning", f"{text} dataset.other_values=nearest", lossy, "lossy mask")
    for name in doubtful if not (lossy and read_off) else ():
        index = label_map.names.index(name)
        those = tuple(case for case, found in cases.items() if found.voxels[index])
        details = tuple(f"{cases[case].voxels[index]} voxels" for case in those)
        text = f"{name} occurs only on the borders of other classes, as smoothed or resampled edges do"
        yield Finding(
            "error" if label_map.is_inferred else "warning",
            f"{text}. {cure(label_map, doubtful)}",
            those,
            "rim of a mask",
            details,
        )
    if mixed := {name: f"{case.mixed} pixels" for name, case in cases.items() if case.mixed}:
        text = "masks of one class hold values beside 0 and their highest, and all but 0 count as the class"
        advice = "dataset.other_values=nearest takes those of at least half the highest, with ignore they are unknown"
        yield Finding("warning", f"{text}; {advice}", tuple(mixed), "mask values", tuple(mixed.values()))
    if clear := {name: f"{case.transparent} pixels" for name, case in cases.items() if case.transparent}:
        text = "masks have transparent pixels, which are read as background. Save masks without transparency"
        yield Finding(
            "warning", f"{text}, if that is not meant", tuple(clear), "transparent mask", tuple(clear.values())
        )
    turned = {
        name: f"image {case.orientations[0]}, mask {case.orientations[1]}"
        for name, case in cases.items()
        if case.orientations != (1, 1)
    }
    if turned:
        text = (
            "pictures are turned as their EXIF or TIFF orientation says, as viewers show them; masks must match that."
            " dataset.orientation=ignore reads the stored pixels of both"
        )
        yield Finding("warning", text, tuple(turned), "orientation", tuple(turned.values()))


def not_structures(cases: Cases, label_map: LabelMap) -> list[str]:
    """Return the foreground classes whose voxels are, by where they lie, rims of others or noise around one."""
    if len(label_map.names) < 3 or not cases:
        return []
    voxels, inside, between = (
        np.sum([getattr(case, name) for case in cases.values()], axis=0) for name in ("voxels", "inside", "between")
    )
    some = np.maximum(voxels, 1)
    is_rim = (between >= RIM * some) & (inside <= THIN * some)
    is_noise = (inside <= THIN / 5 * some) & has_larger_neighbour(voxels, label_map)
    found = (voxels > 0) & (is_rim | is_noise)
    return [name for index, name in enumerate(label_map.names) if index and found[index]]


def has_larger_neighbour(voxels: NDArray[np.int64], label_map: LabelMap) -> NDArray[np.bool_]:
    """Tell of each class (K,) whether a much larger one has almost the same grey value or colour."""
    colours = rgb(np.array(label_map.values)).astype(np.float64)
    span = float(np.ptp(colours))
    apart = np.abs(colours[:, None] - colours[None]).max(axis=-1)
    near = (apart <= CLOSE * span) & (voxels[None] >= LARGER * voxels[:, None])
    return near.any(axis=1) & (span >= GREY)


def cure(label_map: LabelMap, doubtful: list[str]) -> str:
    """Say which settings read the masks as they were meant."""
    meant = {name: value for name, value in label_map.labels.items() if name not in doubtful}
    entries = ", ".join(
        f'{name}: "{value}"' if isinstance(value, str) else f"{name}: {value}" for name, value in meant.items()
    )
    return (
        f"Give the classes that are meant, perhaps dataset.labels='{{{entries}}}', and dataset.other_values=nearest"
        " (other values are of the class with the nearest) or ignore (of unknown class)"
    )
