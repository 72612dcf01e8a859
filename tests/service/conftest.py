from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from alc_backend.service.web.app import create_app


@pytest.fixture(autouse=True)
def _tables(database):
    """The application finds its tables; making them is tests/store's subject."""


@pytest.fixture
def service(settings, redis):
    """A client of the service that sends the password."""
    with TestClient(create_app(settings), headers={"Authorization": "Bearer s3cret"}) as client:
        yield client
