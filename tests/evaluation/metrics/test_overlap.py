"""Dice and IoU against hand-computed numbers and against MONAI."""

import numpy as np
import pytest
import torch

from medseg.evaluation.metrics.overlap import CHUNK, counts, dice, iou


def test_numbers_computed_by_hand() -> None:
    prediction = np.array([[0, 1, 1], [0, 2, 0]], np.uint8)
    truth = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)
    found = counts(prediction, truth, 4)
    assert found.dtype == np.int64
    assert found.tolist() == [[2, 3, 3], [1, 2, 3], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(dice(found), [4 / 6, 2 / 5, 0, np.nan])
    np.testing.assert_allclose(iou(found), [2 / 4, 1 / 4, 0, np.nan])


def test_unions_and_unknown_voxels_by_hand() -> None:
    prediction = np.array([1, 2, 2, 0, 3, 1], np.uint8)
    truth = np.array([2, 2, 0, 1, 255, 255], np.uint8)  # the last two are unknown, whatever was predicted there
    found = counts(prediction, truth, 4, [(1, 2), (2,), (1, 2, 3)])
    assert found.tolist() == [[2, 3, 3], [1, 2, 2], [2, 3, 3]]
    assert counts(prediction, truth, 4).tolist() == [[0, 1, 1], [0, 1, 1], [1, 2, 2], [0, 0, 0]]


def test_agrees_with_monai_on_random_masks() -> None:
    from monai.metrics import compute_dice, compute_iou

    rng = np.random.default_rng(0)
    for trial in range(60):
        shape = (7, 9) if trial % 2 else (5, 6, 7)
        n_classes = int(rng.integers(2, 6))  # few voxels and a rare foreground: many masks are empty
        rare = [0.97, *[0.03 / (n_classes - 1)] * (n_classes - 1)]
        prediction, truth = (rng.choice(n_classes, size=shape, p=rare).astype(np.uint8) for _ in range(2))
        one_hot = [torch.from_numpy(np.moveaxis(np.eye(n_classes)[x], -1, 0))[None] for x in (prediction, truth)]
        found = counts(prediction, truth, n_classes)
        both = (found[:, 1] + found[:, 2]) > 0
        for ours, theirs in ((dice, compute_dice), (iou, compute_iou)):
            reference = theirs(*one_hot, include_background=True, ignore_empty=False)[0].numpy()
            np.testing.assert_allclose(ours(found)[both], reference[both], rtol=1e-6)
            assert np.isnan(ours(found)[~both]).all()


def test_mean_over_cases_agrees_with_monais_metric() -> None:
    from monai.metrics import DiceMetric

    rng = np.random.default_rng(1)
    masks = rng.integers(0, 3, (2, 10, 8, 8)).astype(np.uint8)
    scores = dice(np.stack([counts(prediction, truth, 3) for prediction, truth in zip(*masks, strict=True)]))
    metric = DiceMetric(include_background=True, reduction="mean_batch")
    metric(*(torch.from_numpy(np.moveaxis(np.eye(3)[mask], -1, 1)) for mask in masks))
    np.testing.assert_allclose(scores.mean(0), metric.aggregate().numpy(), rtol=1e-6)


def test_leading_axes_are_independent() -> None:
    many = np.random.default_rng(2).integers(1, 9, (4, 5, 3, 3)) * [1, 9, 9]
    np.testing.assert_array_equal(dice(many)[2, 3], dice(many[2, 3]))
    np.testing.assert_array_equal(iou(many)[2, 3], iou(many[2, 3]))


def test_chunks_and_memory_order_do_not_change_the_counts() -> None:
    rng = np.random.default_rng(3)
    prediction, truth = rng.integers(0, 3, (2, CHUNK // 1000, 1001, 3)).astype(np.uint8)
    overlap = [((prediction == k) & (truth == k)).sum() for k in range(3)]
    sizes = [[(mask == k).sum() for k in range(3)] for mask in (prediction, truth)]
    np.testing.assert_array_equal(counts(prediction, np.asfortranarray(truth), 3).T, [overlap, *sizes])


def test_many_classes_keep_apart() -> None:
    indices = np.arange(118, dtype=np.uint8)
    np.testing.assert_array_equal(counts(indices, indices, 118), np.ones((118, 3)))


def test_what_cannot_be_compared_is_refused() -> None:
    empty = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match="differ in shape"):
        counts(empty, empty.T, 2)
    with pytest.raises(ValueError, match="class index 2 found"):
        counts(empty, empty + np.uint8(2), 2)
