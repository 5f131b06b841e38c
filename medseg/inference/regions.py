"""From a mask of each region to one map of classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medseg.io.labels import LabelMap


@dataclass(frozen=True)
class Regions:
    """The class indices that make up each region, and the class that it is painted with, in the order of painting.

    ``nested``: what lies outside a region is outside all that are parts of it. Else, as in nnU-Net, each is painted
    wherever it is found, the later one over the earlier.
    """

    members: tuple[tuple[int, ...], ...]
    painted: tuple[int, ...]
    nested: bool = True

    @classmethod
    def of(cls, label_map: LabelMap) -> "Regions | None":
        """Return the regions of a label map, None where classes exclude each other."""
        if not label_map.regions:
            return None
        return cls(tuple(label_map.reported.values()), label_map.painted, label_map.nested)

    @property
    def are_disjoint(self) -> bool:
        """Tell whether a voxel is in one region at most: no two have a class in common, nor are painted over."""
        return self.nested and all(set(one).isdisjoint(other) for one, other in combinations(self.members, 2))

    def paint(self, masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
        """Paint masks (*spatial), one a region, one over the other, as class indices.

        First they are made to nest, where they are nested.
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
        mine = set(self.members[place])
        return [other for other, members in enumerate(self.members) if self.nested and mine < set(members)]
