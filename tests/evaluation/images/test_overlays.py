"""Overlays: where a marker of known world position is shown, in which colour, beside which letters."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from medseg.evaluation.images import overlays
from medseg.evaluation.images.overlays import GAP, MIN_HEIGHT, overlay
from medseg.io.case import Scan
from medseg.io.segments.terminology import PALETTE, colour

NAMES = ["background", "marker", "other"]
ALL = np.ones(3, np.bool_)
AXES = itertools.permutations(("RL", "AP", "SI"))
ORIENTATIONS = ["".join(codes) for axes in AXES for codes in itertools.product(*axes)]


def marked(axcodes: str = "RAS", degrees: float = 0.0) -> tuple[Scan, np.ndarray]:
    """A cube of 80 mm in voxels of 1 x 2 x 4 mm, stored in any orientation, with a marker off its centre.

    In shares of the cube's side the marker lies 1/4 from the patient's left, 1/8 from the front, 3/8 from the top.
    """
    affine = np.diag([1.0, 2.0, 4.0, 1.0])
    affine[:3, :3] = nib.eulerangles.euler2mat(np.deg2rad(degrees)) @ affine[:3, :3]
    indices = np.zeros((80, 40, 20), np.uint8)  # x to the patient's right, y to the front, z up
    indices[16:24, 33:37, 11:14] = 1
    image = np.random.default_rng(0).random(indices.shape).astype(np.float32) + indices
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axcodes))
    stored = nib.Nifti1Image(np.stack([image, indices], -1), affine).as_reoriented(turn)
    assert "".join(nib.aff2axcodes(stored.affine)) == axcodes
    image, indices = np.moveaxis(np.asarray(stored.dataobj), -1, 0)
    return Scan(image[None], stored.affine), indices.astype(np.uint8)


def places(picture: Image.Image, wanted: tuple[int, int, int]) -> list[tuple[float, float]]:
    """The centre (across, down) of a colour's pixels in each of three square panels, as shares of the side."""
    pixels = np.asarray(picture)[GAP : GAP + MIN_HEIGHT]
    centres = []
    for panel in range(3):
        left = GAP + panel * (MIN_HEIGHT + GAP)
        rows, columns = np.nonzero((pixels[:, left : left + MIN_HEIGHT] == wanted).all(-1))
        assert len(rows)
        across, down = (int(found.min() + found.max() + 1) / 2 for found in (columns, rows))
        centres.append((across / MIN_HEIGHT, down / MIN_HEIGHT))
    return centres


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "LIP", "SRA", "PIR"])
def test_marker_is_shown_in_radiological_convention(axcodes: str) -> None:
    scan, indices = marked(axcodes)
    axial, coronal, sagittal = places(overlay(scan, indices, NAMES), PALETTE[0])
    assert axial == pytest.approx((1 - 20 / 80, 1 - 70 / 80), abs=0.01)  # the patient's left on the right
    assert coronal == pytest.approx((1 - 20 / 80, 1 - 50 / 80), abs=0.01)
    assert sagittal == pytest.approx((1 - 70 / 80, 1 - 50 / 80), abs=0.01)  # anterior on the left


def test_every_orientation_gives_the_same_picture() -> None:
    def panels(axcodes: str) -> list[overlays.Panel]:
        scan, indices = marked(axcodes)
        return overlays._panels(scan, indices, indices)

    assert len(set(ORIENTATIONS)) == 48
    for axcodes in ORIENTATIONS:
        for shown, expected in zip(panels(axcodes), panels("RAS"), strict=True):
            np.testing.assert_array_equal(shown.pixels, expected.pixels, axcodes)
            np.testing.assert_array_equal(shown.indices, expected.indices, axcodes)
            assert shown.extent == pytest.approx(expected.extent)


def test_oblique_axes_are_shown_along_the_nearest() -> None:
    assert overlay(*marked("PIR", degrees=20), NAMES).tobytes() == overlay(*marked(), NAMES).tobytes()


def test_letters_stand_at_their_sides() -> None:
    scan, indices = marked()
    assert [panel.sides for panel in overlays._panels(scan, indices, indices)] == ["RLAP", "RLSI", "APSI"]
    for at, (row, column) in enumerate([(50, 10), (50, 90), (10, 50), (90, 50)]):  # left, right, top, bottom
        image = Image.new("RGB", (100, 100))
        overlays._letter(image, " " * at + "H")
        left, top, right, bottom = image.getbbox()
        assert ((top + bottom) / 2, (left + right) / 2) == pytest.approx((row, column), abs=5)


def corners(image: np.ndarray, indices: np.ndarray) -> list[float]:
    """The lowest value of each panel."""
    scan = Scan(image, np.eye(4))
    return [float(panel.pixels.min()) for panel in overlays._panels(scan, indices, np.zeros_like(indices))]


def test_slices_through_the_largest_part_are_shown_or_the_middle() -> None:
    image = np.arange(1000, dtype=np.float32).reshape(1, 10, 10, 10)  # counts i j k as decimals
    indices = np.zeros((10, 10, 10), np.uint8)
    assert corners(image, indices) == [4, 40, 400]
    indices[[7, 7, 6], [8, 7, 7], 8] = 2  # one part of three voxels, joined by an edge
    assert corners(image, indices) == [8, 70, 700]
    indices[::2, 0, 0] = indices[0, ::2, 0] = indices[0, 0, ::2] = 1  # scattered voxels, more of them
    assert corners(image, indices) == [8, 70, 700]


def test_the_largest_part_of_many_voxels_is_found_among_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlays, "THINNED", 1000)
    indices = np.zeros((50, 60, 70), np.uint8)
    indices[5:15, 5:15, 5:15] = 1
    indices[30:49, 30:55, 30:69] = 2
    assert all(30 <= at < 49 for at in overlays.largest_component(indices))
    indices[30:49] = 0
    assert all(5 <= at < 15 for at in overlays.largest_component(indices))
    sparse = np.zeros((50, 60, 70), np.uint8)
    sparse[1, 1, 1] = sparse[48, 58, 68] = 1  # too small to be met
    assert overlays.largest_component(sparse) in {(1, 1, 1), (48, 58, 68)}


def test_a_single_slice_is_shown_as_the_plane_it_lies_in() -> None:
    affine = np.diag([1.0, 2.0, 5.0, 1.0])
    for shape in ((60, 40), (60, 40, 1)):
        picture = overlay(Scan(np.ones((1, *shape), np.float32), affine), np.ones(shape, np.uint8), NAMES)
        assert picture.width == round(MIN_HEIGHT * 60 / 80) + 2 * GAP
        assert "".join(panel.sides for panel in overlays._panels(*_flat(shape, affine))) == "RLAP"


def _flat(shape: tuple[int, ...], affine: np.ndarray) -> tuple[Scan, np.ndarray, np.ndarray]:
    empty = np.zeros(shape, np.uint8)
    return Scan(np.ones((1, *shape), np.float32), affine), empty, empty


def test_a_picture_keeps_its_colours_and_takes_the_classes() -> None:
    image = np.broadcast_to(np.array([200.0, 100.0, 50.0], np.float32)[:, None, None], (3, 64, 128)).copy()
    indices = np.zeros((64, 128), np.uint8)
    indices[16:48, 64:112] = 1
    pixels = np.asarray(overlay(Scan(image, np.eye(4), "px"), indices, NAMES))[GAP : GAP + 512, GAP : GAP + 1024]
    np.testing.assert_array_equal(pixels[20, 20], [200, 100, 50])
    opacity = 0.35 + 0.2 * np.mean([200, 100, 50]) / 255
    filled = (1 - opacity) * np.array([200, 100, 50]) + opacity * np.array(PALETTE[0])
    np.testing.assert_allclose(pixels[256, 700], filled, atol=1)
    contour = (pixels == PALETTE[0]).all(-1)  # two pixels wide, inside the class
    assert contour[128:384, 512:896].sum() == contour.sum() == 256 * 384 - 252 * 380


@pytest.mark.parametrize("shape", [(8, 8), (3000, 100), (100, 3000), (1200, 1600)])
def test_size_stays_within_bounds(shape: tuple[int, int]) -> None:
    scan = Scan(np.zeros((1, *shape), np.float32), np.eye(4), "px")
    width, height = overlay(scan, np.zeros(shape, np.uint8), NAMES).size
    assert max(width, height) <= 1600
    assert max(width, height) >= 512


def test_dark_and_deep_images_are_windowed() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 16, 16)
    for values in (ramp * 1e-3, ramp * 4000 - 1000, np.round(ramp * 30)):
        pixels = np.asarray(overlay(Scan(values, np.eye(4), "px"), np.zeros((16, 16), np.uint8), NAMES))
        inside = pixels[GAP : GAP + 512, GAP : GAP + 512]
        assert inside.min() < 10
        assert inside.max() > 245


@pytest.mark.parametrize(("tissue", "window"), [(-700, (-1350, 150)), (50, (-160, 240)), (600, (-500, 1300))])
def test_ct_is_shown_in_the_window_of_the_finding(tissue: int, window: tuple[float, float]) -> None:
    image = np.linspace(-1000, 1000, 8**3, dtype=np.float32).reshape(1, 8, 8, 8)
    indices = np.zeros((8, 8, 8), np.uint8)
    indices[2:5, 2:5, 2:5] = 1
    image[0, 2:5, 2:5, 2:5] = tissue
    panels = overlays._panels(Scan(image, np.eye(4)), indices, np.zeros_like(indices))
    assert overlays._window(panels, "mm") == window
    for panel in panels:
        panel.indices[:] = 0
    assert overlays._window(panels, "mm") == (-160, 240)


def test_truth_is_a_white_dashed_line_where_it_belongs() -> None:
    scan = Scan(np.full((1, 64, 64), 90, np.float32), np.eye(4), "px")
    truth = np.zeros((64, 64), np.uint8)
    truth[16:48, 16:48] = 2
    picture = overlay(scan, np.zeros_like(truth), NAMES, truth)
    white = (np.asarray(picture)[GAP : GAP + 512, GAP : GAP + 512] == 255).all(-1)
    line = np.zeros_like(white)
    line[128:384, 128:384] = True
    line[130:382, 130:382] = False
    assert not (white & ~line).any()
    assert 0.4 < white[line].mean() < 0.6


@pytest.mark.parametrize("grey", [0, 90, 255])
def test_classes_and_truth_are_seen_on_dark_and_on_bright_images(grey: int) -> None:
    """Each differs from the image by a quarter of full light in some colour: fill, rim or contour, and dashes."""
    scan = Scan(np.broadcast_to(np.float32(grey), (1, 64, 64)).copy(), np.eye(4), "px")
    scan.image[0, 0, :2] = 0, 255  # so that the window is that of a well exposed picture
    predicted, truth = np.zeros((2, 64, 64), np.uint8)
    predicted[32:48, 8:24], truth[32:48, 40:56] = 1, 1
    pixels = np.asarray(overlay(scan, predicted, NAMES, truth))[GAP : GAP + 512, GAP : GAP + 512].astype(int)
    contrast = np.abs(pixels - grey).max(-1)
    assert contrast[264:376, 72:184].min() >= 64  # the fill
    assert max(contrast[300, 63], contrast[300, 64]) >= 100  # the rim beside the class, or its contour
    line = contrast[256:258, 320:448]
    assert line.max() >= 128
    assert (line >= 28).mean() > 0.4


def test_legend_names_what_is_there_with_its_size() -> None:
    scan, indices = marked()  # 8 x 4 x 3 voxels of 8 mm³
    assert overlays._legend(scan, np.bincount(indices.ravel()), None, NAMES, ALL) == [(PALETTE[0], "marker: 0.768 ml")]
    against = overlays._legend(scan, np.array([9]), np.array([9, 0, 1000]), NAMES, ALL)
    assert against == [(PALETTE[1], "other: 0.000 ml (reference 8.0 ml)"), ((255, 255, 255), "dashed: reference")]
    pixels = Scan(np.zeros((1, 4, 4), np.float32), np.eye(4), "px")
    found = overlays._legend(pixels, np.array([0, 1234, 5]), None, ["background", "Läsion", "肿瘤"], ALL)
    assert [text for _, text in found] == ["Lasion: 1,234 px", "class 2: 5 px"]  # Pillow's font has only ASCII
    assert overlays._legend(pixels, np.array([16]), None, NAMES, ALL) == [((255, 255, 255), "no foreground")]


def test_a_long_legend_stays_on_the_canvas() -> None:
    names = ["background", *(f"structure number {index} with a rather long name" for index in range(1, 118))]
    indices = np.arange(118, dtype=np.uint8).reshape(2, 59).repeat(4, 0)
    picture = overlay(Scan(np.zeros((1, 8, 59), np.float32), np.eye(4), "px"), indices, names)
    assert all(x + 15 < picture.width for x, _ in overlays._flow(names[1:], picture.width))
    assert (np.asarray(picture)[-GAP // 2 :] == overlays.CANVAS).all()  # the last line ends above the lower margin


def test_a_legend_of_several_lines_stands_in_columns_and_does_not_overlap() -> None:
    texts = [f"class {'x' * (index % 5)}: {index} ml" for index in range(30)]
    places = overlays._flow(texts, 700)
    widest = max(overlays._font().getlength(text) for text in texts)
    across = sorted({x for x, _ in places})
    assert len(across) == 700 // (15 + 3 * GAP + widest)
    assert np.diff(across).min() >= 15 + GAP + widest
    assert len(set(places)) == 30


def _seen(colours: tuple[tuple[int, int, int], ...], deficiency: np.ndarray) -> np.ndarray:
    """CIE Lab of colours under a colour vision deficiency (Machado et al., IEEE TVCG 15, 2009, severity 1)."""
    srgb = np.array(colours) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ deficiency.T, 0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize(
    "deficiency",
    [
        np.eye(3),
        np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),  # protanopia
        np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),  # deuteranopia
    ],
)
def test_palette_is_distinct_for_every_eye(deficiency: np.ndarray) -> None:
    lab = _seen(PALETTE, deficiency)
    apart = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1000 * np.eye(len(lab))
    assert len(PALETTE) >= 20
    assert apart.min() > 12
    assert apart[:8, :8].min() > 15  # the seven of Okabe and Ito and one more


def test_colours_go_on_past_the_palette() -> None:
    many = [colour(index) for index in range(1, 256)]
    assert tuple(many[: len(PALETTE)]) == PALETTE
    assert len(set(many)) == 255
    assert all(0 <= value <= 255 for rgb in many for value in rgb)


def test_the_truth_chooses_the_view_and_what_is_not_annotated_is_said() -> None:
    shape = (20, 20, 20)
    truth, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    truth[4, 5, 6] = 1
    prediction[10:18, 10:18, 10:18] = 2  # much larger, and elsewhere
    panels = overlays._panels(Scan(np.zeros((1, *shape), np.float32), np.eye(4)), prediction, truth)
    assert [int(panel.reference.any()) for panel in panels] == [1, 1, 1]
    found, true, annotated = np.array([0, 0, 512]), np.array([7999, 1]), np.array([True, True, False])
    scan = Scan(np.zeros((1, *shape), np.float32), np.eye(4))
    legend = overlays._legend(scan, found, true, ["b", "one", "two"], annotated)
    assert legend[0][1] == "two: 0.512 ml (reference not annotated)"


def test_truth_that_does_not_tell_is_not_drawn() -> None:
    scan, truth = Scan(np.zeros((1, 40, 40), np.float32), np.eye(4), "px"), np.zeros((40, 40), np.uint8)
    empty = overlay(scan, truth, ["b", "one", "two"], truth)
    truth[5:20, 5:20], truth[25:35, 25:35] = 2, 255  # 255: unknown voxels
    assert overlay(scan, np.zeros_like(truth), ["b", "one", "two"], truth, np.array([True, True, False])) == empty
    assert overlay(scan, np.zeros_like(truth), ["b", "one", "two"], truth) != empty
