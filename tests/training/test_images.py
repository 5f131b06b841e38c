"""Pictures of validation cases: which are drawn, and that what is shown is the scan."""

from concurrent.futures import Future
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from scipy.ndimage import gaussian_filter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medseg.evaluation.metrics.overlap import dice
from medseg.evaluation.statistics.means import mean_of_defined
from medseg.io.case import Scan
from medseg.io.labels import LabelMap
from medseg.preprocessing.geometry import Geometry
from medseg.preprocessing.preprocessor import Preprocessor
from medseg.training.callbacks.progress import Progress
from medseg.training.images import SIDE, CaseImages, captioned, choose, drawn, native, scan_of, upright
from medseg.training.trackers import TensorBoard
from medseg.training.trackers.tracker import Trackers

LABELS = LabelMap({"background": 0, "lesion": 1, "cyst": 2})


def case_file(path, foreground):
    torch.save({"locations": [torch.zeros(0, 3), torch.zeros(foreground, 3)]}, path)
    return path


def test_cases_are_chosen_evenly_among_those_with_foreground(tmp_path):
    files = [case_file(tmp_path / f"{place}.pt", place % 2) for place in range(11)]
    assert choose(files, 3) == [1, 5, 9]  # of 1, 3, 5, 7, 9
    assert choose(files, 9) == [1, 3, 5, 7, 9]
    assert choose(files[::2], 3) == [0, 2, 5]  # none has any


def test_the_dice_of_a_case_is_the_mean_of_its_classes():
    counts = np.array([[3, 4, 6], [0, 0, 0], [0, 5, 0]])  # 0.6, undefined, 0
    assert mean_of_defined(dice(counts)) == pytest.approx(0.3)
    assert np.isnan(mean_of_defined(dice(counts[1:2])))


def scan_in(axcodes, spacing):
    """A smooth scan with a lesion near the patient's left front top, stored along the given axes."""
    rng = np.random.default_rng(0)
    shape = (40, 48, 24)
    image = gaussian_filter(rng.standard_normal(shape), 3).astype(np.float32)
    truth = np.zeros(shape, np.uint8)
    truth[4:12, 30:44, 16:22] = 1
    affine = nib.affines.from_matvec(np.diag(spacing), [-20, 30, 5])
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axcodes))
    stored = nib.Nifti1Image(np.stack([image, truth], -1), affine).as_reoriented(turn)
    image, truth = np.moveaxis(np.asarray(stored.dataobj), -1, 0)
    return Scan(image[None].astype(np.float32), stored.affine), truth.astype(np.uint8)


def prepared(scan, truth, spacing):
    preprocessor = Preprocessor(
        spacing=spacing, resize=None, crop=False, normalize=["zscore"], window=None, denoise=None, denoise_strength=1.0
    )
    image, geometry = preprocessor(scan)
    return {
        "image": image,
        "truth": torch.from_numpy(truth),
        "annotated": torch.tensor([True, True, False]),
        "geometry": geometry.to_dict(),
        "spacing": list(scan.spacing),
        "unit": scan.unit,
    }


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SLA", "IPR"])
def test_the_shown_scan_is_the_native_one(axcodes):
    scan, truth = scan_in(axcodes, (1.0, 1.5, 2.0))
    shown = scan_of(prepared(scan, truth, [1.2, 1.2, 1.2]))
    assert shown.image.shape == scan.image.shape
    assert np.corrcoef(shown.image.ravel(), scan.image.ravel())[0, 1] > 0.95
    np.testing.assert_allclose(shown.affine[:3, :3], scan.affine[:3, :3], atol=1e-6)


def test_what_was_cropped_away_is_dark():
    geometry = Geometry((6, 5), (0, 1), (False, False), ((2, 6), (0, 5)), (4, 5))
    image = torch.arange(40, dtype=torch.float32).reshape(2, 4, 5)
    found = native(image, geometry)
    np.testing.assert_array_equal(found[:, 2:], image)
    np.testing.assert_array_equal(found[:, :2], np.broadcast_to(image.amin((1, 2))[:, None, None], (2, 2, 5)))


def test_a_picture_is_not_turned():
    geometry = Geometry((6, 5), (0, 1), (False, False), ((0, 6), (0, 5)), (6, 5))
    np.testing.assert_array_equal(upright(geometry, [1.0, 1.0], "px"), np.eye(4))


def test_a_picture_is_small_and_names_the_case():
    scan, truth = scan_in("RAS", (1.0, 1.0, 3.0))
    picture = drawn(prepared(scan, truth, [1.0, 1.0, 3.0]), truth, LABELS)
    assert picture.width <= 3 * SIDE + 100
    named = captioned(picture, "Müller 心: Dice 0.5000")
    band = np.asarray(named)[: named.height - picture.height]
    assert (band > 200).any()
    np.testing.assert_array_equal(np.asarray(named)[len(band) :], np.asarray(picture))


def test_classes_that_nobody_looked_for_have_no_truth():
    scan, truth = scan_in("RAS", (1.0, 1.0, 3.0))
    case = prepared(scan, truth, [1.0, 1.0, 3.0])
    empty = np.zeros_like(truth)
    told = SimpleNamespace(**case)
    with_truth = drawn(case, empty, LABELS)
    cyst = drawn(case | {"truth": told.truth * 2}, empty, LABELS)  # cysts are not annotated
    assert (np.asarray(with_truth) == 255).all(-1).sum() > (np.asarray(cyst) == 255).all(-1).sum()


class Watched:
    """As much of a Trainer as a validation of three cases takes, on a clock that the test turns."""

    def __init__(self, folder):
        self.progress = Progress(max_steps=100, max_seconds=None, clock=lambda: self.now)
        self.pictures = CaseImages(["a", "b", "c"], LABELS, self.progress)
        self.now, self.global_step, self.current_epoch, self.global_rank, self.is_global_zero = 0.0, 0, 0, 0, True
        self.logger = Trackers({"tensorboard": TensorBoard(str(folder))})
        self.datamodule = SimpleNamespace(val_files=[folder / f"{place}.pt" for place in range(3)], validated=[0, 1, 2])
        self.strategy = SimpleNamespace(broadcast=lambda value: value)
        self.progress.start()
        for path in self.datamodule.val_files:
            scan, truth = scan_in("RAS", (1.0, 1.0, 3.0))
            self.truth = truth
            locations = [torch.from_numpy(np.argwhere(truth == 1)), torch.zeros(0, 3)]
            torch.save(prepared(scan, truth, [1.0, 1.0, 3.0]) | {"locations": locations}, path)

    def validate(self, step, now, scores):
        """A validation at a step and a time, with a Dice for each case; return whether it was drawn."""
        self.global_step, self.now, self.progress.current = step, now, step / 100
        counts = {i: np.array([[s, 100, 100]] if s is not None else [[0, 0, 0]]) for i, s in enumerate(scores)}
        module = SimpleNamespace(case_counts=counts)
        self.pictures.on_validation_start(self, module)
        for index in range(3):
            predicted = Future()
            predicted.set_result(self.truth)
            self.pictures.on_validation_batch_end(self, module, {"predicted": predicted}, {"index": index}, index)
        self.pictures.on_validation_epoch_end(self, module)
        return self.pictures.is_due


@pytest.fixture
def watched(tmp_path):
    """A training that is watched; its logger's thread ends before its folder is gone."""
    training = Watched(tmp_path)
    logger = training.logger
    yield training
    logger.finalize("success")


def test_drawing_takes_its_share_of_the_time_and_the_last_validation_is_drawn(watched):
    assert watched.validate(10, 1.0, [50, 60, 70])
    watched.pictures.seconds = 2.0  # 1 % of 200 seconds
    assert not watched.validate(20, 150.0, [50, 60, 70])
    assert watched.validate(30, 201.0, [50, 60, 70])
    watched.pictures.seconds = 1000.0
    assert watched.validate(100, 202.0, [50, 60, 70])
    assert not watched.validate(100, 1e9, [50, 60, 70])  # no further part of the run


def test_the_worst_case_is_named_at_every_validation(watched, tmp_path):
    watched.validate(10, 1.0, [50, 40, None])
    watched.pictures.seconds = 1000.0
    watched.validate(20, 2.0, [None, None, 70])  # not drawn
    watched.validate(30, 3.0, [None, None, None])  # nothing anywhere
    watched.logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    told = [(event.step, event.tensor_proto.string_val[0]) for event in events.Tensors("worst case/text_summary")]
    assert told == [(10, b"b: Dice 0.4000 (epoch 1)"), (20, b"c: Dice 0.7000 (epoch 1)")]
    assert {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]} == {
        "cases/a": [10],
        "cases/b": [10],
        "cases/c": [10],
        "worst case": [10],
    }


def test_without_trackers_that_take_images_nothing_is_drawn(watched, tmp_path):
    watched.logger = Trackers({"csv": CSVLogger(tmp_path)})
    assert not watched.validate(100, 1.0, [50, 60, 70])
    assert not watched.pictures.drawings
