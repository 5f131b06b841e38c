"""Masks that are not what they seem: values between the classes, lossy formats, transparency, rotated 2D images.

Where nobody declared the classes, values that are no classes would be learned as such: an error. Else a warning.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.io.formats.mask_values import rgb
from medseg.io.labels import LabelMap, few
from medseg.preprocessing.fingerprint.fingerprint import CaseFingerprint
from medseg.preprocessing.quality.issues import FEW, Issue

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


def doubtful_masks(cases: Cases, label_map: LabelMap) -> Iterator[Issue]:
    """Yield what is doubtful in the masks of some cases, errors and warnings."""
    if not label_map.has_masks:
        return
    lossy = tuple(name for name, case in cases.items() if case.lossy)
    doubtful = not_structures(cases, label_map)
    read_off = label_map.is_inferred and len(label_map.names) > 2
    if lossy and read_off:
        values = few(label_map.values)
        text = f"{len(lossy)} masks are JPEG or of another lossy format, so some of the values {values} may be noise"
        yield Issue("error", f"{text}. {cure(cases, label_map, doubtful)}", lossy, "lossy mask")
    elif lossy:
        text = "masks are JPEG or of another lossy format, which changes values at edges. Save masks as PNG, or give"
        yield Issue("warning", f"{text} dataset.other_values=nearest", lossy, "lossy mask")
    if doubtful and not (lossy and read_off):
        indices = [label_map.names.index(name) for name in doubtful]
        rims = {name: f"{n} voxels" for name, case in cases.items() if (n := case.voxels[indices].sum())}
        names = f"{', '.join(doubtful[:FEW])}{' and others' if len(doubtful) > FEW else ''}"
        text = f"only on the borders of other classes, as smoothed, resampled or lossy masks have them, occur: {names}"
        level: Literal["error", "warning"] = "error" if label_map.is_inferred else "warning"
        yield Issue(
            level, f"{text}. {cure(cases, label_map, doubtful)}", tuple(rims), "rim of a mask", tuple(rims.values())
        )
    if mixed := {name: f"{case.mixed} pixels" for name, case in cases.items() if case.mixed}:
        text = "masks of one class hold values beside 0 and their highest, and all but 0 count as the class"
        advice = "dataset.other_values=nearest takes those of at least half the highest, with ignore they are unknown"
        yield Issue("warning", f"{text}; {advice}", tuple(mixed), "mask values", tuple(mixed.values()))
    if clear := {name: f"{case.transparent} pixels" for name, case in cases.items() if case.transparent}:
        text = "masks have colours in transparent pixels, which are read as background"
        advice = "Save the masks without transparency if that is not meant"
        yield Issue("warning", f"{text}. {advice}", tuple(clear), "transparent mask", tuple(clear.values()))
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
        yield Issue("warning", text, tuple(turned), "orientation", tuple(turned.values()))


def not_structures(cases: Cases, label_map: LabelMap) -> list[str]:
    """Return the foreground classes whose voxels are, by where they lie, rims of others or noise around one.

    Noise is looked for only where nobody declared classes, in 2D images: those of volumes are numbered one by one, so
    that thin structures have values as close as noise has.
    """
    if len(label_map.names) < 3 or not cases:
        return []
    voxels, inside, between = (
        np.sum([getattr(case, name) for case in cases.values()], axis=0) for name in ("voxels", "inside", "between")
    )
    some = np.maximum(voxels, 1)
    is_rim = (between >= RIM * some) & (inside <= THIN * some)
    is_doubtful = (voxels > 0) & is_rim
    if label_map.is_inferred and next(iter(cases.values())).unit == "px":
        is_noise = (inside <= THIN / 5 * some) & has_larger_neighbour(voxels, label_map, LARGER)
        is_doubtful |= (voxels > 0) & is_noise
    return [name for index, name in enumerate(label_map.names) if index and is_doubtful[index]]


def has_larger_neighbour(voxels: NDArray[np.int64], label_map: LabelMap, times: float) -> NDArray[np.bool_]:
    """Return of each class (K,) whether one that is so many times larger has almost the same grey value or colour."""
    colours = rgb(np.array(label_map.values)).astype(np.float64)
    span = float(np.ptp(colours))
    apart = np.abs(colours[:, None] - colours[None]).max(axis=-1)
    near = (apart <= CLOSE * span) & (voxels[None] >= times * voxels[:, None]) & (apart > 0)
    return near.any(axis=1) & (span >= GREY)


def cure(cases: Cases, label_map: LabelMap, doubtful: list[str]) -> str:
    """Return which settings read masks as they were meant: the values that are no rims, the largest of those alike."""
    voxels = np.sum([case.voxels for case in cases.values()], axis=0)
    alike = has_larger_neighbour(voxels, label_map, 1) if label_map.is_inferred else np.zeros(len(voxels), bool)
    names = [name for name, near in zip(label_map.names, alike, strict=True) if not near and name not in doubtful]
    meant = {name: label_map.labels[name] for name in names}
    if len(names) == 2 and label_map.is_inferred:
        meant = dict(zip(("background", "foreground"), meant.values(), strict=True))
    entries = ", ".join(
        f'{name}: "{value}"' if isinstance(value, str) else f"{name}: {value}" for name, value in meant.items()
    )
    return (
        f"Give the classes that are meant, perhaps dataset.labels='{{{entries}}}', and dataset.other_values=nearest"
        " (others are of the class with the nearest value) or ignore (of unknown class); or all, if all are meant"
    )
