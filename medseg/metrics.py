"""The metrics of medseg's reports, of masks in memory.

>>> import numpy as np
>>> reference = np.zeros((20, 20, 10), int)
>>> reference[5:15, 5:15, 2:8] = 1
>>> medseg.metrics.measure(np.roll(reference, 1, axis=0), reference, spacing=(1, 1, 3), names=["dice", "hd95"])
{'1': {'dice': 0.9, 'hd95': 1.0}}
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.config.check import problems
from medseg.config.settings import MetricsSettings
from medseg.errors import MedsegError
from medseg.evaluation.metrics.registry import measure_case, settings_of
from medseg.io.labels import IGNORE

__all__ = ["measure"]


def measure(
    prediction: ArrayLike,
    reference: ArrayLike,
    spacing: Sequence[float],
    *,
    classes: Mapping[str, int | Sequence[int]] | None = None,
    names: str | Sequence[str] = "full",
    nsd_mm: float = 1.0,
    surface: Literal["elements", "voxel"] = "elements",
    lesions: Literal["overlap", "brats"] | None = None,
    missed_mm: float | None = None,
) -> dict[str, dict[str, float]]:
    """Measure a predicted mask against the ground truth, class by class, as the reports do.

    Args:
        prediction: class indices (*spatial) of two or three axes, 0 the background; or a mask of one class.
        reference: the ground truth, of the same shape; 255 where the class is unknown, which is left out.
        spacing: distance of neighbouring voxel centres along each axis in mm; ones for 2D images, whose distances are
            then in pixels.
        classes: index of each class by name, or indices, as a region has them (``LabelMap.reported``); None: every
            class that occurs, under its number.
        names: what to measure: "basic", "full", "brats", or some of the metrics; Dice is always measured.
        nsd_mm: tolerance of the surface Dice "nsd", in mm.
        surface: surfaces as weighted elements, or as voxels of the border, as MONAI has them.
        lesions: how connected components are matched: by overlap, or as BraTS 2023; None: by ``names``.
        missed_mm: distance where one of the two masks is empty; None: NaN.

    Returns:
        The values of the metrics by class. Shares are from 0 to 1, distances in mm, volume differences in ml (px in
        2D); NaN is undefined, as where both masks are empty.

    Raises:
        MedsegError: shapes or spacing do not fit, values are no class indices, or a metric is not known.

    >>> import numpy as np
    >>> truth, found = np.eye(8, dtype=bool), np.eye(8, dtype=bool)
    >>> found[0, 0] = False
    >>> medseg.metrics.measure(found, truth, (1, 1), classes={"vessel": 1}, names=["sensitivity", "precision"])
    {'vessel': {'dice': 0.93..., 'sensitivity': 0.875, 'precision': 1.0}}
    """
    chosen: dict[str, Any] = {"names": names if isinstance(names, str) else list(names), "nsd_mm": nsd_mm}
    chosen |= {"surface": surface, "lesions": lesions, "missed_mm": missed_mm, "strata": []}
    if wrong := list(problems({"metrics": chosen}).values()):
        raise MedsegError("\n".join(wrong))
    found, truth = indices_of(prediction, "prediction"), indices_of(reference, "reference")
    shape = truth.shape
    if found.shape != shape or len(spacing) != len(shape) or len(shape) not in (2, 3) or not min(spacing) > 0:
        raise MedsegError(
            f"prediction {found.shape}, reference {shape} and spacing {tuple(spacing)}: give two masks of one shape,"
            " of two or three axes, and the mm between voxels along each axis."
        )
    unions = classes or {str(index): int(index) for index in np.union1d(found, truth) if index not in (0, IGNORE)}
    chosen["names"] = (names,) if isinstance(names, str) else tuple(names)
    measured = measure_case(
        found,
        truth,
        [[union] if isinstance(union, int) else list(union) for union in unions.values()],
        spacing=[float(step) for step in spacing],
        voxel_size=prod(spacing) / 1000 if len(shape) == 3 else 1.0,
        settings=settings_of(MetricsSettings(**chosen)),
    )
    return dict(zip(unions, measured, strict=True))


def indices_of(mask: ArrayLike, name: str) -> NDArray[np.uint8]:
    """Return class indices as reports have them; MedsegError where values are none."""
    values = np.asarray(mask)
    if values.dtype.kind not in "biu" or (values.size and not 0 <= int(values.min()) <= int(values.max()) <= IGNORE):
        raise MedsegError(f"{name}: {values.dtype} values are no class indices: give whole numbers from 0 to 255.")
    return values.astype(np.uint8)
