"""Boxes round several parts of a mask; ``io.grids.grid.bounding_box`` has the box of one."""

from collections.abc import Sequence

Box = tuple[slice, ...]


def around(boxes: Sequence[Box], margin: int = 0) -> Box:
    """Return the smallest box that holds all of these, and a margin.

    The margin is cut where an array begins; NumPy cuts it where the array ends.
    """
    return tuple(
        slice(max(0, min(span.start for span in spans) - margin), max(span.stop for span in spans) + margin)
        for spans in zip(*boxes, strict=True)
    )
