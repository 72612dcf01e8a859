"""What keeps a project from going on, as sentences that each say the remedy.

Reads the database; changes nothing. Called by ``overview``.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.loop.annotations import attempts, unread_tasks
from alc_backend.loop.projects import image_queue
from alc_backend.store.cvat import CvatJob, CvatTask
from alc_backend.store.incoming import Event
from alc_backend.store.models import Project, Round
from alc_backend.store.round_states import RoundState

ERRORS_SHOWN = 5
"""How many unreadable events are told."""


def problems_of(
    session: Session, project: Project, found: Sequence[Round], arriving: image_queue.Waiting
) -> list[str]:
    """The problems of a project, with its rounds ``found``, whose images are ``arriving``."""
    problems = []
    if found and found[-1].state == RoundState.FAILED:
        problems.append(f"Round {found[-1].number} failed: {found[-1].error}")
    if found and found[-1].warning:
        problems.append(f"Round {found[-1].number}: {found[-1].warning}")
    if arriving.error:
        problems.append(f"Images wait: {arriving.error}; then run `alc pseudo --retry`")
    if arriving.failed:
        problems.append(
            f"Images without a first label map: {arriving.failed}; `alc pseudo` names them with "
            f"the reasons, `alc pseudo --retry` tries them again. The first: {arriving.problem}"
        )
    problems += attempts.set_aside(session, project.id, ERRORS_SHOWN)
    problems += unread_tasks.set_aside(session, project.id, ERRORS_SHOWN)
    stuck = session.scalars(
        select(Event.outcome)
        .where(Event.project_id == project.id, Event.processed_at.is_(None), Event.tries > 0)
        .order_by(Event.id.desc())
        .limit(ERRORS_SHOWN)
    )
    problems += [f"An answer could not be read in yet: {reason}" for reason in stuck if reason]
    unread = session.scalars(
        select(CvatJob.problem)
        .join(CvatTask, CvatTask.id == CvatJob.cvat_task_id)
        .where(CvatTask.project_id == project.id, CvatJob.problem.is_not(None))
        .order_by(CvatJob.job.desc())
        .limit(ERRORS_SHOWN)
    )
    problems += [f"A finished job could not be read in yet: {reason}" for reason in unread]
    return problems
