"""The preprocessor as a whole: grids, crop, labels there and back, and the scans that it refuses."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from network_grid import network_affine
from PIL import Image

from medseg.errors import MedsegError
from medseg.io.case import Scan
from medseg.preprocessing.geometry import Geometry
from medseg.preprocessing.preprocessor import Preprocessor, coarse_axes
from medseg.preprocessing.resample import interpolation, resample_axis


def scan(*shape: int, spacing: tuple[float, ...] = (1, 1, 1), seed: int = 0) -> Scan:
    image = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return Scan(image, np.diag([*spacing, 1.0]))


def ball(shape: tuple[int, ...]) -> np.ndarray:
    """A ball of class 1 with a core of class 2, uint8."""
    centre = np.reshape([(length - 1) / 2 for length in shape], (-1, *[1] * len(shape)))
    radius = np.linalg.norm((np.indices(shape) - centre) / (np.array(shape).reshape(centre.shape) / 2), axis=0)
    return (radius < 0.8).astype(np.uint8) + (radius < 0.4)


def there_and_back(preprocessor: Preprocessor, given: Scan, label: np.ndarray) -> np.ndarray:
    _, geometry = preprocessor(given)
    network = preprocessor.label(label, geometry, 3).long()
    scores = torch.nn.functional.one_hot(network, 3).movedim(-1, 0).float()
    slabs = [slab for _, slab in geometry.slabs(geometry.in_one_block(scores), torch.tensor([1.0, 0, 0]))]
    return torch.cat(slabs, -1).argmax(0).numpy()


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))


def test_the_plain_case() -> None:
    given = scan(2, 6, 7, 8)
    image, geometry = Preprocessor(normalize=["zscore", "none"])(given)
    assert geometry == Geometry((6, 7, 8), (0, 1, 2), (False,) * 3, ((0, 6), (0, 7), (0, 8)), (6, 7, 8))
    assert torch.equal(image[1], torch.from_numpy(given.image[1]))
    values = given.image[0].astype(float)
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(image[0], expected, atol=1e-5)


def test_shape_on_the_network_grid() -> None:
    given = scan(1, 20, 30, 9, spacing=(0.5, 1, 2))
    image, geometry = Preprocessor(normalize=["zscore"], spacing=[1.0, 1.5, 1.0])(given)
    assert tuple(image.shape) == (1, 10, 20, 18)
    assert geometry.shape == (10, 20, 18)
    thin, _ = Preprocessor(normalize=["zscore"], spacing=[1.0, 1.0, 100.0])(given)
    assert tuple(thin.shape) == (1, 10, 30, 1)


def test_spacing_counts_in_network_axes() -> None:
    affine = np.array([[0, 0, 3.0, 0], [-1, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])
    given = Scan(np.random.default_rng(0).random((1, 10, 12, 14), dtype=np.float32), affine)
    image, geometry = Preprocessor(normalize=["zscore"], spacing=[1.5, 1.0, 3.0])(given)
    assert tuple(image.shape) == (1, 28, 10, 6)
    np.testing.assert_allclose(np.diag(network_affine(geometry, affine))[:3], [1.5, 1.0, 3.0])


def test_crop_to_the_foreground_of_any_channel() -> None:
    image = np.full((2, 12, 12, 12), -5, np.float32)
    image[0, 3:6, 4:8, 2] = 1
    image[1, 5:9, 5, 2] = 7
    cropped, geometry = Preprocessor(normalize=["none", "none"])(Scan(image, np.eye(4)))
    assert geometry.crop == ((2, 10), (3, 9), (1, 4))  # with a voxel around
    assert torch.equal(cropped, torch.from_numpy(image[:, 2:10, 3:9, 1:4]))
    _, uncropped = Preprocessor(normalize=["none", "none"], crop=False)(Scan(image, np.eye(4)))
    assert uncropped.shape == (12, 12, 12)


def test_crop_of_a_uniform_object_keeps_it_visible() -> None:
    image = np.zeros((1, 9, 9), np.float32)
    image[0, 3:6, 3:6] = 1
    got, _ = Preprocessor(normalize=["zscore"])(Scan(image, np.eye(4), "px"))
    assert got[0, 2, 2] > got[0, 0, 0] + 1


def test_gaussian_filter_does_not_move_the_crop() -> None:
    image = np.full((1, 30, 30), 1000.1, np.float32)  # what a filter makes of a constant differs in the last digit
    image[0, 10:20, 10:20] = 2000
    _, geometry = Preprocessor(normalize=["zscore"], denoise="gaussian")(Scan(image, np.eye(4)))
    assert geometry.crop == ((9, 21), (9, 21))


def test_denoising_happens_before_normalisation() -> None:
    image = np.zeros((1, 9, 9), np.float32)
    image[0, :, 5:] = 1
    noisy = image.copy()
    noisy[0, 4, 2] = 100
    got, _ = Preprocessor(normalize=["unit"], crop=False, denoise="median", denoise_strength=1)(Scan(noisy, np.eye(4)))
    assert torch.equal(got, torch.from_numpy(image))


def test_coarse_axis_is_copied_not_interpolated() -> None:
    given = scan(1, 8, 10, 5, spacing=(1, 1, 4))
    preprocessor = Preprocessor(normalize=["none"], spacing=[0.8, 0.8, 2.0])
    image, geometry = preprocessor(given)
    assert geometry.coarse == (2,)
    assert tuple(image.shape) == (1, 10, 12, 10)
    plane = torch.from_numpy(given.image)
    for axis, (old, new) in {1: (8, 10), 2: (10, 12)}.items():
        plane = resample_axis(plane, axis, interpolation(old, new, "cubic"))
    torch.testing.assert_close(image, plane.repeat_interleave(2, dim=3))
    assert torch.equal(image[..., ::2], image[..., 1::2])
    label = preprocessor.label((given.image[0] > 0.5).astype(np.uint8), geometry, 2)
    assert torch.equal(label[..., ::2], label[..., 1::2])


def test_which_axes_are_coarse() -> None:
    assert coarse_axes([1, 1, 3], [1, 1, 1]) == ()
    assert coarse_axes([1, 1, 3.1], [1, 1, 1]) == (2,)
    assert coarse_axes([1, 1, 1], [4, 1, 1]) == (0,)
    assert coarse_axes([5, 5, 5], [1, 1, 1]) == ()


def test_resize_in_2d_equals_pil() -> None:
    given = Scan(np.random.default_rng(0).random((3, 40, 31), dtype=np.float32), np.eye(4), "px")
    image, geometry = Preprocessor(normalize=["none"] * 3, crop=False, resize=[24, 50])(given)
    assert geometry.shape == (24, 50)
    for channel, expected in zip(image, given.image, strict=True):
        resized = Image.fromarray(expected).resize((50, 24), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(channel, np.asarray(resized), atol=1e-5)


def test_a_smooth_function_of_the_world_is_the_same_on_the_network_grid() -> None:
    affine = np.array([[-0.9, 0.2, 0, 30], [0.1, 1.1, 0.1, -8], [0, -0.1, 1.6, 4], [0, 0, 0, 1]])

    def wave(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        x, y, z = np.tensordot(affine[:3, :3], np.indices(shape), 1) + affine[:3, 3].reshape(3, 1, 1, 1)
        return np.sin(x / 5) + np.cos(y / 6) * np.sin(z / 7)

    given = Scan(wave(affine, (40, 36, 24))[None].astype(np.float32), affine)
    image, geometry = Preprocessor(normalize=["none"], spacing=[1.4, 0.8, 1.0])(given)
    expected = wave(network_affine(geometry, affine), geometry.shape)
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(image[0].numpy()[inner], expected[inner], atol=0.02)  # half a voxel off would be 0.08


@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 2.5], [0.7, 1.3, 2.0], [2.0, 2.0, 2.0]])
def test_labels_there_and_back(spacing: list[float] | None) -> None:
    label = ball((40, 44, 20))
    affine = np.array([[0, 0, -2.0, 0], [1, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])
    given = Scan(label[None].astype(np.float32), affine)
    back = there_and_back(Preprocessor(normalize=["zscore"], spacing=spacing), given, label)
    for index in (1, 2):
        assert dice(back == index, label == index) > 0.92
    if spacing is None:
        assert np.array_equal(back, label)


def test_labels_there_and_back_in_2d() -> None:
    label = ball((50, 64))
    given = Scan(label[None].astype(np.float32), np.eye(4), "px")
    back = there_and_back(Preprocessor(normalize=["unit"], resize=[64, 40]), given, label)
    assert min(dice(back == index, label == index) for index in (1, 2)) > 0.92


def test_real_labels_there_and_back(real_data: Path) -> None:
    folder = real_data / "hippocampus"
    name = sorted(path.name for path in (folder / "labelsTr").glob("hippo*.nii.gz"))[0]
    file = nib.load(folder / "imagesTr" / name)
    given = Scan(file.get_fdata(dtype=np.float32)[None], file.affine)
    label = np.asarray(nib.load(folder / "labelsTr" / name).dataobj).astype(np.uint8)
    back = there_and_back(Preprocessor(normalize=["zscore"], spacing=[0.8, 1.2, 0.9]), given, label)
    assert min(dice(back == index, label == index) for index in (1, 2)) > 0.93


def test_label_takes_the_largest_share_and_the_lower_class_of_equals() -> None:
    given = scan(1, 4, 4)
    preprocessor = Preprocessor(normalize=["none"], resize=[2, 2], crop=False)
    _, geometry = preprocessor(given)
    label = np.array([[2, 2, 0, 0], [2, 2, 0, 0], [1, 1, 2, 2], [1, 1, 2, 2]], np.uint8)
    assert preprocessor.label(label, geometry, 3).tolist() == [[2, 0], [1, 2]]
    striped = np.array([[3, 1, 3, 1], [1, 3, 1, 3], [3, 1, 3, 1], [1, 3, 1, 3]], np.uint8)
    one = Preprocessor(normalize=["none"], resize=[1, 1], crop=False)
    assert one.label(striped, one(given)[1], 4).tolist() == [[1]]


def test_twice_is_the_same_and_the_input_stays() -> None:
    given = scan(2, 20, 24, 22)
    before = given.image.copy()
    given.image.setflags(write=False)
    preprocessor = Preprocessor(normalize=["zscore", "percentile"], spacing=[1.2, 0.9, 1.1], denoise="gaussian")
    first, geometry = preprocessor(given)
    second, again = Preprocessor(**json.loads(json.dumps(preprocessor.config)))(given)
    assert torch.equal(first, second)
    assert geometry == again
    assert np.array_equal(given.image, before)
    assert first.dtype == torch.float32
    assert first.is_contiguous()


def test_reversed_and_fortran_arrays() -> None:
    given = scan(1, 5, 6, 7)
    plain, _ = Preprocessor(normalize=["zscore"])(given)
    turned = np.asfortranarray(given.image[:, ::-1].copy())[:, ::-1]
    assert torch.equal(Preprocessor(normalize=["zscore"])(Scan(turned, given.affine))[0], plain)


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        (scan(2, 5, 5, 5), {"normalize": ["zscore"]}, r"2 channel\(s\) of shape \(5, 5, 5\), where 1 are expected"),
        (scan(1, 5, 5), {"normalize": ["zscore"], "spacing": [1.0, 1, 1]}, r"2D image of shape \(5, 5\), but spacing"),
        (scan(1, 5, 5, 5), {"normalize": ["zscore"], "resize": [4, 4, 4]}, "resize is for 2D images only"),
        (scan(5), {"normalize": ["zscore"]}, "expected channels and 2 or 3 spatial axes"),
        (
            Scan(np.full((1, 4, 5), 3, np.float32), np.eye(4)),
            {"normalize": ["unit"]},
            r"Constant image .*\(4, 5\), value 3:",
        ),
        (
            Scan(np.zeros((2, 4, 5), np.float32), np.eye(4)),
            {"normalize": ["none"] * 2},
            "value 0, 0: nothing to segment",
        ),
    ],
)
def test_scans_that_do_not_fit(given: Scan, settings: dict, message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        Preprocessor(**settings)(given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spacing": [1.0, 1.0], "resize": [4, 4]}, "give one of them"),
        ({"spacing": [1.0, 0.0]}, r"spacing=\[1.0, 0.0\]: every number must be above 0"),
        ({"normalize": ["minmax"]}, "'minmax' is not one of"),
        ({"denoise": "median", "denoise_strength": -1}, "denoise_strength=-1"),
    ],
)
def test_settings_that_do_not_fit(settings: dict, message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        Preprocessor(**{"normalize": ["zscore"], **settings})


@pytest.mark.parametrize("crop", [False, True])
def test_the_scan_stays_as_it_is(crop: bool) -> None:
    image = np.random.default_rng(0).random((1, 6, 7, 8), dtype=np.float32)
    given = Scan(image.copy(), np.eye(4))  # already as the network wants it: nothing to turn, crop or resample
    Preprocessor(normalize=["zscore"], crop=crop)(given)
    np.testing.assert_array_equal(given.image, image)


@pytest.mark.parametrize("size", [1000.0, 1e-6, 0.001])
def test_spacing_in_another_unit_is_refused(size):
    """Resampled, such scans would fill the memory, or become a single voxel."""
    with pytest.raises(MedsegError, match=r"Voxels of .* where the network works on 1 x 1 x 1.*another unit"):
        Preprocessor(spacing=[1, 1, 1], normalize=["none"])(scan(1, 20, 20, 20, spacing=(size, size, size)))


def test_a_network_grid_beyond_the_limit_is_refused():
    with pytest.raises(MedsegError, match=r"the network's grid .*\(1, 2000, 2000, 2000\), 32 GB.*read.max_gb=8"):
        Preprocessor(spacing=[1, 1, 1], normalize=["none"])(scan(1, 20, 20, 20, spacing=(100, 100, 100)))
