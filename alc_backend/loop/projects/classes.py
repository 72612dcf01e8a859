"""The class list of a project, which grows and is renamed, and the labels of its label config.

The ids of classes stay for ever: label maps, networks and answers hold them. Writes the label
configs of both projects in Label Studio, then the project in the database. Called by commands and
by ``connection``; ``initial_labels`` compares.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.datasets.classes import checked_classes
from alc_backend.errors import DatasetError, RoundError
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import (
    ADDED_BACKGROUND,
    DatasetTags,
    read_dataset_config,
    with_labels,
    with_new_name,
)
from alc_backend.labelstudio.query import HOTKEYS, label_config
from alc_backend.labelstudio.texts import texts
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import Project, Round
from alc_backend.store.round_states import RUNNING


def add_classes(store: Store, client: Client, project_id: int, names: Sequence[str]) -> Project:
    """Give a project further classes, with the next ids, and its label config their labels.

    Classes that it has already are left out. Raises DatasetError for names that cannot be added,
    RoundError while a round is under way, LabelStudioError.
    """
    project = _checked(store, project_id, names)
    if project.dataset_project is not None:
        config = _config(client, project.dataset_project)
        _write(client, project.dataset_project, config, with_labels(config, names))
    return _append(store, client, project_id, names)


def rename_class(store: Store, client: Client, project_id: int, old: str, new: str) -> Project:
    """Give a class another name; in the label config the old one becomes its label's alias.

    Annotations, predictions and open questions with the old name are still understood. Raises
    DatasetError for an unknown class or a name that is taken, RoundError while a round is under
    way, LabelStudioError.
    """
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        _refuse_running(session, project_id)
    changed = _renamed(project, old, new)
    if project.dataset_project is not None:
        config = _config(client, project.dataset_project)
        _write(client, project.dataset_project, config, with_new_name(config, old, new))
    with store.session() as session:
        project = ledger.lock(session, project_id)
        _refuse_running(session, project_id)
        changed = _renamed(project, old, new)
        former = {**(project.former_names or {}), old: project.classes.index(old)}
        former.pop(new, None)
        project.classes, project.former_names = changed, former
        return project


def take_up_labels(store: Store, client: Client, project: Project) -> list[str]:
    """Make classes of labels that the label config has got since; returns their names.

    Raises DatasetError when labels of classes are missing there, RoundError while a round is under
    way, LabelStudioError.
    """
    assert project.dataset_project is not None
    tags = read_dataset_config(_config(client, project.dataset_project))
    refuse_missing(project, tags)
    new = new_labels(project, tags)
    if new:
        _checked(store, project.id, new)
        _append(store, client, project.id, new)
    return new


def new_labels(project: Project, tags: DatasetTags) -> list[str]:
    """The labels of a label config that are no classes of the project yet."""
    return [name for name in tags.labels if name not in project.class_ids]


def refuse_missing(project: Project, tags: DatasetTags) -> None:
    """Raise DatasetError, with the remedy, when a label config lacks labels of classes."""
    there = {project.renamed.get(name, name) for name in tags.labels} | {ADDED_BACKGROUND}
    missing = [name for name in project.classes if name not in there]
    if not missing:
        return
    where = f"the label config of Label Studio project {project.dataset_project}"
    new = new_labels(project, tags)
    if len(missing) == len(new) == 1:
        raise DatasetError(
            f"{where} has the label {new[0]!r} and lacks {missing[0]!r}: if the class was renamed, "
            f"run `alc classes rename {missing[0]!r} {new[0]!r}`, else restore the label there"
        )
    raise DatasetError(
        f"{where} lacks {', '.join(map(repr, missing))} of the project's classes; restore the "
        "labels there (Settings → Labeling Interface), or import into a new project"
    )


def _checked(store: Store, project_id: int, names: Sequence[str]) -> Project:
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        _refuse_running(session, project_id)
    _longer(project, names)
    return project


def _longer(project: Project, names: Sequence[str]) -> list[str]:
    """The class list with further classes at its end; DatasetError where that is not possible."""
    for name in names:
        if name in project.renamed:
            raise DatasetError(
                f"{name!r} was the name of the class {project.renamed[name]!r}, and annotations "
                "may still have it; choose another name"
            )
    added = [name for name in dict.fromkeys(names) if name not in project.classes]
    return checked_classes([*project.classes, *added], "the class list")


def _append(store: Store, client: Client, project_id: int, names: Sequence[str]) -> Project:
    with store.session() as session:
        project = ledger.lock(session, project_id)
        _refuse_running(session, project_id)
        before = len(project.classes)
        project.classes = _longer(project, names)
    if project.query_project is not None and before <= len(HOTKEYS) < len(project.classes):
        wanted = label_config(len(project.classes), texts(store.settings.language))
        client.patch(f"/api/projects/{project.query_project}", {"label_config": wanted})
    return project


def _renamed(project: Project, old: str, new: str) -> list[str]:
    """The class list with a new name in it; DatasetError where that is not possible."""
    if old not in project.classes:
        raise DatasetError(f"there is no class {old!r}; known: {', '.join(project.classes)}")
    number = project.classes.index(old)
    if project.class_ids.get(new, number) != number:
        raise DatasetError(f"{new!r} is, or was, the name of another class; choose another name")
    names = [*project.classes]
    names[number] = new
    return checked_classes(names, "the class list")


def _refuse_running(session: Session, project_id: int) -> None:
    """Raise RoundError while a round trains or measures with the class list."""
    running = session.scalar(
        select(Round.number).where(Round.project_id == project_id, Round.state.in_(RUNNING))
    )
    if running is not None:
        raise RoundError(
            f"round {running} is under way with the present classes; wait until it is open, or "
            "cancel it with `alc round cancel`"
        )


def _config(client: Client, number: int) -> str:
    return str(client.get(f"/api/projects/{number}")["label_config"])


def _write(client: Client, number: int, before: str, after: str) -> None:
    if read_dataset_config(before) != read_dataset_config(after):
        client.patch(f"/api/projects/{number}", {"label_config": after})
