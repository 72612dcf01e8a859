from __future__ import annotations

import sys

import pytest

from alc_backend.errors import SettingsError
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.migrate import check_empty, revisions


def open_store(settings: Settings) -> None:
    Store(settings).close()


def prepare_to_restore(settings: Settings) -> None:
    check_empty(settings, "0001")


def test_a_server_that_is_away_is_named(tmp_path):
    url = "postgresql://127.0.0.1:1/nothing"
    settings = Settings(data_dir=tmp_path / "data", database_url=url, _env_file=None)
    with pytest.raises(SettingsError, match=r"(?s)cannot be opened.*DATABASE_URL"):
        Store(settings)


@pytest.mark.parametrize("opened", [open_store, revisions, prepare_to_restore])
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://u:s3cret@h/x", r"psycopg.*pip install 'alc-backend\[postgres\]'"),
        ("postgresql+nodriver://u:s3cret@h/x", "cannot be opened"),
        ("postgresql+asyncpg://u:s3cret@h/x", r"pip install 'alc-backend\[postgres\]'"),
        ("sqlite+aiosqlite:///x", "begin the address with sqlite:///"),
        ("mysql://u:s3cret@h/x", "mysql:// is not supported, only SQLite.*PostgreSQL"),
        ("postgres://u:s3cret@h/x", "postgres:// is not supported.*postgresql://"),
        ("postgresql://u:pw@h:s3cret/x", "no address of a database.*HOST:PORT"),
        ("nonsense", "no address of a database"),
    ],
)
def test_a_database_without_its_driver_is_refused_with_the_remedy(
    tmp_path, monkeypatch, opened, address, said
):
    for module in ("psycopg", "asyncpg", "aiosqlite"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    settings = Settings(data_dir=tmp_path / "data", database_url=address, _env_file=None)
    with pytest.raises(SettingsError, match=said) as refused:
        opened(settings)
    assert "s3cret" not in str(refused.value)
