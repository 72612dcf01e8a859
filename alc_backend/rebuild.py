"""Making the store again from Label Studio and the initial label maps, when it is lost.

Label Studio holds every answer, and in each the star on the pixel that was asked about; the initial
label maps and superpixels come from the dataset folder that the project was made of. What it does
not hold are networks, and the figures and settings of earlier rounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend import answers, rounds, states
from alc_backend.datasets.dataset import Dataset
from alc_backend.errors import DatasetError, SettingsError
from alc_backend.labelstudio import projects, query
from alc_backend.labelstudio.annotation import chosen, round_of
from alc_backend.labelstudio.client import Client
from alc_backend.reconcile import reconcile
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.importing import import_dataset
from alc_backend.store.models import (
    TRAIN,
    Image,
    Project,
    Query,
    Round,
    Score,
    Superpixel,
    utc_now,
)

Json = dict[str, Any]
Report = Callable[[str], None]


@dataclass
class Summary:
    """What was made again; ``counts`` tells what became of each annotation."""

    project_id: int
    pictures: int = 0
    queries: int = 0
    rounds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Question:
    """What a task asked in one round, and when that was first seen."""

    row: int
    col: int
    pseudo_label: int
    at: datetime


@dataclass
class _Task:
    """A query task: what it is about, and what it asked in each round."""

    task_id: int
    superpixel: Superpixel
    adjudication: bool
    digest: str
    closed: bool
    questions: dict[int, _Question]
    rank: float


def rebuild(
    store: Store,
    client: Client,
    dataset: Dataset,
    dataset_project: int,
    query_project: int,
    *,
    validation: Dataset | None = None,
    report: Report = lambda message: None,
) -> Summary:
    """Make a project again from ``dataset`` and its two projects in Label Studio.

    Its name is that of the dataset project. Nothing in Label Studio is changed. Raises
    SettingsError when answers spread by similarity (their reach is lost with the store: restore a
    backup), DatasetError when the project is there already or the classes differ,
    LabelStudioError.
    """
    if store.settings.epsilon > 0:
        raise SettingsError(
            "with ALC_EPSILON above 0, what an answer reached is known to the store alone; use "
            "`alc restore` with a backup"
        )
    with store.reading() as session:
        if session.scalar(
            select(Project.id).where(
                Project.dataset_project.in_((dataset_project, query_project))
                | Project.query_project.in_((dataset_project, query_project))
            )
        ):
            raise DatasetError(
                "the store has this project already; `alc reconcile --full` collects its answers. "
                "To make it again, set ALC_DATA_DIR (or DATABASE_URL) to a new place"
            )
    config = client.get(f"/api/projects/{dataset_project}")
    queries = client.get(f"/api/projects/{query_project}")
    tags = projects.read_dataset_config(config["label_config"])
    if tags.classes != dataset.classes:
        raise DatasetError(
            f"Label Studio project {dataset_project} has the classes {', '.join(tags.classes)}, "
            f"the folder {', '.join(dataset.classes)}; give the folder that it was made of"
        )
    imported = import_dataset(
        store,
        dataset,
        str(config["title"]),
        validation,
        progress=lambda done, key: report(f"importing pictures: {done} ({key})"),
    )
    summary = Summary(imported.project_id, imported.imported, problems=imported.problems)
    report("reading the pictures' tasks")
    _connect_pictures(store, client, summary, dataset_project, tags.image_field)
    report("reading the queries")
    tasks = _read_queries(store, client, summary, query_project, tags.classes)
    with store.session() as session:
        project = session.get_one(Project, summary.project_id)
        project.dataset_project, project.query_project = dataset_project, query_project
        project.brush_name, project.image_name = tags.brush_name, tags.image_name
        project.overlap = answers.overlap_of(queries.get("maximum_annotations")) or 1
        _write(session, store, project, tasks)
    summary.queries = len(tasks)
    summary.rounds = len({number for task in tasks for number in task.questions})
    summary.counts = reconcile(
        store,
        client,
        summary.project_id,
        full=True,
        progress=lambda done, total, message: report(f"{message}: {done} tasks"),
    )
    with store.session() as session:
        _propose(session, summary.project_id)
    return summary


def _connect_pictures(
    store: Store, client: Client, summary: Summary, dataset_project: int, image_field: str
) -> None:
    """Note which task shows which picture."""
    images = {image.key: image.id for image in store.images(summary.project_id, TRAIN)}
    shown: dict[int, tuple[int, str]] = {}
    for task in client.tasks(dataset_project, fields="task_only"):
        key = query.asked_about(task["data"]).image
        if key in images:
            shown[images[key]] = int(task["id"]), str(task["data"].get(image_field) or "")
        else:
            summary.problems.append(
                f"task {task['id']} of project {dataset_project}: its picture is not in the folder"
            )
    with store.session() as session:
        for image_id, (task_id, url) in shown.items():
            image = session.get_one(Image, image_id)
            image.dataset_task, image.url = task_id, url
    for key, image_id in images.items():
        if image_id not in shown:
            summary.problems.append(f"{key}: has no task in project {dataset_project}")


def _read_queries(
    store: Store, client: Client, summary: Summary, query_project: int, classes: list[str]
) -> list[_Task]:
    """What each query task asked, read from its predictions and answers."""
    with store.reading() as session:
        rows = session.execute(
            select(Superpixel, Image)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Image.project_id == summary.project_id, Image.split == TRAIN)
        ).all()
    known = {(image.key, superpixel.number): (superpixel, image) for superpixel, image in rows}
    found: list[_Task] = []
    for task in client.tasks(query_project):
        about = query.asked_about(task["data"])
        if (about.image, about.superpixel) not in known:
            summary.problems.append(
                f"task {task['id']} of project {query_project}: asks about no superpixel of ours"
            )
            continue
        superpixel, image = known[about.image, about.superpixel]
        questions = _questions(task, image, classes)
        if not questions:
            summary.problems.append(f"task {task['id']} of project {query_project}: shows no pixel")
            continue
        latest: Json = max(task["predictions"], key=lambda p: int(p["id"]), default={})
        found.append(
            _Task(
                int(task["id"]),
                superpixel,
                about.adjudication,
                query.digest(task["data"]),
                bool(task.get("is_labeled")) and not task["annotations"],
                questions,
                float(latest.get("score") or 0.0),
            )
        )
    return found


def _questions(task: Json, image: Image, classes: list[str]) -> dict[int, _Question]:
    """The question of each round, as the task's predictions and annotations show it."""
    choices = task["data"].get("choices") or [{}]
    asked = str(choices[0].get("value"))
    preselected: dict[int, str] = {}
    seen: dict[int, tuple[int, int, datetime]] = {}
    for record in (*task["predictions"], *task["annotations"]):
        result = record.get("result") or []
        number, pixel = round_of(result), query.starred(result, image.height, image.width)
        if number is None or pixel is None:
            continue
        at = datetime.fromisoformat(str(record["created_at"]).replace("Z", "+00:00"))
        if number not in seen or at < seen[number][2]:
            seen[number] = *pixel, at
        if "model_version" in record:  # a prediction: its choice is the pseudo label
            preselected[number] = str(chosen(result))
    return {
        number: _Question(row, col, classes.index(name), at)
        for number, (row, col, at) in seen.items()
        if (name := preselected.get(number, asked)) in classes
    }


def _write(session: Session, store: Store, project: Project, tasks: list[_Task]) -> None:
    """Write rounds, what each asked, and the queries as they stand."""
    first: dict[int, datetime] = {}
    for task in tasks:
        for number, question in task.questions.items():
            first[number] = min(first.get(number, question.at), question.at)
    entries: dict[int, Round] = {}
    for number, at in sorted(first.items()):
        entries[number] = Round(
            project_id=project.id,
            number=number,
            state=states.CLOSED,
            config=rounds.config_of(store.settings, {}),
            message="made again from Label Studio",
            created_at=at,
            opened_at=at,
        )
        session.add(entries[number])
    if entries:
        entries[max(entries)].state = states.OPEN
    session.flush()
    files = store.files(project.id)
    for task in sorted(tasks, key=lambda task: (task.superpixel.image_id, task.task_id)):
        row = session.get_one(Superpixel, task.superpixel.id)
        if row.shape is None:
            superpixels = files.read_superpixels(row.image_id)
            row.shape = query.shape_of(superpixels == row.number)
        for number, question in task.questions.items():
            if not task.adjudication:
                session.add(
                    Score(
                        round_id=entries[number].id,
                        superpixel_id=row.id,
                        score=0.0,
                        row=question.row,
                        col=question.col,
                        pseudo_label=question.pseudo_label,
                        dominant=question.pseudo_label,
                    )
                )
    queue = sorted(tasks, key=lambda task: (-max(task.questions), task.rank, task.task_id))
    for rank, task in enumerate(queue):
        latest = max(task.questions)
        question = task.questions[latest]
        session.add(
            Query(
                superpixel_id=task.superpixel.id,
                adjudication=task.adjudication,
                round_id=entries[latest].id,
                task_id=task.task_id,
                row=question.row,
                col=question.col,
                pseudo_label=question.pseudo_label,
                score=float(-rank),
                rank=rank,
                published=task.digest,
                closed_at=utc_now() if task.closed else None,
            )
        )


def _propose(session: Session, project_id: int) -> None:
    """Let adjudication queries say again between which classes they decide."""
    judged = ledger.judgement(session, project_id)
    given: dict[int, dict[int, None]] = {}
    for entry in ledger.standing(session, project_id):
        if None not in (entry.superpixel_id, entry.class_id) and not entry.adjudication:
            given.setdefault(int(entry.superpixel_id or 0), {})[int(entry.class_id or 0)] = None
    asked = select(Query).join(Round).where(Round.project_id == project_id, Query.adjudication)
    for row in session.scalars(asked):
        classes = judged.disputed.get(row.superpixel_id) or tuple(given.get(row.superpixel_id, ()))
        row.proposed = list(classes) or None
