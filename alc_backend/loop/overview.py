"""What an admin wants to know of a project at a glance, as plain figures.

Reads the database; changes nothing. Called by the service (admin page, metrics) and ``alc doctor``.
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
from alc_backend.loop.annotations import confirmations
from alc_backend.loop.annotations.confirmations import (
    Confirmed,
    labeler_seconds,
    said_singly,
    share_accepted,
)
from alc_backend.loop.class_figures import ClassFigures, class_figures
from alc_backend.loop.problems import problems_of
from alc_backend.loop.projects import image_queue
from alc_backend.loop.rounds.status import RoundSummary
from alc_backend.store import tallies
from alc_backend.store.database import Store
from alc_backend.store.derived import DISPUTED, ON_MACHINE, SETTLED, Counted, Standing, Way
from alc_backend.store.kinds import ANSWERS, EntryKind
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
from alc_backend.store.tallies import Key, weighted_median

REFRESH_S = 5.0
"""How old the figures of a growing ledger may be, in seconds."""

CORRECTIONS_SHOWN = 10
"""How many kinds of corrections are told."""


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
    ``problems`` are sentences that each say the remedy.
    """

    project: Project
    images: int
    superpixels: int
    arriving: image_queue.Waiting
    rounds: list[RoundSummary]
    running: bool
    figures: Figures
    problems: list[str]

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
        timed = [
            (row.labels, row.label_s)
            for row in self.figures.confirmed
            if row.way != Way.EDIT and row.label_s is not None
        ]
        labels = sum(many for many, _ in timed)
        if not labels:
            return None
        return self.queue * sum(many * seconds for many, seconds in timed) / labels

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
    annotators = _annotators(session, project.id, counts)
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
    return Overview(
        project=project,
        images=images,
        superpixels=superpixels,
        arriving=arriving,
        rounds=[RoundSummary.of(round_) for round_ in found],
        running=bool(found) and found[-1].state in RUNNING,
        figures=read,
        problems=problems,
    )


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


def _annotators(session: Session, project_id: int, counts: Counter[Key]) -> list[Annotator]:
    kinds: dict[str, Counter[str]] = {}
    singly: dict[str, Counter[str]] = {}
    skipped: Counter[str] = Counter()
    overlooked: Counter[str] = Counter()
    times: dict[str, Counter[int]] = {}
    for key, count in counts.items():
        if key.what in (Counted.SAID, Counted.SAID_ON_PAGES):
            kinds.setdefault(key.who, Counter())[key.about] += count
            if key.what == Counted.SAID:
                singly.setdefault(key.who, Counter())[key.about] += count
        elif key.what == Counted.SKIPPED:
            skipped[key.who] += count
        elif key.what == Counted.OVERLOOKED:
            overlooked[key.who] += count
        elif key.what == Counted.SECONDS:
            times.setdefault(key.who, Counter())[key.number] += count
    found = []
    for name, theirs in kinds.items():
        last = _last_said(session, project_id, name)
        if last is None:
            continue
        took = times.get(name, Counter())
        total = sum(time * count for time, count in took.items()) / 1000
        middle = weighted_median(took)
        found.append(
            Annotator(
                name,
                sum(theirs[kind] for kind in ANSWERS),
                skipped[name],
                share_accepted(singly.get(name, {})),
                3600 * took.total() / total if took else None,
                None if middle is None else middle / 1000,
                theirs[EntryKind.REPEATED],
                overlooked[name],
                last,
            )
        )
    return sorted(found, key=lambda annotator: (-annotator.answers, annotator.name))


def _last_said(session: Session, project_id: int, annotator: str) -> datetime | None:
    """When an annotator said the last of what is in force, None where nothing is."""
    theirs = in_force(project_id).where(LedgerEntry.annotator == annotator)
    last = theirs.order_by(LedgerEntry.answered_at.desc()).limit(1)
    entry: LedgerEntry | None = session.scalars(last).first()
    return None if entry is None else entry.answered_at


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
