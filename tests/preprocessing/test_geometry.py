"""The grids: every orientation, oblique affines, the way back by slabs, and where voxels lie in the world."""

import json
from collections.abc import Iterator
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from network_grid import forward, network_affine
from nibabel.orientations import inv_ornt_aff

from medseg.errors import MedsegError
from medseg.preprocessing.geometry import Geometry, orient, whole

ORNTS = [np.column_stack([axes, signs]) for axes in permutations(range(3)) for signs in product([1, -1], repeat=3)]
OBLIQUE = np.array([[0.1, -0.2, 2.4, 7], [-0.9, 0.1, 0.1, -12], [0.1, 1.1, 0.3, 30], [0, 0, 0, 1]])
BENT = Geometry((10, 9, 8), (2, 0, 1), (False, True, False), ((1, 7), (2, 10), (0, 9)), (9, 5, 9))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def joined(geometry: Geometry, scores: torch.Tensor, fill: torch.Tensor, thickness: int = 32) -> torch.Tensor:
    most = thickness * len(scores) * geometry.native_shape[0] * geometry.native_shape[1]
    return torch.cat([slab for _, slab in geometry.slabs(geometry.in_one_block(scores), fill, most)], dim=-1)


def in_blocks(geometry: Geometry, scores: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Rows along the way, ``size`` at a time in one memory that is written over, as a sliding window yields them."""
    axis = 1 + geometry.slab_axis[0]
    [rows] = geometry.in_one_block(scores)
    memory = torch.full_like(rows.narrow(axis, 0, size), torch.nan)
    for block in rows.split(size, axis):
        held = memory.narrow(axis, 0, block.shape[axis])
        yield held.copy_(block)
        memory.fill_(torch.nan)


def world(affine: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """World coordinates of every voxel centre, (3, *shape)."""
    index = np.indices((*shape, 1)[:3]).reshape(3, -1)
    return torch.from_numpy((affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape)).float()


@pytest.mark.parametrize("ornt", ORNTS, ids=str)
def test_every_orientation_there_and_back(ornt: np.ndarray) -> None:
    shape = (4, 5, 6)
    label = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(1))
    affine = inv_ornt_aff(ornt, shape)
    geometry = whole(affine, shape)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(label.numpy().astype("uint8"), affine))
    network = forward(geometry, label[None].float(), ["cubic"] * 3)
    assert np.array_equal(network[0], canonical.get_fdata())
    np.testing.assert_allclose(network_affine(geometry, affine), canonical.affine)
    scores = torch.nn.functional.one_hot(network[0].long(), 3).permute(3, 0, 1, 2).float()
    assert torch.equal(joined(geometry, scores, torch.zeros(3), 4).argmax(0), label)


def test_oblique_axes_are_permuted_and_flipped_only() -> None:
    assert orient(OBLIQUE, (4, 5, 6)) == ((2, 0, 1), (False, True, False))


def test_orientation_in_the_plane() -> None:
    assert orient(np.eye(4), (5, 4)) == ((0, 1), (False, False))
    assert orient(np.diag([-1.0, -1, 1, 1]), (5, 4)) == ((0, 1), (True, True))
    sagittal = np.array([[0.0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # axes run S and P
    assert orient(sagittal, (5, 4)) == ((1, 0), (True, False))


def test_affine_without_direction() -> None:
    with pytest.raises(MedsegError, match="3 voxel axes no 3 separate directions"):
        orient(np.diag([1.0, 0, 1, 1]), (3, 3, 3))


@pytest.mark.parametrize("shape", [(12, 8, 9), (9, 5, 18), (6, 8, 9)])
def test_voxels_stay_where_they_are_in_the_world(shape: tuple[int, ...]) -> None:
    geometry = Geometry((10, 9, 8), (2, 0, 1), (False, True, False), ((1, 7), (2, 10), (0, 9)), shape)
    got = forward(geometry, world(OBLIQUE, geometry.native_shape), ["linear"] * 3)
    expected = world(network_affine(geometry, OBLIQUE), shape)
    inner = (slice(None), *[slice(2, -2)] * 3)  # linear interpolation is exact for a ramp, away from the border
    torch.testing.assert_close(got[inner], expected[inner], rtol=0, atol=1e-4)


def test_voxels_stay_where_they_are_in_2d() -> None:
    affine = np.array([[0.0, 0, 1, 3], [0.2, -2, 0, 40], [1, 0.3, 0, -5], [0, 0, 0, 1]])
    order, flips = orient(affine, (9, 8))
    geometry = Geometry((9, 8), order, flips, ((0, 7), (2, 9)), (14, 10))
    got = forward(geometry, world(affine, (9, 8)), ["linear"] * 2)
    expected = world(network_affine(geometry, affine), geometry.shape)
    torch.testing.assert_close(got[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], rtol=0, atol=1e-4)


def test_equals_simpleitk() -> None:
    """SimpleITK, which knows only the two affines, interpolates to the same values."""
    geometry = Geometry((10, 9, 8), *orient(OBLIQUE, (10, 9, 8)), ((0, 8), (0, 10), (0, 9)), (11, 13, 15))
    orthogonal = np.linalg.svd(OBLIQUE[:3, :3])
    affine = OBLIQUE.copy()
    affine[:3, :3] = orthogonal.U @ orthogonal.Vh * [0.9, 1.1, 2.4]
    x = noise(1, 10, 9, 8)
    target = itk_image(torch.zeros(geometry.shape), network_affine(geometry, affine))
    expected = sitk.Resample(itk_image(x[0], affine), target, sitk.Transform(), sitk.sitkLinear)
    inner = (slice(1, -1),) * 3  # outside the outermost centres SimpleITK gives zero
    got = forward(geometry, x, ["linear"] * 3)[0]
    np.testing.assert_allclose(got[inner], sitk.GetArrayFromImage(expected).T[inner], atol=1e-4)


def itk_image(x: torch.Tensor, affine: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(x.numpy().T)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((np.diag([-1, -1, 1]) @ affine[:3, :3] / spacing).ravel().tolist())  # LPS
    image.SetOrigin((affine[:3, 3] * [-1, -1, 1]).tolist())
    return image


@pytest.mark.parametrize("thickness", [1, 3, 8])
def test_slabs_equal_the_whole(thickness: int) -> None:
    scores, fill = noise(2, *BENT.shape), torch.tensor([5.0, -5])
    pieces = list(BENT.slabs(in_blocks(BENT, scores, 2), fill, thickness * 2 * 10 * 9))
    assert [tuple(slab.shape) for _, slab in pieces] == [(2, 10, 9, part.stop - part.start) for part, _ in pieces]
    assert max(part.stop - part.start for part, _ in pieces) == thickness
    assert [part.start for part, _ in pieces] == list(range(0, 8, thickness))
    whole_volume = joined(BENT, scores, fill, 100)
    assert torch.equal(torch.cat([slab for _, slab in pieces], -1), whole_volume)


def test_slabs_lie_where_the_scan_lies() -> None:
    scores = world(network_affine(BENT, OBLIQUE), BENT.shape)
    native = joined(BENT, scores, torch.full((3,), torch.nan), 3)
    inner = (slice(None), slice(2, 6), slice(1, -1), slice(2, -2))
    # a widened triangle keeps a ramp to a few hundredths of a voxel only
    torch.testing.assert_close(native[inner], world(OBLIQUE, BENT.native_shape)[inner], rtol=0, atol=0.1)


def test_outside_the_crop_is_filled() -> None:
    native = joined(BENT, torch.zeros(2, *BENT.shape), torch.tensor([1.0, 2]))
    kept = torch.zeros(BENT.native_shape, dtype=torch.bool)
    kept[0:8, :, 1:7] = True  # native axis 0 is flipped: its kept range (2, 10) counts from the end
    assert torch.equal(native[0], (~kept).float())
    assert torch.equal(native[1], 2 * (~kept).float())
    cut = BENT.cut(kept[None])
    assert cut.shape == (1, 6, 8, 9)
    assert cut.all()


def test_nothing_resampled_is_bit_equal() -> None:
    geometry = Geometry((10, 9, 8), (2, 0, 1), (True, True, False), ((1, 7), (2, 10), (0, 9)), (6, 8, 9))
    x = noise(3, 10, 9, 8)
    native = joined(geometry, forward(geometry, x, ["cubic"] * 3), torch.zeros(3), 3)
    assert torch.equal(native[:, :8, :, 1:7], x[:, :8, :, 1:7])


def test_slabs_in_2d() -> None:
    geometry = Geometry((6, 7), (1, 0), (True, False), ((0, 7), (1, 5)), (5, 8))
    scores, fill = noise(2, 5, 8), torch.zeros(2)
    assert joined(geometry, scores, fill).shape == (2, 6, 7)
    assert torch.equal(joined(geometry, scores, fill, 2), joined(geometry, scores, fill))
    assert not joined(geometry, scores, fill)[:, [0, 5]].any()


def test_probabilities_still_add_up_to_one() -> None:
    native = joined(BENT, noise(3, *BENT.shape).softmax(0), torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(native.sum(0), torch.ones(BENT.native_shape))


def test_plain_containers_there_and_back() -> None:
    plain = json.loads(json.dumps(BENT.to_dict()))
    assert plain == BENT.to_dict()
    assert Geometry.from_dict(plain) == BENT


def test_array_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"shape \(10, 9, 7\), the scan's is \(10, 9, 8\)"):
        BENT.cut(noise(1, 10, 9, 7))


def test_the_crop_is_round_a_mask_in_network_axes() -> None:
    geometry = Geometry((6, 7), (1, 0), (True, False), ((0, 7), (0, 6)), (7, 6))
    mask = torch.zeros(1, 6, 7, dtype=torch.bool)
    mask[0, 2, 0] = mask[0, 3, 4] = True
    assert geometry.cropped(mask).crop == ((2, 7), (2, 4))
    assert geometry.cropped(mask, margin=1).crop == ((1, 7), (1, 5))
