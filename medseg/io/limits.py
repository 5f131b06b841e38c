"""How much memory a file may ask for: what it says of itself is checked before anything of that size is allocated."""

from collections.abc import Sequence
from math import prod

from medseg.errors import MedsegError

GB = 10**9
DEFAULT_MAX_GB = 8.0
DEFLATE_RATIO = 1032
"""Deflate, the method of gzip, zlib and PNG, packs to no less than 1 / 1032."""


class Limit:
    """The largest image, held as float32, that this process reads; ``read.max_gb`` sets it."""

    max_gb = DEFAULT_MAX_GB


def check_memory(what: str, shape: Sequence[int], bytes_each: int = 4) -> None:
    """Reject an array that is larger than ``read.max_gb``; MedsegError.

    Args:
        what: the file and the array, for the message: "a.nii: its header describes an array".
        shape: the lengths of all axes, channels included.
        bytes_each: bytes of a stored number; fewer than the 4 of float32, in which images are held, count as 4.
    """
    needed = prod(map(int, shape)) * max(bytes_each, 4)
    if needed > Limit.max_gb * GB:
        raise MedsegError(
            f"{what} of shape {tuple(map(int, shape))}, {needed / GB:.3g} GB in memory; allowed are"
            f" read.max_gb={Limit.max_gb:g}. If no header is damaged and this is right, raise read.max_gb."
        )


def check_length(shape: Sequence[int], needed: int, present: int) -> None:
    """Reject a file whose length cannot hold the voxels that its header describes.

    Args:
        shape: what the header says, for the message.
        needed: bytes that this takes at least.
        present: bytes that the file has, or can be unpacked to.

    Raises:
        EOFError: it cannot.
    """
    if needed > present:
        raise EOFError(
            f"its header describes an array of shape {tuple(map(int, shape))}, {needed} bytes, but the file holds at"
            f" most {present}. Copy it again from its source"
        )
