from __future__ import annotations

from alc_backend.settings import Settings


def test_settings_survive_the_way_through_the_environment(monkeypatch, tmp_path):
    sent = Settings(
        data_dir=tmp_path,
        secret="s",
        label_studio_api_key="k",
        redis_url="redis://elsewhere",
        iterations=7,
        epsilon=0.5,
        _env_file=None,
    )
    for name, value in sent.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None) == sent


def test_secrets_are_not_shown():
    settings = Settings(secret="s3cret", _env_file=None)
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings.model_dump())
