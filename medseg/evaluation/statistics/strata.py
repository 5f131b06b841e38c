"""Cases told apart by a column of the data set's table: by site, by scanner, by age."""

from collections.abc import Mapping
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
        values = {**values, **in_ranges(values, numbers)}
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


def in_ranges(values: Mapping[str, str], numbers: Mapping[str, float]) -> dict[str, str]:
    """Return the range that each case's number lies in, of four with about as many cases each."""
    quartiles = np.percentile(list(numbers.values()), (25, 50, 75))
    quarters = {case: int(np.searchsorted(quartiles, number)) for case, number in numbers.items()}
    members = {quarter: [case for case in numbers if quarters[case] == quarter] for quarter in set(quarters.values())}
    names = {quarter: range_name(values, numbers, cases) for quarter, cases in members.items()}
    return {case: names[quarter] for case, quarter in quarters.items()}


def range_name(values: Mapping[str, str], numbers: Mapping[str, float], cases: list[str]) -> str:
    """Name a range after its lowest and its highest value, as they are written in the table."""
    ranked = sorted(cases, key=lambda case: numbers[case])
    low, high = values[ranked[0]], values[ranked[-1]]
    return low if numbers[ranked[0]] == numbers[ranked[-1]] else f"{low}–{high}"


def is_number(text: str) -> bool:
    """Tell whether a text is a finite number."""
    try:
        return isfinite(float(text))
    except ValueError:
        return False
