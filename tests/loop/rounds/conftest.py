"""Rounds with a small, quick training."""

from __future__ import annotations

import pytest

from alc_backend.settings import Settings


@pytest.fixture
def settings(tmp_path, database_url) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        preset="cpu",
        iterations=3,
        input_size=64,
        batch_size=2,
        round_size=2,
        acquisition="sim",
        questions="single",
        checkpoint_every=1,
        _env_file=None,
    )


@pytest.fixture
def queue():
    return []
