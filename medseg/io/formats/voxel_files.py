"""Voxels as they lie in files: raw, as text, or packed, in one file or several, read whole or not at all.

Lengths are checked before memory is allocated, and the checksums of gzip, zlib and bzip2 while unpacking: one flipped
byte in a packed file is an error, never other voxels.
"""

import bz2
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.io.limits import DEFLATE_RATIO, check_length, check_memory

Encoding = Literal["raw", "text", "hex", "deflate", "bzip2"]

GZIP = b"\x1f\x8b"
ZLIB_OR_GZIP = 47  # zlib's code for either, by the first bytes
HARMLESS = 256 << 20
"""Bytes that any bzip2 may unpack to: it has no ratio that it cannot exceed, and packs 256 MB of zeros to 200 bytes."""

PACKED_PIECE, UNPACKED_PIECE = 1 << 16, 1 << 18  # bytes read, and unpacked, at a time


@dataclass(frozen=True, kw_only=True)
class VoxelFiles:
    """Where and how the voxels of an image are stored, as the header at ``path`` says.

    ``shape`` holds the axes, the fastest first, and ``components`` the index of the one among them that is not in
    space, None where there is none. ``affine`` (4x4) leads from indices of the first three axes in space to LPS mm.
    ``files`` hold the same number of bytes each, of which ``skip_lines`` and ``skip_bytes`` come before the voxels
    (-1: the voxels are at the end). ``start`` is where the voxels begin that follow the header in its own file.
    """

    path: Path
    shape: tuple[int, ...]
    components: int | None
    dtype: np.dtype[Any]
    affine: NDArray[np.float64]
    encoding: Encoding
    files: tuple[Path, ...]
    skip_lines: int = 0
    skip_bytes: int = 0
    start: int = 0

    @property
    def size(self) -> tuple[int, ...]:
        """Lengths of the axes in space (and time), without components."""
        return tuple(length for axis, length in enumerate(self.shape) if axis != self.components)

    @property
    def channels(self) -> int:
        """Numbers that a voxel holds."""
        return 1 if self.components is None else self.shape[self.components]


def read_voxels(stored: VoxelFiles) -> NDArray[Any]:
    """Read the voxels (*size, channels) of their own type, in the machine's byte order.

    Raises:
        MedsegError: a file is missing, or no regular file, or the voxels are more than ``read.max_gb``.
        ValueError, EOFError, OSError: a file is damaged.
    """
    check_memory(f"{stored.path}: its header describes an array", stored.shape, stored.dtype.itemsize)
    count, rest = divmod(prod(stored.shape), len(stored.files))
    if rest:
        raise ValueError(f"{prod(stored.shape)} numbers cannot be divided among {len(stored.files)} files")
    for file in stored.files:
        if not file.is_file():
            kind = "is no regular file" if file.exists() else "is missing"
            raise MedsegError(f"{stored.path}: its data file {file.name} {kind}. Copy both into one folder.")
        needed, present = count * stored.dtype.itemsize, file.stat().st_size - stored.start
        shortest = {"text": count, "hex": 2 * needed}.get(stored.encoding, needed)
        longest = present * (DEFLATE_RATIO if stored.encoding in ("deflate", "bzip2") else 1)
        check_length(stored.shape, shortest, max(longest, HARMLESS if stored.encoding == "bzip2" else 0))
    parts = [_numbers(stored, file, count) for file in stored.files]
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
    voxels = flat.astype(stored.dtype.newbyteorder("="), copy=False).reshape(stored.shape, order="F")
    return voxels[..., None] if stored.components is None else np.moveaxis(voxels, stored.components, -1)


def _numbers(stored: VoxelFiles, file: Path, count: int) -> NDArray[Any]:
    """Read ``count`` numbers from one of the files."""
    bytes_needed = count * stored.dtype.itemsize
    with file.open("rb") as stream:
        stream.seek(stored.start)
        for _ in range(stored.skip_lines):
            while not (part := stream.readline(PACKED_PIECE)).endswith(b"\n"):
                if not part:
                    raise EOFError("the file ends before its voxels begin")
        if stored.encoding == "raw":
            from_end = file.stat().st_size - bytes_needed
            stream.seek(*((from_end, 0) if stored.skip_bytes < 0 else (stored.skip_bytes, 1)))
            numbers = np.fromfile(stream, stored.dtype, count)
            check_length(stored.shape, bytes_needed, numbers.nbytes)
            return numbers
        if stored.skip_bytes < 0:
            raise ValueError("only raw data can lie at the end of a file")
        if stored.encoding == "text":
            stream.seek(stored.skip_bytes, 1)
            words = stream.read().replace(b",", b" ").split()
            if stored.dtype.kind == "f":
                return _checked_count(np.array(words, dtype=np.float64).astype(stored.dtype), count)
            # OverflowError where one does not fit
            return _checked_count(np.array([int(word) for word in words], dtype=stored.dtype), count)
        if stored.encoding == "hex":
            stream.seek(stored.skip_bytes, 1)
            unhexed = bytes.fromhex(stream.read().decode("ascii"))
            return _checked_count(np.frombuffer(unhexed, stored.dtype), count)
        length = stored.skip_bytes + bytes_needed
        check_memory(f"{file}: its header skips to an array", [length], 1)
        unpacked = inflate(stream, length) if stored.encoding == "deflate" else _unzipped(stream, length)
    return np.frombuffer(unpacked, stored.dtype, count, stored.skip_bytes)


def inflate(stream: BinaryIO, count: int, surplus: int = 0) -> bytearray:
    """Unpack ``count`` bytes of gzip or zlib to their end, so that the checksum is compared, in pieces.

    Several packed parts may follow each other, as gzip has it. What comes after ``count`` is dropped.

    Raises:
        EOFError: the data end too early.
        ValueError: they are damaged, or hold more than ``surplus`` bytes more.
    """
    unpacked = bytearray(count)
    filled = beyond = 0
    packed = b""
    unpacker = zlib.decompressobj(ZLIB_OR_GZIP)
    while True:
        more = packed or stream.read(PACKED_PIECE)
        try:
            piece = unpacker.decompress(more, UNPACKED_PIECE)
        except zlib.error as error:
            checksum = "the checksum (CRC or Adler) is wrong; " if "check" in str(error) else ""
            raise ValueError(f"{checksum}{error}") from error
        used = min(len(piece), count - filled)
        unpacked[filled : filled + used] = piece if used == len(piece) else piece[:used]
        filled, beyond = filled + used, beyond + len(piece) - used
        if beyond > surplus:
            raise ValueError(f"it unpacks to more than the {count} bytes that its header describes")
        packed = unpacker.unconsumed_tail
        if unpacker.eof:
            packed = unpacker.unused_data or stream.read(PACKED_PIECE)
            if not packed.startswith(GZIP):
                break
            unpacker = zlib.decompressobj(ZLIB_OR_GZIP)
        elif not more and not piece:
            raise EOFError(f"the packed data end after {filled} of {count} bytes")
    if filled < count:
        raise EOFError(f"it unpacks to {filled} bytes, where its header describes {count}")
    return unpacked


def _unzipped(stream: BinaryIO, count: int) -> bytes:
    """Unpack ``count`` bytes of bzip2, whose checksums Python compares; errors as in ``inflate``."""
    with bz2.open(stream) as file:
        unpacked: bytes = file.read(count)
        if len(unpacked) < count:
            raise EOFError(f"it unpacks to {len(unpacked)} bytes, where its header describes {count}")
        if file.read(1):
            raise ValueError(f"it unpacks to more than the {count} bytes that its header describes")
    return unpacked


def _checked_count(numbers: NDArray[Any], count: int) -> NDArray[Any]:
    if len(numbers) != count:
        raise ValueError(f"there are {len(numbers)} numbers, where the header describes {count}")
    return numbers
