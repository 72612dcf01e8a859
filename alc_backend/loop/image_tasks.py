"""The images of a dataset and their tasks in the dataset project.

Which images are out of the dataset, because somebody said so or because their task is gone; nobody
is asked about these any more. Touches the images in the database; reads the tasks of the dataset
project and closes those of the query project. Called by ``annotations`` and ``projects``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select

from alc_backend.common.types import Json
from alc_backend.errors import LabelStudioError, NotFoundError
from alc_backend.labelstudio import tasks
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import asked_about
from alc_backend.labelstudio.task_pages import LeftOut
from alc_backend.loop import task_sync
from alc_backend.loop.task_sync import Question
from alc_backend.store import upkeep
from alc_backend.store.database import Store
from alc_backend.store.kinds import Removal
from alc_backend.store.models import TRAIN, Image, Project, Query, Superpixel, utc_now

MANY_GONE, SHARE_GONE = 20, 0.1
"""How many tasks of images may have vanished before their images are not removed unasked.

The larger of a number and a share of the images.
"""


def images_named(store: Store, project_id: int, keys: Iterable[str]) -> list[Image]:
    """The images under correction with these keys; NotFoundError names one that is not there."""
    with store.reading() as session:
        found = {
            image.key: image
            for image in session.scalars(
                select(Image).where(Image.project_id == project_id, Image.split == TRAIN)
            )
        }
    unknown = [key for key in keys if key not in found]
    if unknown:
        raise NotFoundError(
            f"there is no image {unknown[0]!r}; `alc images list` shows what there is"
        )
    return [found[key] for key in dict.fromkeys(keys)]


def remove_images(
    store: Store, client: Client, project_id: int, images: Sequence[Image], why: Removal
) -> list[Image]:
    """Take images out of the dataset and close the questions about them; those that were in it.

    Their answers stay in the ledger and count no more. A question that cannot be closed holds up no
    other, and reconciling tries again. Raises LabelStudioError in an outage.
    """
    gone = _mark(store, project_id, [one for one in images if one.removed is None], why)
    close_questions(store, client, project_id)
    return gone


def _mark(
    store: Store, project_id: int, images: Sequence[Image], why: Removal | None
) -> list[Image]:
    with store.session() as session:
        upkeep.set_removed(session, project_id, {image.id: why for image in images})
    return list(images)


def close_questions(store: Store, client: Client, project_id: int) -> None:
    """Close the tasks that ask about images out of the dataset, as ``task_sync.close`` does."""
    with store.reading() as session:
        asked = session.scalars(
            select(Query).where(
                Query.superpixel_id.in_(_superpixels_out(project_id)), Query.task_id.is_not(None)
            )
        )
        # Not in the statement: SQLite would look through all open queries instead.
        obsolete = [row for row in asked if row.closed_at is None]
        pages = session.scalars(task_sync.pages_about_removed(project_id)).all()
    wanted: dict[int, Question | None] = {
        row.task_id: (type(row), row.id) for row in (*obsolete, *pages) if row.task_id is not None
    }
    task_sync.close(store.session, client, wanted)


def _superpixels_out(project_id: int) -> Select[Any]:
    """Select the superpixels (row ids) of images that are out of the dataset, by an index."""
    out = select(Image.id).where(
        Image.project_id == project_id, Image.split == TRAIN, Image.removed.in_(list(Removal))
    )
    return select(Superpixel.id).where(Superpixel.image_id.in_(out))


def remove_deleted(store: Store, client: Client, project: Project, deleted: Collection[int]) -> int:
    """Take images out whose tasks (numbers) are said to be deleted, and are; how many."""
    with store.reading() as session:
        images = session.scalars(
            select(Image).where(
                Image.project_id == project.id,
                Image.dataset_task.in_(deleted),
                Image.removed.is_(None),
            )
        ).all()
    gone = [i for i in images if not client.exists(f"/api/tasks/{i.dataset_task}")]
    if gone:
        remove_images(store, client, project.id, gone, Removal.TASK_DELETED)
    return len(gone)


@dataclass(frozen=True)
class Comparison:
    """What a comparison of images with their tasks found: those whose task is ``gone``, of all.

    ``there`` is the number of tasks in the dataset project, None where nothing was compared.
    """

    gone: list[Image]
    images: int
    there: int | None = None


def sync_images(store: Store, client: Client, project: Project, *, look: bool) -> Comparison:
    """Compare the images with the tasks of the dataset project; which have lost theirs.

    Reads the tasks only where their number is not what it should be, or with ``look``. An image
    whose task is gone gets the task with its key, where there is one; one whose task is back is in
    the dataset again. That tasks are gone is noted: the edits in them must be looked for. Raises
    LabelStudioError.
    """
    connected = (
        Image.project_id == project.id, Image.split == TRAIN, Image.dataset_task.is_not(None)
    )  # fmt: skip
    with store.reading() as session:
        counted = select(Image.removed, func.count()).where(*connected).group_by(Image.removed)
        known = Counter({row[0]: row[1] for row in session.execute(counted)})
    if project.dataset_project is None:
        return Comparison([], known.total())
    expected = known.total() - known[Removal.TASK_DELETED]
    there = tasks.count_tasks(client, project.dataset_project)
    if not look and there == expected + project.other_images:
        return Comparison([], known.total())
    with store.reading() as session:
        images = session.scalars(select(Image).where(*connected)).all()
    unread = LeftOut()
    read = client.tasks(project.dataset_project, leave_out=unread, fields="task_only")
    found: dict[int, Json | None] = {int(task["id"]): task for task in read}
    found |= dict.fromkeys(unread)
    here = {image.id for image in images if _is_of(image, found)}
    moved = _twins(images, here, found)
    back = here | moved.keys()
    with store.session() as session:
        returned: dict[int, Removal | None] = {}
        for image in images:
            row = session.get_one(Image, image.id)
            row.dataset_task = moved.get(image.id, row.dataset_task)
            if image.id in back and row.removed == Removal.TASK_DELETED:
                returned[image.id] = None
        upkeep.set_removed(session, project.id, returned)
        if there < expected + project.other_images:
            session.get_one(Project, project.id).tasks_gone_at = utc_now()
    gone = [image for image in images if image.id not in back and image.removed is None]
    return Comparison(gone, len(images), len(found))


def settle(
    store: Store, client: Client, project: Project, found: Comparison, *, accept_deletions: bool
) -> None:
    """Take the images out of the dataset whose tasks are gone, and close questions about them.

    Raises LabelStudioError when that is a large share of them, unless ``accept_deletions``.
    """
    gone = found.gone
    if len(gone) > max(MANY_GONE, SHARE_GONE * found.images) and not accept_deletions:
        raise LabelStudioError(
            f"Label Studio no longer has the tasks of {len(gone)} of {found.images} images, the "
            f"first of {gone[0].key!r}; none was removed. Is LABEL_STUDIO_URL the right "
            "installation? If they were deleted on purpose, run `alc reconcile --full "
            "--accept-deletions`"
        )
    remove_images(store, client, project.id, gone, Removal.TASK_DELETED)
    if found.there is None:
        return
    with store.session() as session:
        counted = select(func.count(Image.id)).where(
            Image.project_id == project.id,
            Image.split == TRAIN,
            Image.dataset_task.is_not(None),
            Image.removed.is_(None) | (Image.removed != Removal.TASK_DELETED),
        )
        row = session.get_one(Project, project.id)
        row.other_images = found.there - (session.scalar(counted) or 0)


def _is_of(image: Image, found: dict[int, Json | None]) -> bool:
    """Whether the task of an image is among those that were ``found``, None: but not read.

    Its number may have been given to another image, after Label Studio was restored from a dump.
    """
    if image.dataset_task not in found:
        return False
    task = found[image.dataset_task]
    return task is None or asked_about(task["data"]).image in ("", image.key)


def _twins(
    images: Sequence[Image], here: set[int], found: dict[int, Json | None]
) -> dict[int, int]:
    """The tasks that have the keys of images which have lost theirs, by the images' row ids."""
    taken = {image.dataset_task for image in images if image.id in here}
    by_key = {
        asked_about(task["data"]).image: number
        for number, task in sorted(found.items(), reverse=True)
        if task is not None and number not in taken
    }
    return {i.id: by_key[i.key] for i in images if i.id not in here and i.key in by_key}
