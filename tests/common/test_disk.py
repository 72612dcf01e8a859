from __future__ import annotations

import shutil

import pytest

from alc_backend.common.disk import GIB, existing, free_gib


def test_the_nearest_folder_that_exists(tmp_path, monkeypatch):
    assert existing(tmp_path) == tmp_path
    assert existing(tmp_path / "a" / "b") == tmp_path
    monkeypatch.chdir(tmp_path)
    assert str(existing(type(tmp_path)("a/b"))) == str(tmp_path)


def test_free_space_of_a_folder_that_is_still_to_be_made(tmp_path):
    free = shutil.disk_usage(tmp_path).free / GIB
    assert free_gib(tmp_path / "a" / "b") == pytest.approx(free, abs=1)
