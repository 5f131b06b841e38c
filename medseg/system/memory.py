"""Out-of-memory errors of any library, on a device or in the machine: recognised, released, explained to the user."""

import errno
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING, TypeVar

from medseg.errors import MedsegError, first_line

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")

TEXTS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to allocate memory",
    "unable to allocate",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
    "invalid buffer size",  # MPS, of more than its largest buffer
    "valid cudnn algorithm",  # cuDNN, where no algorithm's workspace fits
    "can't start new thread",  # Python, where there is no room for its stack
)
"""How the messages of PyTorch, CUDA, cuDNN, MPS, ITK and onnxruntime say that memory ran out."""

MORE_MEMORY = "Close other programs, use a machine with more memory, or crop or downsample the scan."
TO_READ = f"{MORE_MEMORY} If it is not that large, the header of a file is damaged."
"""Advice where memory does not suffice for something, or for reading it."""

QUOTING = (MedsegError, ValueError, TypeError, LookupError, SyntaxError)
"""Errors whose messages quote names of the user, which may be anything."""


class NotEnoughMemoryError(MedsegError):
    """Memory ran out, and nothing is left that could be made smaller."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, says that memory ran out."""
    return isinstance(error, NotEnoughMemoryError) or memory_error_in(error) is not None


def memory_error_in(error: BaseException | None) -> BaseException | None:
    """Return the error that says that memory ran out: ``error`` itself, one that it was raised from, or None.

    Python and NumPy have a class for it, and PyTorch for GPUs, which is not imported here since the command line calls
    this, too. All others raise a RuntimeError, or a class of their own, with one of ``TEXTS`` in its message.
    """
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return error
        if isinstance(error, OSError):
            is_short = error.errno == errno.ENOMEM
        else:
            is_short = not isinstance(error, QUOTING) and any(text in str(error).lower() for text in TEXTS)
        if is_short:
            return error
        error = error.__cause__
    return None


def drop_frames(error: BaseException) -> None:
    """Let go of what an error keeps alive: the local variables of the functions that it went through."""
    link: BaseException | None = error
    while link is not None:
        clear_frames(link.__traceback__)  # context managers hold the traceback, too
        link.__traceback__, link = None, link.__cause__ or link.__context__


def free_caches() -> None:
    """Give back the memory that nothing uses any more."""
    gc.collect()
    if torch := sys.modules.get("torch"):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if torch.backends.mps.is_available():
            torch.mps.empty_cache()


def attempted(work: Callable[[], Result]) -> Result | None:
    """Return what ``work()`` returns, or None where memory ran out; all that it had allocated is free again then."""
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        drop_frames(error)
    free_caches()  # after the error is gone
    return None


def on_device_or_cpu(work: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
    """Return ``work(x)``, computed on the CPU where the memory of the device of ``x`` does not suffice."""
    result = attempted(lambda: work(x)) if x.device.type != "cpu" else None
    return work(x.cpu()) if result is None else result


@contextmanager
def enough_memory(what: str | Callable[[], str], advice: str | Callable[[], str]) -> Iterator[None]:
    """Raise an error with what memory was needed for, and what to do, where the block runs out of it.

    Args:
        what: completes the sentence "not enough memory ..."; or a function that returns such a text, where that takes
            time or is not known before.
        advice: whole sentences, or a function that returns them.

    Raises:
        NotEnoughMemoryError: memory ran out.
    """
    try:
        yield
    except NotEnoughMemoryError:
        raise
    except Exception as error:
        cause = memory_error_in(error)
        if cause is None:
            raise
        drop_frames(error)
        free_caches()
        purpose, cure = (text if isinstance(text, str) else text() for text in (what, advice))
        raise NotEnoughMemoryError(f"not enough memory {purpose} ({first_line(cause)}). {cure}") from error
