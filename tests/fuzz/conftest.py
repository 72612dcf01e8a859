from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from alc_backend.service.web.app import create_app
from tests.annotations import asked_project
from tests.fuzz.values import JSON, SECRET


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def client(settings, project, redis):
    app = create_app(settings)
    with TestClient(app, headers={**SECRET, **JSON}, raise_server_exceptions=False) as client:
        yield client
