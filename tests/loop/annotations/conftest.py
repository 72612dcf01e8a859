"""A project that asks, Label Studio as it tells of it, and a look at what is there."""

from __future__ import annotations

import pytest

from alc_backend.loop.annotations import reconciliation
from tests.annotations import asked_project, label_studio_of


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def label_studio(store, project):
    return label_studio_of(store)


@pytest.fixture
def look(store, project, label_studio):
    return lambda **options: reconciliation.reconcile(
        store, label_studio.client(), project, **options
    )
