"""Making a user study in Label Studio: a project for each group of annotators."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from alc_backend.common.types import Json
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import classification, page, projects, query, sheets, tasks, uploads
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.texts import Texts
from alc_backend.simulate.scenes import Scenes
from alc_backend.study import drawing
from alc_backend.study.record import CLASSIFICATION, PAGE, Asked, Group, Study

VERSION = "alc-r1"
"""The version of the predictions: what is shown is no network's, and there is one round."""

Task = tuple[tasks.QueueItem, tuple[int, ...]]
"""A task to be made, with the indices of the questions that it asks."""

Tell = Callable[[str], None]
"""Shows a sentence about what is being done."""


@dataclass(frozen=True)
class Shown:
    """The images of a study as Label Studio has them: the address of each by its key.

    ``pictures`` is the project (id) that their uploads, and the sheets of pages, belong to.
    """

    scenes: Scenes
    pictures: int
    addresses: dict[str, str]


def create(
    client: Client,
    scenes: Scenes,
    name: str,
    questions: Sequence[Asked],
    designs: Sequence[str],
    *,
    people: int,
    tiles: int,
    wording: Texts,
    tell: Tell,
) -> Study:
    """Make a project for each design, with the same questions in all of them.

    Each question is put to ``people`` annotators, and ``tiles`` is the most that a page holds.
    Raises LabelStudioError; the projects that were made until then are deleted again.
    """
    classes = scenes.classes
    with _undone_on_failure(client) as made:
        numbers = {}
        for design in designs:
            tell(f"making the project of the {design} queries")
            numbers[design] = projects.create_study_project(
                client, name, design, people, len(classes), wording
            )
            made.append(numbers[design])
        pictures = uploads.sheets_project(client, numbers[designs[0]])
        made.append(pictures)
        tell("uploading the images")
        keys = sorted({asked.image for asked in questions})
        addresses = client.upload(pictures, [scenes.path(key) for key in keys])
        shown = Shown(scenes, pictures, dict(zip(keys, addresses, strict=True)))
        groups = []
        for design in designs:
            tell(f"making the {design} queries")
            asked_by_task = _items(client, shown, questions, design, tiles, wording)
            items = [item for item, _ in asked_by_task]
            published = _publish(client, numbers[design], items)
            groups.append(
                Group(
                    design,
                    numbers[design],
                    {published[item.key]: indices for item, indices in asked_by_task},
                )
            )
    return Study(name, list(classes), people, list(questions), groups)


@contextmanager
def _undone_on_failure(client: Client) -> Iterator[list[int]]:
    """A list of projects (ids), which are deleted when what follows fails."""
    made: list[int] = []

    def delete() -> None:
        for number in made:
            with suppress(LabelStudioError):
                client.delete(f"/api/projects/{number}", missing_ok=True)

    with ExitStack() as stack:
        stack.callback(delete)
        yield made
        stack.pop_all()


def _items(
    client: Client,
    shown: Shown,
    questions: Sequence[Asked],
    design: str,
    tiles: int,
    wording: Texts,
) -> list[Task]:
    """The tasks of a design."""
    if design == PAGE:
        return _pages(client, shown, questions, tiles, wording)
    write = classification if design == CLASSIFICATION else query
    found: list[Task] = []
    for index, asked in enumerate(questions):
        content = _content(shown, asked)
        key = query.Key(asked.image, asked.superpixel)
        data, result = write.task_data(content, wording), write.prediction(content)
        found.append((_item(key, data, result), (index,)))
    return found


def _item(key: query.Key, data: Json, result: list[Json]) -> tasks.QueueItem:
    return tasks.QueueItem(0, key, None, changed=False, closed=False, data=data, result=result)


def _content(shown: Shown, asked: Asked) -> query.QueryContent:
    superpixels = shown.scenes.superpixels(asked.image)
    return query.QueryContent(
        url=shown.addresses[asked.image],
        image_key=asked.image,
        height=superpixels.shape[0],
        width=superpixels.shape[1],
        superpixel=asked.superpixel,
        row=asked.row,
        col=asked.col,
        pseudo_label=asked.label,
        classes=shown.scenes.classes,
        round_number=1,
        shape=query.shape_of(superpixels == asked.superpixel),
    )


def _pages(
    client: Client, shown: Shown, questions: Sequence[Asked], tiles: int, wording: Texts
) -> list[Task]:
    drawn, contents = {}, []
    for indices in drawing.in_pages(questions, tiles):
        members = [questions[index] for index in indices]
        key = hashlib.sha256(repr((shown.pictures, members)).encode()).hexdigest()[:32]
        drawn[key] = sheets.sheet(
            [
                sheets.draw_tile(
                    shown.scenes.image(asked.image),
                    shown.scenes.superpixels(asked.image),
                    asked.superpixel,
                )
                for asked in members
            ]
        )
        contents.append((key, members, indices))
    addresses = uploads.upload_sheets(client, shown.pictures, drawn)
    found: list[Task] = []
    for key, members, indices in contents:
        content = page.PageContent(
            key=key,
            round_number=1,
            epsilon=0.0,
            proposed=members[0].label,
            classes=shown.scenes.classes,
            tiles=tuple(page.Tile(a.image, a.superpixel, a.row, a.col, a.label) for a in members),
            sheet=addresses[key],
        )
        data, result = page.task_data(content, wording), page.prediction(content)
        found.append((_item(query.Key("", 0, page=key), data, result), indices))
    return found


def _publish(
    client: Client, project: int, items: Sequence[tasks.QueueItem]
) -> dict[query.Key, int]:
    """Make the tasks, and let Label Studio serve them; their ids by what they ask."""
    numbers: dict[query.Key, int] = {}
    tasks.create_tasks(client, project, items, numbers.update)
    made = [replace(item, task_id=numbers[item.key]) for item in items]
    if not tasks.import_queue(client, project, VERSION, made):
        raise LabelStudioError(
            f"Label Studio did not keep all questions of project {project}; make the study again"
        )
    tasks.switch(client, project, VERSION)
    return numbers
