from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from alc_backend.service.web.app import create_app


@pytest.fixture
def service(settings, redis):
    """A client of the service that sends the password."""
    with TestClient(create_app(settings), headers={"Authorization": "Bearer s3cret"}) as client:
        yield client
