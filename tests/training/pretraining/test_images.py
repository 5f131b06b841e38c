"""What is drawn of a reconstruction."""

import numpy as np
import pytest
import torch

from medseg.training.pretraining.images import GAP, drawn, middle_slice
from medseg.training.pretraining.module import Shown


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 5)])
def test_a_row_shows_the_patch_what_was_seen_and_the_hidden_part_reconstructed(shape):
    image = torch.zeros(1, 1, *shape)
    image[:, :, :4] = 1
    hidden = torch.zeros_like(image, dtype=torch.bool)
    hidden[:, :, :, :4] = True
    output = torch.full_like(image, 0.5)
    picture = drawn(Shown(image, torch.where(hidden, 0.0, image), output, hidden), None)
    side = (picture.shape[1] - 2 * GAP) // 3
    assert picture.shape == (side, 3 * side + 2 * GAP)
    whole, seen, mended = (picture[:, place * (side + GAP) :][:, :side] for place in range(3))
    assert [np.unique(part).tolist() for part in (whole, seen, mended)] == [[0, 255], [0, 255], [0, 127, 255]]
    assert (whole == 255).mean() == 0.5
    assert (seen == 255).mean() == 0.25
    assert (mended == 127).mean() == 0.5


def test_slices_are_axial_with_the_front_up_or_those_of_a_2d_network():
    volume = np.arange(24).reshape(2, 3, 4)
    axial = middle_slice(volume, None)
    assert axial.shape == (3, 2)
    assert axial[0].tolist() == volume[:, 2, 2].tolist()  # the top row is the frontmost
    assert middle_slice(volume, 0).shape == (4, 3)
