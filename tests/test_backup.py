"""Backup and restore: what comes back is what there was, on either database."""

from __future__ import annotations

import tarfile
import uuid
from contextlib import closing

import pytest
from sqlalchemy import func, select

from alc_backend import inbox
from alc_backend.backup import ALL, NONE, backup, restore
from alc_backend.errors import DatasetError, SettingsError
from alc_backend.export import export_project
from alc_backend.settings import Settings
from alc_backend.store.database import Store, empty
from alc_backend.store.models import Answer, Base, Event, Project
from tests.annotations import (
    DATASET_PROJECT,
    FakeLabelStudio,
    annotation,
    answer,
    asked_project,
    created,
    image_of,
    receive,
    region,
    task_of,
)
from tests.test_cli import alc
from tests.test_export import contents


@pytest.fixture
def corrected(store, dataset):
    project = asked_project(store, dataset)
    say = answer(1, task_of(store, "a", 2), "dog", by=7)
    receive(store, project, created(say))
    inbox.drain(store, FakeLabelStudio)
    receive(store, project, created(answer(2, task_of(store, "a", 1), "cat", by=8, minute=1)))
    network = store.files(project).network(1)
    network.parent.mkdir(parents=True, exist_ok=True)
    network.write_bytes(b"a network")
    store.files(project).keep_network(1)
    return project


@pytest.fixture(params=["sqlite", "postgresql"])
def elsewhere(request, tmp_path):
    """Where a backup is restored: either database, whatever it came from."""
    url, name = None, f"r{uuid.uuid4().hex}"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        url = server.create_database(name)
    yield Settings(
        data_dir=tmp_path / "elsewhere", database_url=url, secret="s3cret", _env_file=None
    )
    if url:
        server.drop_database(name)


def rows(store):
    with store.reading() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.c))]
            if not any(column.type.__class__.__name__ == "JSON" for column in table.c)
            else session.scalar(select(func.count()).select_from(table))
            for table in Base.metadata.sorted_tables
        }


def test_everything_comes_back(store, corrected, elsewhere, tmp_path):
    made = backup(store, tmp_path / "alc.tar")
    assert made.missing == []
    brought = restore(elsewhere, tmp_path / "alc.tar")
    assert (brought.rows, brought.files) == (made.rows, made.files)
    export_project(store, corrected, tmp_path / "before")
    with closing(Store(elsewhere)) as restored:
        assert rows(restored) == rows(store)
        export_project(restored, corrected, tmp_path / "after")
        assert restored.files(corrected).has_network(1)
        # the answer that waited in the inbox is read in, and new rows get new numbers
        assert inbox.drain(restored, FakeLabelStudio) == {"recorded": 1}
        with restored.reading() as session:
            assert session.scalar(select(func.count()).select_from(Answer)) == 2
            assert inbox.waiting(restored) == 0
            assert session.scalar(select(func.count()).select_from(Event)) == 2
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


def test_direct_edits_come_back(store, dataset, elsewhere, tmp_path):
    project = asked_project(store, dataset)
    painted = region("dog", slice(0, 12), slice(4, 12))
    edit = annotation(9, image_of(store, "c").dataset_task, [painted], by=9)
    receive(store, project, created(edit, project=DATASET_PROJECT))
    inbox.drain(store, FakeLabelStudio)
    backup(store, tmp_path / "alc.tar")
    restore(elsewhere, tmp_path / "alc.tar")
    export_project(store, project, tmp_path / "before")
    with closing(Store(elsewhere)) as restored:
        export_project(restored, project, tmp_path / "after")
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


def test_networks_by_choice(store, corrected, tmp_path):
    for networks, count in ((ALL, 1), (NONE, 0)):
        backup(store, tmp_path / "alc.tar", networks=networks)
        with tarfile.open(tmp_path / "alc.tar") as archive:
            names = archive.getnames()
        assert sum(name.endswith(".safetensors") for name in names) == count


def test_a_place_with_projects_is_left_alone(store, corrected, settings, tmp_path):
    backup(store, tmp_path / "alc.tar")
    with pytest.raises(SettingsError, match="projects in the database already"):
        restore(settings, tmp_path / "alc.tar")
    with store.reading() as session:
        assert session.get(Project, corrected) is not None


def test_a_damaged_backup_restores_nothing(store, corrected, elsewhere, tmp_path):
    path = tmp_path / "alc.tar"
    backup(store, path)
    content = bytearray(path.read_bytes())
    place = content.index(b"\x89PNG") + 40
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="is damaged"):
        restore(elsewhere, path)
    with closing(Store(elsewhere)) as untouched, untouched.reading() as session:
        assert session.scalar(select(func.count()).select_from(Project)) == 0
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match="no backup, or a damaged one"):
        restore(elsewhere, path)


def test_a_backup_of_another_version(store, corrected, elsewhere):
    with pytest.raises(SettingsError, match="does not know the tables"), empty(elsewhere, "0999"):
        pass


def test_a_backup_of_an_older_version(store, elsewhere):
    """The tables of the backup's version are made, filled, and brought to this version's form."""
    with empty(elsewhere, "0002") as connection:
        connection.exec_driver_sql(
            "INSERT INTO projects (name, classes, brush_name, image_name, overlap, other_tasks, "
            "created_at) VALUES ('old', '[\"a\", \"b\"]', 'label', 'image', 1, 0, "
            "'2026-01-01 00:00:00')"
        )
    with closing(Store(elsewhere)) as opened, opened.reading() as session:
        assert session.scalars(select(Project.name)).all() == ["old"]


def test_the_command_line(store, corrected, settings, elsewhere, tmp_path):
    path = tmp_path / "alc.tar"
    done = alc(settings, "backup", str(path))
    assert done.returncode == 0, done.stderr
    assert f"{len(contents(settings.data_dir / 'projects'))} files" in done.stdout
    done = alc(settings, "restore", str(path))
    assert done.returncode == 1
    assert "projects in the database already" in done.stderr
    done = alc(elsewhere, "restore", str(path))
    assert done.returncode == 0, done.stderr
    done = alc(elsewhere, "restore", str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
