"""Backup: everything that the store holds, written into one file.

Reads the database and the storage; writes the file. Work may go on meanwhile. Called by commands.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sqlalchemy import Table, select, type_coerce
from sqlalchemy.orm import Session

from alc_backend.common.files import write_atomically
from alc_backend.common.types import Json, Progress
from alc_backend.errors import NotFoundError, StorageError
from alc_backend.loop.exports import archive
from alc_backend.loop.exports.archive import FILES, Manifest, Summary
from alc_backend.loop.questions import round_traits
from alc_backend.store import migrate
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.kinds import ANSWERS, EntryKind
from alc_backend.store.models import (
    TRAIN,
    Base,
    Image,
    LedgerEntry,
    Project,
    Round,
    Score,
    Superpixel,
)
from alc_backend.store.round_states import RoundState

ROWS = 1000
"""Rows read from the database at once."""

_UNTRAINED = (RoundState.CREATED, RoundState.TRAINING)


class Networks(str, Enum):
    """Which rounds' networks a backup holds."""

    LAST = "last"
    """Those of each project's last trained round."""

    ALL = "all"
    NONE = "none"


@dataclass(frozen=True)
class BackupFile:
    """A file of the storage that a backup holds; ``needed``: the backup is incomplete without."""

    name: str
    needed: bool


def write_backup(
    store: Store,
    path: Path,
    *,
    networks: Networks = Networks.LAST,
    progress: Progress = lambda done, total, message: None,
) -> Summary:
    """Write everything into ``path``, which appears once it is complete.

    The tables are those of one moment; work may go on meanwhile. The manifest lists all networks,
    also those that the backup does not hold. When files are missing, ``path`` stays as it is and
    the rest is written beside it, as NAME.incomplete.tar. Raises StorageError when the file cannot
    be written.
    """
    if path.is_dir():
        raise StorageError(
            f"{path}: is a folder; give a file in it, for example {path / 'alc.tar'}"
        )
    summary = Summary(path)

    def write(part: Path) -> None:
        with tarfile.open(part, "w") as tar:
            _write(store, tar, summary, networks, progress)
        if summary.missing:
            summary.path = path.with_name(f"{path.stem}.incomplete{path.suffix}")

    try:
        write_atomically(path.absolute(), write, name=lambda: summary.path.name)
    except OSError as error:
        raise StorageError(f"{path}: the backup cannot be written ({error})") from error
    summary.size = summary.path.stat().st_size
    return summary


def _write(
    store: Store, tar: tarfile.TarFile, summary: Summary, networks: Networks, progress: Progress
) -> None:
    """Write the tables, then the files that they tell of, then the manifest."""
    digests: dict[str, str] = {}
    with store.reading() as session:
        for table in Base.metadata.sorted_tables:
            name = archive.table_member(table.name)
            progress(0, 1, f"reading the table {table.name}")
            with tempfile.TemporaryFile() as rows:
                summary.rows += archive.pack_rows(_rows(session, table), rows)
                digests[name] = archive.add_member(tar, name, rows)
        files, present = _files_in_force(session, store, networks)
    for done, file in enumerate(files):
        progress(done, len(files), file.name)
        try:
            local = store.storage.local(file.name)
        except NotFoundError:
            if file.needed:
                summary.missing.append(file.name)
            continue
        with local.open("rb") as content:
            name = f"{FILES}{file.name}"
            digests[name] = archive.add_member(tar, name, content)
        summary.files += 1
    archive.write_manifest(tar, Manifest(migrate.revisions(store.settings)[1], digests), present)


def _rows(session: Session, table: Table) -> Iterator[Json]:
    """The rows of a table, by its primary key."""
    columns = [type_coerce(c, archive.archived_type(c.type)).label(c.name) for c in table.c]
    ordered = select(*columns).order_by(*table.primary_key.columns)
    for row in session.execute(ordered, execution_options={"yield_per": ROWS}).mappings():
        yield dict(row)


def _files_in_force(
    session: Session, store: Store, networks: Networks
) -> tuple[list[BackupFile], dict[str, bool]]:
    """The files that a backup holds; and all networks there are, each with whether it is kept."""
    files: list[BackupFile] = []
    index: dict[str, bool] = {}
    for project in session.scalars(select(Project).order_by(Project.id)):
        rounds = session.scalars(
            select(Round).where(Round.project_id == project.id).order_by(Round.number)
        ).all()
        files += _files_of_project(session, store.files(project.id), project, rounds)
        of_project = _networks_of_project(store, project, rounds, networks)
        files += [BackupFile(name, needed=False) for name, kept in of_project.items() if kept]
        index |= of_project
    return files, index


def _files_of_project(
    session: Session, files: ProjectFiles, project: Project, rounds: Sequence[Round]
) -> Iterator[BackupFile]:
    """The files of a project but for its networks."""
    of_project = select(Image).where(Image.project_id == project.id).order_by(Image.id)
    images = session.scalars(of_project).all()
    for image in images:
        photo, superpixels, initial, truth = files.of_image(image.id, image.suffix)
        # An image under correction comes with both maps; ground truth may be unknown.
        corrected = image.split == TRAIN
        yield BackupFile(photo, needed=True)
        yield BackupFile(superpixels, needed=corrected)
        yield BackupFile(initial, needed=corrected)
        yield BackupFile(truth, needed=image.has_truth)
    edits = select(LedgerEntry).where(
        LedgerEntry.project_id == project.id, LedgerEntry.kind == EntryKind.EDIT
    )
    for edit in session.scalars(edits.order_by(LedgerEntry.id)):
        yield BackupFile(files.of_edit(edit.annotation_id, edit.revision), needed=True)
    for round_ in rounds:
        if round_.config.epsilon > 0:
            scored = _scored_images(session, round_)
            for image in images:
                (reach,) = files.of_round(round_.number, [image.id])
                yield BackupFile(reach, needed=image.id in scored)
        if round_.config.questions != "single":
            # The open round's make its pages; an earlier one's say what its answers teach.
            is_open = round_.state == RoundState.OPEN and round_ is rounds[-1]
            for name in files.of_traits(round_.number, round_traits.shards_of(session, round_)):
                yield BackupFile(name, needed=is_open)


def _scored_images(session: Session, round_: Round) -> set[int]:
    """The images (ids) for which the round has noted what its answers reach."""
    scored = (
        select(Superpixel.image_id)
        .join(Score, Score.superpixel_id == Superpixel.id)
        .where(Score.round_id == round_.id)
    )
    answered = select(LedgerEntry.image_id).where(  # their scores go after the next round
        LedgerEntry.project_id == round_.project_id,
        LedgerEntry.round_number == round_.number,
        LedgerEntry.kind.in_(ANSWERS),
    )
    return {*session.scalars(scored.distinct()), *session.scalars(answered.distinct())}


def _networks_of_project(
    store: Store, project: Project, rounds: Sequence[Round], networks: Networks
) -> dict[str, bool]:
    """The names of a project's networks that are there, each with whether the backup holds it."""
    files = store.files(project.id)
    present = {
        round_.number: [
            name
            for name in files.of_networks(round_.number, round_.config.folds)
            if store.storage.exists(name)
        ]
        for round_ in rounds
    }
    last = _last_trained(files, rounds, present)
    return {
        name: networks == Networks.ALL or (networks == Networks.LAST and number == last)
        for number, names in present.items()
        for name in names
    }


def _last_trained(
    files: ProjectFiles, rounds: Sequence[Round], present: dict[int, list[str]]
) -> int | None:
    """The number of the last round whose training has ended and whose network is ``present``.

    Where there is none, that of the last round that has any network; None without any.
    """
    having = [round_ for round_ in rounds if present[round_.number]]
    ended = [
        round_
        for round_ in having
        if round_.state not in _UNTRAINED
        and round_.failed_in not in _UNTRAINED
        and files.of_networks(round_.number, 1)[0] in present[round_.number]
    ]
    return max((round_.number for round_ in ended or having), default=None)
