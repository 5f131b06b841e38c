"""STL files: closed surfaces of the right size at the right place, read from their bytes."""

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.io.formats.stl import write_meshes

TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])


def read(path):
    content = path.read_bytes()
    triangles = np.frombuffer(content[84:], TRIANGLE)
    assert int.from_bytes(content[80:84], "little") == len(triangles)
    return content[:80], triangles


def volume(corners):
    """By the divergence theorem; positive where corners run counter-clockwise, seen from outside."""
    return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


@pytest.mark.parametrize("flip", [1, -1])
def test_surfaces_enclose_the_voxels(tmp_path, flip):
    affine = np.array([[flip * 0.5, 0.1, 0, 10], [0, 0.7, 0.2, -20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
    indices = np.zeros((40, 30, 12), np.uint8)
    indices[0:20, 5:25, 2:10] = 1  # up to the edge of the scan
    indices[5:10, 10:15, 4:6] = 0  # a cavity
    indices[30, 20, 5] = 2
    scan = Scan(np.zeros((1, *indices.shape), np.float32), affine)
    files = write_meshes(tmp_path / "case", indices, ["background", "a/b", "speck", "absent"], scan)
    assert [path.name for path in files] == ["a_b.stl", "speck.stl"]
    header, triangles = read(files[0])
    assert b"SPACE=LPS" in header
    assert not header.startswith(b"solid")
    corners = triangles["corners"].astype(float)
    assert volume(corners) == pytest.approx((indices == 1).sum() * abs(np.linalg.det(affine)), rel=0.05)
    box = np.array([[-0.5, 4.5, 1.5], [19.5, 24.5, 9.5]])
    ends = [(affine @ [*(box[[i, j, k], range(3)]), 1])[:3] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    lps = np.array(ends) * [-1, -1, 1]
    found = corners.reshape(-1, 3)
    np.testing.assert_allclose([found.min(0)[2], found.max(0)[2]], [lps.min(0)[2], lps.max(0)[2]], atol=1e-4)
    assert (found >= lps.min(0) - 1e-4).all()
    assert (found <= lps.max(0) + 1e-4).all()
    speck = read(files[1])[1]["corners"].astype(float)
    np.testing.assert_allclose(speck.reshape(-1, 3).mean(0), (affine @ [30, 20, 5, 1])[:3] * [-1, -1, 1], atol=1e-4)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", normals, triangles["normal"]) > 0).all()
    edges = np.concatenate([found.reshape(-1, 3, 3)[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))]).round(3)
    ways = {(*start, *end) for start, end in edges}
    assert all((*way[3:], *way[:3]) in ways for way in ways)  # closed: each edge is passed both ways


def test_pictures_have_no_surface(tmp_path):
    scan = Scan(np.zeros((1, 4, 4), np.float32), np.eye(4), unit="px")
    with pytest.raises(MedsegError, match="no volume in mm"):
        write_meshes(tmp_path, np.ones((4, 4), np.uint8), ["background", "a"], scan)


def test_classes_whose_names_become_one_keep_their_surfaces(tmp_path):
    """Slashes and colons are replaced, and no file system is asked to tell A from a."""
    names = ["background", "a/b", "a:b", "A", "a", "CON", "é" * 200, "é" * 201]
    indices = np.zeros((40, 6, 6), np.uint8)
    for index in range(1, len(names)):
        indices[5 * index : 5 * index + index % 4 + 1, 2:4, 2:4] = index
    files = write_meshes(tmp_path, indices, names, Scan(np.zeros((1, *indices.shape), np.float32), np.eye(4)))
    assert len({path.name.casefold() for path in files}) == len(names) - 1
    assert sorted(tmp_path.iterdir()) == sorted(files)
    for index, path in enumerate(files, 1):
        corners = read(path)[1]["corners"].reshape(-1, 3)
        assert corners[:, 0].max() == pytest.approx(0.5 - 5 * index)  # LPS
