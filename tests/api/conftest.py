"""A folder in which the examples of the docstrings and of the documentation run: with a trained run and a few scans."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medseg
from medseg.jobs.evaluate import compare, scoring

SMALL = {
    "trainer": {"max_epochs": 1, "steps_per_epoch": 2, "accelerator": "cpu"},
    "model": {"depth": 2, "base_channels": 4},
}
"""Settings of a training of a second."""


@pytest.fixture(scope="session")
def trained_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    before = Path.cwd()
    os.chdir(folder)
    try:
        phantom = medseg.open_dataset("phantom", dims=2, cases=10, size=64)
        medseg.train(phantom, run_dir="outputs/nuclei", **SMALL)
        pixels = np.clip(phantom[0].image[0], 0, 255).astype(np.uint8)
        (folder / "scans").mkdir()
        for name in ("scan.png", "scans/a.png", "scans/b.png"):
            Image.fromarray(pixels).save(name)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained_here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in that folder, without the tables that are printed."""
    monkeypatch.chdir(trained_here)
    for job in (scoring, compare):
        monkeypatch.setattr(job, "print_tables", lambda tables, console: None)
    return trained_here
