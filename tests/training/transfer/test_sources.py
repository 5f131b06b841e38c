"""What a training can begin with, read from files of several programs, and files that are none of them."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from medseg.errors import MedsegError
from medseg.training.transfer.sources import NESTS, read_source


class Code:
    """Unpickled, it would run."""

    def __reduce__(self):
        return print, ("run",)


def image(path):
    Image.new("L", (8, 8)).save(path, format="PNG")


def truncated(path):
    torch.save(nn.Conv3d(1, 200, 3).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])


def code(path):
    path.write_bytes(pickle.dumps({"state_dict": Code()}, protocol=2))


WRONG = {
    "image.pth": (image, r"loaded safely \(PyTorch has not written it\)"),
    "cut.ckpt": (truncated, r"loaded safely \(it is incomplete\)"),
    "code.pth": (code, r"loaded safely \(Unsupported global: GLOBAL print was not an allowed global by default\)"),
    "later.pth": (lambda path: path.write_bytes(pickle.dumps({"a": Code()}, protocol=5)), "Unsupported operand"),
    "empty.pth": (lambda path: path.touch(), r"loaded safely \(it is empty\)"),
    "text.json": (lambda path: path.write_text("{}"), r"loaded safely \(PyTorch has not written it\)"),
    "module.pth": (lambda path: torch.save(nn.Conv3d(1, 1, 1), path), "not a checkpoint that can be loaded safely"),
    "nothing.pth": (lambda path: torch.save({"epoch": 3}, path), "no weights in it, but the keys epoch"),
    "list.pth": (lambda path: torch.save([1, 2], path), "no weights in it, but list"),
    "folder": (lambda path: path.mkdir(), r"finetune\.checkpoint=.*no checkpoints/best\.ckpt"),
    "old.ckpt": (lambda path: torch.save({"medseg": {}, "state_dict": {}}, path), "not a medseg checkpoint"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_a_clear_error(name, tmp_path, capsys):
    write, says = WRONG[name]
    write(tmp_path / name)
    with pytest.raises(MedsegError, match=says) as caught:
        read_source(tmp_path / name)
    assert name in str(caught.value)
    assert "weights_only" not in str(caught.value)  # PyTorch's advice to load it all the same
    assert "run" not in capsys.readouterr().out.split()


@pytest.mark.parametrize("nest", [None, *NESTS])
def test_a_state_dict_is_found_where_programs_put_it(nest, tmp_path):
    weights = nn.Conv3d(1, 2, 3).state_dict()
    torch.save(weights if nest is None else {"epoch": 2, nest: weights}, tmp_path / "some.pth")
    source = read_source(tmp_path / "some.pth")
    assert source.outputs is None
    assert source.weights.keys() == weights.keys()
    assert torch.equal(source.weights["weight"], weights["weight"])


def test_numpys_numbers_beside_the_weights_do_no_harm(tmp_path):
    torch.save({"model": nn.Linear(1, 1).state_dict(), "best": np.float64(0.5)}, tmp_path / "some.pth")
    assert set(read_source(tmp_path / "some.pth").weights) == {"weight", "bias"}
