"""Cases told apart by a column of the data set's table: by site, by scanner, by age."""

from collections.abc import Mapping
from itertools import groupby
from math import isfinite

import numpy as np

from medseg.errors import MedsegError

MANY = 10
"""Different values up to which each is a stratum."""


def strata_of(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the ids of the cases in each stratum, the strata in order; cases without a value are under "".

    ``values`` holds the column's value of each case. Each value is a stratum. Numbers of more than ``MANY`` different
    values, such as ages, are divided at their quartiles into four ranges, which are named after the lowest and the
    highest value in them.
    """
    numbers = {case: float(value) for case, value in values.items() if is_number(value)}
    is_numeric = len(numbers) == sum(value != "" for value in values.values())
    if is_numeric and len(set(numbers.values())) > MANY:
        quartiles = np.percentile(list(numbers.values()), (25, 50, 75))
        ascending = sorted(numbers, key=lambda case: numbers[case])
        for _, quarter in groupby(ascending, lambda case: np.searchsorted(quartiles, numbers[case])):
            cases = list(quarter)
            low, high = values[cases[0]], values[cases[-1]]
            name = low if numbers[cases[0]] == numbers[cases[-1]] else f"{low}–{high}"
            values = {**values, **dict.fromkeys(cases, name)}
    order = {value: (numbers[case] if is_numeric and value else 0.0, value) for case, value in values.items()}
    return {
        stratum: [case for case, value in values.items() if value == stratum]
        for stratum in sorted(set(values.values()), key=lambda value: order[value])
    }


def check_values(column: str, values: Mapping[str, str]) -> None:
    """Refuse a column of texts of which most cases have their own, such as names or dates."""
    texts = {value for value in values.values() if value and not is_number(value)}
    if len(texts) > max(MANY, len(values) / 2):
        raise MedsegError(
            f"metrics.strata: {column} has {len(texts)} different texts for {len(values)} cases: most strata would be "
            "a single case. Give a column whose values cases share; numbers are divided into ranges by themselves."
        )


def is_number(text: str) -> bool:
    """Tell whether a text is a finite number."""
    try:
        return isfinite(float(text))
    except ValueError:
        return False
