"""NaN and infinity in weights are seen, wherever they stand, and named."""

import pytest
import torch

from medseg.errors import MedsegError
from medseg.models.weight_checks import check_finite, not_finite, weights_in


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_value_among_many_is_enough(value, dtype):
    bad = torch.ones(3, 5, 7, dtype=dtype)
    bad[1, 2, 3] = value
    assert not_finite({"good": torch.ones(4), "bad": bad, "count": torch.tensor(3)}) == ["bad"]


def test_large_weights_are_finite_though_their_sum_is_not():
    assert not_finite({"a": torch.full((9,), 3e38), "b": torch.full((9,), 65504.0, dtype=torch.float16)}) == []


def test_what_holds_no_numbers_is_finite():
    assert not_finite({}) == not_finite({"empty": torch.empty(0), "mask": torch.ones(2, dtype=torch.bool)}) == []


def test_the_error_names_file_and_weights(tmp_path):
    weights = {f"layer{number}": torch.tensor([float("nan")]) for number in range(5)} | {"good": torch.ones(1)}
    with pytest.raises(MedsegError, match=r"model.ckpt: 5 of its 6 weights .* \(layer0, layer1, layer2, \.\.\.\)"):
        check_finite(tmp_path / "model.ckpt", weights)


@pytest.mark.parametrize("nest", [("state_dict",), ("model",), ("state_dict", "model"), ()])
def test_weights_lie_in_a_nest_whatever_lies_beside_it(nest):
    content = weights = {"a.weight": torch.ones(2)}
    for name in reversed(nest):
        content = {"epoch": torch.tensor(3), name: content}
    assert weights_in(content) == weights


def test_tensors_outside_any_nest_are_weights():
    content = {"a.weight": torch.ones(2), "state_dict": {"step": 3}, "epoch": 1}
    assert weights_in(content) == {"a.weight": content["a.weight"]}
