"""A project that asks, Label Studio as it tells of it, and a look at what is there."""

from __future__ import annotations

import pytest

from alc_backend.loop.annotations import reconciliation
from tests.annotations import label_studio_of


@pytest.fixture
def label_studio(store, project):
    return label_studio_of(store)


@pytest.fixture
def look(store, project, label_studio):
    return lambda **options: reconciliation.reconcile(
        store, label_studio.client(), project, **options
    )
