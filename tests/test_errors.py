"""Hints in messages."""

from pathlib import Path

from medseg.errors import nearest_path


def test_a_path_that_is_not_there_is_told_with_the_whole_path_that_is_meant(tmp_path):
    (tmp_path / "cells" / "images").mkdir(parents=True)
    assert nearest_path(tmp_path / "cels" / "images") == f" Did you mean '{tmp_path / 'cells' / 'images'}'?"
    assert nearest_path(tmp_path / "cels" / "more") == f" Did you mean '{tmp_path / 'cells'}'?"
    assert nearest_path(tmp_path / "xyz") == ""


def test_in_a_folder_that_may_not_be_listed_nothing_is_suggested(tmp_path, monkeypatch):
    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)
    assert nearest_path(tmp_path / "cels") == ""
