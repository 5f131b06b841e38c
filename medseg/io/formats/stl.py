"""The surface of each class as a binary STL file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import medseg
from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.grids.alignment import name
from medseg.io.grids.grid import FLIP, bounding_box
from medseg.system.file_names import file_names
from medseg.system.files import replacing
from medseg.system.printable import on_a_line

TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])


def write_meshes(folder: Path, indices: NDArray[np.uint8], names: Sequence[str], like: Scan) -> list[Path]:
    """Write the surface of each class that occurs in class indices (*spatial), as ``<folder>/<class>.stl``.

    Returns:
        The files that were written.

    Raises:
        MedsegError: the scan is no volume in mm, or a file cannot be written.
    """
    if like.unit != "mm" or len(like.shape) != 3:
        raise MedsegError(f"meshes=true: {name(like)} is no volume in mm, so its classes have no surface.")
    written, stems = [], file_names(names)
    for index, each in enumerate(names):
        if index and (indices == index).any():
            path = folder / f"{stems[each]}.stl"
            with replacing(path) as temporary:
                temporary.write_bytes(stl(surface(indices == index, like.affine), each))
            written.append(path)
    return written


def surface(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the triangles (n, 3 corners, 3) of the surface of a mask in mm, LPS, wound to be seen from outside.

    It runs half-way between voxels of the mask and others (marching cubes; Lewiner et al., 2003).
    """
    from skimage.measure import marching_cubes

    box = bounding_box(mask)
    corners, faces, *_ = marching_cubes(np.pad(mask[box], 1).astype(np.float32), 0.5)
    voxels = corners.astype(float) + (np.array([span.start for span in box]) - 1)
    points = (voxels @ affine[:3, :3].T + affine[:3, 3]) @ FLIP
    triangles = points[faces]
    from_middle = triangles - points.mean(axis=0)  # or else far-off coordinates would cancel each other out
    volume = np.einsum("ij,ij->", from_middle[:, 0], np.cross(from_middle[:, 1], from_middle[:, 2]))  # times 6
    return triangles if volume > 0 else triangles[:, ::-1]  # affines may mirror


def stl(triangles: NDArray[np.float64], each: str) -> bytes:
    """Return a binary STL file. Its header says that coordinates are LPS, which 3D Slicer reads from there."""
    header = f"medseg {medseg.__version__} SPACE=LPS UNIT=mm {on_a_line(each)}".encode()[:80].ljust(80)
    records = np.zeros(len(triangles), dtype=TRIANGLE)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    records["corners"] = triangles
    return header + len(triangles).to_bytes(4, "little") + records.tobytes()
