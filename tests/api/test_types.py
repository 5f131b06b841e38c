"""A user's file: pytest runs it, and ``make check`` has mypy read it by its strict rules."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import medseg


def volumes(run: medseg.Run, scans: list[Path]) -> Iterator[dict[str, int]]:
    predictor = assert_type(run.predictor(device="cpu"), medseg.Predictor)
    for mask in predictor.many(scans):
        yield assert_type(mask.voxels, dict[str, int])


def learn(data: medseg.Dataset, network: torch.nn.Module) -> float:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = torch.zeros(())
    for batch in medseg.patches(data, trainer={"steps_per_epoch": 2, "accelerator": "cpu"}):
        loss = torch.nn.functional.cross_entropy(network(batch["image"]), batch["label"][:, 0], ignore_index=255)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return loss.item()


def test_a_typed_session(here: Path) -> None:
    data = medseg.open_dataset("phantom", dims=2, cases=10, size=64)
    assert learn(data, torch.nn.Conv2d(1, 4, 3, padding=1)) > 0
    run = assert_type(medseg.Run.open("outputs/nuclei"), medseg.Run)
    assert len(list(volumes(run, [here / "scan.png", here / "scan.png"]))) == 2
    assert assert_type(run.score, float | None) is not None
    predictor = run.predictor()
    for scan in ("scan.png", [here / "scan.png"], data[0].image, torch.from_numpy(data[0].image)):
        assert assert_type(predictor(scan), medseg.Mask).indices.shape == (64, 64)
    assert_type(predictor.probabilities("scan.png"), NDArray[np.float32])
    report = assert_type(medseg.evaluate(run, subset="val"), medseg.Report)
    assert_type(report.mean["dice"], float | None)
    assert_type(report.rows[0], dict[str, Any])
    case = assert_type(data[0], medseg.LabelledScan)
    measured = medseg.metrics.measure(predictor(case.scan).indices, case.mask, case.spacing, names="basic")
    assert_type(measured, dict[str, dict[str, float]])
    with pytest.raises(medseg.MedsegError, match="no such case"):
        data["case_01"]
