"""From a mask of each region to one map of classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medseg.io.labels import LabelMap


@dataclass(frozen=True)
class Regions:
    """The class indices that make up each region, and the class that it is painted with, in the order of painting."""

    members: tuple[tuple[int, ...], ...]
    painted: tuple[int, ...]

    @classmethod
    def of(cls, label_map: LabelMap) -> "Regions | None":
        """Return the regions of a label map, None where classes exclude each other."""
        return cls(tuple(label_map.reported.values()), label_map.painted) if label_map.regions else None

    @property
    def are_disjoint(self) -> bool:
        """Tell whether no two regions have a class in common, so that a voxel is in one of them at most."""
        return all(set(one).isdisjoint(other) for one, other in combinations(self.members, 2))

    def paint(self, masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
        """Paint masks (*spatial), one a region, one over the other, as class indices.

        First they are made to nest: what lies outside a region is outside all that are parts of it.
        """
        indices = np.zeros(masks[0].shape, dtype=np.uint8)
        for place, index in enumerate(self.painted):
            inside = masks[place]
            for other in self._larger(place):
                inside = inside & masks[other]
            indices[inside] = index
        return indices

    def _larger(self, place: int) -> list[int]:
        """The regions that a region is a part of."""
        return [other for other, members in enumerate(self.members) if set(self.members[place]) < set(members)]
