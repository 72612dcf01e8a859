"""Without a password, requests that ask for another name are refused (DNS rebinding)."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.common.loopback import is_loopback
from alc_backend.service.web.app import create_app
from tests.asgi import ask, scope


@pytest.fixture
def app(settings, redis):
    changes = {"secret": None, "backend_url": "http://Host.Docker.internal:9090"}
    return create_app(settings.model_copy(update=changes))


def status(app, *hosts, path="/rounds"):
    headers = [(b"host", host.encode("latin-1")) for host in hosts]
    return anyio.run(ask, app, scope(path=path, headers=headers)).status


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9090",
        "127.0.0.1",
        "127.1.2.3:80",
        "localhost:9090",
        "LOCALHOST",
        "[::1]:9090",
        "[::1]",
        "host.docker.internal:9090",
    ],
)
def test_names_of_this_machine_are_answered(app, host):
    assert status(app, host) == 200


@pytest.mark.parametrize(
    "hosts",
    [
        ["attacker.example:9090"],
        ["127.0.0.1.attacker.example"],
        ["localhost.attacker.example"],
        ["attacker.example#127.0.0.1"],
        ["127.0.0.1:9090@attacker.example"],
        ["192.168.1.5:9090"],
        ["[fe80::1]"],
        ["2130706433"],
        ["0"],
        ["::1"],
        ["[::1"],
        [""],
        [],
        ["127.0.0.1", "attacker.example"],
    ],
)
@pytest.mark.parametrize("path", ["/", "/rounds", "/images/1/after", "/health"])
def test_other_names_are_refused(app, hosts, path):
    assert status(app, *hosts, path=path) == 421


def test_with_a_password_any_name_may_be_asked_for(settings, redis):
    headers = [(b"host", b"alc.example.com"), (b"authorization", b"Bearer s3cret")]
    answered = anyio.run(ask, create_app(settings), scope(path="/rounds", headers=headers))
    assert answered.status == 200


@given(st.text(max_size=20))
def test_only_loopback_addresses_are_loopback(name):
    if is_loopback(name):
        assert name.lower() == "localhost" or name.startswith("127.") or ":" in name
