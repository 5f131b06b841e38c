"""Checkpoints of every format that there has been are read for ever."""

from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg import Predictor
from medseg.errors import MedsegError
from medseg.inference.checkpoint import FORMAT, read_checkpoint
from medseg.inference.loading import read_models
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


def places(node, before=()):
    """The path of every value of nested containers, the containers' own among them."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from places(value, (*before, key))


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_a_description_of_which_any_part_is_damaged_is_read_or_refused(tmp_path, number):
    raw = torch.load(FOLDER / f"format_{number}.ckpt", weights_only=True)
    path = tmp_path / "damaged.ckpt"
    for *parents, last in places(raw["medseg"]):
        for value in ({}, None) if number == FORMAT else ({},):
            description = deepcopy(raw["medseg"])
            node = description
            for key in parents:
                node = node[key]
            node[last] = value
            torch.save({**raw, "medseg": description}, path)
            with suppress(MedsegError):
                read_models(path)
