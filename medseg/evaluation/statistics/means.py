"""The rule for means of scores: what is undefined (NaN) is left out, and the mean of nothing is undefined."""

from collections.abc import Iterable
from math import nan

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def mean_of_defined(values: Iterable[float | None]) -> float:
    """Return the mean of the values that are defined; None is undefined, too. NaN where there are none."""
    array = np.fromiter((nan if value is None else value for value in values), np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if len(defined) else nan


def means_of_defined(values: Values, axis: int) -> Values:
    """Return the means along an axis of the values that are defined; NaN where there are none."""
    defined = ~np.isnan(values)
    n = defined.sum(axis)
    return np.divide(np.where(defined, values, 0).sum(axis), n, out=np.full(n.shape, nan), where=n > 0)
