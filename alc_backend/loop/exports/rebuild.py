"""Making the store again from Label Studio and the initial label maps, when it is lost.

Label Studio holds every answer, and in each the star on the pixel that was asked about; the initial
label maps and superpixels come from the dataset folder that the project was made of. What it does
not hold are networks, and the figures and settings of earlier rounds.

Reads Label Studio and the folder; writes the store. Called by ``alc rebuild``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import delete, select

from alc_backend.common.types import Json
from alc_backend.datasets.dataset import Dataset
from alc_backend.errors import DatasetError, SettingsError
from alc_backend.labelstudio import query, recovered_queries
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import DatasetTags, read_dataset_config
from alc_backend.labelstudio.task_pages import LeftOut
from alc_backend.loop.annotations import answers, outcomes, recovery
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.projects.connection import free_name
from alc_backend.store.database import Store
from alc_backend.store.derived import Tally
from alc_backend.store.importing import import_dataset
from alc_backend.store.models import TRAIN, Image, Project, Superpixel

Report = Callable[[str], None]

_REMEDY = (
    "Give the very folder that `alc init` had, and the same --superpixels, --superpixel-count and "
    "--fill"
)


@dataclass
class Summary:
    """What was made again.

    ``counts`` tells what became of each annotation; ``problems`` are sentences about what was left
    out, ``notes`` about what was assumed of the dataset and may be wrong.
    """

    project_id: int
    images: int = 0
    queries: int = 0
    pages: int = 0
    rounds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def rebuild_project(
    store: Store,
    client: Client,
    dataset: Dataset,
    dataset_project: int,
    query_project: int,
    *,
    validation: Dataset | None = None,
    warm_start: Json | None = None,
    report: Report = lambda message: None,
) -> Summary:
    """Make a project again from ``dataset`` and its two projects in Label Studio.

    Its name is that of the dataset project, with its number where the name is taken.
    ``warm_start`` says how images that come later get their first label maps. Nothing is changed in
    Label Studio. Nothing stays in the store unless every query shows the superpixel that the
    dataset has there; an attempt that was interrupted may be repeated. Raises SettingsError when
    answers spread by similarity (what they reach is lost with the store: restore a backup),
    DatasetError when the project is there already, or classes or superpixels are not those it was
    made with, LabelStudioError.
    """
    _refuse_spread(store.settings.epsilon, "with ALC_EPSILON above 0")
    _refuse_known(store, dataset_project, query_project)
    config = client.get(f"/api/projects/{dataset_project}")
    overlap = client.get(f"/api/projects/{query_project}").get("maximum_annotations")
    tags = read_dataset_config(config["label_config"])
    ids = _class_ids(tags)
    if [ids.get(name) for name in dataset.classes] != list(range(len(dataset.classes))):
        raise DatasetError(
            f"Label Studio project {dataset_project} has the classes {', '.join(tags.classes)}, "
            f"the folder {', '.join(dataset.classes)}; give the folder that it was made of"
        )
    report("reading the queries")
    asked = recovered_queries.read_query_tasks(client, query_project, ids)
    told = [(task.task_id, task.epsilon) for task in asked.queries]
    told += [(task.task_id, task.content.epsilon) for task in asked.pages]
    for task_id, epsilon in told:
        _refuse_spread(epsilon, f"task {task_id} was asked with ε = {epsilon:g}:")
    # Until all of it is there it has another name, by which the next attempt finds its remains.
    name = f"{config['title']} ({dataset_project}) is being made again"
    _remove(store, name)
    try:
        imported = import_dataset(
            store,
            dataset,
            name,
            validation,
            warm_start=warm_start,
            progress=lambda done, key: report(f"importing images: {done} ({key})"),
        )
        summary = Summary(
            imported.project_id,
            imported.imported,
            problems=imported.problems,
            notes=imported.notes,
        )
        report("reading the images' tasks")
        _connect_images(store, client, summary, dataset_project, tags.image_field)
        report("comparing the queries with the superpixels")
        recovered = _match_tasks(store, summary, query_project, asked.queries)
        pages = _match_pages(store, summary, query_project, asked.pages)
        title = free_name(store, config)
        with store.session() as session:
            project = session.get_one(Project, summary.project_id)
            project.name = title
            project.classes = tags.classes
            project.former_names = {n: i for n, i in ids.items() if n not in tags.classes} or None
            project.dataset_project, project.query_project = dataset_project, query_project
            project.brush_name, project.image_name = tags.brush_name, tags.image_name
            project.overlap = answers.overlap_of(overlap) or 1
            recovery.write_queries(session, store, project.id, recovered, pages)
    except BaseException:  # Ctrl-C too: nothing half-made stays
        _remove(store, name)
        raise
    summary.queries = len(recovered)
    summary.pages = len(pages)
    rounds = {number for item in recovered for number in item.asked.questions}
    summary.rounds = len(rounds | {page.asked.content.round_number for page in pages})
    summary.counts = reconcile(
        store,
        client,
        summary.project_id,
        full=True,
        progress=lambda done, total, message: report(f"{message}: {done} tasks"),
    )
    for outcome in outcomes.PROBLEMS:
        if summary.counts[outcome]:
            summary.problems.append(
                f"{summary.counts[outcome]} annotations: {outcome}; the log names them"
            )
    return summary


def _class_ids(tags: DatasetTags) -> dict[str, int]:
    """The ids of classes by their names and, as they were called before, their aliases."""
    ids = {name: number for number, name in enumerate(tags.classes)}
    return {**{alias: ids[name] for alias, name in tags.aliases.items() if name in ids}, **ids}


def _refuse_spread(epsilon: float, what: str) -> None:
    if epsilon > 0:
        raise SettingsError(
            f"{what} what an answer reached is known to the store alone; use `alc restore` with a "
            "backup"
        )


def _refuse_known(store: Store, *numbers: int) -> None:
    with store.reading() as session:
        known = session.scalar(
            select(Project.name).where(
                Project.dataset_project.in_(numbers) | Project.query_project.in_(numbers)
            )
        )
    if known is not None:
        raise DatasetError(
            f"the store has this project already ({known}); `alc reconcile --full` collects its "
            "answers. To make it again, set ALC_DATA_DIR (or DATABASE_URL) to a new place"
        )


def _remove(store: Store, name: str) -> None:
    """Remove what was imported under the name of a project that is being made again."""
    with store.reading() as session:
        project_id = session.scalar(select(Project.id).where(Project.name == name))
        images = session.scalars(select(Image).where(Image.project_id == project_id)).all()
    if project_id is None:
        return
    files = store.files(project_id)
    for image in images:
        for kept in files.of_image(image.id, image.suffix):
            store.storage.delete(kept)
    with store.session() as session:
        here = select(Image.id).where(Image.project_id == project_id)
        session.execute(delete(Superpixel).where(Superpixel.image_id.in_(here)))
        session.execute(delete(Tally).where(Tally.project_id == project_id))
        session.execute(delete(Image).where(Image.project_id == project_id))
        session.execute(delete(Project).where(Project.id == project_id))


def _connect_images(
    store: Store, client: Client, summary: Summary, dataset_project: int, image_field: str
) -> None:
    """Write down which task shows which image."""
    images = {image.key: image.id for image in store.images(summary.project_id, TRAIN)}
    shown: dict[int, tuple[int, str]] = {}
    unread = LeftOut()
    for task in client.tasks(dataset_project, leave_out=unread, fields="task_only"):
        key = query.asked_about(task["data"]).image
        if key in images:
            shown[images[key]] = int(task["id"]), str(task["data"].get(image_field) or "")
        else:
            summary.problems.append(
                f"task {task['id']} of project {dataset_project}: its image is not in the folder"
            )
    summary.problems += map(str, unread.values())
    with store.session() as session:
        for image_id, (task_id, url) in shown.items():
            image = session.get_one(Image, image_id)
            image.dataset_task, image.url = task_id, url
    for key, image_id in images.items():
        if image_id not in shown:
            summary.problems.append(f"{key}: has no task in project {dataset_project}")


def _match_tasks(
    store: Store, summary: Summary, query_project: int, tasks: list[recovered_queries.QueryTask]
) -> list[recovery.RecoveredQuery]:
    """The tasks that ask about the imported superpixels; DatasetError when any shows another one.

    Those that are about other images, or show no pixel, are noted as problems.
    """
    with store.reading() as session:
        files = store.files(summary.project_id)
        matched = recovery.match_tasks(session, files, summary.project_id, tasks)
    for task in matched.foreign:
        summary.problems.append(
            f"task {task.task_id} of project {query_project}: asks about no image of the folder"
        )
    if matched.misfits:
        first = matched.misfits[0]
        raise DatasetError(
            f"{len(matched.misfits)} of {len(tasks) - len(matched.foreign)} queries do not fit the "
            f"superpixels, first task {first.task_id} about superpixel {first.key.superpixel} of "
            f"{first.key.image}; nothing was made. {_REMEDY}"
        )
    recovered = []
    for item in matched.fitting:
        if item.asked.questions:
            recovered.append(item)
        else:
            summary.problems.append(
                f"task {item.asked.task_id} of project {query_project}: shows no pixel"
            )
    return recovered


def _match_pages(
    store: Store, summary: Summary, query_project: int, pages: list[recovered_queries.PageTask]
) -> list[recovery.RecoveredPage]:
    """The pages about the imported superpixels, as :func:`_match_tasks` does it for queries."""
    with store.reading() as session:
        files = store.files(summary.project_id)
        matched = recovery.match_pages(session, files, summary.project_id, pages)
    for task in matched.foreign:
        summary.problems.append(
            f"task {task.task_id} of project {query_project}: a tile of its page shows no image of "
            "the folder"
        )
    if matched.misfits:
        first = matched.misfits[0]
        raise DatasetError(
            f"{len(matched.misfits)} of {len(pages) - len(matched.foreign)} pages of look-alikes "
            f"do not fit the superpixels, first that of task {first.task_id}; nothing was made. "
            f"{_REMEDY}"
        )
    return matched.fitting
