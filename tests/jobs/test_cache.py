"""``medseg cache`` shows and removes files of the cache, and nothing else."""

import os
import subprocess
import sys
import time

import pytest

from medseg.jobs import cache
from medseg.preprocessing.cache_files import FORMAT, dataset_folder, in_use
from medseg.system.locks import locked_file

KEY = "0123456789abcdef" * 2
DAY = 24 * 3600


@pytest.fixture
def folder(tmp_path):
    """A cache with two data sets, files of older formats, temporary ones and strangers."""
    root = tmp_path / "cache"
    ages = {
        f"v{FORMAT}/heart/{KEY}.case.pt": 0,
        f"v{FORMAT}/heart/{KEY}.fingerprint.pt": 40,
        f"v{FORMAT}/liver/{KEY}.case.pt": 40,
        f"v{FORMAT}/liver/.00000000-{KEY}.case.pt": 0,
        f"v{FORMAT}/liver/.11111111-{KEY}.case.pt": 2,
        f"v{FORMAT + 1}/heart/{KEY}.case.pt": 0,
        f"{KEY}.pt": 0,
        f"v{FORMAT}/heart/notes.pt": 99,
        f"v{FORMAT}/heart/{KEY}.txt": 99,
        f"vault/heart/{KEY}.case.pt": 99,
        "best.pt": 99,
    }
    for name, days in ages.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
        os.utime(path, (time.time() - days * DAY,) * 2)
    with locked_file(root / WRITTEN_NOW):
        yield root


STRANGERS = {f"v{FORMAT}/heart/notes.pt", f"v{FORMAT}/heart/{KEY}.txt", f"vault/heart/{KEY}.case.pt", "best.pt"}
WRITTEN_NOW = f"v{FORMAT}/liver/.00000000-{KEY}.case.pt"


def left(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_it_shows_and_keeps_everything(folder, composed, capsys):
    before = left(folder)
    assert cache.run(composed("cache") | {"cache_dir": str(folder)})["status"] == "done"
    assert left(folder) == before
    shown = capsys.readouterr().out
    assert str(folder) in shown.replace("\n", "")
    assert "heart" in shown
    assert "liver" in shown
    assert "before 4" in shown


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        ({}, {WRITTEN_NOW}),
        (
            {"dataset_name": "heart"},
            {WRITTEN_NOW, f"v{FORMAT}/liver/{KEY}.case.pt", f"v{FORMAT}/liver/.11111111-{KEY}.case.pt", f"{KEY}.pt"},
        ),
        (
            {"outdated": True},
            {
                WRITTEN_NOW,
                f"v{FORMAT}/heart/{KEY}.case.pt",
                f"v{FORMAT}/heart/{KEY}.fingerprint.pt",
                f"v{FORMAT}/liver/{KEY}.case.pt",
            },
        ),
        (
            {"older_than_days": 30, "dataset_name": "heart"},
            {
                WRITTEN_NOW,
                f"v{FORMAT}/heart/{KEY}.case.pt",
                f"v{FORMAT}/liver/{KEY}.case.pt",
                f"v{FORMAT}/liver/.11111111-{KEY}.case.pt",
                f"v{FORMAT + 1}/heart/{KEY}.case.pt",
                f"{KEY}.pt",
            },
        ),
    ],
)
def test_it_removes_what_was_chosen_and_no_strangers(folder, composed, chosen, kept):
    result = cache.run(composed("cache") | {"cache_dir": str(folder), "clean": True} | chosen)
    assert result["status"] == "done"
    assert left(folder) == kept | STRANGERS


def test_a_data_set_in_use_is_left_alone(folder, composed):
    config = composed("cache") | {"cache_dir": str(folder), "clean": True}
    with in_use(dataset_folder(folder, "heart")), in_use(dataset_folder(folder, "heart")):
        result = cache.run(config)
    assert result["status"] == "some_failed"
    assert f"{dataset_folder(folder, 'heart')}: a job uses it" in result["reason"]
    in_heart = {f"v{FORMAT}/heart/{KEY}.case.pt", f"v{FORMAT}/heart/{KEY}.fingerprint.pt", f"v{FORMAT}/heart/.lock"}
    assert left(folder) == {WRITTEN_NOW} | STRANGERS | in_heart
    assert cache.run(config)["status"] == "done"
    assert left(folder) == {WRITTEN_NOW} | STRANGERS


def test_hashes_of_files_go_with_the_last_file_that_they_are_for(folder, composed):
    config, heart = composed("cache") | {"cache_dir": str(folder), "clean": True}, dataset_folder(folder, "heart")
    (heart / "hashes.json").write_text("{}")
    cache.run(config | {"older_than_days": 10**6})
    assert (heart / "hashes.json").is_file()
    cache.run(config | {"dataset_name": "heart"})
    assert not (heart / "hashes.json").exists()


def test_a_cache_of_somebody_else_can_be_used(tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError

    monkeypatch.setattr("medseg.preprocessing.cache_files.open_locked", refused)
    with in_use(tmp_path / "cache"):
        pass


def test_an_absent_cache_is_no_mistake(tmp_path, composed, capsys):
    config = composed("cache") | {"cache_dir": str(tmp_path / "none"), "clean": True}
    assert cache.run(config)["status"] == "done"
    assert "nothing in it" in capsys.readouterr().out


def test_empty_folders_go_with_their_files(tmp_path, composed):
    path = dataset_folder(tmp_path / "cache", "heart") / f"{KEY}.case.pt"
    path.parent.mkdir(parents=True)
    path.touch()
    cache.run(composed("cache") | {"cache_dir": str(tmp_path / "cache"), "clean": True})
    assert list((tmp_path / "cache").iterdir()) == []


def test_torch_is_not_imported():
    code = "import sys, medseg.jobs.cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
