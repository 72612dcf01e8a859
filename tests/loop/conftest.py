"""A project that asks, and Label Studio as it tells of it, at the address of the settings."""

from __future__ import annotations

import pytest

from tests.annotations import asked_project, label_studio_of


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def label_studio(store, project, monkeypatch):
    fake = label_studio_of(store)
    fake.serve(monkeypatch)
    return fake
