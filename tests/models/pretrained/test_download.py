"""Downloads of published weights, over a web server on this machine that fails as real ones do."""

import hashlib
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from file_server import FileServer, serving

from medseg.errors import MedsegError
from medseg.models.pretrained.download import ATTEMPTS, Source, cache_folder, fetch, warn_of_another, weights_file

CONTENT = bytes(range(256)) * 2000
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server():
    with serving() as running:
        running.files["net.pth"] = CONTENT
        yield running


def plainly(pieces, *_):
    return pieces


def source(server: FileServer, tmp_path: Path, checksum: str | None = SHA256, name: str = "net.pth") -> Source:
    return Source(server.url(name), checksum, tmp_path / "cache" / "resnet18-imagenet.pth")


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.mark.parametrize(
    "checksum",
    [SHA256, SHA256[:15], SHA256.upper().replace("SHA", "sha"), f"md5:{hashlib.md5(CONTENT).hexdigest()}", None],
    ids=["whole", "beginning", "capitals", "md5", "none"],
)
def test_a_file_is_downloaded_once(server, tmp_path, checksum):
    wanted = source(server, tmp_path, checksum)
    for _ in range(2):
        assert fetch(wanted, plainly).read_bytes() == CONTENT
    assert server.requests == [("net.pth", None)]
    assert files_in(tmp_path) == ["resnet18-imagenet.pth"]


def test_progress_is_shown(server, tmp_path):
    seen = []

    def watch(pieces, there, total, doing):
        for piece in pieces:
            seen.append((there, len(piece), total, doing))
            yield piece

    fetch(source(server, tmp_path), watch)
    assert sum(size for _, size, _, _ in seen) == len(CONTENT)
    assert {(there, total, doing) for there, _, total, doing in seen} == {
        (0, len(CONTENT), "downloading resnet18-imagenet.pth")
    }


def test_another_file_than_published_is_not_kept(server, tmp_path):
    wanted = source(server, tmp_path, "sha256:b627a593")
    with pytest.raises(MedsegError) as refused:
        fetch(wanted, plainly)
    for word in (wanted.url, SHA256.removeprefix("sha256:"), "sha256:b627a593", str(wanted.path), "model.weights=FILE"):
        assert word in str(refused.value)
    assert files_in(tmp_path) == []


def test_a_broken_download_is_gone_on_with(server, tmp_path):
    server.break_after = [100_000, 50_000]
    assert fetch(source(server, tmp_path), plainly).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert files_in(tmp_path) == ["resnet18-imagenet.pth"]


def test_the_next_run_goes_on_with_a_download(server, tmp_path):
    server.break_after = [100_000] * ATTEMPTS
    with pytest.raises(MedsegError, match=rf"connection broke {ATTEMPTS} times; another start goes on"):
        fetch(source(server, tmp_path), plainly)
    assert files_in(tmp_path) == ["resnet18-imagenet.pth.part"]
    sizes = []
    fetch(source(server, tmp_path), lambda pieces, there, *_: sizes.append(there) or pieces)
    assert sizes == [ATTEMPTS * 100_000]
    assert server.requests[-1] == ("net.pth", f"bytes={ATTEMPTS * 100_000}-")
    assert fetch(source(server, tmp_path), plainly).read_bytes() == CONTENT


def test_two_versions_of_a_file_are_never_joined(server, tmp_path):
    server.break_after = [100_000]
    server.files["net.pth"] = bytes(len(CONTENT))  # an older version, of which no checksum is known
    older = source(server, tmp_path, None)
    part = older.path.with_name(f"{older.path.name}.part")

    def replaced(pieces, *_):
        yield from pieces
        server.files["net.pth"], server.modified = CONTENT, "Thu, 22 Oct 2015 07:28:00 GMT"

    assert fetch(older, replaced).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=100000-"]
    assert not part.exists()


def test_a_part_that_is_too_long_is_begun_anew(server, tmp_path):
    wanted = source(server, tmp_path)
    wanted.path.parent.mkdir()
    part = wanted.path.with_name(f"{wanted.path.name}.part")
    part.write_bytes(CONTENT + b"more")
    modified = parsedate_to_datetime(server.modified).timestamp()
    os.utime(part, (modified, modified))
    assert fetch(wanted, plainly).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [f"bytes={len(CONTENT) + 4}-", None]


def test_what_the_server_does_not_have(server, tmp_path):
    wanted = source(server, tmp_path, name="gone.pth")
    with pytest.raises(MedsegError) as refused:
        fetch(wanted, plainly)
    for word in (wanted.url, "404", SHA256, str(wanted.path), "model.weights=FILE", "weights.published"):
        assert word in str(refused.value)
    assert files_in(tmp_path) == []


def test_without_a_network(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wanted = source(FileServer(port), tmp_path, None)
    with pytest.raises(MedsegError, match=r"(?s)no connection.*put it at .*no checksum of it is published"):
        fetch(wanted, plainly)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full, a disk without space, is Linux's")
def test_without_space(server, tmp_path):
    wanted = source(server, tmp_path)
    wanted.path.parent.mkdir()
    part = wanted.path.with_name(f"{wanted.path.name}.part")
    part.symlink_to("/dev/full")
    with pytest.raises(MedsegError) as refused:
        fetch(wanted, plainly)
    for word in ("No space left on device", wanted.url, str(wanted.path.parent), "weights.folder", SHA256):
        assert word in str(refused.value)
    assert not part.is_symlink()
    assert files_in(tmp_path) == []


def test_a_wrong_file_in_the_cache_is_left_to_the_user(server, tmp_path):
    wanted = source(server, tmp_path)
    wanted.path.parent.mkdir()
    wanted.path.write_bytes(b"half")
    with pytest.raises(MedsegError, match=r"(?s)resnet18-imagenet.*its sha256 is .*Remove it"):
        fetch(wanted, plainly)
    assert server.requests == []
    assert wanted.path.read_bytes() == b"half"


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://example.org/a.pth", "a.pth"])
def test_only_web_addresses_are_read(tmp_path, url):
    with pytest.raises(MedsegError, match="no address that begins with https://"):
        fetch(Source(url, None, tmp_path / "a.pth"), plainly)


def test_of_two_runs_one_downloads(server, tmp_path):
    def slowly(pieces, *_):
        for piece in pieces:
            time.sleep(0.2)
            yield piece

    with ThreadPoolExecutor(2) as runs:
        found = list(runs.map(lambda _: fetch(source(server, tmp_path), slowly).read_bytes(), range(2)))
    assert found == [CONTENT] * 2
    assert len(server.requests) == 1


# Where a file comes from


def settings(tmp_path, url="http://127.0.0.1:9/r.pth", **model):
    target = {"_target_": "medseg.models.monai.flexible_unet", "backbone": "resnet18", "spatial_dims": 2}
    table = {"resnet18": {"imagenet": {"url": url, "checksum": None}}, "resnet10": {}}
    return {
        "model": target | {"pretrained": "imagenet", "weights": None} | model,
        "weights": {"folder": str(tmp_path), "published": table},
    }


def test_the_table_says_where_a_file_is(server, tmp_path):
    file = weights_file(settings(tmp_path, server.url("net.pth")))
    assert file == tmp_path / "resnet18-imagenet.pth"
    assert file.read_bytes() == CONTENT


def test_a_file_of_the_user_s_needs_no_network(tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"x")
    assert weights_file(settings(tmp_path, weights=str(tmp_path / "mine.pth"))) == tmp_path / "mine.pth"
    with pytest.raises(MedsegError, match=r"model\.weights=.*no such file"):
        weights_file(settings(tmp_path, weights=str(tmp_path / "none.pth")))


@pytest.mark.parametrize(("content", "warned"), [(CONTENT, False), (b"another", True)])
def test_another_file_than_published_is_taken_with_a_warning(tmp_path, caplog, content, warned):
    (tmp_path / "mine.pth").write_bytes(content)
    config = settings(tmp_path, weights=str(tmp_path / "mine.pth"))
    config["weights"]["published"]["resnet18"]["imagenet"]["checksum"] = SHA256
    assert weights_file(config) == tmp_path / "mine.pth"
    assert not caplog.text
    warn_of_another(config)
    assert ("not the published file" in caplog.text) == warned


@pytest.mark.parametrize(
    "entry",
    [
        {"checksum": None},
        "http://a/b.pth",
        *({"url": "http://a/b.pth", "checksum": c} for c in ("b62", "crc:1", "md5:")),
    ],
    ids=str,
)
@pytest.mark.parametrize("given", [True, False])
def test_an_entry_that_is_written_wrongly_is_explained(tmp_path, entry, given):
    (tmp_path / "mine.pth").write_bytes(b"x")
    config = settings(tmp_path, weights=str(tmp_path / "mine.pth") if given else None)
    config["weights"]["published"]["resnet18"]["imagenet"] = entry
    with pytest.raises(MedsegError, match=r"weights\.published\.resnet18\.imagenet=.*write \{url: ADDRESS"):
        weights_file(config)


def test_nothing_is_read_where_nothing_is_asked_for(tmp_path):
    assert weights_file(settings(tmp_path, pretrained=None)) is None
    assert weights_file({"model": {"_target_": "medseg.models.UNet"}}) is None


def test_an_encoder_without_such_weights_is_told(tmp_path):
    with pytest.raises(MedsegError, match=r"no such weights of resnet10.*imagenet are there of: resnet18"):
        weights_file(settings(tmp_path, backbone="resnet10"))


@pytest.mark.parametrize(
    ("platform", "place"),
    [("linux", ".cache/medseg"), ("darwin", "Library/Caches/medseg"), ("win32", "AppData/Local/medseg")],
)
def test_the_cache_folder_is_the_platform_s(monkeypatch, tmp_path, platform, place):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == tmp_path / place
