"""Tasks that Label Studio does not give: what annotators said there is not in the ledger.

One task may hold an annotation that is too large to be read, or that Label Studio itself fails at.
It is left out, told to the admin, and the others are read. Touches its own table. Called by
``webhooks``, ``reconciliation`` and ``overview``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.errors import LabelStudioError
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.incoming import UnreadTask


def note(
    store: Store,
    project_id: int,
    label_studio_project: int,
    unread: Mapping[int, LabelStudioError],
    read: Collection[int] | None,
) -> None:
    """Write down which tasks of a Label Studio project were left out, and why.

    Those that were ``read`` (ids) are forgotten; None: all that were not left out, as they were
    read or are gone.
    """
    here = (
        UnreadTask.project_id == project_id,
        UnreadTask.label_studio_project == label_studio_project,
    )
    with store.session() as session:
        ledger.lock(session, project_id)
        for known in session.scalars(select(UnreadTask).where(*here)):
            if known.task_id not in unread and (read is None or known.task_id in read):
                session.delete(known)
        for task, error in unread.items():
            session.merge(
                UnreadTask(
                    project_id=project_id,
                    label_studio_project=label_studio_project,
                    task_id=task,
                    reason=str(error),
                )
            )


def set_aside(session: Session, project_id: int, limit: int) -> list[str]:
    """Sentences about the tasks whose annotations are not in the ledger, the last ones first."""
    found = session.scalars(
        select(UnreadTask)
        .where(UnreadTask.project_id == project_id)
        .order_by(UnreadTask.noted_at.desc(), UnreadTask.task_id)
        .limit(limit)
    )
    return [f"What was said there was left out: {one.reason}" for one in found]
