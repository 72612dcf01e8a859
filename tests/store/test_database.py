from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, make_url, select, text
from sqlalchemy.pool import NullPool

import alc_backend.store
from alc_backend.errors import SettingsError
from alc_backend.labelstudio.query import digest
from alc_backend.settings import Settings
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.migrate import check_empty, revisions
from alc_backend.store.models import Base, LedgerEntry, Query, Round

WALKING_SKELETON = "0001"
MOMENT = "'2026-01-01 12:00:00'"


def engine_of(settings):
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return create_engine(make_url(settings.database), poolclass=NullPool)


def differences(store) -> list[object]:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def test_the_migrations_make_the_tables_that_the_code_uses(store):
    assert differences(store) == []


@pytest.fixture
def earlier(settings):
    """A database as it was before there were migrations, after an answered round."""
    config = Config()
    folder = Path(alc_backend.store.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder))
    published = {"image": "/x.png", "alc": {"image": "a", "superpixel": 2}}
    with engine_of(settings).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, WALKING_SKELETON)
        connection.execute(text("DROP TABLE alembic_version"))
        for statement in (
            "INSERT INTO projects (id, name, classes, query_project, brush_name, image_name,"
            " created_at)"
            f" VALUES (1, 'pets', '[\"cat\", \"dog\"]', 12, 'label', 'image', {MOMENT})",
            "INSERT INTO images (id, project_id, key, split, suffix, height, width, dataset_task)"
            " VALUES (3, 1, 'a', 'train', '.png', 4, 4, 9)",
            "INSERT INTO superpixels (id, image_id, number, size) VALUES (8, 3, 2, 5)",
            "INSERT INTO rounds (id, project_id, number, state, config, done, total, message,"
            f" cancel_requested, created_at) VALUES (1, 1, 1, 'open', '{{}}', 0, 0, '', false,"
            f" {MOMENT}), (2, 1, 2, 'training', '{{}}', 5, 9, '', false, {MOMENT})",
            'INSERT INTO queries (id, superpixel_id, round_id, task_id, "row", col, pseudo_label,'
            " score, rank, task, published, prediction) VALUES"
            f" (4, 8, 1, 77, 0, 0, 0, 1.5, 0, '{{}}', '{json.dumps(published)}', '[]')",
            "INSERT INTO answers (id, project_id, superpixel_id, annotation_id, revision, kind,"
            ' class_id, pseudo_label, "row", col, round_number, annotator, answered_at,'
            " updated_at, recorded_at)"
            f" VALUES (6, 1, 8, 55, 0, 'correct', 1, 0, 0, 0, 1, '7', {MOMENT}, {MOMENT},"
            f" {MOMENT})",
        ):
            connection.execute(text(statement.replace(":", r"\:")))
    return digest(published)


def test_a_database_from_before_migrations_is_taken_over_with_its_answers(settings, earlier):
    for _ in range(2):  # once more finds nothing to do
        store = Store(settings)
        assert differences(store) == []
        with store.reading() as session:
            answer = session.scalars(select(LedgerEntry)).one()
            assert (answer.annotation_id, answer.image_id, answer.overlap) == (55, 3, 1)
            assert ledger.judgement(session, 1).resolved.keys() == {8}
            query = session.scalars(select(Query)).one()
            assert (query.task_id, query.published, query.adjudication) == (77, earlier, False)
            states = session.execute(select(Round.state, Round.failed_in).order_by(Round.id)).all()
        assert states == [("open", None), ("failed", "training")]
        store.close()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE TABLE projects (id INTEGER)", "another program.*ALC_DATA_DIR"),
        ("UPDATE alembic_version SET version_num = '9999'", "newer version"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_with_the_remedy(settings, made, said):
    if made.startswith("UPDATE"):
        Store(settings).close()
    with engine_of(settings).begin() as connection:
        connection.execute(text(made))
    with pytest.raises(SettingsError, match=said):
        Store(settings)


def test_an_address_that_is_no_database_is_named(settings):
    wrong = settings.model_copy(update={"database_url": "postgresql://127.0.0.1:1/nothing"})
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        Store(wrong)


def _open(settings):
    Store(settings).close()


def _restore(settings):
    check_empty(settings, WALKING_SKELETON)


@pytest.mark.parametrize("opened", [_open, revisions, _restore])
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


@pytest.mark.parametrize("opened", [_open, revisions, _restore])
def test_revisions_that_contradict_each_other_are_no_traceback(settings, opened):
    Store(settings).close()
    with engine_of(settings).begin() as connection:
        connection.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
    with pytest.raises(SettingsError, match=r"cannot be opened.*alembic_version"):
        opened(settings)


def test_processes_that_start_together_make_the_tables_once(settings):
    script = (
        "from alc_backend.settings import settings\n"
        "from alc_backend.store.database import Store\n"
        "Store(settings()).close()"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={"PATH": "/usr/bin:/bin", **settings.environment()},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert [(process.communicate()[1], process.returncode) for process in started] == [("", 0)] * 4
    store = Store(settings)
    assert differences(store) == []
    store.close()
