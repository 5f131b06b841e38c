"""Compressed pixels of DICOM files, decoded in a process of their own.

The decoders are native code of other projects, and the files that they read are not trusted. Where one crashes, hangs
or takes too much memory, its process ends and one scan fails. A medseg process starts the decoders' process at the
first compressed frame, and again after a crash. It is a plain Python that imports pydicom and the decoders; frames and
pixels go through pipes as bytes behind a line of JSON, and nothing that comes back is unpickled.
"""

import atexit
import json
import os
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.io.dicom.headers import pydicom
from medseg.system.relaunch import import_path

SECONDS, SECONDS_PER_MB = 20.0, 2.0
"""Time for a frame, and more for each MB that it takes as float32: over 20 times what a slow, busy machine needs."""

MEMORY, MEMORY_FACTOR = 256 << 20, 8
"""Bytes for a frame, and more times what it takes as float32. So what its stream says of sizes does not matter."""

KEPT = {"MALLOC_MMAP_THRESHOLD_": "100000000", "MALLOC_TRIM_THRESHOLD_": "100000000"}
"""For glibc, whose memory of one frame then serves the next; it is 3 % of the time."""

TYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4")
LENGTH = struct.Struct("<I")
MOST_TEXT = 1 << 16
"""Bytes of JSON in an answer."""

HAS_TIMER = hasattr(signal, "setitimer")
"""Whether the system ends a process after a time, which Windows does not: there, a decoder that hangs is waited for."""


def decode(dataset: Any, index: int, *, raw: bool = False) -> NDArray[Any]:
    """Return the pixels (rows, columns[, samples]) of frame ``index`` (from 0) of a data set that holds packed ones.

    Args:
        dataset: pydicom's, with its pixels and an encapsulated transfer syntax.
        index: the frame.
        raw: leave colours in the space that they are stored in; otherwise they are RGB.

    Raises:
        RuntimeError: the frame cannot be decoded: no decoder, one that refuses it, crashes or takes too long, or pixels
            that are not as many as the header says.
        Exception: what pydicom raises on headers and frames that are damaged.
    """
    library = pydicom()
    header = library.pixels.utils.as_pixel_options(dataset)
    offsets, frames = header.pop("extended_offsets", None), header.pop("number_of_frames")
    packed = library.encaps.get_frame(dataset.PixelData, index, number_of_frames=frames, extended_offsets=offsets)
    samples = int(header["samples_per_pixel"])
    shape = (int(header["rows"]), int(header["columns"]), *([samples] if samples > 1 else []))
    if min(shape) < 1:
        raise ValueError(f"rows, columns and samples are {shape}; each must be 1 or more")
    needed = 4 * int(np.prod(shape, dtype=np.int64))
    request = {
        "syntax": str(dataset.file_meta.TransferSyntaxUID),
        "header": {**header, "number_of_frames": 1, "pixel_keyword": "PixelData"},
        "raw": raw,
        "length": len(packed),
        "seconds": SECONDS + SECONDS_PER_MB * needed / 10**6,
        "memory": MEMORY + MEMORY_FACTOR * needed,
    }
    return DECODERS.decode(json.dumps(request).encode(), packed, shape)


class _Crash(RuntimeError):
    """The process ended while it was asked."""


class Decoders:
    """The decoders' process of this process, once there is one. Threads take turns."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = Lock()

    def decode(self, request: bytes, packed: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        with self.lock:
            if self.process is not None:
                with suppress(_Crash):
                    return self.answer(self.process, request, packed, shape)
                # An earlier frame may have damaged its memory, or the system have ended it: a new one shows.
            self.process = started()
            return self.answer(self.process, request, packed, shape)

    def answer(
        self, process: "subprocess.Popen[bytes]", request: bytes, packed: bytes, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Ask for a frame; a process that has not answered as it should is ended."""
        try:
            for part in (LENGTH.pack(len(request)), request, packed):
                _write(process.stdin, part)
            size = LENGTH.unpack(_read(process.stdout, bytearray(LENGTH.size)))[0]
            if size > MOST_TEXT:
                raise ValueError(f"an answer of {size} bytes")
            answer = json.loads(_read(process.stdout, bytearray(size)))
            refused = answer.get("error")
            if refused is None:
                if tuple(answer["shape"]) != shape or answer["type"] not in TYPES:
                    raise ValueError(f"pixels of shape {answer['shape']} and type {answer['type']}, not {shape}")
                pixels = np.empty(shape, answer["type"])
                _read(process.stdout, pixels.data.cast("B"))
                return pixels
        except (EOFError, OSError) as error:
            status = self.stop()
            if HAS_TIMER and status == -signal.SIGALRM:  # once more would take as long again
                raise RuntimeError("the decoder took too long and was stopped") from error
            raise _Crash(f"the decoder crashed ({_reason(status)})") from error
        except Exception as error:
            self.stop()
            raise RuntimeError(f"the decoder gave something else than was asked for: {error}") from error
        except BaseException:  # Ctrl-C: what it would still answer is of no use
            self.stop()
            raise
        raise RuntimeError(str(refused))

    def stop(self) -> int | None:
        """End the process; return its status, negative where a signal ended it."""
        process, self.process = self.process, None
        if process is None:
            return None
        _close(process)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(0.1)  # it has crashed, or ends because nothing more can come
        process.kill()
        return process.wait()

    def leave(self) -> None:
        """Leave the process to the one that started it, which this one was forked from, such as a data worker."""
        if self.process is not None:
            _close(self.process)  # or it would not see the end of the other
            self.process.returncode = 0  # it is no child of this one, to wait for
        self.__init__()  # type: ignore[misc]  # the lock, too: a thread that is not here may hold it


def started() -> "subprocess.Popen[bytes]":
    """Return a new process of decoders."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from medseg.io.dicom.decoder_process import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,  # so that a fork never holds bytes that are still to be written
        env={**os.environ, "PYTHONPATH": import_path(), "OPENBLAS_NUM_THREADS": "1", **KEPT},
        process_group=0 if os.name == "posix" else None,  # Ctrl-C in a terminal is for medseg, which may go on a while
    )


def _reason(status: int | None) -> str:
    return signal.Signals(-status).name if status and status < 0 else f"exit status {status}"


def _write(pipe: Any, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[pipe.write(left) :]


def _read(pipe: Any, buffer: Any) -> Any:
    """Fill a buffer of bytes and return it; EOFError where the process has ended."""
    left = memoryview(buffer)
    while left:
        count = pipe.readinto(left)
        if not count:
            raise EOFError
        left = left[count:]
    return buffer


def _close(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


DECODERS = Decoders()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=DECODERS.leave)
atexit.register(DECODERS.stop)


# ---- in the decoders' process


def serve() -> None:
    """Decode the frames that come through stdin until it ends."""
    if HAS_TIMER:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, also within native code
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    while head := requests.read(LENGTH.size):
        request = json.loads(requests.read(LENGTH.unpack(head)[0]))
        packed = requests.read(request["length"])
        if HAS_TIMER:
            signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        try:
            library = pydicom()
            _limit_memory(request["memory"])
            pixels, _ = library.pixels.get_decoder(request["syntax"]).as_array(
                library.encaps.encapsulate([packed], has_bot=False), index=0, raw=request["raw"], **request["header"]
            )
            content = np.ascontiguousarray(pixels)
            answer: dict[str, Any] = {"shape": content.shape, "type": content.dtype.str}
        except Exception as error:
            content, answer = np.empty(0, np.uint8), {"error": (str(error) or type(error).__name__)[:2000]}
        if HAS_TIMER:
            signal.setitimer(signal.ITIMER_REAL, 0)
        text = json.dumps(answer).encode()
        for part in (LENGTH.pack(len(text)), text, content.data):
            answers.write(part)
        answers.flush()


def _limit_memory(more: int) -> None:
    """Allow the process so many bytes more than it has, where the system can limit them."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit if most < 0 else min(limit, most), most))
