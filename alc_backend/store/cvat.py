"""The tables of projects that are asked in CVAT: where their images, questions and masks are."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from alc_backend.store.models import Base, Query


class CvatProject(Base):
    """What of CVAT a project was made of, and where its questions are asked.

    ``source`` is "task" or "project", ``number`` its id in CVAT. ``questions`` is the CVAT project
    (id) of the tasks with questions, None until it is made. ``collected_at`` is when the answers
    were last looked for.
    """

    __tablename__ = "cvat_projects"
    __table_args__ = (UniqueConstraint("source", "number"),)
    project_id: Mapped[int] = mapped_column(
        ForeignKey("projects.id"), primary_key=True, autoincrement=False
    )
    source: Mapped[str]
    number: Mapped[int]
    questions: Mapped[int | None] = mapped_column(unique=True)
    collected_at: Mapped[datetime | None]


class CvatFrame(Base):
    """The frame of a CVAT task that an image came from, counted from 0, and the masks there.

    ``label_map`` is the digest of the label map whose masks the frame has, ``shapes`` that of the
    masks as CVAT gave them; ``shapes`` is None while they are being replaced.
    """

    __tablename__ = "cvat_frames"
    image_id: Mapped[int] = mapped_column(
        ForeignKey("images.id"), primary_key=True, autoincrement=False
    )
    task: Mapped[int]
    frame: Mapped[int]
    label_map: Mapped[str | None]
    shapes: Mapped[str | None]


class CvatTask(Base):
    """The CVAT task that asks the questions of a round.

    ``name`` is its name there, which no other task has; ``task`` is its id, None until all frames
    and tags are there. ``gone_at`` is when CVAT was found not to have it any more; what was
    answered in it stays.
    """

    __tablename__ = "cvat_tasks"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), unique=True)
    name: Mapped[str]
    task: Mapped[int | None]
    gone_at: Mapped[datetime | None]


class CvatJob(Base):
    """A job of such a task: its frames ``first`` to ``last``, and how far it was read.

    ``read_to`` is the moment, by CVAT's clock, up to whose change its answers are in the ledger.
    ``reported_at`` is when a webhook said that it changed, None once it was read after that;
    ``tries`` counts attempts since then that failed, ``next_try_at`` is when it is tried again, and
    ``problem`` says why the last one failed.
    """

    __tablename__ = "cvat_jobs"
    __table_args__ = (
        Index(
            "ix_cvat_jobs_reported",
            "reported_at",
            sqlite_where=text("reported_at IS NOT NULL"),
            postgresql_where=text("reported_at IS NOT NULL"),
        ),
    )
    job: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cvat_task_id: Mapped[int] = mapped_column(ForeignKey("cvat_tasks.id"), index=True)
    first: Mapped[int]
    last: Mapped[int]
    read_to: Mapped[datetime | None]
    reported_at: Mapped[datetime | None]
    tries: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime | None]
    problem: Mapped[str | None]
    cvat_task: Mapped[CvatTask] = relationship(lazy="joined")


class CvatQuestion(Base):
    """A frame of such a task: the query that it asks, as the annotator sees it.

    Its ``id`` is the number of the annotation in the ledger. ``preset`` is the class of the tag
    that the frame began with, ``round_number`` the round whose question it is.
    """

    __tablename__ = "cvat_questions"
    __table_args__ = (
        UniqueConstraint("cvat_task_id", "frame"),
        {"sqlite_autoincrement": True},  # an answer's number is never given twice
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    cvat_task_id: Mapped[int] = mapped_column(ForeignKey("cvat_tasks.id"))
    frame: Mapped[int]
    query_id: Mapped[int] = mapped_column(ForeignKey("queries.id"))
    preset: Mapped[int]
    round_number: Mapped[int]
    query: Mapped[Query] = relationship()
