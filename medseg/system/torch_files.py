"""Files of PyTorch, read with ``weights_only=True``, which runs no code of theirs.

A tiny file could still fill the memory: by numbers of bytes to allocate, records compressed a thousandfold, or tensors
of any size over one stored number. ``torch.save`` writes none of these for a network, and none is loaded.
"""

import pickletools
import re
from collections.abc import Iterator, Mapping
from encodings import normalize_encoding
from encodings.aliases import aliases
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor

from medseg.errors import MedsegError, first_line
from medseg.system.memory import NotEnoughMemoryError, enough_memory

ZIP, PICKLE = b"PK", b"\x80"
"""What files begin with that ``torch.save`` wrote since PyTorch 1.6, and before."""

OLD_PICKLES = 5
"""Of a file before PyTorch 1.6: magic number, version, machine, content, names of storages; then come the numbers."""

MADE_BY_SIZE = frozenset(
    (
        *("builtins bytearray", "__builtin__ bytearray", "torch Tensor"),
        *("torch.storage UntypedStorage", "torch.storage TypedStorage"),
        *(f"{kind.__module__} {kind.__name__}" for kind in torch._tensor_classes),
        "torch._utils _rebuild_meta_tensor_no_storage",
    )
)
"""What ``weights_only=True`` lets a file call with nothing but a number of bytes, or for tensors without any."""

ENCODE = "_codecs encode"
"""What pickles make bytes with: of latin-1 alone, while a file may name any codec."""
CODECS = {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "uu_codec", "zlib_codec"}
REPEATABLE = CODECS | {name for name, codec in aliases.items() if codec in CODECS}
"""Names of codecs from bytes to bytes, which lengthen what they have lengthened."""
MAX_ENCODED = 10**8
"""Bytes that all texts of a file may come to."""

MAX_VIEWS = 8
"""Tensors that share their numbers, at most, on average: nnU-Net's decoder names those of the encoder a second time."""


def load_safely(file: Path, *, name: str = "", advice: str = "", mmap: bool = False) -> Any:
    """Return what a file holds that ``torch.save`` wrote.

    Args:
        file: where it lies.
        name: how the error calls it, if not by its path.
        advice: the end of the error's message.
        mmap: leave tensors on disk until they are looked at.

    Raises:
        MedsegError: it is no such file, is damaged, holds objects that are not loaded, or fills the memory with more
            than it holds.
    """
    try:
        with enough_memory(
            f"to load {name or file}", f"Close other programs, or use a machine with more memory.{advice}"
        ):
            check_size(file)
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
            check_tensors(content)
            return content
    except NotEnoughMemoryError:
        raise
    except Exception as error:  # a file that is something else makes torch raise almost anything
        raise MedsegError(
            f"{name or file}: not a checkpoint that can be loaded safely ({reason(file, error)}).{advice}"
        ) from error


def check_size(file: Path) -> None:
    """Raise for a file that would fill more memory than it holds bytes, before any of it is loaded.

    Raises:
        ValueError: with the reason, as do damaged files.
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        if not is_zipfile(stream):
            stream.seek(0)
            for _ in range(OLD_PICKLES if stream.peek(1)[:1] == PICKLE else 0):
                check_pickle(stream)
            return
        try:
            archive = ZipFile(stream)
        except BadZipFile as error:
            raise ValueError(first_line(error)) from error
        records, length = archive.infolist(), stream.seek(0, 2)
        if any(each.compress_type != ZIP_STORED for each in records) or sum(r.file_size for r in records) > length:
            raise ValueError("its records are packed, and PyTorch packs none")
        for record in records:
            if record.filename.endswith(".pkl"):
                with archive.open(record) as pickled:
                    check_pickle(pickled)


def check_pickle(stream: IO[bytes]) -> None:
    """Raise for a pickle that allocates memory by a number alone, or by encoding texts again and again.

    Raises:
        ValueError: it does, or is damaged.
    """
    names: set[str] = set()
    texts, calls = [""], 0
    for operation, argument, _ in pickletools.genops(stream):
        calls += operation.name == "REDUCE"
        if operation.name == "GLOBAL":
            names.add(str(argument))
        elif isinstance(argument, str):
            texts.append(argument)
    if calls_by_size := sorted(names & MADE_BY_SIZE):
        raise ValueError(f"it calls {', '.join(calls_by_size)}, which may be of any size whatever the file's")
    if ENCODE not in names:
        return
    codecs = {normalize_encoding(text).lower() for text in texts if len(text) < max(map(len, REPEATABLE)) * 2}
    if codecs & REPEATABLE or calls * max(map(len, texts)) > MAX_ENCODED:
        raise ValueError("it encodes texts in a way that grows beyond any size")


def check_tensors(content: Any) -> None:
    """Raise for tensors that are no plain arrays, or have more numbers than the file has for them.

    Raises:
        ValueError: with the shape.
    """
    stored: dict[int, int] = {}
    total = 0
    for tensor in tensors_in(content):
        size = tensor.numel() * tensor.element_size()
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise ValueError(f"it holds a tensor {tuple(tensor.shape)} without numbers, or one that is no plain array")
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        total += size
        if size > storage.nbytes():
            raise ValueError(f"it has {storage.nbytes()} bytes for a tensor {tuple(tensor.shape)} of {size}")
    if total > MAX_VIEWS * sum(stored.values()):
        raise ValueError(f"its tensors are of {total} bytes, but it holds {sum(stored.values())} for them")


def tensors_in(content: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers; each container is looked into once."""
    left, seen = [content], set()
    while left:
        node = left.pop()
        if isinstance(node, Tensor):
            yield node
        elif isinstance(node, Mapping | list | tuple | set) and id(node) not in seen:
            seen.add(id(node))
            left += node.values() if isinstance(node, Mapping) else node


def reason(file: Path, error: Exception) -> str:
    """Return why a file cannot be loaded: what it plainly is, or what PyTorch says.

    PyTorch's message begins with advice to load what is not safe, and ends so; what is wrong stands between.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(2)
    except OSError as unreadable:
        return unreadable.strerror or first_line(unreadable)
    if not start:
        return "it is empty"
    if start == ZIP and not is_zipfile(file):
        return "it is incomplete"
    if not start.startswith((ZIP, PICKLE)):
        return "PyTorch has not written it"
    match = re.search(r"WeightsUnpickler error:\s*(.+?)(?:\. Please|$)", str(error), re.MULTILINE)
    return match[1] if match else first_line(error)
