"""Attempts at edits: which annotations could not be read, why, and at which the process has died.

An edit is a whole set of masks, and what reads it may be killed for want of memory. So the attempt
is noted before it begins. Touches its own table. Called by ``mask_edits``,
``reconciliation`` and ``overview``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.incoming import Attempt
from alc_backend.store.models import Image, utc_now

MAX_TRIES = 3
"""How many attempts at an annotation may end with the process before it is set aside."""


@contextmanager
def attempt(store: Store, image: Image, annotation_id: int, updated_at: datetime) -> Iterator[None]:
    """Note in the database, while its context lasts, that an annotation is being read.

    ``updated_at`` is when it was last changed: with every change it begins anew. Raises ValueError
    where MAX_TRIES attempts have never ended. A ValueError raised inside is kept as the reason why
    the annotation is not in the ledger; other errors mean that it may be tried again.
    """
    _begin(store, image, annotation_id, updated_at)
    try:
        yield
    except ValueError as error:
        _end(store, image.project_id, annotation_id, reason=str(error))
        raise
    except Exception:
        _end(store, image.project_id, annotation_id)
        raise
    with store.session() as session:
        found = session.get(Attempt, (image.project_id, annotation_id))
        if found is not None:
            session.delete(found)


def set_aside(session: Session, project_id: int, limit: int) -> list[str]:
    """Sentences about the annotations that are not in the ledger, the last ones first."""
    found = session.execute(
        select(Attempt, Image.key)
        .join(Image, Image.id == Attempt.image_id)
        .where(Attempt.project_id == project_id, Attempt.reason.is_not(None))
        .order_by(Attempt.tried_at.desc(), Attempt.annotation_id)
        .limit(limit)
    )
    return [
        f"Annotation {one.annotation_id} of image {key} was left out: {one.reason}"
        for one, key in found
    ]


def forget_gone(session: Session, project_id: int, present: Collection[int]) -> None:
    """Forget annotations that are not among the ones that Label Studio has, ``present``."""
    for one in session.scalars(select(Attempt).where(Attempt.project_id == project_id)):
        if one.annotation_id not in present:
            session.delete(one)


def _begin(store: Store, image: Image, annotation_id: int, updated_at: datetime) -> None:
    with store.session() as session:
        ledger.lock(session, image.project_id)
        found = session.get(Attempt, (image.project_id, annotation_id))
        if found is None or found.updated_at != updated_at:
            found = session.merge(
                Attempt(
                    project_id=image.project_id,
                    annotation_id=annotation_id,
                    image_id=image.id,
                    updated_at=updated_at,
                    tries=0,
                    reason=None,
                )
            )
        found.tried_at = utc_now()
        if found.tries < MAX_TRIES:
            found.tries += 1
            return
        reason = found.reason = (
            f"{found.tries} attempts to read it ended with the process, probably for want of "
            "memory; see the logs, then save it again with fewer regions, or delete it"
        )
    raise ValueError(reason)


def _end(store: Store, project_id: int, annotation_id: int, reason: str | None = None) -> None:
    """Note that an attempt has ended without success, but has ended."""
    with store.session() as session:
        found = session.get(Attempt, (project_id, annotation_id), with_for_update=True)
        if found is not None:
            found.tries = max(found.tries - 1, 0)
            found.reason = reason or found.reason
