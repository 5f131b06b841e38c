"""nnU-Net's checkpoints are read, and nothing in them is run."""

from zipfile import ZipFile

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.inference.nnunet.weights import read_trained

CONTENT = {
    "network_weights": {"a.weight": torch.arange(3.0)},
    "trainer_name": "nnUNetTrainer",
    "init_args": {"configuration": "2d"},
    "inference_allowed_mirroring_axes": (0, 1),
    "logging": {"dice": [np.float64(0.5), np.float32(0.25)]},
}


class Evil:
    def __reduce__(self):
        return print, ("code of the file was run",)


def saved(folder, content):
    torch.save(content, folder / "checkpoint_final.pth")
    return folder / "checkpoint_final.pth"


def test_read(tmp_path):
    found = read_trained(saved(tmp_path, CONTENT))
    assert (found.trainer, found.configuration, found.mirror_axes) == ("nnUNetTrainer", "2d", (0, 1))
    assert found.weights["a.weight"].tolist() == [0, 1, 2]


def test_numbers_of_numpy_1(tmp_path):
    path = saved(tmp_path, CONTENT)
    with ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert any(b"numpy._core.multiarray" in data for data in members.values())
    with ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_trained(path).trainer == "nnUNetTrainer"


@pytest.mark.parametrize("place", ["logging", "anything"])
def test_no_code_is_run(tmp_path, capsys, place):
    with pytest.raises(MedsegError, match="not a checkpoint that can be loaded safely"):
        read_trained(saved(tmp_path, {**CONTENT, place: Evil()}))
    assert capsys.readouterr().out == ""


def test_other_files(tmp_path):
    with pytest.raises(MedsegError, match="no checkpoint of nnU-Net v2"):
        read_trained(saved(tmp_path, {"state_dict": {}}))
    (tmp_path / "checkpoint_best.pth").write_bytes(b"no zip")
    with pytest.raises(MedsegError, match="not a checkpoint"):
        read_trained(tmp_path / "checkpoint_best.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    path = saved(tmp_path, CONTENT | {"network_weights": {"a.weight": torch.tensor([1.0, value])}})
    with pytest.raises(MedsegError, match=r"1 of its 1 weights hold NaN or infinity \(a.weight\)"):
        read_trained(path)
