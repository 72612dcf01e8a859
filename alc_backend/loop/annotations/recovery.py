"""Recovery: making questions and rounds again that Label Studio has and the store does not.

That is so after an older backup was restored, and when the whole store is made again. Reads Label
Studio's tasks and the superpixel maps; writes rounds, queries, pages and scores. Called by
``reconciliation`` and ``exports.rebuild``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.common.types import Json
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import shape_of
from alc_backend.labelstudio.recovered_queries import (
    PageTask,
    QueryTask,
    Question,
    read_query_tasks,
)
from alc_backend.loop import page_tasks, task_sync
from alc_backend.loop.config import round_config
from alc_backend.store import ledger, standing
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.models import (
    TRAIN,
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
    Score,
    Superpixel,
    utc_now,
)
from alc_backend.store.round_states import RoundState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecoveredQuery:
    """What a task of Label Studio asked, and the superpixel (row id) that it is about.

    ``shape`` is how queries show the superpixel (box and outlines); None where its row has it.
    """

    asked: QueryTask
    superpixel_id: int
    shape: Json | None


@dataclass
class MatchedTasks:
    """The query tasks of Label Studio, compared with the superpixels of a project.

    ``fitting`` show the superpixel that they name, ``misfits`` another one; ``foreign`` name no
    image of the project.
    """

    fitting: list[RecoveredQuery] = field(default_factory=list)
    misfits: list[QueryTask] = field(default_factory=list)
    foreign: list[QueryTask] = field(default_factory=list)


def match_tasks(
    session: Session, files: ProjectFiles, project_id: int, tasks: Iterable[QueryTask]
) -> MatchedTasks:
    """Find the superpixels that tasks are about; every image's map is read once."""
    known = select(Image.key, Image.id).where(Image.project_id == project_id, Image.split == TRAIN)
    images: dict[str, int] = {row.key: row.id for row in session.execute(known)}
    by_image: dict[int, list[QueryTask]] = {}
    matched = MatchedTasks()
    for asked in tasks:
        if asked.key.image in images and asked.key.superpixel > 0:
            by_image.setdefault(images[asked.key.image], []).append(asked)
        else:
            matched.foreign.append(asked)
    for image_id, here in by_image.items():
        superpixels = files.read_superpixels(image_id)
        columns = select(Superpixel.number, Superpixel.id, Superpixel.shape.is_(None).label("bare"))
        rows = {
            row.number: row
            for row in session.execute(columns.where(Superpixel.image_id == image_id))
        }
        for asked in here:
            row = rows.get(asked.key.superpixel)
            if row is None or not asked.fits(superpixels):
                matched.misfits.append(asked)
                continue
            shape = shape_of(superpixels == row.number) if row.bare else None
            matched.fitting.append(RecoveredQuery(asked, row.id, shape))
    return matched


@dataclass(frozen=True)
class RecoveredPage:
    """A page that a task of Label Studio asks, and the superpixels (row ids) of its tiles."""

    asked: PageTask
    superpixels: list[int]


@dataclass
class MatchedPages:
    """The pages of Label Studio, compared with the superpixels of a project.

    As in :class:`MatchedTasks`; a page is foreign when any of its tiles is.
    """

    fitting: list[RecoveredPage] = field(default_factory=list)
    misfits: list[PageTask] = field(default_factory=list)
    foreign: list[PageTask] = field(default_factory=list)


def match_pages(
    session: Session, files: ProjectFiles, project_id: int, pages: Sequence[PageTask]
) -> MatchedPages:
    """Find the superpixels that pages are about; every image's map is read once."""
    known = select(Image.key).where(Image.project_id == project_id, Image.split == TRAIN)
    images = set(session.scalars(known))
    contents = [asked.content for asked in pages]
    superpixels = page_tasks.superpixels_of(session, files, project_id, contents)
    matched = MatchedPages()
    for asked in pages:
        if asked.content.key in superpixels:
            found = superpixels[asked.content.key]
            matched.fitting.append(RecoveredPage(asked, found))
        elif all(tile.image_key in images for tile in asked.content.tiles):
            matched.misfits.append(asked)
        else:
            matched.foreign.append(asked)
    return matched


def recover_queries(store: Store, client: Client, project: Project) -> int:
    """Make the questions and rounds that Label Studio has and the store lacks; how many tasks.

    A task that shows another superpixel than it names is left out. So is one of a round with ε
    above 0 that the store does not know: what its answers reach is lost. Raises LabelStudioError.
    """
    assert project.query_project is not None
    asked = read_query_tasks(client, project.query_project, project.class_ids)
    with store.reading() as session:
        opened = set(
            session.scalars(
                select(Round.number).where(
                    Round.project_id == project.id, Round.opened_at.is_not(None)
                )
            )
        )
        known = set(task_sync.keys_by_id(session, project.id).values())
        lacking = [
            task
            for task in asked.queries
            if task.questions and (task.key not in known or not task.questions.keys() <= opened)
        ]
        files = store.files(project.id)
        matched = match_tasks(session, files, project.id, lacking)
        known_pages = task_sync.page_keys(session, project.id)
        lost = [task for task in asked.pages if task.content.key not in known_pages]
        matched_pages = match_pages(session, files, project.id, lost)
    misfits = [task.task_id for task in matched.misfits]
    for task_id in misfits + [task.task_id for task in matched_pages.misfits]:
        log.warning("task %s shows another superpixel than it names; left out", task_id)
    spread = store.settings.epsilon > 0
    recovered, pages = [], []
    for item in matched.fitting:
        new = [q for number, q in item.asked.questions.items() if number not in opened]
        if not new or not (spread or any(q.epsilon > 0 for q in new)):
            recovered.append(item)
        else:
            _warn_of_spread(item.asked.task_id)
    for page in matched_pages.fitting:
        content = page.asked.content
        if content.round_number in opened or not (spread or content.epsilon > 0):
            pages.append(page)
        else:
            _warn_of_spread(page.asked.task_id)
    if recovered or pages:
        with store.session() as session:
            write_queries(session, store, project.id, recovered, pages)
        log.info(
            "project %s: %s queries and %s pages were made again",
            project.id, len(recovered), len(pages),
        )  # fmt: skip
    return len(recovered) + len(pages)


def _warn_of_spread(task_id: int) -> None:
    log.warning(
        "task %s is of a round with ε above 0 that the store does not know; left out", task_id
    )


def write_queries(
    session: Session,
    store: Store,
    project_id: int,
    recovered: Sequence[RecoveredQuery],
    pages: Sequence[RecoveredPage] = (),
) -> None:
    """Write the rounds that tasks tell of, what each round asked, and the questions as they stand.

    What the store knows already stays. Locks the project.
    """
    project = ledger.lock(session, project_id)
    rounds = _write_rounds(session, store, project_id, recovered, pages)
    _write_pages(session, project, rounds, pages)
    numbers = {round_.id: number for number, round_ in rounds.items()}
    scored: set[tuple[int, int]] = {
        (row.round_id, row.superpixel_id)
        for row in session.execute(
            select(Score.round_id, Score.superpixel_id).where(Score.round_id.in_(numbers))
        )
    }
    known = {
        (row.superpixel_id, row.adjudication): row
        for row in session.scalars(task_sync.select_queries(project_id, Query))
    }
    tasks = {row.task_id for row in known.values()}
    queues = {id(item): _queue(item.asked, rounds) for item in recovered}
    queue = sorted(recovered, key=lambda r: (-queues[id(r)], r.asked.rank, r.asked.task_id))
    for rank, item in enumerate(queue):
        asked, superpixel_id, number = item.asked, item.superpixel_id, queues[id(item)]
        if item.shape is not None:
            session.get_one(Superpixel, superpixel_id).shape = item.shape
        _write_scores(session, rounds, item, scored)
        query = known.get((superpixel_id, asked.key.adjudication))
        if query is None:
            query = Query(superpixel_id=superpixel_id, adjudication=asked.key.adjudication)
            known[superpixel_id, asked.key.adjudication] = query
            session.add(query)
        elif query.task_id not in (None, asked.task_id) or numbers[query.round_id] >= number:
            continue  # another task asks the same, or the store knows more
        if asked.task_id not in tasks:
            project.other_tasks = max(0, project.other_tasks - 1)
            tasks.add(asked.task_id)
        question = asked.questions[asked.latest]
        query.round_id, query.task_id = rounds[number].id, asked.task_id
        query.chosen_in = None if number == asked.latest else asked.latest
        query.row, query.col = question.row, question.col
        query.pseudo_label = question.pseudo_label
        query.rank, query.score = rank, float(-rank)
        query.digest = asked.digest
        query.closed_at = utc_now() if asked.closed else None


def _write_pages(
    session: Session,
    project: Project,
    rounds: Mapping[int, Round],
    pages: Sequence[RecoveredPage],
) -> None:
    known = task_sync.page_keys(session, project.id)
    for item in pages:
        asked = item.asked
        if asked.content.key in known:  # another task asks the same
            continue
        round_ = rounds[asked.content.round_number]
        row = page_tasks.add(session, round_, asked.content, item.superpixels, asked.task_id)
        row.closed_at = utc_now() if asked.closed else None
        known[row.key] = row.id
        project.other_tasks = max(0, project.other_tasks - 1)


def _queue(asked: QueryTask, rounds: Mapping[int, Round]) -> int:
    """The number of the round in whose queue a task is."""
    queue = asked.queue or 0
    return max(asked.latest, queue if queue in rounds else 0)


def _write_scores(
    session: Session,
    rounds: Mapping[int, Round],
    item: RecoveredQuery,
    scored: set[tuple[int, int]],
) -> None:
    """Write what each opened round asked about a superpixel, unless ``scored`` has it already.

    The ledger looks there for the pixel and the pseudo label that an annotator was shown.
    """
    if item.asked.key.adjudication:
        return
    for number, question in item.asked.questions.items():
        round_ = rounds[number]
        if round_.opened_at is None:  # its own scores are still to come
            continue
        if (round_.id, item.superpixel_id) not in scored:
            scored.add((round_.id, item.superpixel_id))
            session.add(_score_of(round_, item.superpixel_id, question))


def _score_of(round_: Round, superpixel_id: int, question: Question) -> Score:
    return Score(
        round_id=round_.id,
        superpixel_id=superpixel_id,
        score=0.0,
        row=question.row,
        col=question.col,
        pseudo_label=question.pseudo_label,
        dominant=question.pseudo_label,
    )


def _write_rounds(
    session: Session,
    store: Store,
    project_id: int,
    recovered: Sequence[RecoveredQuery],
    pages: Sequence[RecoveredPage],
) -> dict[int, Round]:
    """The project's rounds by number; those that only the tasks tell of are made."""
    first: dict[int, datetime] = {}
    for item in recovered:
        for number, question in item.asked.questions.items():
            first[number] = min(first.get(number, question.at), question.at)
    for page in pages:
        number = page.asked.content.round_number
        first[number] = min(first.get(number, page.asked.at), page.asked.at)
    known = select(Round).where(Round.project_id == project_id)
    rounds = {round_.number: round_ for round_ in session.scalars(known)}
    made = sorted(first.keys() - rounds.keys())
    for number in made:
        rounds[number] = Round(
            project_id=project_id,
            number=number,
            state=RoundState.CLOSED,
            config=replace(round_config(store.settings, {}), epsilon=0.0),
            message="made again from Label Studio",
            created_at=first[number],
            opened_at=first[number],
        )
        session.add(rounds[number])
    if made and made[-1] == max(rounds):
        for round_ in rounds.values():
            if round_.state == RoundState.OPEN:
                round_.state = RoundState.CLOSED
        rounds[made[-1]].state = RoundState.OPEN
    session.flush()
    return rounds


def propose(session: Session, project_id: int) -> None:
    """Write the classes that annotators gave into recovered adjudications that lack them."""
    asked = (
        select(Query)
        .join(Round, Round.id == Query.round_id)
        .where(Round.project_id == project_id, Query.adjudication, Query.proposed.is_(None))
    )
    silent = session.scalars(asked).all()
    if not silent:
        return
    disputed = standing.disputed(session, project_id)
    given: dict[int | None, list[LedgerEntry]] = {}
    for entry in ledger.standing_about(session, [query.superpixel_id for query in silent]):
        given.setdefault(entry.superpixel_id, []).append(entry)
    for query in silent:
        votes = ledger.votes_of(given.get(query.superpixel_id, []))
        classes = disputed.get(query.superpixel_id) or [vote.class_id for vote in votes]
        query.proposed = list(dict.fromkeys(classes)) or None
