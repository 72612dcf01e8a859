"""The tables. Answers are append-only; everything else can be rebuilt from Label Studio."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Index, TypeDecorator, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def utc_now() -> datetime:
    """The present moment with its time zone."""
    return datetime.now(timezone.utc)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC on every database (SQLite drops the time zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC."""
        return value.astimezone(timezone.utc) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read UTC."""
        return value.replace(tzinfo=timezone.utc) if value and value.tzinfo is None else value


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, datetime: UtcDateTime}  # noqa: RUF012


TRAIN, VAL = "train", "val"
"""The splits of a project's pictures: under correction, and with ground truth only."""


class Project(Base):
    """One dataset under correction and its two Label Studio projects."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    classes: Mapped[list[Any]]
    dataset_project: Mapped[int | None] = mapped_column(unique=True)
    query_project: Mapped[int | None] = mapped_column(unique=True)
    brush_name: Mapped[str] = mapped_column(default="label")
    image_name: Mapped[str] = mapped_column(default="image")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Image(Base):
    """One picture. ``url`` is its address inside Label Studio; ``split`` TRAIN or VAL."""

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("project_id", "split", "key"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    key: Mapped[str]
    split: Mapped[str]
    suffix: Mapped[str]
    height: Mapped[int]
    width: Mapped[int]
    url: Mapped[str | None]
    dataset_task: Mapped[int | None] = mapped_column(index=True)


class Superpixel(Base):
    """One region that can be asked about; ``number`` is its id in the superpixel map."""

    __tablename__ = "superpixels"
    __table_args__ = (UniqueConstraint("image_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    number: Mapped[int]
    size: Mapped[int]
    image: Mapped[Image] = relationship()


class Round(Base):
    """Train → score → publish a batch → collect answers."""

    __tablename__ = "rounds"
    __table_args__ = (UniqueConstraint("project_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    number: Mapped[int]
    state: Mapped[str]
    failed_in: Mapped[str | None]
    error: Mapped[str | None]
    warning: Mapped[str | None]
    config: Mapped[dict[str, Any]]
    ledger_position: Mapped[int | None]
    answers: Mapped[int | None]
    data_miou: Mapped[float | None]
    model_miou: Mapped[float | None]
    class_iou: Mapped[list[Any] | None]
    estimate: Mapped[float | None]
    estimate_answers: Mapped[int | None]
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    message: Mapped[str] = mapped_column(default="")
    step_began_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    claimed_by: Mapped[str | None]
    heartbeat_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    opened_at: Mapped[datetime | None]
    project: Mapped[Project] = relationship(lazy="joined")


class Score(Base):
    """A superpixel in a round: representative pixel, its pseudo label, dominant class, score.

    ``score`` is what the acquisition measured in the image; comparing with the whole dataset comes
    when the batch is chosen.
    """

    __tablename__ = "scores"
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    superpixel_id: Mapped[int] = mapped_column(ForeignKey("superpixels.id"), primary_key=True)
    score: Mapped[float]
    row: Mapped[int]
    col: Mapped[int]
    pseudo_label: Mapped[int]
    dominant: Mapped[int]


class Query(Base):
    """The correction query about one superpixel, as it stands in Label Studio.

    ``rank`` is its place in the queue of ``round_id``, 0 = next; ``task`` (the task's data) and
    ``prediction`` are what Label Studio shall hold, ``published`` the task data that it does hold.
    """

    __tablename__ = "queries"
    id: Mapped[int] = mapped_column(primary_key=True)
    superpixel_id: Mapped[int] = mapped_column(ForeignKey("superpixels.id"), unique=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"))
    task_id: Mapped[int | None] = mapped_column(unique=True)
    row: Mapped[int]
    col: Mapped[int]
    pseudo_label: Mapped[int]
    score: Mapped[float]
    rank: Mapped[int]
    task: Mapped[dict[str, Any]]
    published: Mapped[dict[str, Any] | None]
    prediction: Mapped[list[Any]]
    superpixel: Mapped[Superpixel] = relationship()
    round: Mapped[Round] = relationship()


class Answer(Base):
    """One entry of the ledger: what an annotator said at one moment. Never changed, never deleted.

    ``kind`` is accept, correct, skip or deleted (the annotation was withdrawn). ``class_id`` is
    set for accept and correct. Entries with the same ``annotation_id`` are revisions of each
    other; the last one counts. ``round_number``, ``row``, ``col`` and ``pseudo_label`` are those
    of the question as it was asked.
    """

    __tablename__ = "answers"
    __table_args__ = (
        UniqueConstraint("project_id", "annotation_id", "revision"),
        Index("answers_by_superpixel", "superpixel_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    superpixel_id: Mapped[int] = mapped_column(ForeignKey("superpixels.id"))
    annotation_id: Mapped[int]
    revision: Mapped[int]
    kind: Mapped[str]
    class_id: Mapped[int | None]
    pseudo_label: Mapped[int]
    row: Mapped[int]
    col: Mapped[int]
    round_number: Mapped[int]
    annotator: Mapped[str]
    lead_time: Mapped[float | None]
    answered_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(default=utc_now)
    superpixel: Mapped[Superpixel] = relationship()
