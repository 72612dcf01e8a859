"""What an admin wants to know of a project at a glance, as plain figures.

Reads the database; changes nothing. Called by the service (pages, metrics) and ``alc doctor``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from alc_backend.core.cost import saving
from alc_backend.loop import page_tasks
from alc_backend.loop.annotations import confirmations
from alc_backend.loop.annotations.confirmations import (
    Confirmed,
    labeler_seconds,
    said_singly,
    share_accepted,
)
from alc_backend.loop.annotator_figures import Annotator, annotator_figures
from alc_backend.loop.class_figures import ClassFigures, class_figures
from alc_backend.loop.problems import problems_of
from alc_backend.loop.projects import image_queue
from alc_backend.loop.questions.outcome import FEWEST
from alc_backend.loop.rounds.status import RoundSummary
from alc_backend.store import tallies
from alc_backend.store.database import Store
from alc_backend.store.derived import DISPUTED, ON_MACHINE, SETTLED, Counted, Standing, Way
from alc_backend.store.kinds import ANSWERS
from alc_backend.store.ledger import in_force_by_people as in_force
from alc_backend.store.models import (
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
    Superpixel,
    utc_now,
)
from alc_backend.store.pages import Page, Tile
from alc_backend.store.round_states import RUNNING
from alc_backend.store.tallies import Key

REFRESH_S = 5.0
"""How old the figures of a growing ledger may be, in seconds."""

CORRECTIONS_SHOWN = 10
"""How many kinds of corrections are told."""


class Correction(NamedTuple):
    """How often one class (by name) was corrected to another."""

    before: str
    after: str
    answers: int


class ReviewWaiting(NamedTuple):
    """A page of a review that waits: the class (by name) of its answers, and its task's id."""

    answered: str
    task_id: int


@dataclass(frozen=True)
class Figures:
    """What a project's ledger says.

    ``answers`` counts the accepts and corrections in force, those of tiles included, ``recent``
    those of the last hour, ``labeler_s`` the seconds that people took. ``accept_rate`` is p of
    Theorem 3.1, of single questions, and ``saved`` the share of the cost that it saves, both None
    before the first answer. ``corrections`` are the most frequent first; ``disputed`` counts the
    superpixels that annotators disagree about, ``settled`` those that are not asked about any more,
    ``machine`` counts those that the machine labelled by itself and nobody has confirmed.
    ``confirmed`` tells of each way in which people confirmed labels, ``classes`` of each class.
    ``queue`` counts the superpixels that are asked about, singly or on pages, and not settled.
    """

    answers: int
    recent: int
    labeler_s: float
    accept_rate: float | None
    saved: float | None
    annotators: list[Annotator]
    corrections: list[Correction]
    disputed: int
    settled: int
    machine: int
    confirmed: list[Confirmed]
    classes: list[ClassFigures]
    queue: int


@dataclass(frozen=True)
class Overview:
    """A project as it stands.

    ``images`` and ``superpixels`` count those under correction, ``arriving`` the images without a
    label map yet; ``rounds`` come in their order, ``running`` tells of the last one.
    ``problems`` are sentences that each say the remedy; ``reviews`` the pages by which answers are
    reviewed that nobody has answered yet.
    """

    project: Project
    images: int
    superpixels: int
    arriving: image_queue.Waiting
    rounds: list[RoundSummary]
    running: bool
    figures: Figures
    problems: list[str]
    reviews: list[ReviewWaiting]

    @property
    def queue(self) -> int:
        """How many superpixels are asked about, singly or on pages, and not settled."""
        return self.figures.queue

    @property
    def round(self) -> RoundSummary | None:
        """The latest round, or None."""
        return self.rounds[-1] if self.rounds else None

    @property
    def quality(self) -> float | None:
        """The mIoU of the label maps, in [0, 1], as measured last; None without ground truth."""
        known = [round_.data_miou for round_ in self.rounds if round_.data_miou is not None]
        return known[-1] if known else None

    @property
    def accuracy(self) -> float | None:
        """The pixel accuracy, in [0, 1], on held-out answers of the last network measured there."""
        known = [
            round_.estimated_accuracy
            for round_ in self.rounds
            if round_.estimated_accuracy is not None
        ]
        return known[-1] if known else None

    @property
    def quality_before(self) -> float | None:
        """That mIoU as the first round measured it; None where it was not measured again since."""
        known = [round_.data_miou for round_ in self.rounds if round_.data_miou is not None]
        return known[0] if len(known) > 1 else None

    @property
    def confirmed_share(self) -> float | None:
        """The share of superpixels that people confirmed, in [0, 1]; None without superpixels."""
        return self.figures.settled / self.superpixels if self.superpixels else None

    @property
    def left_s(self) -> float | None:
        """The seconds that people need for the open questions, at their pace so far; None before.

        Pages count by the time of their tiles. Hand-made edits tell nothing of questions.
        """
        return None if self._label_s is None else self.queue * self._label_s

    @property
    def _label_s(self) -> float | None:
        """The seconds that a superpixel took that a question or page named, None without any."""
        timed = [
            (row.labels, row.label_s)
            for row in self.figures.confirmed
            if row.way != Way.EDIT and row.label_s is not None
        ]
        labels = sum(many for many, _ in timed)
        if not labels:
            return None
        return sum(many * seconds for many, seconds in timed) / labels

    @property
    def gain_s(self) -> float | None:
        """The seconds, at the pace so far, in which MOST of the expected gain is reached.

        As the last plan expected it; None while too little is known.
        """
        held = next((one.worthwhile for one in reversed(self.rounds) if one.worthwhile), None)
        if held is None or self.figures.answers < FEWEST:
            return None
        pace = self._label_s
        return None if pace is None else held * pace

    @property
    def gain_came(self) -> float | None:
        """Pixels corrected for each that was expected to be wrong, in the rounds before.

        None while too little is known.
        """
        for one in reversed(self.rounds):
            if one.expected_pixels and one.corrected_pixels is not None:
                return one.corrected_pixels / one.expected_pixels
        return None

    @property
    def unconfirmed(self) -> int:
        """How many superpixels rest on the machine: nobody has confirmed what they are."""
        return max(0, self.superpixels - self.figures.settled)


class Overviews:
    """Makes overviews without counting anew for each of many requests.

    The figures are at most REFRESH_S seconds old.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, tuple[float, Figures]] = {}

    def all(self) -> list[Overview]:
        """The overviews of all projects, by name."""
        with self._store.reading() as session:
            projects = session.scalars(select(Project).order_by(Project.name)).all()
        return [self.of(project.id) for project in projects]

    def of(self, project_id: int) -> Overview:
        """The overview of one project."""
        now = time.monotonic()
        with self._store.reading() as session:
            known = self._known.get(project_id)
            if known is None or now - known[0] > REFRESH_S:
                project = session.get_one(Project, project_id)
                known = self._known[project_id] = now, figures(session, project)
        return overview(self._store, project_id, known[1])


def figures(session: Session, project: Project) -> Figures:
    """The figures of a project, by what is counted beside its ledger."""
    counts = tallies.read(session, project.id)
    annotators = annotator_figures(session, project.id, counts)
    rate = share_accepted(said_singly(counts))

    def many(state: str) -> int:
        return counts[Key(Counted.SUPERPIXELS, about=state)]

    return Figures(
        answers=sum(annotator.answers for annotator in annotators),
        recent=_answers_since(session, project.id, utc_now() - timedelta(hours=1)),
        labeler_s=labeler_seconds(counts),
        accept_rate=rate,
        saved=None if rate is None else saving(len(project.classes), rate),
        annotators=annotators,
        corrections=_corrections(counts, project.classes),
        disputed=many(DISPUTED),
        settled=many(SETTLED),
        machine=many(ON_MACHINE),
        confirmed=confirmations.confirmed(counts),
        classes=class_figures(session, project, counts),
        queue=len(_asked(session, _rounds(session, project.id))),
    )


def overview(store: Store, project_id: int, read: Figures | None = None) -> Overview:
    """The overview of one project; ``read`` are its figures where they are known already."""
    arriving = image_queue.waiting(store, project_id)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        read = read or figures(session, project)
        found = _rounds(session, project_id)
        images = tallies.count(session, project_id, Counted.IMAGES)
        superpixels = tallies.count(session, project_id, Counted.ASKABLE)
        problems = problems_of(session, project, found, arriving)
        reviews = _reviews(session, project)
    return Overview(
        project=project,
        images=images,
        superpixels=superpixels,
        arriving=arriving,
        rounds=[RoundSummary.of(round_) for round_ in found],
        running=bool(found) and found[-1].state in RUNNING,
        figures=read,
        problems=problems,
        reviews=reviews,
    )


def _reviews(session: Session, project: Project) -> list[ReviewWaiting]:
    """The pages of reviews that wait, the oldest first."""
    waiting = select(Page.proposed, Page.task_id).where(
        page_tasks.awaiting_review(project), Page.task_id.is_not(None)
    )
    return [
        ReviewWaiting(project.classes[proposed], task_id)
        for proposed, task_id in session.execute(waiting.order_by(Page.id))
        if task_id is not None
    ]


def _rounds(session: Session, project_id: int) -> list[Round]:
    """The rounds of a project, in their order."""
    mine = select(Round).where(Round.project_id == project_id)
    return list(session.scalars(mine.order_by(Round.number)))


def _asked(session: Session, rounds: Sequence[Round]) -> set[int]:
    """The superpixels (row ids) that Label Studio asks about, singly or on pages, not settled yet.

    What an earlier round asked, and this one does not, is closed.
    """
    opened = [round_.number for round_ in rounds if round_.opened_at is not None]
    present = [round_.id for round_ in rounds if round_.number >= max(opened, default=0)]
    asked: set[int] = set()
    for question, superpixels in (
        (Query, select(Query.superpixel_id)),
        (
            Page,
            select(Tile.superpixel_id).join(Page, Page.id == Tile.page_id).where(~Tile.repeated),
        ),
    ):
        about = superpixels.selected_columns[0]
        settled = exists().where(Standing.superpixel_id == about, Standing.way.is_not(None))
        asked.update(
            session.scalars(
                superpixels.join(Superpixel, Superpixel.id == about)
                .join(Image, Image.id == Superpixel.image_id)
                .where(
                    question.round_id.in_(present),
                    question.closed_at.is_(None),
                    question.task_id.is_not(None),
                    Image.removed.is_(None),
                    ~settled,
                )
            )
        )
    return asked


def _answers_since(session: Session, project_id: int, moment: datetime) -> int:
    """How many answers in force were given since a moment."""
    given = in_force(project_id).where(
        LedgerEntry.answered_at >= moment, LedgerEntry.kind.in_(ANSWERS)
    )
    return session.scalar(select(func.count()).select_from(given.subquery())) or 0


def _corrections(counts: Counter[Key], classes: list[str]) -> list[Correction]:
    found = [
        (*divmod(key.number, 256), count)
        for key, count in counts.items()
        if key.what == Counted.CORRECTED
    ]
    known = [item for item in found if max(item[:2]) < len(classes)]
    return [
        Correction(classes[before], classes[after], count)
        for before, after, count in sorted(known, key=lambda item: (-item[2], item))[
            :CORRECTIONS_SHOWN
        ]
    ]
