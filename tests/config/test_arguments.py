"""Checking arguments against the declarations in a signature."""

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.training.losses import CenterlineDiceLoss, DiceLoss, FocalLoss


@pytest.mark.parametrize("gamma", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), 1])
def test_numbers_of_other_packages_are_numbers(gamma):
    assert FocalLoss(gamma=gamma).gamma == gamma


def test_none_is_only_taken_where_it_means_something():
    assert DiceLoss(class_weights=None).class_weights is None
    with pytest.raises(MedsegError, match="gamma of FocalLoss is None; allowed: a number"):
        FocalLoss(gamma=None)
    with pytest.raises(MedsegError, match=r"iterations of CenterlineDiceLoss is 1\.5; allowed: a whole number"):
        CenterlineDiceLoss(iterations=1.5)
