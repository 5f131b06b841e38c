"""Lack of memory is known by what libraries really raise, and nothing else is taken for it."""

import errno
import gc
import weakref

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.system import memory
from medseg.system.memory import NotEnoughMemoryError, attempted, enough_memory, is_out_of_memory

CUDNN = RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
MPS = RuntimeError(
    "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 384.00 KB, max allowed: 9 GB)"
)
OF_ONNX = type("RuntimeException", (Exception,), {})(
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 4294967296"
)


def raised(work):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the test is about
        work()
    return caught.value


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.empty(1 << 50),
        lambda: torch.zeros(1 << 48, dtype=torch.uint8) + 1,
        lambda: np.empty(1 << 50),
        lambda: bytearray(1 << 62),
        lambda: np.ones((1 << 20, 1 << 20, 1 << 10), np.uint8),
    ],
)
def test_what_an_allocation_raises_is_known(work):
    assert is_out_of_memory(raised(work))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        CUDNN,
        MPS,
        OF_ONNX,
        RuntimeError("std::bad_alloc"),
        RuntimeError(
            "Caught RuntimeError in DataLoader worker process 0.\n...DefaultCPUAllocator: can't allocate memory"
        ),
    ],
    ids=str,
)
def test_what_devices_and_other_libraries_raise_is_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Expected all tensors to be on the same device"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ValueError("/data/out of memory/scan.nii: no image"),
        MedsegError("/data/out of memory/scan.nii: no image"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyError("out of memory"),
        None,
    ],
    ids=str,
)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


def test_an_error_that_a_lack_of_memory_was_turned_into_is_known():
    error = MedsegError("scan.nii cannot be read")
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)


def fails_with_large(kept):
    large = torch.ones(1000)
    kept.append(weakref.ref(large))
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_what_a_failed_attempt_held_is_free_before_the_next(monkeypatch):
    kept, alive = [], []
    monkeypatch.setattr(memory, "free_caches", lambda: alive.append(kept[0]()))
    gc.disable()
    try:
        assert attempted(lambda: fails_with_large(kept)) is None
    finally:
        gc.enable()
    assert alive == [None]


def test_an_error_for_the_user_keeps_nothing_alive_and_tells_cause_and_cure():
    kept = []
    gc.disable()
    try:
        with pytest.raises(NotEnoughMemoryError) as caught, enough_memory("to read it", lambda: "Buy more."):
            fails_with_large(kept)
    finally:
        gc.enable()
    assert str(caught.value) == "not enough memory to read it (CUDA out of memory.). Buy more."
    assert kept[0]() is None


def test_other_errors_pass_and_the_innermost_text_wins():
    with pytest.raises(ZeroDivisionError), enough_memory("outside", ""):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        attempted(lambda: 1 / 0)
    with (
        pytest.raises(NotEnoughMemoryError, match=r"^not enough memory inside \(MemoryError\)\. Cure\.$"),
        enough_memory("outside", "None."),
        enough_memory("inside", "Cure."),
    ):
        raise MemoryError


def test_a_checkpoint_that_does_not_fit_is_not_called_damaged(monkeypatch, tmp_path):
    from medseg.system.torch_files import load_safely

    torch.save({}, tmp_path / "a.ckpt")
    monkeypatch.setattr(torch, "load", lambda *_, **__: torch.empty(1 << 50))
    with pytest.raises(NotEnoughMemoryError, match=r"to load .*a\.ckpt \(.*DefaultCPUAllocator"):
        load_safely(tmp_path / "a.ckpt")


def test_a_dicom_file_is_not_passed_over_for_lack_of_memory(monkeypatch, tmp_path):
    from medseg.io.dicom import headers

    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")

    def short(*_):
        raise MemoryError

    monkeypatch.setattr(headers, "described", short)
    with pytest.raises(MemoryError):
        headers.header(tmp_path / "a.dcm")
