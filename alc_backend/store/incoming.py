"""The tables of what Label Studio has and the store does not have yet: images, edits, events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from alc_backend.store.models import Base, utc_now


class Arrival(Base):
    """An image of the dataset project that waits for its first label map.

    The row is deleted once the image is in the store. ``error`` says why that failed, and
    ``finished_at`` when; ``claimed_by`` names the worker that has it, ``claims`` counts how often
    one took it, ``retries`` how often Label Studio was away meanwhile; ``retry_at`` is when it may
    be tried again.
    """

    __tablename__ = "arrivals"
    __table_args__ = (UniqueConstraint("project_id", "dataset_task"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    dataset_task: Mapped[int] = mapped_column(BigInteger)
    claimed_by: Mapped[str | None]
    claims: Mapped[int] = mapped_column(default=0)
    heartbeat_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    retries: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None]
    noted_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]


class Attempt(Base):
    """An annotation of the dataset project that could not be written into the ledger.

    ``updated_at`` is when it was last changed, ``tries`` the number of attempts at it since then
    that have begun and not ended; ``reason`` says why it was left out.
    """

    __tablename__ = "attempts"
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    annotation_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    updated_at: Mapped[datetime]
    tries: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str | None]
    tried_at: Mapped[datetime] = mapped_column(default=utc_now)


class UnreadTask(Base):
    """A task that Label Studio does not give, so that its annotations are not in the ledger.

    ``reason`` names it and says why.
    """

    __tablename__ = "unread_tasks"
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    label_studio_project: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    reason: Mapped[str]
    noted_at: Mapped[datetime] = mapped_column(default=utc_now)


class Event(Base):
    """An event in the inbox: that Label Studio reported something.

    ``payload`` holds what it named and nothing else: ``annotations``, each (id, id of the task or
    None), and ``tasks`` (ids) that are gone. ``outcome`` says what became of it; ``next_try_at`` is
    when an event that could not be read in yet is tried again.
    """

    __tablename__ = "inbox"
    __table_args__ = (Index("ix_inbox_waiting", "processed_at", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    label_studio_project: Mapped[int]
    action: Mapped[str]
    payload: Mapped[dict[str, Any]]
    received_at: Mapped[datetime] = mapped_column(default=utc_now)
    tries: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime | None]
    processed_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
