"""Compressed DICOM frames: a decoder that crashes, hangs or lies fails one file, and the process leaves nothing behind.

The decoder is a package called as one of pylibjpeg's, found before it; it does what the frame's first letters say.
"""

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import pixel_array  # with the real decoders, before there is another
from pydicom.uid import JPEG2000Lossless, RLELossless

from medseg.errors import MedsegError
from medseg.io.dicom import decoder_process
from medseg.io.dicom.image import read

FAKE = """
import ctypes, os, time
from pathlib import Path
__version__ = "2.2.0"
encode_pixel_data = pack_bits = unpack_bits = None

def decode_pixel_data(src, version=2, **options):
    act = bytes(src).split(b"\\0")[0]
    if act == b"abort":
        os.abort()
    if act == b"segfault":
        ctypes.string_at(0)
    if act == b"exit":
        os._exit(3)
    if act == b"noise":
        os.write(1, b"a library that prints")
        return bytearray(48)
    if act == b"hang":
        Path(__file__).with_name("hangs").touch()
        while True:
            pass
    if act == b"memory":
        return bytearray(10 ** 9)
    if act == b"few":
        return bytearray(8)
    if act in (b"reshaped", b"objects"):
        import numpy as np
        from pydicom.pixels.decoders.base import DecodeRunner
        pixels = np.zeros((300, 300), np.uint16) if act == b"reshaped" else np.zeros((6, 4), "S8")
        DecodeRunner.process = lambda runner, decoded: (pixels, {})
        return bytearray(48)
    raise ValueError("left to the next decoder")
"""

PIXELS = np.arange(24, dtype=np.uint16).reshape(6, 4)


@pytest.fixture(autouse=True)
def none_running():
    """Begin and end without a process."""
    decoder_process.DECODERS.stop()
    yield
    decoder_process.DECODERS.stop()


@pytest.fixture
def packed(tmp_path, monkeypatch, dicom_file):
    """Return ``packed(name, act="")``: an RLE file, of ``PIXELS`` or of what the fake decoder does."""
    folder = tmp_path / "packages" / "rle"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(FAKE)
    monkeypatch.syspath_prepend(folder.parent)

    def write(name, act=""):
        path = dicom_file(name, PIXELS, syntax=RLELossless)
        if act:
            dataset = dcmread(path)
            dataset.PixelData = encapsulate([act.encode() + bytes(80)])
            dataset.save_as(path)
        return path

    return write


def assert_read(path):
    np.testing.assert_array_equal(read(path)[0][0], PIXELS.T)


def pid():
    process = decoder_process.DECODERS.process
    return process and process.pid


def is_running(number):
    """Tell whether there is a process of this number, one that waits for its parent to see its end included."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        ("abort", r"the decoder crashed \(SIGABRT\)"),
        ("segfault", r"the decoder crashed \(SIGSEGV\)"),
        ("exit", r"the decoder crashed \(exit status 3\)"),
        ("few", r"could not broadcast|shape"),
        ("memory", r"pylibjpeg: *\n"),  # a MemoryError has no text
        ("reshaped", r"pixels of shape \[300, 300\] and type <u2, not \(6, 4\)"),
        ("objects", r"pixels of shape \[6, 4\] and type \|S8, not"),
    ],
)
def test_a_decoder_that_fails_fails_one_file(packed, act, cause):
    good = packed("good.dcm")
    if act != "exit":  # in a process that has decoded already, or in a new one
        assert_read(good)
    with pytest.raises(MedsegError, match=rf"(?s)bad\.dcm: its pixels cannot be decoded \(RLE Lossless\): .*({cause})"):
        read(packed("bad.dcm", act))
    assert_read(good)


def test_what_a_decoder_prints_is_no_answer(packed):
    assert not read(packed("noise.dcm", "noise"))[0].any()


def test_a_decoder_that_hangs_is_stopped(packed, monkeypatch):
    good, bad = packed("good.dcm"), packed("bad.dcm", "hang")
    assert_read(good)  # the start is not within the short time
    with monkeypatch.context() as short:
        short.setattr(decoder_process, "SECONDS", 0.2)
        with pytest.raises(MedsegError, match=r"bad\.dcm: .*: the decoder took too long and was stopped"):
            read(bad)
    assert pid() is None
    assert_read(good)


def test_a_process_that_was_ended_is_started_again(packed):
    good = packed("good.dcm")
    assert_read(good)
    first = pid()
    os.kill(first, signal.SIGKILL)
    assert_read(good)
    assert pid() != first
    assert not is_running(first)  # not as a zombie, either


def test_uncompressed_files_start_no_process(dicom_file):
    assert_read(dicom_file("x.dcm", PIXELS))
    assert pid() is None


def test_threads_share_a_process(packed):
    files = [packed(f"{number}.dcm", "abort" if number == 5 else "") for number in range(12)]

    def outcome(path):
        try:
            assert_read(path)
        except MedsegError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(outcome, files)] == [number != 5 for number in range(12)]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_data_workers_have_a_process_of_their_own(packed, method):
    good = packed("good.dcm")
    assert_read(good)
    first = pid()
    with decoder_process.DECODERS.lock:  # as if another thread decoded
        worker = multiprocessing.get_context(method).Process(target=read_and_say, args=(good, f"{good}.pid"))
        worker.start()
        worker.join()
    assert worker.exitcode == 0
    theirs = int(Path(f"{good}.pid").read_text())
    assert theirs != first
    wait_for(lambda: not is_running(theirs))
    assert_read(good)
    assert pid() == first


def read_and_say(path, place):
    assert_read(path)
    Path(place).write_text(str(pid()))


SCRIPT = """
import sys
from pathlib import Path
from medseg.io.dicom import decoder_process
from medseg.io.dicom.image import read
for path in sys.argv[1:]:
    try:
        read(Path(path))
    except KeyboardInterrupt:
        print("interrupted")
    else:
        print(decoder_process.DECODERS.process.pid, flush=True)
sys.stdin.read()
"""


def script(*files):
    """Start a program without a main guard that reads these files and then waits for the end of its stdin."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT, *map(str, files)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_program_ends_with_its_decoders(packed):
    program = script(packed("good.dcm"))
    said, errors = program.communicate(timeout=100)
    assert (program.returncode, errors) == (0, "")
    assert not is_running(int(said))


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the program", "as a terminal does"])
def test_ctrl_c_ends_a_decoder_that_hangs(packed, tmp_path, send):
    program = script(packed("good.dcm"), packed("bad.dcm", "hang"))
    wait_for((tmp_path / "packages/rle/hangs").is_file)
    send(program.pid, signal.SIGINT)
    said, errors = program.communicate(timeout=100)
    number, interrupted = said.split()
    assert (program.returncode, interrupted, errors) == (0, "interrupted", "")
    assert not is_running(int(number))


def test_a_program_that_is_killed_leaves_no_decoders(packed):
    program = script(packed("good.dcm"))
    number = int(program.stdout.readline())
    program.kill()
    program.communicate()
    wait_for(lambda: not is_running(number))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not limit a process's memory")
@pytest.mark.parametrize("whole", [False, True], ids=["sizes alone", "a whole stream"])
def test_sizes_in_a_jpeg2000_stream_are_not_trusted(dicom_file, whole):
    """The header says 64 x 64; the stream 40000 x 40000, or more pixels than the header, all of them there."""
    if whole:
        path = dicom_file("x.dcm", np.ones((700, 600), np.uint16), syntax=JPEG2000Lossless)
        dataset = dcmread(path)
        dataset.Rows = dataset.Columns = 64
    else:
        path = dicom_file("x.dcm", np.ones((64, 64), np.uint16), syntax=JPEG2000Lossless)
        dataset = dcmread(path)
        stream = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
        place = (
            stream.index(b"\xff\x51") + 6
        )  # SIZ: marker, length, profile; sizes of image, offset, tile (ISO 15444-1)
        for offset in (0, 16):
            stream[place + offset : place + offset + 8] = struct.pack(">II", 40_000, 40_000)
        dataset.PixelData = encapsulate([bytes(stream)])
    dataset.save_as(path)
    with pytest.raises(MedsegError, match=r"x\.dcm: its pixels cannot be decoded \(JPEG 2000"):
        read(path)
    if (number := pid()) is not None:
        status = Path(f"/proc/{number}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
        assert int(peak) < 400_000  # kB


def test_jpeg2000_of_a_scanner_is_read_as_pydicom_reads_it(real_data):
    file = sorted((real_data / "readers/ct_many_labels/example_ct_dicom").iterdir())[0]
    dataset = dcmread(file)
    assert dataset.file_meta.TransferSyntaxUID == JPEG2000Lossless
    expected = pixel_array(dataset) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_array_equal(read(file)[0][0], expected.T.astype(np.float32))
    assert pid() is not None
