"""Hashes of files in the cache: what has not changed is not read again, and whatever has changed is noticed."""

import hashlib
import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from medseg.preprocessing import file_hashes
from medseg.preprocessing.file_hashes import FileHashes


@pytest.fixture
def reads(monkeypatch):
    """The files that are read, while all files count as older than a tick."""
    read = []
    monkeypatch.setattr(file_hashes, "TICK", -(10**12))
    monkeypatch.setattr(file_hashes, "file_hash", lambda file: read.append(file) or sha(file))
    return read


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data" / "scan.nii"
    path.parent.mkdir()
    path.write_bytes(b"voxels")
    return path


def sha(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def asked(kept, *files):
    """What a new process is told of files."""
    hashes = FileHashes(kept)
    codes = [hashes.of(file) for file in files]
    hashes.save()
    return codes


def test_a_file_is_read_once_by_all_processes(file, tmp_path, reads):
    kept = tmp_path / "cache" / "hashes.json"
    assert asked(kept, file) == asked(kept, file) == [sha(file)]
    assert reads == [file]


def test_relative_paths_are_the_same_files(file, tmp_path, reads, monkeypatch):
    asked(tmp_path / "hashes.json", file)
    monkeypatch.chdir(file.parent)
    asked(tmp_path / "hashes.json", file.relative_to(file.parent))
    assert reads == [file]


def test_a_changed_file_of_the_same_size_is_noticed(file, tmp_path, reads):
    kept = tmp_path / "hashes.json"
    before = asked(kept, file)
    times = file.stat()
    file.write_bytes(b"VOXELS")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # only the inode's time tells
    assert asked(kept, file) == [sha(file)] != before


def test_another_file_in_its_place_is_noticed(file, tmp_path, reads):
    kept = tmp_path / "hashes.json"
    asked(kept, file)
    other = tmp_path / "other.nii"
    other.write_bytes(b"VOXELS")
    shutil.copystat(file, other)
    other.replace(file)
    assert asked(kept, file) == [sha(file)]


def test_within_a_process_a_change_is_noticed_too(file, reads):
    hashes = FileHashes(None)
    assert hashes.of(file) == hashes.of(file)
    assert len(reads) == 1
    file.write_bytes(b"other voxels")
    assert hashes.of(file) == sha(file)


def test_a_file_that_changed_within_the_tick_is_read_again(file, tmp_path, monkeypatch):
    kept = tmp_path / "hashes.json"
    monkeypatch.setattr(file_hashes, "TICK", 10**15)  # it is younger than this
    asked(kept, file)
    assert not kept.exists()
    state = file_hashes.file_state(file)
    file.write_bytes(b"VOXELS")
    monkeypatch.setattr(file_hashes, "file_state", lambda path: state)  # as a coarse clock has it
    assert asked(kept, file) == [sha(file)]


def test_a_file_that_changes_while_it_is_read_is_not_known(file, tmp_path, monkeypatch):
    monkeypatch.setattr(file_hashes, "TICK", -(10**12))

    def changing(path):
        code = sha(path)
        path.write_bytes(b"more voxels")
        return code

    monkeypatch.setattr(file_hashes, "file_hash", changing)
    asked(tmp_path / "hashes.json", file)
    assert not (tmp_path / "hashes.json").exists()


def test_files_that_are_gone_are_forgotten_and_those_elsewhere_are_not(file, tmp_path, reads):
    kept, elsewhere, gone = tmp_path / "hashes.json", tmp_path / "elsewhere" / "scan.nii", file.with_name("gone.nii")
    elsewhere.parent.mkdir()
    for path in (elsewhere, gone):
        path.write_bytes(b"scan")
    asked(kept, file, gone, elsewhere)
    for path in (elsewhere, gone):  # of another machine, which has them there; and gone indeed
        path.unlink()
    new = file.with_name("new.nii")
    new.write_bytes(b"new")
    asked(kept, file, new)
    assert set(json.loads(kept.read_text())["files"]) == set(map(str, (file, new, elsewhere)))


def test_processes_keep_what_others_have_added_and_the_file_is_whole(file, tmp_path, reads):
    kept, files = tmp_path / "hashes.json", [file.with_name(f"{number}.nii") for number in range(40)]
    for path in files:
        path.write_bytes(path.name.encode())
    one, other = FileHashes(kept), FileHashes(kept)
    for hashes, path in ((one, files[0]), (other, files[1])):  # both have read the file of hashes
        hashes.of(path)
    one.save()
    other.save()
    assert len(json.loads(kept.read_text())["files"]) == 2
    with ThreadPoolExecutor(8) as pool:  # each a process
        list(pool.map(lambda path: (asked(kept, path), json.loads(kept.read_text())), files))
    reads.clear()
    assert asked(kept, *files) == list(map(sha, files))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"files": {"a": [1]}}', '{"files": [["a"]]}'])
def test_a_damaged_file_of_hashes_is_logged_and_written_anew(file, tmp_path, reads, caplog, content):
    kept = tmp_path / "hashes.json"
    kept.write_text(content)
    assert asked(kept, file) == [sha(file)]
    assert "these hashes of files are damaged" in caplog.text
    caplog.clear()
    asked(kept, file)
    assert reads == [file]
    assert not caplog.text


def test_a_cache_that_cannot_be_written_is_used_all_the_same(file, tmp_path, reads, caplog):
    (tmp_path / "file").write_text("")
    assert asked(tmp_path / "file" / "hashes.json", file) == [sha(file)]
    assert "hashed again next time" in caplog.text


def test_what_is_known_is_written_while_a_long_reading_goes_on(file, tmp_path, reads, monkeypatch):
    monkeypatch.setattr(file_hashes, "INTERVAL", -1)
    FileHashes(tmp_path / "hashes.json").of(file)
    assert (tmp_path / "hashes.json").is_file()


def test_verifying_reads_all_files_once_more_and_tells_of_silent_changes(file, tmp_path, reads, caplog, monkeypatch):
    kept = tmp_path / "hashes.json"
    asked(kept, file)
    hashes = FileHashes(kept)
    hashes.of(file)
    hashes.verify()
    with caplog.at_level(logging.WARNING):
        assert hashes.of(file) == hashes.of(file) == sha(file)
    assert reads == [file] * 2
    assert not caplog.text
    state = file_hashes.file_state(file)
    file.write_bytes(b"vOxels")
    monkeypatch.setattr(file_hashes, "file_state", lambda path: state)  # a disk that has lost a bit
    assert asked(kept, file) != [sha(file)]
    hashes.verify()
    assert hashes.of(file) == sha(file)
    assert "its bytes have changed, though size and times have not" in caplog.text
    hashes.save()
    assert asked(kept, file) == [sha(file)]
