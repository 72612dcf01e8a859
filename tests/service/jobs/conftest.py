from __future__ import annotations

import pytest

from alc_backend.service.jobs import functions
from alc_backend.settings import settings as process_settings


@pytest.fixture
def here(settings, redis, monkeypatch):
    """Settings that a worker in this very process uses, too."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    process_settings.cache_clear()
    functions._opened.cache_clear()
    yield settings
    functions.store().close()
    process_settings.cache_clear()
    functions._opened.cache_clear()
