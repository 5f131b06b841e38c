"""How much memory a training may take: what is free, on the fullest of the devices that it uses."""

import pytest
import torch

from medseg.system.device import device_memory

GB = 10**9


@pytest.mark.parametrize(("index", "count", "expected"), [(None, 1, 0.9 * 22), (1, 1, 0.9 * 5), (None, 2, 0.9 * 5)])
def test_of_gpus_what_is_free_or_held_by_this_process_on_the_fullest(monkeypatch, index, count, expected):
    free, held = {0: 20 * GB, 1: 5 * GB, 2: 1 * GB}, {0: 2 * GB, 1: 0, 2: 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 24 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: held[device])
    device = torch.device("cuda") if index is None else torch.device("cuda", index)
    assert device_memory(device, count) == pytest.approx(expected * GB)
