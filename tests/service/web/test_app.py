"""The web application as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import SecretStr

from alc_backend.errors import SettingsError
from alc_backend.service.web.app import create_app
from alc_backend.settings import Settings
from tests.annotations import asked_project


def test_a_public_address_needs_a_secret(settings, redis, monkeypatch):
    monkeypatch.setenv("ALC_SECRET", "")
    blank = Settings(data_dir=settings.data_dir, host="0.0.0.0", _env_file=None)
    with pytest.raises(SettingsError, match="ALC_SECRET is not set"):
        create_app(blank)


def test_a_public_address_needs_a_secret_that_is_not_guessed(settings, redis):
    short = {"host": "0.0.0.0", "secret": SecretStr("x" * 15)}
    with pytest.raises(SettingsError, match="has 15 characters"):
        create_app(settings.model_copy(update=short))
    create_app(settings.model_copy(update={**short, "secret": SecretStr("x" * 16)}))
    create_app(settings.model_copy(update={**short, "host": "127.0.0.1"}))


def test_the_web_process_never_loads_a_network(settings, store, dataset, redis):
    asked_project(store, dataset)
    script = """
import sys
from fastapi.testclient import TestClient
from alc_backend.service.web.app import create_app
from alc_backend.settings import settings
with TestClient(create_app(settings()), headers={"Authorization": "Bearer s3cret"}) as client:
    for path, body in (
        ("/setup", {"project": "11.1", "schema": "<View/>"}),
        ("/predict", {"project": "11.1", "tasks": [{"id": 501}, {"id": 77}]}),
        ("/webhook", {"action": "START_TRAINING", "project": {"id": 11}}),
    ):
        assert client.post(path, json=body).status_code == 200, path
heavy = {"torch", "torchvision", "timm", "segmentation_models_pytorch"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": "/usr/bin:/bin", **settings.environment()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
