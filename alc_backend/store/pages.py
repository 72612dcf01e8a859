"""The tables of pages of look-alikes: questions about several superpixels at once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from alc_backend.store.models import Base, Round, Superpixel


class Page(Base):
    """A page of look-alikes: a question that proposes one class for several superpixels.

    What it asks never changes. ``key`` names it in Label Studio, 32 hexadecimal digits;
    ``proposed`` is the class id; ``plan`` numbers the plan, within its round, that made it, and
    ``place``, from 0 (next) to 1, says when it is asked. ``sheet`` is the address in Label Studio
    of the picture with its tiles. ``review``: its tiles are answered already, with the class that
    it proposes, and it is handed out to nobody: who reviews answers opens it. ``task_id`` and
    ``closed_at`` are those of a :class:`~alc_backend.store.models.Query`.
    """

    __tablename__ = "pages"
    __table_args__ = (UniqueConstraint("project_id", "key"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), index=True)
    key: Mapped[str]
    proposed: Mapped[int]
    plan: Mapped[int]
    place: Mapped[float]
    review: Mapped[bool] = mapped_column(default=False)
    task_id: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    sheet: Mapped[str | None]
    closed_at: Mapped[datetime | None]
    round: Mapped[Round] = relationship()
    tiles: Mapped[list[Tile]] = relationship(
        back_populates="page", order_by="Tile.position", cascade="all, delete-orphan"
    )


class Tile(Base):
    """A superpixel on a page, at a ``position`` from 1.

    It is ``repeated`` where a person had named another class than the page proposes before: who
    leaves it ticked has overlooked it. Its other fields are those of a
    :class:`~alc_backend.store.models.Query`.
    """

    __tablename__ = "tiles"
    page_id: Mapped[int] = mapped_column(ForeignKey("pages.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    superpixel_id: Mapped[int] = mapped_column(ForeignKey("superpixels.id"), index=True)
    row: Mapped[int]
    col: Mapped[int]
    pseudo_label: Mapped[int]
    expected: Mapped[float | None]
    repeated: Mapped[bool] = mapped_column(default=False)
    page: Mapped[Page] = relationship(back_populates="tiles")
    superpixel: Mapped[Superpixel] = relationship()
