"""The tables that follow from the ledger: what stands for each superpixel, and what was counted.

They are kept in the transaction that writes the ledger (:mod:`alc_backend.store.upkeep`), and
could be made from it at any time. The ledger stays the truth.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from alc_backend.common.types import TextEnum
from alc_backend.store.column_types import Words
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import Base


class Way(TextEnum):
    """How a person confirms labels."""

    SINGLE = "single"
    """By answering a question about one superpixel."""

    PAGE = "page"
    """By leaving its tile ticked on a page."""

    EDIT = "edit"
    """By changing most of it by hand in the dataset project."""


class Standing(Base):
    """What stands for a superpixel, of which the entries in force say anything to that end.

    ``entry_id`` is the ledger entry that decides its class ``class_id``: the answer that resolves
    it, else the machine's, else the last edit that changed most of it; ``kind`` is the entry's
    kind. Where an edit came after it, ``class_id`` is what that made most of it. ``way`` is how
    people confirmed it last; None says that it is not settled. ``waiting``: it needs more
    annotators; ``disputed`` are the classes that they disagree about. Superpixels of images that
    are out of the dataset have no row.
    """

    __tablename__ = "standing"
    __table_args__ = (
        Index("ix_standing_image_id", "image_id"),
        Index("ix_standing_kind", "project_id", "kind", "superpixel_id"),
        Index("ix_standing_way", "project_id", "way", "superpixel_id"),
        Index("ix_standing_class", "project_id", "class_id", "entry_id"),
        Index(
            "ix_standing_disputed",
            "project_id",
            "superpixel_id",
            sqlite_where=text("disputed IS NOT NULL"),
            postgresql_where=text("disputed IS NOT NULL"),
        ),
    )
    superpixel_id: Mapped[int] = mapped_column(
        ForeignKey("superpixels.id"), primary_key=True, autoincrement=False
    )
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    entry_id: Mapped[int | None] = mapped_column(ForeignKey("ledger.id"))
    class_id: Mapped[int | None]
    kind: Mapped[EntryKind | None]
    way: Mapped[Way | None] = mapped_column(Words(Way))
    waiting: Mapped[bool]
    disputed: Mapped[list[Any] | None]


class Counted(TextEnum):
    """What a tally counts; in brackets, what its ``who``, ``about`` and ``number`` tell."""

    SAID = "said"
    """Entries in force that are no tiles (annotator, kind, day)."""

    SAID_ON_PAGES = "said on pages"
    """Those of tiles (annotator, kind, day)."""

    SKIPPED = "skipped"
    """Questions, pages and images that were skipped (annotator, –, day)."""

    OVERLOOKED = "overlooked"
    """Repeated tiles that stayed ticked though they are known to be wrong (annotator, –, –)."""

    SECONDS = "seconds"
    """Answers by how long they took (annotator, –, milliseconds)."""

    CORRECTED = "corrected"
    """Corrections by the class shown and the one given (–, –, 256 · shown + given)."""

    PROPOSED = "proposed"
    """Tiles that people answered (–, –, class proposed)."""

    TICKED = "ticked"
    """Those of them that stayed ticked (–, –, class proposed)."""

    SCREENS = "screens"
    """Questions, pages and images that took a time (–, way, milliseconds)."""

    NAMED = "named"
    """Superpixels that were given a class on them (–, way, milliseconds)."""

    CONFIRMED = "confirmed"
    """Superpixels that people confirmed (–, way, class)."""

    SUPERPIXELS = "superpixels"
    """Superpixels of which something stands (–, one of STATES, –)."""

    TAUGHT = "taught"
    """Entries ever written by which people change what is to be asked next (–, –, –)."""

    IMAGES = "images"
    """Images under correction (–, –, –)."""

    ASKABLE = "askable"
    """Their superpixels (–, –, –)."""


RESOLVED, SETTLED, DISPUTED, WAITING, ON_MACHINE = STATES = (
    "resolved", "settled", "disputed", "waiting", "on the machine's word",
)  # fmt: skip
"""What superpixels are counted by; some are counted twice."""


class Tally(Base):
    """A count that is kept: ``what`` is counted, of which ``who``, ``about`` and ``number`` tell.

    Days are counted from 1 January of the year 1 = 1, in UTC; times have three significant digits.
    Images that are out of the dataset do not count.
    """

    __tablename__ = "tallies"
    project_id: Mapped[int] = mapped_column(
        ForeignKey("projects.id"), primary_key=True, autoincrement=False
    )
    what: Mapped[Counted] = mapped_column(Words(Counted), primary_key=True)
    who: Mapped[str] = mapped_column(primary_key=True, default="")
    about: Mapped[str] = mapped_column(primary_key=True, default="")
    number: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False, default=0
    )
    count: Mapped[int]


class ImageState(Base):
    """What is kept of an image: the id of the last ledger entry about it, None without any.

    ``corrected`` counts the superpixels that stand as people corrected or edited them. ``doubt`` is
    the share of its pixels that the last round's network expected to be labelled wrongly, in
    millionths; None before one was asked.

    ``pixels`` counts, by class id from 0 to 255, the pixels of its label map as it was after the
    project's ledger entry ``pixels_to``; None where they were not counted.
    """

    __tablename__ = "image_states"
    __table_args__ = (
        Index("ix_image_states_last_entry", "project_id", "last_entry"),
        Index("ix_image_states_corrected", "project_id", "corrected", "image_id"),
        Index("ix_image_states_doubt", "project_id", "doubt", "image_id"),
    )
    image_id: Mapped[int] = mapped_column(
        ForeignKey("images.id"), primary_key=True, autoincrement=False
    )
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    last_entry: Mapped[int | None]
    corrected: Mapped[int] = mapped_column(default=0, server_default="0")
    doubt: Mapped[int | None]
    pixels: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    pixels_to: Mapped[int | None]
