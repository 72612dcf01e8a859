"""What an admin wants to know of a project at a glance, as plain figures.

Reads the database; changes nothing. Called by the service (admin page, metrics) and ``alc doctor``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from alc_backend.core.cost import saving
from alc_backend.loop.annotations import attempts, confirmations, unread_tasks
from alc_backend.loop.annotations.confirmations import Confirmed, Precision, share_accepted
from alc_backend.loop.projects import image_queue
from alc_backend.loop.rounds.status import RoundSummary
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.incoming import Event
from alc_backend.store.models import (
    TRAIN,
    EntryKind,
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
    Superpixel,
    utc_now,
)
from alc_backend.store.pages import Page, Tile
from alc_backend.store.round_states import RUNNING, RoundState

REFRESH_S = 5.0
"""How old the figures of a growing ledger may be, in seconds."""

ERRORS_SHOWN = 5
CORRECTIONS_SHOWN = 10
"""How many unreadable events, and kinds of corrections, are told."""


@dataclass(frozen=True)
class Annotator:
    """What one annotator did.

    ``skipped`` counts questions, pages and images. ``accepted`` is the share of pseudo labels that
    they accepted where these were asked about singly, ``pace`` the answers per hour of
    answering, ``seconds`` the median time of an answer, each None when it is not known. Of the
    tiles that pages ``repeated`` though they were known to be wrong, ``overlooked`` were left
    ticked. ``last`` is when they answered last.
    """

    name: str
    answers: int
    skipped: int
    accepted: float | None
    pace: float | None
    seconds: float | None
    repeated: int
    overlooked: int
    last: datetime


class Correction(NamedTuple):
    """How often one class (by name) was corrected to another."""

    before: str
    after: str
    answers: int


@dataclass(frozen=True)
class Figures:
    """What a project's ledger says.

    ``answers`` counts the accepts and corrections in force, those of tiles included, ``recent``
    those of the last hour. ``accept_rate`` is p of Theorem 3.1, of single questions, and ``saved``
    the share of the cost that it saves, both None before the first answer. ``corrections`` are the
    most frequent first; ``disputed`` counts the superpixels that annotators disagree about,
    ``settled`` are those (row ids) that are not asked about any more, ``machine`` counts those that
    the machine labelled by itself and nobody has confirmed. ``confirmed`` tells of each
    way in which people confirmed labels, ``precisions`` of each class that pages proposed.
    """

    answers: int
    recent: int
    accept_rate: float | None
    saved: float | None
    annotators: list[Annotator]
    corrections: list[Correction]
    disputed: int
    settled: set[int]
    machine: int
    confirmed: list[Confirmed]
    precisions: list[Precision]


@dataclass(frozen=True)
class Overview:
    """A project as it stands.

    ``images`` and ``superpixels`` count those under correction, ``arriving`` the images without a
    label map yet; ``rounds`` come in their order, ``running`` tells of the last one; ``queue``
    counts the superpixels that are asked about, singly or on pages, and not settled. ``problems``
    are sentences that each say the remedy.
    """

    project: Project
    images: int
    superpixels: int
    arriving: image_queue.Waiting
    rounds: list[RoundSummary]
    running: bool
    queue: int
    figures: Figures
    problems: list[str]

    @property
    def round(self) -> RoundSummary | None:
        """The latest round, or None."""
        return self.rounds[-1] if self.rounds else None

    @property
    def unconfirmed(self) -> int:
        """How many superpixels rest on the machine: nobody has confirmed what they are."""
        return max(0, self.superpixels - len(self.figures.settled))


class Overviews:
    """Makes overviews without reading a long ledger anew each time.

    The figures are at most REFRESH_S seconds old.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, tuple[float, int, Figures]] = {}

    def all(self) -> list[Overview]:
        """The overviews of all projects, by name."""
        with self._store.reading() as session:
            projects = session.scalars(select(Project).order_by(Project.name)).all()
        return [self.of(project.id) for project in projects]

    def of(self, project_id: int) -> Overview:
        """The overview of one project."""
        now = time.monotonic()
        with self._store.reading() as session:
            position = ledger.position(session, project_id)
            known = self._known.get(project_id)
            if known is None or (known[1] != position and now - known[0] > REFRESH_S):
                project = session.get_one(Project, project_id)
                known = self._known[project_id] = now, position, figures(session, project)
        return overview(self._store, project_id, known[2])


def figures(session: Session, project: Project) -> Figures:
    """The figures of a project, read from its ledger."""
    entries = ledger.standing(session, project.id)
    judged = ledger.judge(entries, project.overlap)
    given = [entry for entry in entries if entry.is_answer]
    rate = share_accepted(given)
    hour_ago = utc_now() - timedelta(hours=1)
    return Figures(
        answers=len(given),
        recent=sum(entry.answered_at >= hour_ago for entry in given),
        accept_rate=rate,
        saved=None if rate is None else saving(len(project.classes), rate),
        annotators=_annotators(entries),
        corrections=_corrections(given, project.classes),
        disputed=len(judged.disputed),
        settled=judged.settled,
        machine=len(judged.rests_on_machine),
        confirmed=confirmations.confirmed(entries, judged),
        precisions=confirmations.precisions(entries, project.classes),
    )


def overview(store: Store, project_id: int, read: Figures | None = None) -> Overview:
    """The overview of one project; ``read`` are its figures where they are known already."""
    arriving = image_queue.waiting(store, project_id)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        read = read or figures(session, project)
        found = session.scalars(
            select(Round).where(Round.project_id == project_id).order_by(Round.number)
        ).all()
        ours = (Image.project_id == project_id, Image.split == TRAIN, Image.removed.is_(None))
        images = select(func.count(Image.id)).where(*ours)
        superpixels = select(func.count(Superpixel.id)).join(Image).where(*ours)
        queue = len(_asked(session, project_id) - read.settled)
        count, parts = session.scalar(images) or 0, session.scalar(superpixels) or 0
        problems = _problems(session, project, found, arriving)
    return Overview(
        project=project,
        images=count,
        superpixels=parts,
        arriving=arriving,
        rounds=[RoundSummary.of(round_) for round_ in found],
        running=bool(found) and found[-1].state in RUNNING,
        queue=queue,
        figures=read,
        problems=problems,
    )


def _asked(session: Session, project_id: int) -> set[int]:
    """The superpixels (row ids) that Label Studio asks about, by single questions or on pages."""
    asked: set[int] = set()
    for question, superpixels in (
        (Query, select(Query.superpixel_id)),
        (
            Page,
            select(Tile.superpixel_id).join(Page, Page.id == Tile.page_id).where(~Tile.repeated),
        ),
    ):
        about = superpixels.selected_columns[0]
        asked.update(
            session.scalars(
                superpixels.join(Round, Round.id == question.round_id)
                .join(Superpixel, Superpixel.id == about)
                .join(Image, Image.id == Superpixel.image_id)
                .where(
                    Round.project_id == project_id,
                    Image.removed.is_(None),
                    question.closed_at.is_(None),
                    question.task_id.is_not(None),
                )
            )
        )
    return asked


def _annotators(entries: Sequence[LedgerEntry]) -> list[Annotator]:
    by_name: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        if not entry.is_by_machine:
            by_name.setdefault(entry.annotator, []).append(entry)
    found = []
    for name, theirs in by_name.items():
        given = [entry for entry in theirs if entry.is_answer]
        skipped = {entry.annotation_id for entry in theirs if entry.kind == EntryKind.SKIP}
        repeated = [entry for entry in theirs if entry.kind == EntryKind.REPEATED]
        times = [entry.lead_time for entry in given if entry.lead_time]
        found.append(
            Annotator(
                name,
                len(given),
                len(skipped),
                share_accepted(given),
                3600 * len(times) / sum(times) if times else None,
                median(times) if times else None,
                len(repeated),
                sum(entry.class_id is not None for entry in repeated),
                max(entry.answered_at for entry in theirs),
            )
        )
    return sorted(found, key=lambda annotator: (-annotator.answers, annotator.name))


def _corrections(given: list[LedgerEntry], classes: list[str]) -> list[Correction]:
    counts = Counter(
        (entry.pseudo_label, entry.class_id)
        for entry in given
        if entry.kind == EntryKind.CORRECT
        and entry.pseudo_label is not None
        and entry.class_id is not None
        and max(entry.pseudo_label, entry.class_id) < len(classes)
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        Correction(classes[before], classes[after], count)
        for (before, after), count in ordered[:CORRECTIONS_SHOWN]
    ]


def _problems(
    session: Session, project: Project, found: Sequence[Round], arriving: image_queue.Waiting
) -> list[str]:
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
    return problems
