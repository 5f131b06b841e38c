"""Every block of Python in README and documentation works as it stands, one after the other."""

import nibabel
import numpy as np
import page_data
import pytest
from PIL import Image
from untrained_model import write_model
from written_code import PAGES, ROOT, blocks

import medseg

ELSEWHERE = {
    "docs/how-to/export.md": "tests/inference/test_onnx.py",
    "docs/how-to/own-network.md": "tests/models/test_own_network.py",
}
"""Pages whose blocks are run by tests of their own."""

BLOCKS = [
    pytest.param(block.code, id=str(block))
    for page in PAGES
    for block in blocks(page, "python")
    if block.page not in ELSEWHERE
]


def test_blocks_that_are_run_elsewhere_are():
    for page, test in ELSEWHERE.items():
        assert page.removeprefix("docs/") in (ROOT / test).read_text("utf-8")


@pytest.fixture(scope="session")
def scans(trained_here):
    """Nuclei as a folder, two channels of a brain with a model for them, and the data that pages name."""
    rng = np.random.default_rng(0)
    for number in range(8):
        mask = np.zeros((64, 64), np.uint8)
        mask[10 + number : 40, 20:50] = 255
        for name, pixels in (("images", mask // 2 + rng.integers(0, 99, mask.shape, np.uint8)), ("masks", mask)):
            (trained_here / "nuclei" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(trained_here / "nuclei" / name / f"{number}.png")
    for name in ("flair", "t1"):
        image = nibabel.Nifti1Image(rng.normal(size=(9, 8, 7)).astype(np.float32), np.diag([1.0, -1.0, 2.5, 1.0]))
        nibabel.save(image, trained_here / f"{name}.nii.gz")
    write_model(trained_here / "outputs" / "brain" / "checkpoints" / "best.ckpt", dims=3, channels=2)
    page_data.write_pictures(trained_here / "data" / "cells", trained_here / "data" / "new_cells")
    page_data.write_volumes(trained_here / "data" / "heart", trained_here / "data" / "new_hearts")
    write_model(trained_here / "runs" / "heart" / "checkpoints" / "best.ckpt", dims=3, channels=1)
    return trained_here


SHORT = {"trainer": {"max_epochs": 1, "steps_per_epoch": 2, "accelerator": "cpu"}, "model": {"depth": 2}}
"""Settings of a training of seconds, in the place of those that a page gives."""


@pytest.mark.parametrize("code", BLOCKS)
def test_a_block_works_as_it_stands(code, scans, here, monkeypatch):
    train = medseg.train
    monkeypatch.setattr(medseg, "train", lambda data, **settings: train(data, **settings | SHORT), raising=False)
    exec(code, {})
