"""Synthetic stores of many images, for :mod:`benchmarks.scale`.

Every image has SUPERPIXELS superpixels, of which people have answered 15 % in the first round. The
second one is open, and nobody has answered yet; the third has scored what is left, and is about to
choose its batch. Most rows are made by the database itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from PIL import Image as Picture
from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Integer,
    String,
    cast,
    insert,
    literal,
    select,
)
from sqlalchemy.orm import Session, make_transient

from alc_backend.loop.config import round_config
from alc_backend.loop.rounds.plan import Work
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.models import (
    TRAIN,
    Image,
    LedgerEntry,
    Part,
    Project,
    Query,
    Round,
    Score,
    Superpixel,
    utc_now,
)
from alc_backend.store.round_states import Step
from alc_backend.store.traits import ShardTraits
from tests.fake_label_studio import DATASET_PROJECT, QUERY_PROJECT

try:
    from alc_backend.store import pixel_counts, upkeep
except ImportError:  # a version that keeps nothing beside the ledger
    upkeep = None  # type: ignore[assignment]

SUPERPIXELS = 30
"""Superpixels of an image: five rows of six squares."""

SIDE = 8
"""The side of a square, in pixels."""

CLASSES = 20

ANSWERED = (3, 10, 17)
"""The remainders modulo 20 of the row ids of answered superpixels."""

BATCH = 1000
"""Questions of a round."""

SHARD = 50
"""Images of a scoring shard."""

FEATURES, KINDS = 256, 10 * CLASSES
"""Features that the network computes of a superpixel, and how many looks there are of all classes.
"""

UNSCORED = 50
"""Images, the last ones, that the third round has not scored yet."""

BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
"""When the first answer was given; each second brings another one."""

SHAPE = {"box": {"x": 1, "y": 1, "width": 9, "height": 9}, "outlines": []}
"""How every question shows its superpixel."""

QUERY_TASKS = 10_000_000
"""The numbers of query tasks in Label Studio begin here, those of dataset tasks with 1."""

LINKS = 30_000
"""Names that a file may have: file systems allow few more."""

AT_ONCE = 20_000
"""Rows that are sent to the database together."""


@dataclass(frozen=True)
class World:
    """A store with one project of so many ``images``; ``round`` is its third, unfinished one."""

    store: Store
    project: Project
    round: Round
    images: int


def build(settings: Settings, images: int) -> None:
    """Fill an empty store."""
    store = Store(settings)
    with store.session() as session:
        project = Project(
            name="scale",
            classes=[f"class {number}" for number in range(CLASSES)],
            dataset_project=DATASET_PROJECT,
            query_project=QUERY_PROJECT,
        )
        session.add(project)
        session.flush()
        first, second, third = _rounds(session, project.id, settings)
        _images(session, project.id, images)
        _superpixels(session, images)
        _scores(session, third, images)
        _queries(session, first, _is_answered())
        _queries(session, second, Superpixel.id % 20 == 1, BATCH)
        for round_ in (first, third):
            _parts(session, round_, images)
        answers = _ledger(session, project.id)
        third.ledger_position, third.answers = answers, answers
        # Label Studio, as the benchmark shows it, has one task that nobody answered
        project.other_images, project.other_tasks = 1 - images, -answers - BATCH
        project.reconciled_to = datetime(2026, 1, 1, 9, tzinfo=timezone.utc)
        project.reconciled_task = 1
        project.reconciled_annotation = answers
        project.reconciled_at = project.reconciled_fully_at = utc_now()
    _analyze(store)
    _files(store, project.id, images)
    _traits(store, project.id, (first.number, third.number), images)
    if upkeep is not None:
        with store.session() as session:
            upkeep.rebuild(session, project.id)
            if hasattr(upkeep, "note_doubts"):
                doubts = {number: number * 7919 % 10**6 for number in range(1, images + 1)}
                upkeep.note_doubts(session, project.id, doubts)
            _count_pixels(session, project.id, answers, images)
    _analyze(store)
    store.close()


def _analyze(store: Store) -> None:
    """Let PostgreSQL count its rows, as it does by itself after a while."""
    if store.engine.dialect.name == "postgresql":
        with store.engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE")


@contextmanager
def opened(settings: Settings, images: int) -> Iterator[World]:
    """A store that :func:`build` filled."""
    store = Store(settings)
    with store.reading() as session:
        round_ = session.scalars(select(Round).order_by(Round.number.desc()).limit(1)).one()
        project = round_.project
    try:
        yield World(store, project, round_, images)
    finally:
        store.close()


def changed(world: World, **config: Any) -> Round:
    """The unfinished round, as it would be with another configuration."""
    with world.store.session() as session:
        row = session.get_one(Round, world.round.id)
        row.config = replace(row.config, **config)
        session.flush()
        session.expunge(row)
    make_transient(row)
    row.id = world.round.id
    return row


def _rounds(session: Session, project_id: int, settings: Settings) -> list[Round]:
    config = replace(round_config(settings, {}), size=BATCH, overlap=1)
    rounds = [
        Round(project_id=project_id, number=number, state=state, config=config, opened_at=opened_at)
        for number, state, opened_at in (
            (1, "closed", BEGAN),
            (2, "open", BEGAN + timedelta(days=60)),
            (3, "publishing", None),
        )
    ]
    session.add_all(rounds)
    session.flush()
    return rounds


def _numbers(count: int) -> Any:
    """A table expression with the numbers from 1 on, as its column ``n``."""
    start = select(literal(1, Integer).label("n")).cte("numbers", recursive=True)
    return start.union_all(select(start.c.n + 1).where(start.c.n < count))


def _fill(session: Session, table: Any, rows: Any, **values: ColumnElement[Any] | Any) -> None:
    """Insert ``values`` for each of ``rows``, within the database."""
    columns = {
        name: value if isinstance(value, ColumnElement) else literal(value)
        for name, value in values.items()
    }
    chosen = select(*(value.label(name) for name, value in columns.items())).select_from(rows)
    session.execute(insert(table).from_select(list(columns), chosen))


def _images(session: Session, project_id: int, images: int) -> None:
    numbers = _numbers(images)
    name = cast(numbers.c.n, String)
    _fill(
        session, Image, numbers,
        id=numbers.c.n, project_id=project_id, key=literal("image ") + name, split=TRAIN,
        suffix=".png", height=5 * SIDE, width=6 * SIDE, url=literal("/data/") + name,
        dataset_task=numbers.c.n,
    )  # fmt: skip


def _superpixels(session: Session, images: int) -> None:
    numbers = _numbers(images * SUPERPIXELS)
    n = numbers.c.n
    _fill(
        session, Superpixel, numbers,
        id=n, image_id=(n - 1) // SUPERPIXELS + 1, number=(n - 1) % SUPERPIXELS + 1,
        size=20 + n * 31 % 100, shape=literal(SHAPE, JSON),
    )  # fmt: skip


def _is_answered() -> ColumnElement[bool]:
    return (Superpixel.id % 20).in_(ANSWERED)


def _scores(session: Session, round_: Round, images: int) -> None:
    rows = select(Superpixel).where(~_is_answered(), Superpixel.image_id <= images - UNSCORED)
    found = rows.subquery()
    one = cast(found.c.id, BigInteger)
    _fill(
        session, Score, found,
        round_id=round_.id, superpixel_id=found.c.id, score=(one * 7919 % 100_003) / 1000.0,
        row=3, col=3, pseudo_label=one * 13 % CLASSES, dominant=one * 17 % CLASSES,
    )  # fmt: skip


def _queries(
    session: Session, round_: Round, which: ColumnElement[bool], many: int | None = None
) -> None:
    found = select(Superpixel).where(which).order_by(Superpixel.id).limit(many).subquery()
    one = found.c.id
    _fill(
        session, Query, found,
        superpixel_id=one, adjudication=False, round_id=round_.id, task_id=QUERY_TASKS + one,
        row=3, col=3, pseudo_label=one * 13 % CLASSES, score=1.0, rank=one,
    )  # fmt: skip


def _parts(session: Session, round_: Round, images: int) -> None:
    """The parts of the round's scoring, which are done."""
    session.add_all(
        Part(round_id=round_.id, step=Step.SCORING, number=number, work=work.as_json(),
             finished_at=utc_now())
        for number, work in enumerate(_shards(images))
    )  # fmt: skip


def _shards(images: int) -> list[Work]:
    numbers = list(range(1, images + 1))
    return [Work(numbers[first : first + SHARD]) for first in range(0, images, SHARD)]


def _traits(store: Store, project_id: int, numbers: tuple[int, int], images: int) -> None:
    """What two rounds' scoring has kept of the superpixels: of the first one, what was answered.

    A third of the labels are wrong; the features are those of one of KINDS of each class.
    """
    rng, files = np.random.default_rng(0), store.files(project_id)
    looks = rng.normal(0, 1, (KINDS, FEATURES)).astype(np.float16)
    for shard, work in enumerate(_shards(images)):
        ids = np.arange((work.images[0] - 1) * SUPERPIXELS, work.images[-1] * SUPERPIXELS) + 1
        labels, truth = ids * 13 % CLASSES, ids * 13 % CLASSES
        truth[ids % 3 == 0] = (truth[ids % 3 == 0] + 1 + ids[ids % 3 == 0] % 7) % CLASSES
        predicted = np.full((len(ids), CLASSES), 0.3 / CLASSES, np.float16)
        predicted[np.arange(len(ids)), truth] += 0.7
        traits = ShardTraits(
            superpixels=ids,
            features=looks[truth * (KINDS // CLASSES) + ids % (KINDS // CLASSES)],
            predicted=predicted,
            doubt=(ids * 7919 % 997 / 997).astype(np.float16),
            labels=labels.astype(np.uint8),
            dominant=truth.astype(np.uint8),
            sizes=20 + ids * 31 % 100,
            rows=np.full(len(ids), 3, np.int32),
            cols=np.full(len(ids), 3, np.int32),
            class_pixels=np.full(CLASSES, len(ids) * SIDE**2 // CLASSES),
        )
        first, last = numbers
        files.write_traits(
            first, shard, traits.only(ids[np.isin(ids % 20, ANSWERED)]).without_features()
        )
        files.write_traits(last, shard, traits)


def _ledger(session: Session, project_id: int) -> int:
    """The answers, in the order of their superpixels; returns how many there are."""
    rows = select(Superpixel.id, Superpixel.image_id).where(_is_answered()).order_by(Superpixel.id)
    entries: list[dict[str, Any]] = []
    number = 0
    for number, (one, image) in enumerate(session.execute(rows).all(), start=1):
        label = one * 13 % CLASSES
        moment = BEGAN + timedelta(seconds=number)
        entries.append(
            {
                "project_id": project_id,
                "image_id": image,
                "superpixel_id": one,
                "annotation_id": number,
                "label_studio_project": QUERY_PROJECT,
                "task_id": QUERY_TASKS + one,
                "position": 0,
                "revision": 0,
                "kind": "accept" if one % 2 else "correct",
                "class_id": label if one % 2 else (label + 1) % CLASSES,
                "pseudo_label": label,
                "row": 3,
                "col": 3,
                "round_number": 1,
                "overlap": 1,
                "adjudication": False,
                "annotator": str(1 + number % 4),
                "lead_time": 1.0 + number % 40 / 10,
                "answered_at": moment,
                "updated_at": moment,
                "recorded_at": moment,
            }
        )
        if len(entries) == AT_ONCE:
            session.execute(insert(LedgerEntry), entries)
            entries.clear()
    if entries:
        session.execute(insert(LedgerEntry), entries)
    return number


def _files(store: Store, project_id: int, images: int) -> None:
    """Each image, its label map and its superpixels: the same three files, by many names."""
    files = store.files(project_id)
    blocks = np.arange(SUPERPIXELS, dtype=np.int32).reshape(5, 6)
    superpixels = blocks.repeat(SIDE, axis=0).repeat(SIDE, axis=1) + 1
    labels = (superpixels % CLASSES).astype(np.uint8)
    for first in range(1, images + 1, LINKS):
        files.write_label_map("initial", first, labels)
        files.write_superpixels(first, superpixels)
        with NamedTemporaryFile(suffix=".png") as file:
            Picture.fromarray(labels).convert("RGB").save(file)
            file.flush()
            files.keep_image(first, ".png", Path(file.name))
        here = [path for path in _paths(store, project_id, first) if path.exists()]
        for image in range(first + 1, min(first + LINKS, images + 1)):
            for path in here:
                os.link(path, path.with_name(f"{image}{path.suffix}"))


def _count_pixels(session: Session, project_id: int, answers: int, images: int) -> None:
    """Note the pixels of all label maps, as scoring does (near enough: without the answers)."""
    numbers = np.arange(1, SUPERPIXELS + 1) % CLASSES
    pixels = np.bincount(numbers, minlength=256) * SIDE**2
    pixel_counts.note(session, project_id, answers, 1, dict.fromkeys(range(1, images + 1), pixels))


def _paths(store: Store, project_id: int, image: int) -> list[Path]:
    names = store.files(project_id).of_image(image, ".png")
    found = [store.storage.path_in_folder(name) for name in names]
    return [path for path in found if path is not None]
