"""Backup and restore: what comes back is what there was, on either database."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sqlite3
import tarfile
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, func, inspect, make_url, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

from alc_backend.errors import DatasetError, SettingsError, StorageError
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.exports import restore as restoring
from alc_backend.loop.exports.backup import Networks, write_backup
from alc_backend.loop.exports.export import export_project
from alc_backend.loop.exports.restore import restore_backup
from alc_backend.loop.rounds.plan import Work
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.incoming import Event
from alc_backend.store.models import (
    TRAIN,
    VAL,
    Base,
    Image,
    LedgerEntry,
    Part,
    Project,
    Round,
    Score,
)
from alc_backend.store.round_states import RoundState, Step
from alc_backend.store.storage import Storage
from tests.annotations import (
    DATASET_PROJECT,
    annotation,
    answer,
    arrive,
    asked_project,
    created,
    image_of,
    label_studio_of,
    receive,
    region,
    round_config,
    task_of,
)
from tests.command_line import alc
from tests.conftest import BOTH_DATABASES
from tests.loop.exports.contents import contents
from tests.pages import add_page, say_to_page
from tests.traits import are_equal, some_traits


@pytest.fixture
def corrected(store, dataset):
    project = asked_project(store, dataset)
    say = answer(1, task_of(store, "a", 2), "dog", by=7)
    arrive(store, project, created(say))
    receive(store, project, created(waiting_answer(store)))
    keep_networks(store, project, 1)
    return project


def waiting_answer(store):
    """An answer that is in Label Studio, and of which the inbox knows."""
    return answer(2, task_of(store, "a", 1), "cat", by=8, minute=1)


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


def engine_of(settings):
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return create_engine(make_url(settings.database), poolclass=NullPool)


def rewritten(path, change):
    """The same backup with another manifest."""
    with tarfile.open(path) as archive:
        members = {name: archive.extractfile(name).read() for name in archive.getnames()}
    manifest = json.loads(members.pop("manifest.json"))
    change(manifest, members)
    with tarfile.open(path, "w") as archive:
        for name, content in {**members, "manifest.json": json.dumps(manifest).encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def keep_networks(store, project, number, *folds):
    for fold in (None, *folds):
        network = store.files(project).network(number, fold)
        network.parent.mkdir(parents=True, exist_ok=True)
        network.write_bytes(f"network of {number}".encode())
        store.files(project).keep_network(number, fold)


def networks_in(path):
    with tarfile.open(path) as archive:
        names = [name for name in archive.getnames() if name.endswith(".safetensors")]
    return sorted(name.partition("rounds/")[2] for name in names)


def rows(store):
    with store.reading() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.c))]
            if not any(column.type.__class__.__name__ == "JSON" for column in table.c)
            else session.scalar(select(func.count()).select_from(table))
            for table in Base.metadata.sorted_tables
        }


@BOTH_DATABASES
def test_everything_comes_back(store, corrected, elsewhere, tmp_path):
    say_to_page(store, add_page(store, corrected), 77, {1, 3}, minute=9)
    made = write_backup(store, tmp_path / "alc.tar")
    assert made.missing == []
    brought = restore_backup(elsewhere, tmp_path / "alc.tar")
    assert (brought.rows, brought.files) == (made.rows, made.files)
    export_project(store, corrected, tmp_path / "before")
    with closing(Store(elsewhere)) as restored:
        assert rows(restored) == rows(store)
        export_project(restored, corrected, tmp_path / "after")
        assert restored.files(corrected).has_network(1)
        # the answer that waited in the inbox is read in, and new rows get new numbers
        label_studio = label_studio_of(restored)
        label_studio.annotate(waiting_answer(restored))
        assert webhooks.drain(restored, label_studio.client) == {"recorded": 1}
        assert webhooks.waiting(restored) == 0
        with restored.reading() as session:
            # one answer, three tiles of a page, and the answer that waited
            assert session.scalar(select(func.count()).select_from(LedgerEntry)) == 5
            assert session.scalar(select(func.count()).select_from(Event)) == 2
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


def test_direct_edits_come_back(store, dataset, elsewhere, tmp_path):
    project = asked_project(store, dataset)
    painted = region("dog", slice(0, 12), slice(4, 12))
    edit = annotation(9, image_of(store, "c").dataset_task, [painted], by=9)
    arrive(store, project, created(edit, project=DATASET_PROJECT))
    write_backup(store, tmp_path / "alc.tar")
    restore_backup(elsewhere, tmp_path / "alc.tar")
    export_project(store, project, tmp_path / "before")
    with closing(Store(elsewhere)) as restored:
        export_project(restored, project, tmp_path / "after")
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


def test_a_folder_is_no_file_to_write(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=r"is a folder; .*alc\.tar"):
        write_backup(store, Path())


def test_networks_by_choice(store, corrected, tmp_path):
    for networks, count in ((Networks.ALL, 1), (Networks.NONE, 0)):
        write_backup(store, tmp_path / "alc.tar", networks=networks)
        with tarfile.open(tmp_path / "alc.tar") as archive:
            names = archive.getnames()
        assert sum(name.endswith(".safetensors") for name in names) == count


@pytest.mark.parametrize(
    ("state", "failed_in", "networks", "last"),
    [
        (RoundState.CREATED, None, None, 1),
        (RoundState.TRAINING, None, None, 1),
        (RoundState.TRAINING, None, (0,), 1),  # those of the other folds are not trained yet
        (RoundState.FAILED, RoundState.TRAINING, (), 1),
        (RoundState.SCORING, None, (0, 2), 2),  # no image is in fold 1
        (RoundState.FAILED, RoundState.PUBLISHING, (0, 1, 2), 2),
    ],
)
def test_the_last_networks_are_those_of_a_trained_round(
    store, corrected, tmp_path, state, failed_in, networks, last
):
    with store.session() as session:
        session.add(
            Round(
                project_id=corrected,
                number=2,
                state=state,
                failed_in=failed_in,
                config=round_config(folds=3),
            )
        )
    if networks is not None:
        keep_networks(store, corrected, 2, *networks)
    write_backup(store, tmp_path / "alc.tar", networks=Networks.LAST)
    found = networks_in(tmp_path / "alc.tar")
    assert {name.partition("/")[0] for name in found} == {str(last)}
    assert len(found) == (1 if last == 1 else 1 + len(networks))


def test_the_only_networks_are_kept_though_their_round_is_not_trained(store, corrected, tmp_path):
    with store.session() as session:
        session.scalars(select(Round)).one().state = RoundState.TRAINING
    write_backup(store, tmp_path / "alc.tar")
    assert networks_in(tmp_path / "alc.tar") == ["1/model.safetensors"]


@pytest.fixture
def spread(store, dataset, tmp_path):
    """A project with images for validation, whose answers spread (ε > 0)."""
    project = asked_project(store, dataset)
    import_folder(store, dataset, "pets", validation=dataset)
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        round_.config = round_config(epsilon=0.5)
        for superpixel in session.scalars(select(Base.metadata.tables["superpixels"].c.id)):
            session.add(
                Score(
                    round_id=round_.id,
                    superpixel_id=superpixel,
                    score=1.0,
                    row=9,
                    col=9,
                    pseudo_label=1,
                    dominant=1,
                )
            )
    files = store.files(project)
    for image in store.images(project, TRAIN):
        files.write_reach(1, image.id, files.read_superpixels(image.id) > 0)
    return project


@pytest.mark.parametrize(
    ("split", "name"),
    [
        (TRAIN, "images/{}.png"),
        (TRAIN, "initial/{}.png"),
        (TRAIN, "superpixels/{}.npz"),
        (TRAIN, "rounds/1/reach/{}.png"),
        (TRAIN, "ground_truth/{}.png"),
        (VAL, "images/{}.png"),
        (VAL, "ground_truth/{}.png"),
    ],
)
def test_lost_files_are_missing_and_replace_no_good_backup(store, spread, tmp_path, split, name):
    path = tmp_path / "alc.tar"
    assert write_backup(store, path).missing == []
    before = path.read_bytes()
    lost = f"projects/{spread}/{name.format(store.images(spread, split)[0].id)}"
    store.storage.delete(lost)
    made = write_backup(store, path)
    assert made.missing == [lost]
    assert made.path == tmp_path / "alc.incomplete.tar"
    assert made.size == made.path.stat().st_size
    assert path.read_bytes() == before
    with tarfile.open(path) as whole, tarfile.open(made.path) as rest:
        assert set(whole.getnames()) - set(rest.getnames()) == {f"files/{lost}"}


@BOTH_DATABASES
def test_what_an_answer_reached_is_needed_after_its_scores_are_gone(store, spread, tmp_path):
    arrive(store, spread, created(answer(1, task_of(store, "a", 2), "dog", by=7)))
    with store.session() as session:
        session.execute(Score.__table__.delete())
    for image in store.images(spread, TRAIN):
        store.storage.delete(f"projects/{spread}/rounds/1/reach/{image.id}.png")
    reached = f"projects/{spread}/rounds/1/reach/{image_of_training(store, 'a').id}.png"
    assert write_backup(store, tmp_path / "alc.tar").missing == [reached]


@BOTH_DATABASES
@pytest.mark.parametrize("closed", [False, True])
def test_what_the_open_round_saw_is_needed(store, corrected, elsewhere, tmp_path, closed):
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        round_.config = round_config(questions="mixed")
        for number, images in enumerate(([], [1, 2], [3])):
            work = Work(images).as_json()
            session.add(Part(round_id=round_.id, step=Step.SCORING, number=number, work=work))
        if closed:  # another round is being made
            round_.state = RoundState.CLOSED
            session.add(
                Round(
                    project_id=corrected,
                    number=2,
                    state=RoundState.OPEN,
                    config=round_config(questions="single"),
                )
            )
    files = store.files(corrected)
    for shard in (1, 2):
        files.write_traits(1, shard, some_traits([shard]))
    assert write_backup(store, tmp_path / "alc.tar").missing == []
    restore_backup(elsewhere, tmp_path / "alc.tar")
    with closing(Store(elsewhere)) as restored:
        for shard in (1, 2):
            brought = restored.files(corrected).read_traits(1, shard)
            assert are_equal(brought, some_traits([shard]))
    lost = f"projects/{corrected}/rounds/1/traits/2.npz"
    store.storage.delete(lost)
    assert write_backup(store, tmp_path / "again.tar").missing == ([] if closed else [lost])


def image_of_training(store, key):
    with store.reading() as session:
        return session.scalars(select(Image).where(Image.key == key, Image.split == TRAIN)).one()


def test_true_label_maps_of_images_under_correction_may_be_unknown(store, corrected, tmp_path):
    image = image_of(store, "a")
    store.storage.delete(f"projects/{corrected}/ground_truth/{image.id}.png")
    with store.session() as session:
        session.get_one(Image, image.id).has_truth = False
    assert write_backup(store, tmp_path / "alc.tar").missing == []


@BOTH_DATABASES
def test_a_place_with_projects_is_left_alone(store, corrected, settings, tmp_path):
    write_backup(store, tmp_path / "alc.tar")
    store.storage.delete(f"projects/{corrected}/rounds/1/model.safetensors")
    with pytest.raises(SettingsError, match=r"projects in the database already.*ALC_FILES_URL"):
        restore_backup(settings, tmp_path / "alc.tar")
    assert not store.files(corrected).has_network(1)  # nor is any file written
    with store.reading() as session:
        assert session.get(Project, corrected) is not None


def test_a_damaged_backup_restores_nothing(store, corrected, elsewhere, tmp_path):
    path = tmp_path / "alc.tar"
    write_backup(store, path)
    content = bytearray(path.read_bytes())
    place = content.index(b"\x89PNG") + 40
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="is damaged"):
        restore_backup(elsewhere, path)
    with closing(Store(elsewhere)) as untouched, untouched.reading() as session:
        assert session.scalar(select(func.count()).select_from(Project)) == 0
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match="no backup, or a damaged one"):
        restore_backup(elsewhere, path)


@pytest.mark.parametrize("ours", [True, False])
def test_tables_of_another_program_are_left_alone(store, corrected, elsewhere, tmp_path, ours):
    write_backup(store, tmp_path / "alc.tar")
    if ours:
        Store(elsewhere).close()
    with engine_of(elsewhere).begin() as connection:
        connection.execute(text("CREATE TABLE task_completion (id INTEGER)"))
        connection.execute(text("INSERT INTO task_completion VALUES (5)"))
    with pytest.raises(SettingsError, match=r"another program.*task_completion.*of its own"):
        restore_backup(elsewhere, tmp_path / "alc.tar")
    with engine_of(elsewhere).connect() as connection:
        assert connection.scalar(text("SELECT id FROM task_completion")) == 5
        assert inspect(connection).has_table("projects") == ours
    assert not (elsewhere.data_dir / "projects").exists()


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE projects (id INTEGER)",
        "CREATE TABLE images (id INTEGER)",
        "CREATE TABLE alembic_version (version_num VARCHAR(32)); "
        "INSERT INTO alembic_version VALUES ('ab12cd')",
    ],
)
def test_tables_that_only_have_our_names_are_left_alone(store, elsewhere, tmp_path, made):
    write_backup(store, tmp_path / "alc.tar")
    with engine_of(elsewhere).begin() as connection:
        for statement in made.split("; "):
            connection.execute(text(statement))
        there = inspect(connection).get_table_names()
    with pytest.raises(SettingsError, match=r"another program.*new place"):
        restore_backup(elsewhere, tmp_path / "alc.tar")
    with engine_of(elsewhere).connect() as connection:
        assert inspect(connection).get_table_names() == there


@pytest.mark.parametrize("elsewhere", ["postgresql"], indirect=True)
def test_what_others_made_of_our_tables_is_not_dropped(store, corrected, elsewhere, tmp_path):
    write_backup(store, tmp_path / "alc.tar")
    Store(elsewhere).close()
    with engine_of(elsewhere).begin() as connection:
        connection.execute(text("CREATE VIEW dashboard AS SELECT * FROM ledger"))
    with pytest.raises(SettingsError, match=r"cannot be dropped.*depend.*of its own") as refused:
        restore_backup(elsewhere, tmp_path / "alc.tar")
    assert "CASCADE" not in str(refused.value)
    with engine_of(elsewhere).connect() as connection:
        assert inspect(connection).get_view_names() == ["dashboard"]


def test_the_files_of_a_project_at_work_are_not_overwritten(
    store, corrected, settings, elsewhere, tmp_path
):
    """A new database alone is no new place: the storage is that of the project at work."""
    write_backup(store, tmp_path / "alc.tar")
    shared = elsewhere.model_copy(update={"files_url": SecretStr(settings.files)})
    network = store.files(corrected).network(1)
    network.write_bytes(b"trained since then")
    photo = store.files(corrected).image(image_of(store, "a").id, ".png")
    photo.unlink()
    with pytest.raises(SettingsError, match=r"model\.safetensors.*ALC_FILES_URL.*ALC_DATA_DIR"):
        restore_backup(shared, tmp_path / "alc.tar")
    assert network.read_bytes() == b"trained since then"
    assert not photo.exists()
    with closing(Store(shared)) as untouched, untouched.reading() as session:
        assert session.scalar(select(func.count()).select_from(Project)) == 0
    network.unlink()  # what is the same, or not there, is no obstacle
    restore_backup(shared, tmp_path / "alc.tar")
    assert network.read_bytes() == b"network of 1"
    assert photo.exists()


def test_an_interrupted_restore_is_repeated(store, corrected, elsewhere, tmp_path, monkeypatch):
    made = write_backup(store, tmp_path / "alc.tar")
    put, names = Storage.put, []

    def dying(storage, path, name):
        if len(names) == 3:
            raise KeyboardInterrupt
        names.append(name)
        put(storage, path, name)

    monkeypatch.setattr(Storage, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        restore_backup(elsewhere, tmp_path / "alc.tar")
    monkeypatch.setattr(Storage, "put", put)
    assert restore_backup(elsewhere, tmp_path / "alc.tar").files == made.files
    with closing(Store(elsewhere)) as restored:
        assert rows(restored) == rows(store)


@pytest.mark.parametrize("elsewhere", ["sqlite"], indirect=True)
def test_a_service_does_not_wait_while_files_are_copied(
    store, corrected, elsewhere, tmp_path, monkeypatch
):
    write_backup(store, tmp_path / "alc.tar")
    Store(elsewhere).close()
    put, copied = Storage.put, []

    def writing(storage, path, name):
        with closing(sqlite3.connect(elsewhere.data_dir / "alc.sqlite", timeout=0)) as service:
            service.execute("BEGIN IMMEDIATE")
        copied.append(name)
        put(storage, path, name)

    monkeypatch.setattr(Storage, "put", writing)
    assert restore_backup(elsewhere, tmp_path / "alc.tar").files == len(copied)


def test_an_archive_brings_files_of_projects_only(store, corrected, elsewhere, tmp_path):
    path = tmp_path / "alc.tar"
    for name in ("files/doctor/1", "files/projects/../x", "files/alc.sqlite", "/etc/x", "x"):
        write_backup(store, path)

        def change(manifest, members, name=name):
            members[name] = b"?"
            manifest["sha256"][name] = hashlib.sha256(b"?").hexdigest()

        rewritten(path, change)
        with pytest.raises(DatasetError, match=r"belongs to no project|file that cannot be"):
            restore_backup(elsewhere, path)
    assert not list(tmp_path.glob("elsewhere/**/*.png"))


def test_a_manifest_that_does_not_tell_the_tables(store, corrected, elsewhere, tmp_path):
    path = tmp_path / "alc.tar"
    for change, said in (
        (lambda manifest, _: manifest.pop("revision"), "revision.*use another backup"),
        (lambda manifest, _: manifest.update(revision=None), "revision.*use another backup"),
        (lambda manifest, _: manifest.update(revision="0999"), "does not know the tables"),
        (lambda manifest, _: manifest.update(revision="head"), "does not know the tables"),
        (lambda manifest, _: manifest.pop("sha256"), "is no backup"),
    ):
        write_backup(store, path)
        rewritten(path, change)
        with pytest.raises(DatasetError, match=said):
            restore_backup(elsewhere, path)
    assert not (elsewhere.data_dir / "projects").exists()


def test_a_full_temporary_folder_is_named(store, corrected, elsewhere, tmp_path, monkeypatch):
    write_backup(store, tmp_path / "alc.tar")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restoring.shutil, "copyfileobj", full)
    with pytest.raises(StorageError, match=r"No space left.*TMPDIR") as failed:
        restore_backup(elsewhere, tmp_path / "alc.tar")
    assert "DATABASE_URL" not in str(failed.value)


@pytest.mark.parametrize(
    ("raised", "error", "said"),
    [
        (OperationalError("INSERT", [], Exception("disk is full")), StorageError, "disk is full"),
        (IntegrityError("INSERT", [], Exception("twice")), DatasetError, "do not fit.*twice"),
        (ValueError("no row"), DatasetError, "do not fit.*no row"),
    ],
)
def test_a_database_that_fails_stays_as_it_was(
    store, corrected, elsewhere, tmp_path, monkeypatch, raised, error, said
):
    write_backup(store, tmp_path / "alc.tar")
    insert = restoring.insert_rows

    def failing(connection, table, rows):
        if table.name == "ledger":
            raise raised
        return insert(connection, table, rows)

    monkeypatch.setattr(restoring, "insert_rows", failing)
    with pytest.raises(error, match=said):
        restore_backup(elsewhere, tmp_path / "alc.tar")
    with engine_of(elsewhere).connect() as connection:
        assert inspect(connection).get_table_names() == []


def with_member(path, name, content=b"", **fields):
    """The same backup with another member, named in the manifest, in place of one or beside it."""
    with tarfile.open(path) as archive:
        members = {each: archive.extractfile(each).read() for each in archive.getnames()}
    manifest = json.loads(members.pop("manifest.json"))
    members[name] = content
    manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    with tarfile.open(path, "w") as archive:
        for each, kept in {**members, "manifest.json": json.dumps(manifest).encode()}.items():
            entry = tarfile.TarInfo(each)
            entry.size = len(kept)
            for field, value in fields.items() if each == name else ():
                setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(kept))


LEDGER = "tables/ledger.jsonl.gz"


@pytest.mark.parametrize(
    "rows", [b'{"id": 1}\n' * 10**6, b'{"id": "' + b"0" * 10**8 + b'"}\n'], ids=["many", "long"]
)
def test_a_table_that_unfolds_to_far_more_is_refused_before_anything_is_written(
    store, corrected, elsewhere, tmp_path, rows
):
    write_backup(store, tmp_path / "alc.tar")
    with_member(tmp_path / "alc.tar", LEDGER, gzip.compress(rows))
    with pytest.raises(DatasetError, match="unfolds to far more"):
        restore_backup(elsewhere, tmp_path / "alc.tar")
    assert not (elsewhere.data_dir / "projects").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.LNKTYPE, "linkname": LEDGER, "size": 0},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        {"pax_headers": {"GNU.sparse.size": str(5 * 10**9), "GNU.sparse.map": "0,0"}, "size": 0},
    ],
    ids=["hard link", "link", "sparse"],
)
def test_what_is_no_plain_file_in_a_backup_is_refused(
    store, corrected, elsewhere, tmp_path, fields
):
    write_backup(store, tmp_path / "alc.tar")
    with_member(tmp_path / "alc.tar", "files/projects/1/images/9.png", **fields)
    with pytest.raises(DatasetError, match="is a link or a sparse file"):
        restore_backup(elsewhere, tmp_path / "alc.tar")


def test_the_command_line(store, corrected, settings, elsewhere, tmp_path):
    path = tmp_path / "alc.tar"
    done = alc(settings, "backup", str(path))
    assert done.returncode == 0, done.stderr
    assert f"{len(contents(settings.data_dir / 'projects'))} files" in done.stdout
    done = alc(settings, "restore", str(path))
    assert done.returncode == 1
    assert "projects in the database already" in done.stderr
    store.storage.delete(f"projects/{corrected}/initial/{image_of(store, 'a').id}.png")
    done = alc(settings, "backup", str(path))
    assert done.returncode == 1
    assert "missing: projects" in done.stdout
    assert f"{path} was not written" in done.stdout
    assert str(path.with_name("alc.incomplete.tar")) in done.stdout
    done = alc(elsewhere, "restore", str(path))
    assert done.returncode == 0, done.stderr
    done = alc(elsewhere, "restore", str(tmp_path / "nothing"))
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
