"""What CVAT does not do is told by its kind: away, refused, or not understood."""

from __future__ import annotations

import sys

import pytest
from PIL import Image as Picture
from pydantic import SecretStr

from alc_backend.errors import (
    CvatAwayError,
    CvatError,
    PlatformAwayError,
    PlatformError,
    SettingsError,
)

pytest.importorskip("cvat_sdk", reason="cvat-sdk is not installed")

from alc_backend.cvat.client import Cvat
from tests.cvat.fake_cvat import TASK, TOKEN, FakeCvat, serve
from tests.ports import free_port


@pytest.fixture
def cvat():
    frames = {"a.png": Picture.new("RGB", (9, 9))}
    with serve(FakeCvat(frames, ["dog", "cat"])) as started:
        yield started


@pytest.fixture
def server(cvat, settings):
    chosen = settings.model_copy(update={"cvat_url": cvat.url, "cvat_token": SecretStr(TOKEN)})
    with Cvat.from_settings(chosen) as server:
        yield server


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overloaded_server_is_away(server, cvat, status):
    cvat.away_at("GET /tasks/7", status=status)
    with pytest.raises(CvatAwayError, match="task 7") as caught:
        server.size_of(TASK)
    assert str(status) in str(caught.value)
    assert isinstance(caught.value, PlatformAwayError)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_what_is_refused_is_no_outage(server, cvat, status):
    cvat.away_at("GET /tasks/7", status=status)
    with pytest.raises(CvatError) as caught:
        server.size_of(TASK)
    assert caught.value.status == status
    assert not isinstance(caught.value, PlatformAwayError)


def test_nobody_answers(settings):
    url = f"http://127.0.0.1:{free_port()}"
    chosen = settings.model_copy(update={"cvat_url": url, "cvat_token": SecretStr(TOKEN)})
    as_user = {"cvat_token": None, "cvat_user": "anna", "cvat_password": SecretStr("s3cret")}
    for settings_ in (chosen, chosen.model_copy(update=as_user)):
        with (
            pytest.raises(CvatAwayError, match="does not answer"),
            Cvat.from_settings(settings_) as server,
        ):
            server.size_of(TASK)


def test_an_address_with_a_password_is_refused_and_not_repeated(settings):
    chosen = settings.model_copy(update={"cvat_url": "https://anna:s3cret@cvat.example.com"})
    with pytest.raises(SettingsError, match="set CVAT_USER and CVAT_PASSWORD") as caught:
        Cvat.from_settings(chosen)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"results": 3}'])
def test_an_answer_that_is_not_cvats(server, cvat, content):
    cvat.says = content
    with pytest.raises(PlatformError, match="do not fit together"):
        server.labels("task", TASK)


def test_without_cvat_sdk_it_is_said_what_to_install(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    chosen = settings.model_copy(update={"cvat_url": "http://127.0.0.1:1"})
    with pytest.raises(SettingsError, match=r"alc-backend\[cvat\]"):
        Cvat.from_settings(chosen)
