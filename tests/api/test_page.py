"""Every block of docs/how-to/python.md and of the README's part on Python works as it stands."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from untrained_model import write_model

import medseg

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


PAGES = [
    pytest.param(page, code, id=f"{page}-{n}")
    for page in ("README.md", "docs/how-to/python.md")
    for n, code in enumerate(blocks(page))
]


@pytest.fixture(scope="session")
def scans(trained_here) -> Path:
    """Nuclei as a folder of images and masks, and two channels of a brain with a model for them, beside the rest."""
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
    return trained_here


@pytest.mark.parametrize(("page", "code"), PAGES)
def test_a_block_works_as_it_stands(page, code, scans, here, monkeypatch):
    train = medseg.train
    short = {"trainer": {"max_epochs": 1, "steps_per_epoch": 2, "accelerator": "cpu"}, "model": {"depth": 2}}
    monkeypatch.setattr(medseg, "train", lambda data, **settings: train(data, **short), raising=False)
    exec(code, {})
