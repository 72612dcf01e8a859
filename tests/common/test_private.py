from __future__ import annotations

import os
import stat

import pytest

from alc_backend.common.private import make_private_folder, private_files, why_not_private


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_folder_and_those_above_it_let_nobody_else_in(tmp_path):
    make_private_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    assert why_not_private(tmp_path / "a") is None


def test_a_folder_that_was_there_is_left_as_it_is(tmp_path):
    (tmp_path / "a").mkdir(mode=0o755)
    make_private_folder(tmp_path / "a" / "b")
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o755, 0o700)


@pytest.mark.parametrize("bits", [0o701, 0o710, 0o720, 0o777])
def test_a_folder_that_others_may_enter_is_named_with_the_remedy(tmp_path, bits):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(bits)
    assert f"chmod 700 {tmp_path / 'open'}" in why_not_private(tmp_path / "open")


def test_a_folder_of_another_user_is_named(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir(mode=0o700)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert f"belongs to user {mine}" in why_not_private(tmp_path / "theirs")


def test_what_is_not_there_lets_nobody_in_and_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    assert why_not_private(tmp_path / "nothing") is None
    assert why_not_private(tmp_path / "file") is not None


def test_files_are_private_inside_the_context_only(tmp_path):
    before = os.umask(0o022)
    try:
        with private_files():
            (tmp_path / "mine").write_text("")
        with private_files(unless=True):
            (tmp_path / "ours").write_text("")
    finally:
        os.umask(before)
    assert (mode(tmp_path / "mine"), mode(tmp_path / "ours")) == (0o600, 0o644)
