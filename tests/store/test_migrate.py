from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, inspect, make_url, select, text
from sqlalchemy.pool import NullPool

from alc_backend.errors import DatasetError, SettingsError
from alc_backend.settings import Settings
from alc_backend.store import migrate
from alc_backend.store.database import Store
from alc_backend.store.migrate import check_empty, empty_tables, revisions
from alc_backend.store.models import Base, Project
from tests.conftest import BOTH_DATABASES

pytestmark = BOTH_DATABASES

FIRST = "0001"

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "0001"


def upgrade():
    op.add_column("projects", sa.Column("colour", sa.String(), nullable=True))
"""

PROJECT = (
    "INSERT INTO projects (name, classes, brush_name, image_name, overlap, other_tasks, "
    "other_images, created_at) "
    "VALUES ('old', '[\"a\", \"b\"]', 'label', 'image', 1, 0, 0, '2026-01-01 00:00:00')"
)


def engine_of(settings):
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return create_engine(make_url(settings.database), poolclass=NullPool)


def execute(settings, statement: str) -> None:
    with engine_of(settings).begin() as connection:
        connection.execute(text(statement.replace(":", r"\:")))


def tables(settings) -> set[str]:
    return set(inspect(engine_of(settings)).get_table_names())


def differences(store) -> list[object]:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


@pytest.fixture
def later_version(monkeypatch, tmp_path):
    """A context in which this is a later version of alc-backend, with one more migration."""
    folder = shutil.copytree(migrate.MIGRATIONS, tmp_path / "100% later")
    (folder / "versions" / "9999_next.py").write_text(NEXT)

    @contextmanager
    def later():
        with monkeypatch.context() as patch:
            patch.setattr(migrate, "MIGRATIONS", folder)
            yield

    return later


def test_the_migrations_make_the_tables_that_the_code_uses(store):
    assert differences(store) == []


def test_migrations_import_nothing_that_may_change():
    for path in (migrate.MIGRATIONS / "versions").glob("*.py"):
        assert "alc_backend" not in path.read_text(), path


def test_looking_creates_nothing(settings):
    assert revisions(settings) == (None, FIRST)
    check_empty(settings, FIRST)
    assert not settings.data_dir.exists()
    if settings.database_url is not None:
        assert tables(settings) == set()


def test_an_older_database_is_brought_to_this_versions_form(settings, later_version):
    Store(settings).close()
    execute(settings, PROJECT)
    with later_version():
        assert revisions(settings) == (FIRST, "9999")
        for _ in range(2):  # the second time, there is nothing to do
            with closing(Store(settings)) as store, store.reading() as session:
                found = session.execute(text("SELECT name, colour FROM projects")).all()
            assert found == [("old", None)]
            assert revisions(settings) == ("9999", "9999")


def test_a_database_of_a_newer_version_is_refused_with_the_remedy(settings, later_version):
    with later_version():
        Store(settings).close()
    with pytest.raises(SettingsError, match=r"newer version.*ALC_DATA_DIR"):
        Store(settings)
    assert revisions(settings) == ("9999", FIRST)


@pytest.mark.parametrize("name", ["projects", "queries"])
def test_a_database_of_another_program_is_refused_with_the_remedy(settings, name):
    execute(settings, f"CREATE TABLE {name} (id INTEGER)")
    with pytest.raises(SettingsError, match=rf"another program.*\({name}\).*ALC_DATA_DIR"):
        Store(settings)
    assert tables(settings) == {name}


def open_store(settings: Settings) -> None:
    Store(settings).close()


def prepare_to_restore(settings: Settings) -> None:
    check_empty(settings, FIRST)


@pytest.mark.parametrize("opened", [open_store, revisions, prepare_to_restore])
def test_revisions_that_contradict_each_other_are_no_traceback(settings, opened):
    Store(settings).close()
    execute(settings, "INSERT INTO alembic_version VALUES ('9999')")
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
    with closing(Store(settings)) as store:
        assert differences(store) == []


# Emptied for a backup


def test_a_backup_of_an_older_version_is_brought_to_this_versions_form(settings, later_version):
    with later_version():
        with empty_tables(settings, FIRST) as connection:
            connection.exec_driver_sql(PROJECT)
        with closing(Store(settings)) as store, store.reading() as session:
            assert session.scalars(select(Project.name)).all() == ["old"]
        assert revisions(settings) == ("9999", "9999")


def test_a_backup_of_a_newer_version_is_refused(settings):
    with (
        pytest.raises(DatasetError, match=r"does not know the tables of '0999'; install"),
        empty_tables(settings, "0999"),
    ):
        pass
    with pytest.raises(DatasetError, match="does not know the tables"):
        check_empty(settings, "0999")


def test_the_tables_of_every_revision_are_known_as_ours(settings):
    """Else a restore into an older version's database without projects would be refused."""
    for path in sorted((migrate.MIGRATIONS / "versions").glob("0*.py")):
        with empty_tables(settings, path.name.partition("_")[0]):
            pass
        assert tables(settings) - {"alembic_version"} <= set(Base.metadata.tables)


def test_what_fails_while_tables_are_filled_leaves_the_former_ones(settings):
    def fill_in_part():
        with empty_tables(settings, FIRST) as connection:
            connection.exec_driver_sql(PROJECT)
            raise ZeroDivisionError

    Store(settings).close()
    with pytest.raises(ZeroDivisionError):
        fill_in_part()
    with closing(Store(settings)) as store, store.reading() as session:
        assert session.scalar(select(func.count()).select_from(Project)) == 0
