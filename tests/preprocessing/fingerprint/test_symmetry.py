"""Made-up data sets of known symmetry."""

import numpy as np
import pytest

from medseg.io.case import Scan
from medseg.preprocessing.fingerprint.symmetry import symmetric_axes, thumbnail
from medseg.preprocessing.geometry import whole


def thumbnails(make, count=20):
    generator = np.random.default_rng(0)
    scans = [Scan(make(generator)[None].astype(np.float32), np.eye(4)) for _ in range(count)]
    return [thumbnail(scan, whole(scan.affine, scan.shape)) for scan in scans]


def common(shape, parts):
    """Images of the same parts at the same places, under noise."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = sum(np.exp(-sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) / 0.05) for centre in parts)
    return lambda generator: body + generator.normal(scale=0.3, size=shape)


def test_a_thumbnail_is_small_and_standardised():
    [found] = thumbnails(common((40, 50, 30), [(0.2, 0.3, 0.1)]), 1)
    assert found.shape == (16, 16, 16)
    assert found.mean() == pytest.approx(0, abs=1e-5)
    assert found.std() == pytest.approx(1, abs=1e-4)


def test_a_thumbnail_lies_in_network_axes():
    volume = np.zeros((1, 20, 30, 40), np.float32)
    volume[0, :, :15] = 1  # the first half of the second voxel axis, which runs to the patient's left
    affine = np.array([[0, -1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    found = thumbnail(Scan(volume, affine), whole(affine, volume.shape[1:]))
    assert (found[8:] > 0).all()
    assert (found[:8] < 0).all()


def test_pictures_without_a_common_position_are_mirrored_everywhere():
    def anywhere(generator):
        return common((48, 48), [generator.uniform(-1, 1, 2)])(generator)

    assert symmetric_axes(thumbnails(anywhere, 40)) == [0, 1]


@pytest.mark.parametrize(
    ("parts", "axes"),
    [
        ([(0.5, 0.4, 0.0), (-0.5, 0.4, 0.0)], [0, 2]),  # a pair, left and right, to the front
        ([(0.5, 0.4, 0.3)], []),
        ([(0.0, 0.0, 0.0)], [0, 1, 2]),
    ],
)
def test_scans_in_a_common_position_are_mirrored_where_they_are_symmetric(parts, axes):
    assert symmetric_axes(thumbnails(common((32, 40, 24), parts))) == axes
