"""Checkpoints of every format that there has been are read for ever."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg import Predictor
from medseg.inference.checkpoint import FORMAT, read_checkpoint
from medseg.io.case import Scan

FOLDER = Path(__file__).parent / "checkpoints"


def picture():
    """What the masks beside the checkpoints were predicted from, by the version that wrote them."""
    rows, columns = np.mgrid[:40, :48]
    return (100 + 80 * np.sin(rows / 3) * np.cos(columns / 5)).astype(np.float32)


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_a_checkpoint_of_an_older_format_predicts_what_it_did(number):
    predictor = Predictor.load(FOLDER / f"format_{number}.ckpt", device="cpu", precision="fp32")
    mask = predictor(Scan(picture()[None], np.eye(4), unit="px"))
    with Image.open(FOLDER / f"format_{number}.png") as expected:
        assert np.mean(mask.indices != np.asarray(expected)) < 1e-3  # rounding differs between processors


def test_every_format_is_there():
    assert {path.name for path in FOLDER.glob("*.ckpt")} == {f"format_{n}.ckpt" for n in range(1, FORMAT + 1)}


def test_an_older_description_is_brought_up_to_date():
    checkpoint = read_checkpoint(FOLDER / "format_1.ckpt")
    assert checkpoint.label_map.regions is None
    assert checkpoint.content["config"]["plan"]["slice_axis"] is None
    assert checkpoint.content["config"]["dataset"] == {"name": "phantom", "geometry": "error", "reference": 0}
