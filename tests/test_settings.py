from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from alc_backend.errors import SettingsError
from alc_backend.settings import ENV_FILE, Settings, settings


def test_settings_survive_the_way_through_the_environment(monkeypatch, tmp_path):
    sent = Settings(
        data_dir=tmp_path,
        secret="s",
        label_studio_api_key="k",
        redis_url="redis://elsewhere",
        iterations=7,
        epsilon=0.5,
    )
    for name, value in sent.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == sent


NUMBERS = [
    name
    for name, field in Settings.model_fields.items()
    if {int, float} & {field.annotation, *get_args(field.annotation)}
]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_least_and_a_greatest_value(name):
    """Else one request or one slip of a finger takes all memory."""
    for value in (-1e30, 1e30, float("inf"), float("nan")):
        with pytest.raises(ValidationError):
            Settings(**{name: value if value in (float("inf"),) or value != value else int(value)})


@pytest.mark.parametrize("given", ["proxy", "*", "10.0.0.1/8", "10.0.0.0/8,nginx", "fe80::1/129"])
def test_trusted_proxies_are_addresses(given):
    with pytest.raises(ValidationError, match="holds no addresses or networks"):
        Settings(trusted_proxies=given)


def test_trusted_proxies():
    assert Settings().proxy_networks == []
    given = Settings(trusted_proxies=" 127.0.0.1, 10.0.0.0/8 ,::1")
    assert [str(each) for each in given.proxy_networks] == ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]


def test_secrets_are_not_shown():
    given = Settings(secret="s3cret")
    assert "s3cret" not in repr(given)
    assert "s3cret" not in str(given.model_dump())


@pytest.fixture
def fresh():
    """The settings of this process are read anew, before and after the test."""
    settings.cache_clear()
    yield
    settings.cache_clear()


ELSEWHERE = "LABEL_STUDIO_URL=https://attacker.example\nLABEL_STUDIO_API_KEY=theirs\n"


def test_a_file_in_the_working_directory_is_not_read(fresh, monkeypatch, tmp_path):
    (tmp_path / ".env").write_text(ELSEWHERE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "mine")
    assert settings().label_studio_url == "http://127.0.0.1:8080"
    assert Settings().label_studio_api_key.get_secret_value() == "mine"


def test_a_file_is_read_when_it_is_named(fresh, monkeypatch, tmp_path):
    (tmp_path / "my settings").write_text(ELSEWHERE + "ALC_ROUND_SIZE=7\n")
    monkeypatch.setenv(ENV_FILE, str(tmp_path / "my settings"))
    monkeypatch.setenv("ALC_ROUND_SIZE", "9")
    assert settings().label_studio_url == "https://attacker.example"
    assert settings().round_size == 9  # the environment comes first


def test_a_file_that_is_named_but_missing_is_an_error(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv(ENV_FILE, str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match=r"ALC_ENV_FILE=.*nothing: cannot be read"):
        settings()


def test_no_child_reads_another_file_than_its_parent(fresh, monkeypatch, tmp_path):
    """What a parent passes on holds every setting, so a child's file changes nothing."""
    (tmp_path / "file").write_text(ELSEWHERE)
    monkeypatch.setenv(ENV_FILE, str(tmp_path / "file"))
    for name, value in Settings(label_studio_url="http://mine").environment().items():
        monkeypatch.setenv(name, value)
    assert settings().label_studio_url == "http://mine"
    assert settings().label_studio_api_key is None
