from __future__ import annotations

import stat

import pytest

from alc_backend.cli.demo.credentials import write_environment
from alc_backend.settings import ENV_FILE, Settings, settings


@pytest.fixture
def fresh():
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_commands_that_are_given_the_file_use_the_settings_in_it(fresh, monkeypatch, tmp_path):
    folder = tmp_path / "it's a\\folder #1"
    written = Settings(data_dir=folder, secret="s3'cret\\", label_studio_api_key="k")
    write_environment(tmp_path / "environment", written)
    assert stat.S_IMODE((tmp_path / "environment").stat().st_mode) == 0o600
    monkeypatch.setenv(ENV_FILE, str(tmp_path / "environment"))
    assert settings() == written
