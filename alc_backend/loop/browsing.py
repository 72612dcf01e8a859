"""Browsing a project's images: some at a time, those that matter most first.

Reads the database; changes nothing. Pages are read in the order of an index, from where they begin;
images that a filter leaves out, and those already answered where the others are shown, are passed
over. Called by the service's pages.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, exists, select, tuple_
from sqlalchemy.orm import Session

from alc_backend.common.types import TextEnum
from alc_backend.errors import NotFoundError
from alc_backend.store.derived import ImageState, Standing
from alc_backend.store.models import MAX_ID, TRAIN, Image
from alc_backend.store.stands import is_corrected


class Sort(TextEnum):
    """Which images are shown, and in what order."""

    RECENT = "recent"
    """Those that were answered about last come first, then the others by key."""

    CORRECTED = "corrected"
    """Those of which people corrected most superpixels; only those with any."""

    DOUBTFUL = "doubtful"
    """Those of whose label map the last round's network doubted most."""

    DISPUTED = "disputed"
    """Those about which annotators disagree."""


@dataclass(frozen=True)
class Shown:
    """An image, and what stands for its superpixels: how many people ``confirmed`` (``corrected``
    of them to another class), and how many are ``disputed``.

    ``doubt`` is the share of its pixels that the last round's network expected to be labelled
    wrongly, None where that was not asked for.
    """

    image: Image
    confirmed: int
    corrected: int
    disputed: int
    doubt: float | None = None


@dataclass(frozen=True)
class Shelf:
    """Some images; ``following`` says where the next ones begin, None after the last."""

    shown: list[Shown]
    following: str | None


PLACE = re.compile(r"(\d{1,19})-(\d{1,19})|key-(.*)", re.DOTALL)
"""Where a shelf begins: behind an image by its place in the order and its id, or by its key."""


def browse(
    session: Session,
    project_id: int,
    *,
    sort: Sort,
    class_id: int | None = None,
    begin: str | None = None,
    many: int,
) -> Shelf:
    """At most ``many`` images of a project, beginning where ``begin`` of another shelf says.

    With ``class_id`` only images with a superpixel that people confirmed as this class. Raises
    NotFoundError for a ``begin`` that no shelf gave.
    """
    place = None if begin is None else PLACE.fullmatch(begin)
    if begin is not None and (place is None or "\0" in begin):
        raise NotFoundError(f"no images begin at {begin!r}; go back to the first page")
    found: list[tuple[Image, str]] = []
    if place is None or place[3] is None:
        rows = _ranked(project_id, sort, class_id)
        if place is not None:
            order, image_id = (min(int(part), MAX_ID) for part in place.groups()[:2])
            rows = rows.where(tuple_(RANKS[sort], Image.id) < tuple_(order, image_id))
        found = [(image, f"{rank}-{image.id}") for image, rank in session.execute(rows.limit(many))]
    if sort == Sort.RECENT and class_id is None and len(found) < many:
        rest = _silent(project_id, None if place is None else place[3])
        for image in session.scalars(rest.limit(many - len(found))):
            found.append((image, f"key-{image.key}"))
    shown = _with_counts(session, [image for image, _ in found])
    if sort == Sort.DOUBTFUL:
        doubts = [int(place.partition("-")[0]) / MILLIONTHS for _, place in found]
        shown = [replace(one, doubt=doubt) for one, doubt in zip(shown, doubts, strict=True)]
    return Shelf(shown, found[-1][1] if len(found) == many else None)


MILLIONTHS = 1e6
"""What the doubt about a whole image is kept as."""

RANKS = {
    Sort.RECENT: ImageState.last_entry,
    Sort.CORRECTED: ImageState.corrected,
    Sort.DOUBTFUL: ImageState.doubt,
    Sort.DISPUTED: ImageState.last_entry,
}
"""What each order goes by, the highest first."""


def _ours(project_id: int) -> tuple[Any, ...]:
    return (Image.project_id == project_id, Image.split == TRAIN, Image.removed.is_(None))


def _ranked(project_id: int, sort: Sort, class_id: int | None) -> Select[Image, int | None]:
    """Images of a project with their rank, the highest first."""
    rank = RANKS[sort]
    rows = (
        select(Image, rank)
        .join(ImageState, ImageState.image_id == Image.id)
        .where(*_ours(project_id), ImageState.project_id == project_id, rank > 0)
        .order_by(rank.desc(), Image.id.desc())
    )
    if sort == Sort.DISPUTED:
        disputed = select(Standing.image_id).where(
            Standing.project_id == project_id, Standing.disputed.is_not(None)
        )
        rows = rows.where(Image.id.in_(disputed))
    if class_id is not None:
        rows = rows.where(
            exists().where(
                Standing.image_id == Image.id,
                Standing.class_id == class_id,
                Standing.way.is_not(None),
            )
        )
    return rows


def _silent(project_id: int, after: str | None) -> Select[Image]:
    """The images that nobody has said anything about, by key, behind the key ``after``."""
    said = exists().where(ImageState.image_id == Image.id, ImageState.last_entry.is_not(None))
    rows = select(Image).where(*_ours(project_id), ~said).order_by(Image.key)
    return rows if after is None else rows.where(Image.key > after)


def _with_counts(session: Session, images: list[Image]) -> list[Shown]:
    confirmed: Counter[int] = Counter()
    corrected: Counter[int] = Counter()
    disputed: Counter[int] = Counter()
    rows = session.execute(
        select(Standing.image_id, Standing.way, Standing.kind, Standing.disputed).where(
            Standing.image_id.in_([image.id for image in images])
        )
    )
    for image_id, way, kind, classes in rows:
        confirmed[image_id] += way is not None
        corrected[image_id] += is_corrected(kind, way)
        disputed[image_id] += classes is not None
    return [
        Shown(image, confirmed[image.id], corrected[image.id], disputed[image.id])
        for image in images
    ]
