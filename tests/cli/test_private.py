"""What the commands write is for their user alone, but for results."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from alc_backend.cli import main
from alc_backend.common import logs
from tests.command_line import alc


@pytest.fixture(autouse=True)
def _usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[Path]:
    paths = [folder, *folder.rglob("*")]
    return [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_state_and_backups_are_readable_by_their_user_only(settings, tmp_path):
    alc(settings, "round", "status")
    assert (settings.data_dir / "alc.sqlite").is_file()
    alc(settings, "backup", str(tmp_path / "alc.tar"))
    assert open_to_others(settings.data_dir) == []
    assert open_to_others(tmp_path / "alc.tar") == []


def test_a_data_folder_that_was_there_holds_private_files(settings):
    """Such as systemd's StateDirectory, which everybody may enter."""
    settings.data_dir.mkdir(mode=0o755)
    alc(settings, "round", "status")
    assert (settings.data_dir / "alc.sqlite").is_file()
    assert open_to_others(settings.data_dir) == [settings.data_dir]


@pytest.mark.parametrize(("command", "bits"), [("export", 0o644), ("init", 0o600)])
def test_results_are_as_the_umask_says(monkeypatch, tmp_path, command, bits):
    monkeypatch.setattr(sys, "argv", ["alc", command])
    monkeypatch.setattr(logs, "configure", lambda settings: None)
    monkeypatch.setattr(main, "app", lambda: (tmp_path / "written").write_text(""))
    main.main()
    assert stat.S_IMODE((tmp_path / "written").stat().st_mode) == bits
