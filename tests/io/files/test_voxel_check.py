"""Fill values are found whatever they are and however many; what scanners and tracers do is not taken for them."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scan_files import read_scan
from scipy.ndimage import gaussian_filter

from medseg.errors import MedsegError

SHAPE = (40, 36, 30)
FLOAT_MIN, NETCDF = float(np.finfo(np.float32).min), 9.96921e36


@pytest.fixture
def read(tmp_path):
    """Return ``read(image)``, which writes an array as NIfTI and reads it."""

    def write_and_read(image):
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "scan.nii.gz")
        return read_scan([tmp_path / "scan.nii.gz"]).image

    return write_and_read


def mri(top=2000.0):
    """A body in air: smooth tissue up to ``top``, half of the image exactly 0."""
    tissue = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 2)
    return np.clip(tissue / tissue.max() * top, 0, None).astype(np.float32)


def ct():
    """Air, tissue and bone in HU."""
    tissue = gaussian_filter(np.random.default_rng(1).normal(size=SHAPE), 2)
    return np.clip(tissue / tissue.max() * 1500, -1024, 1500).astype(np.int16)


def scattered(count, seed=2):
    return np.unravel_index(np.random.default_rng(seed).permutation(np.prod(SHAPE))[:count], SHAPE)


BORDER = np.s_[:, :, :9]  # three tenths of the image


@pytest.mark.parametrize("value", [FLOAT_MIN, -FLOAT_MIN, 1e20, -1e20, NETCDF, -1e7, 1e30, -2147483648.0, 1e10])
@pytest.mark.parametrize(
    ("where", "count"), [((0, 0, 0), 1), (scattered(12), 12), (BORDER, 12960)], ids=["one", "some", "border"]
)
def test_a_fill_value_is_refused_with_value_count_range_and_cure(read, value, where, count):
    image = mri(50.0)
    image[where] = value
    rest = np.delete(image.ravel(), np.flatnonzero(image == np.float32(value)))
    with pytest.raises(MedsegError) as error:
        read(image)
    text = str(error.value)
    assert f"scan.nii.gz: {count} of {image.size} voxels" in text
    assert f"{np.float32(value):.6g}" in text
    assert f"within {rest.min():.6g} to {rest.max():.6g}" in text
    assert "Replace it" in text


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
def test_the_scale_of_the_intensities_does_not_matter(read, scale):
    image = mri(scale)
    np.testing.assert_array_equal(read(image)[0], image)
    image[3, 4, 5] = -9e4 * scale
    with pytest.raises(MedsegError, match="1 of 43200 voxels has the value"):
        read(image)


def test_several_fill_values_in_most_of_the_image_and_what_interpolation_made_of_them(read):
    image = mri()
    image[:28] = 1e20
    image[28] = np.random.default_rng(3).uniform(1e18, 9e19, SHAPE[1:])
    image[39, 35, 29] = FLOAT_MIN
    with pytest.raises(MedsegError, match=r"31321 of 43200 voxels have the value -3.40282e\+38 to 1e\+20"):
        read(image)


def test_whole_numbers_and_one_channel_of_several(read):
    image = np.stack([mri(), mri(), mri()], axis=-1).astype(np.int32)
    image[1, 2, 3, 1] = -2147483648
    with pytest.raises(MedsegError, match=r"scan.nii.gz: channel 1: 1 of 43200 voxels"):
        read(image)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_pictures_in_2d(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 30, (50, 40)).astype(dtype)
    values[7, 8] = 65535
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert read_scan([tmp_path / "x.tif"]).image.max() == 65535  # doubtful only: a warning
    if dtype == np.float32:
        values[7, 8] = 1e20
        Image.fromarray(values).save(tmp_path / "x.tif")
        with pytest.raises(MedsegError, match=r"x.tif: 1 of 2000 voxels has the value 1e\+20"):
            read_scan([tmp_path / "x.tif"])


def hot_spots():
    """FDG: a bladder a thousand times brighter than the tissue, of few voxels, and a smaller sharp one."""
    image = np.random.default_rng(4).gamma(2, 0.5, SHAPE).astype(np.float32)
    image[10:13, 10:13, 10:13] = 1000
    image[30, 30, 20] = 700
    return image


def metal():
    image = ct()
    image[20:22, 10:12, 5:7] = 30000
    return image


def padded(value):
    image = ct()
    corner = np.hypot(*np.indices(SHAPE[:2]) - np.array(SHAPE[:2])[:, None, None] / 2) > 17
    image[corner] = value
    return image


def sparse():
    """Beads on rounding errors, as interpolation leaves them."""
    image = np.random.default_rng(5).normal(size=SHAPE) * 1e-13
    image[scattered(20)] = np.linspace(0.2, 1, 20)
    return image.astype(np.float32)


PLAUSIBLE = {
    "mri": mri,
    "ct": ct,
    "CT padding -2000": lambda: padded(-2000),
    "CT padding -3024": lambda: padded(-3024),
    "CT padding -32768": lambda: padded(-32768),
    "metal": metal,
    "PET": hot_spots,
    "beads": sparse,
    "mask": lambda: (mri() > 500).astype(np.float32) * 255,
    "mask of one voxel": lambda: np.eye(1, np.prod(SHAPE), 77).reshape(SHAPE).astype(np.float32) * 1e4,
    "interpolated mask": lambda: np.float32((mri() > 500) + 1e-12 * mri()),
    "interpolated mask of 16 bits": lambda: np.float32((mri() > 500) * 65535 + 1e-9 * mri()),
    "whole range of 16 bits": lambda: np.round(mri(65535)).astype(np.uint16),
    "large units": lambda: mri(1e12),
    "small units": lambda: mri(1e-12),
    "negative": lambda: mri() - 1e5,
    "lognormal": lambda: np.random.default_rng(6).lognormal(0, 1.5, SHAPE).astype(np.float32),
    "integers": lambda: np.random.default_rng(7).integers(-32768, 32768, SHAPE).astype(np.int16),
}


@pytest.mark.parametrize("image", PLAUSIBLE.values(), ids=PLAUSIBLE)
def test_plausible_images_are_read_without_a_word(read, image, caplog):
    values = image()
    np.testing.assert_array_equal(read(values)[0], values)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("dtype", "top", "value"), [(np.int16, 2000, -32768), (np.uint16, 4095, 65535), (np.float32, 50, 2e5)]
)
@pytest.mark.parametrize("where", [(1, 2, 3), scattered(40)], ids=["one", "some"])
def test_what_may_be_a_fill_value_or_a_saturated_voxel_is_warned_of(read, dtype, top, value, where, caplog):
    image = mri(top).astype(dtype)
    image[where] = value
    np.testing.assert_array_equal(read(image)[0], image)
    [message] = caplog.messages
    assert f"{value:.6g}" in message
    assert "scan.nii.gz" in message


def test_nan_and_what_float32_cannot_hold_are_named(read):
    image = mri().astype(np.float64)
    image[0, 0, :2] = -1.7e308, 1e39
    with pytest.raises(MedsegError, match=r"2 of 43200 voxels are NaN or infinite, or beyond float32 as -1.7e\+308 is"):
        read(image)
    image[0, 0, :2] = np.nan, -np.inf
    with pytest.raises(MedsegError, match=r"2 of 43200 voxels are NaN or infinite\. Replace"):
        read(image)
