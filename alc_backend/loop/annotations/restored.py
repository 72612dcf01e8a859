"""Label Studio restored from an older dump: which answers it lost, and what must be brought back.

Reads Label Studio and the ledger; marks the open round, whose queue a worker then puts into Label
Studio again. Called by ``reconciliation`` and ``webhooks``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.labelstudio import model_version
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.task_pages import LeftOut
from alc_backend.labelstudio.times import read_time
from alc_backend.store.models import Round
from alc_backend.store.round_states import RoundState

PAGE = 200
"""The most tasks that are asked for by their numbers at once."""


class Given(NamedTuple):
    """An annotation in force, the project and task that it was given to, when it last changed."""

    annotation_id: int
    project: int | None
    task: int | None
    updated_at: datetime


def lost(client: Client, missing: Iterable[Given]) -> set[int]:
    """Those of the ``missing`` annotations (ids) that nobody deleted.

    Their tasks have not changed since they came: Label Studio was restored from an older dump.
    Raises LabelStudioError.
    """
    by_task: dict[int, dict[int, list[Given]]] = {}
    for one in missing:
        if one.project is not None and one.task is not None:
            by_task.setdefault(one.project, {}).setdefault(one.task, []).append(one)
    return {
        one.annotation_id
        for project, given in by_task.items()
        for task, changed in _changes(client, project, sorted(given))
        for one in given.get(task, [])
        if one.updated_at > changed
    }


def went_back(client: Client, projects: Iterable[int], task: int | None, known: datetime) -> bool:
    """Whether a task is older than it was ``known`` to be; Label Studio comes from a dump then.

    Whatever people have done since cannot hide that. Raises LabelStudioError.
    """
    if task is None:
        return False
    return any(
        changed < known for project in projects for _, changed in _changes(client, project, [task])
    )


def _changes(client: Client, project: int, tasks: Sequence[int]) -> Iterator[tuple[int, datetime]]:
    """Those of some tasks that a project has, and when each changed last."""
    for first in range(0, len(tasks), PAGE):
        those = {"filter": "filter:tasks:id", "operator": "in_list", "type": "Number"}
        chosen = [{**those, "value": tasks[first : first + PAGE]}]
        few, unread = "id,updated_at", LeftOut()
        for task in client.tasks_by_id(project, chosen, leave_out=unread, include=few):
            yield int(task["id"]), read_time(task["updated_at"])


def note_earlier(session: Session, project_id: int, version: object) -> None:
    """Mark the open round where Label Studio follows the ``version`` of an earlier round.

    One of a later round means that the store itself was restored from an older backup, and any
    other was chosen by somebody: both are left to ``alc doctor --fix``.
    """
    latest = _open_round(session, project_id)
    followed = model_version.round_number(version)
    if latest is not None and followed is not None and followed < latest.number:
        latest.displaced = latest.unasked = True


def note_lost(session: Session, project_id: int, version: object, lost: Collection[int]) -> None:
    """Mark the open round where Label Studio has ``lost`` annotations, or follows no version.

    That it is the right installation is known by then.
    """
    latest = _open_round(session, project_id)
    if latest is not None and (lost or version == ""):
        latest.displaced = latest.unasked = True


def _open_round(session: Session, project_id: int) -> Round | None:
    """The open round of a project, where Label Studio was told to follow it and no other."""
    opened = select(Round).where(Round.project_id == project_id, Round.opened_at.is_not(None))
    latest = session.scalars(opened.order_by(Round.number.desc()).limit(1)).first()
    if latest is None or latest.state != RoundState.OPEN or latest.switched_at is None:
        return None
    return latest
