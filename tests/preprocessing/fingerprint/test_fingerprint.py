"""What is noted of one case, against values worked out by hand and by NumPy."""

import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.io.case import Case, LabelFile
from medseg.io.labels import UNLABELLED, LabelMap
from medseg.preprocessing.fingerprint.fingerprint import fingerprint

LABELS = LabelMap({"background": 0, "organ": 4, "lesion": 2})


@pytest.fixture
def case(tmp_path):
    """A volume of 6 x 7 x 8 voxels of 1 x 2 x 3 mm, whose first axis runs to the head."""
    image = np.arange(336, dtype=np.float32).reshape(6, 7, 8)
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[0, :2, :3], mask[5, 6, 7] = 4, 2
    affine = np.array([[0, 2, 0, 0], [0, 0, 3, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    paths = [tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"]
    for path, values in zip(paths, (image, mask), strict=True):
        nib.save(nib.Nifti1Image(values, affine), path)
    return Case("c", "patient", (paths[0],), (LabelFile(paths[1]),))


def test_shape_and_spacing_are_in_network_axes(case):
    found = fingerprint(case, LABELS)
    assert found.shape == (7, 8, 6)
    assert found.spacing == (2, 3, 1)
    assert (found.unit, found.channels, found.group) == ("mm", 1, "patient")


def test_voxels_are_counted_by_class(case):
    assert fingerprint(case, LABELS).voxels.tolist() == [336 - 7, 6, 1]


def test_quantiles_are_those_of_all_voxels(case):
    expected = np.quantile(np.arange(336), [0, 0.005, 0.5, 0.995, 1])
    np.testing.assert_allclose(fingerprint(case, LABELS).quantiles, expected[None], rtol=1e-6)


def test_intensities_are_those_of_labelled_voxels(case):
    assert sorted(fingerprint(case, LABELS).intensities[0].tolist()) == [0, 1, 2, 8, 9, 10, 335]


def test_the_hash_is_of_shape_and_values(case):
    values = np.arange(336, dtype=np.float32).reshape(1, 6, 7, 8)
    assert fingerprint(case, LABELS).voxel_hash == hashlib.sha256(b"(1, 6, 7, 8)" + values.tobytes()).hexdigest()


def test_the_acquisition_has_step_affine_and_header(case):
    acquisition = fingerprint(case, LABELS).acquisition
    assert acquisition.steps == (1.0,)
    assert acquisition.affine == (0, 2, 0, 0, 0, 0, 3, 0, 1, 0, 0, 0)
    assert not acquisition.telling


def test_undeclared_values_are_refused(case):
    with pytest.raises(MedsegError, match="none of the declared"):
        fingerprint(case, LabelMap({"background": 0, "organ": 4}))


def test_without_a_mask_foreground_is_what_the_image_shows(case):
    found = fingerprint(replace(case, labels=()), UNLABELLED)
    assert found.voxels.tolist() == [1, 335]  # all but the one voxel of the lowest value
    assert sorted(found.intensities[0].tolist()) == list(range(1, 336))


def test_a_data_set_whose_classes_are_called_the_same_is_labelled(case):
    labels = LabelMap({"background": 0, "foreground": [4, 2]})
    assert fingerprint(case, labels).voxels.tolist() == [336 - 7, 7]
    with pytest.raises(MedsegError, match="has no mask"):
        fingerprint(replace(case, labels=()), LabelMap(dict(UNLABELLED.labels)))
