"""What a second stage makes of the result of a first one: channels on its own grid, or the region to work in."""

from types import SimpleNamespace

import numpy as np
import torch

from medseg.inference.first_stage import SecondStage
from medseg.io.case import Scan
from medseg.io.labels import LabelMap
from medseg.preprocessing.preprocessor import Preprocessor

TURNED = np.array([[0, 0, -1.5, 20], [1.0, 0, 0, 3], [0, -2.0, 0, 9], [0, 0, 0, 1]])  # to A, -S and -R
SHAPE = (24, 20, 28)


def blob(start, stop):
    """A scan of small values with a box of ones, from ``start`` to ``stop`` in its own voxels, and the box."""
    image = np.random.default_rng(0).uniform(0.01, 0.1, SHAPE).astype(np.float32)
    where = np.zeros(SHAPE, bool)
    where[tuple(slice(*span) for span in zip(start, stop, strict=True))] = True
    image[where] = 1
    return Scan(image[None], TURNED), where


class Bright:
    """A first stage that finds what is bright, on a grid of 3 mm."""

    hashes = ("bright",)
    label_map = LabelMap({"background": 0, "bright": 1})

    def __call__(self, scan):
        image, geometry = Preprocessor(normalize=["none"], spacing=[3.0, 3.0, 3.0])(scan)
        found = (image > 0.5).float()
        return torch.cat([1 - found, found]), geometry


def second_stage(use, **options):
    return SecondStage(
        **{"normalize": ["none"], "margin": 0.0, "least": [1, 1, 1], "first": Bright(), "use": use, **options}
    )


def test_channels_lie_where_the_image_shows_what_they_are_of():
    scan, _ = blob((3, 4, 5), (15, 13, 21))
    image, geometry = second_stage("channels", spacing=[1.0, 1.0, 1.0])(scan)
    assert image.shape == (2, *geometry.shape)
    there, found = image[0] > 0.5, image[1] > 0.5
    assert 2 * (there & found).sum() / (there.sum() + found.sum()) > 0.85
    assert image[1].min() >= 0
    assert image[1].max() <= 1


def test_a_region_is_the_box_of_what_was_found_with_its_margin():
    scan, where = blob((6, 4, 8), (12, 12, 18))
    whole, full = Preprocessor(normalize=["none"])(scan)
    image, geometry = second_stage("region", margin=3.0)(scan)
    inside = tuple(slice(*span) for span in geometry.crop)
    assert torch.equal(image, whole[(slice(None), *inside)])  # no other values than without a region
    assert geometry.shape == tuple(stop - start for start, stop in geometry.crop)
    labels = torch.from_numpy(where.astype(np.uint8))[None]
    assert geometry.cut(labels).sum() == where.sum()
    # 3 mm of margin, and one coarse voxel of 3 mm whose edges lie up to half a voxel beside the box's
    box = full.cut(labels)[0].nonzero()
    for axis, step in enumerate((1.5, 1.0, 2.0)):
        first, last = int(box[:, axis].min()), int(box[:, axis].max()) + 1
        start, stop = geometry.crop[axis]
        assert 3 <= (first - start) * step <= 9
        assert 3 <= (stop - last) * step <= 9


def test_labels_come_back_from_a_region_to_their_place():
    scan, where = blob((6, 4, 8), (12, 12, 18))
    preprocessor = second_stage("region", margin=6.0)
    image, geometry = preprocessor(scan)
    label = preprocessor.label(where.astype(np.uint8), geometry, 2)
    assert torch.equal(label, (image[0] > 0.5).to(torch.uint8))
    probs = torch.stack([1.0 - label, label.float()])
    slabs = [slab for _, slab in geometry.slabs(geometry.in_one_block(probs), torch.tensor([1.0, 0.0]))]
    assert np.array_equal(torch.cat(slabs, -1).argmax(0).numpy(), where)


def test_a_region_is_no_smaller_than_a_patch_and_stays_in_the_scan():
    scan, _ = blob((0, 0, 0), (4, 4, 4))
    image, geometry = second_stage("region", spacing=[1.0, 1.0, 1.0], least=[16, 12, 30])(scan)
    assert all(size >= least for size, least in zip(image.shape[1:], [16, 12, 30], strict=True))
    assert all(size < 42 for size in image.shape[1:])
    assert all(0 <= start < stop for start, stop in geometry.crop)
    whole, _ = second_stage("region", least=[99, 99, 99])(scan)
    assert whole.shape[1:] == (28, 24, 20)


def test_where_nothing_is_found_the_whole_scan_is_worked_on_and_the_log_says_so(caplog):
    scan = Scan(blob((0, 0, 0), (1, 1, 1))[0].image.clip(0, 0.2), TURNED, layout=SimpleNamespace(path="a.nii"))
    image, geometry = second_stage("region")(scan)
    expected, whole = Preprocessor(normalize=["none"])(scan)
    assert torch.equal(image, expected)
    assert geometry == whole
    assert caplog.messages == ["a.nii: the first stage found nothing in it; the whole scan is worked on"]


def test_normalisation_does_not_depend_on_the_region():
    scan, _ = blob((6, 4, 8), (12, 12, 18))
    whole, _ = Preprocessor(normalize=["zscore"])(scan)
    image, geometry = second_stage("region", normalize=["zscore"])(scan)
    assert torch.equal(image, whole[(slice(None), *(slice(*span) for span in geometry.crop))])


def test_models_and_settings_of_a_first_stage_are_part_of_the_caches_key():
    one, other = second_stage("channels"), second_stage("channels", margin=1.0)
    assert one.config["first_stage"]["models"] == ("bright",)
    assert one.config != other.config
    added = [each.added_channels for each in (one, second_stage("region"), Preprocessor(normalize=["none"]))]
    assert added == [1, 0, 0]
