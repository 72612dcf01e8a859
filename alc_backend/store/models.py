"""The tables. The ledger only grows; Label Studio holds what the others could be rebuilt from."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, MetaData, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from alc_backend.store.column_types import RoundConfigJson, UtcDateTime, Words
from alc_backend.store.kinds import ANSWERS, EntryKind, Removal
from alc_backend.store.round_config import RoundConfig
from alc_backend.store.round_states import RoundState, Step


def utc_now() -> datetime:
    """The present moment with its time zone."""
    return datetime.now(timezone.utc)


MAX_ID = 2**31 - 1
"""The largest id of a row, and of a Label Studio project."""


NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""The names of constraints, by which migrations can change them on every database."""


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        datetime: UtcDateTime,
        EntryKind: Words(EntryKind),
        Removal: Words(Removal),
        RoundState: Words(RoundState),
        Step: Words(Step),
        RoundConfig: RoundConfigJson,
    }
    metadata = MetaData(naming_convention=NAMES)


TRAIN, VAL = "train", "val"
"""The splits of a project's images: under correction, and with ground truth only."""


class Project(Base):
    """One dataset under correction and the ids of its two Label Studio projects.

    ``classes`` are the names of the classes in the order of their ids; classes are added, never
    removed. ``former_names`` are ids by the names that classes had before. ``overlap`` is the
    number of annotators whose agreement settles a query; ``other_tasks`` the number of tasks in the
    query project that alc-backend did not create, ``other_images`` that of tasks in the dataset
    project that are no image's. ``warm_start`` says how images get their first
    label maps (see :mod:`alc_backend.foundation.warm_start`); ``warm_start_error`` why none gets
    one.
    ``reconciled_to`` is the moment, by Label Studio's clock, up to which its annotations are known
    to be in the ledger, ``reconciled_task`` the task that changed then, ``reconciled_annotation``
    the largest number of an annotation up to then;
    ``reconciled_at`` is when that was last checked; ``reconciled_fully_at`` when checking all of
    them last began; ``tasks_gone_at`` when it was last noticed that tasks are gone.
    """

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    classes: Mapped[list[Any]]
    former_names: Mapped[dict[str, Any] | None]
    dataset_project: Mapped[int | None] = mapped_column(unique=True)
    query_project: Mapped[int | None] = mapped_column(unique=True)
    brush_name: Mapped[str] = mapped_column(default="label")
    image_name: Mapped[str] = mapped_column(default="image")
    overlap: Mapped[int] = mapped_column(default=1)
    other_tasks: Mapped[int] = mapped_column(default=0)
    other_images: Mapped[int] = mapped_column(default=0)
    warm_start: Mapped[dict[str, Any] | None]
    warm_start_error: Mapped[str | None]
    reconciled_to: Mapped[datetime | None]
    reconciled_task: Mapped[int | None] = mapped_column(BigInteger)
    reconciled_annotation: Mapped[int | None] = mapped_column(BigInteger)
    reconciled_at: Mapped[datetime | None]
    reconciled_fully_at: Mapped[datetime | None]
    tasks_gone_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    @property
    def renamed(self) -> dict[str, str]:
        """The present names of classes by those that they had before."""
        return {old: self.classes[number] for old, number in (self.former_names or {}).items()}

    @property
    def class_ids(self) -> dict[str, int]:
        """The ids of the classes by their names, present and former ones."""
        present = {name: number for number, name in enumerate(self.classes)}
        return {**(self.former_names or {}), **present}


class Image(Base):
    """One image; ``height`` and ``width`` in pixels, ``split`` TRAIN or VAL.

    ``key`` names it in its dataset, ``suffix`` is its file's ending, ``url`` its address inside
    Label Studio or CVAT, ``dataset_task`` its task in the dataset project. ``has_truth``: its true
    label map is known, too. ``initial_annotation``
    is the annotation of Label Studio that the first label map came from, as it was at
    ``initial_annotation_at``; ``warm_start`` tells how a foundation model made that map: its
    settings, and how many detections were hidden or empty. ``removed`` says why it is out of the
    dataset, None while it is in it.
    """

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("project_id", "split", "key"),
        Index("ix_images_membership", "project_id", "split", "removed", "dataset_task"),
        Index(
            "ix_images_truth",
            "project_id",
            "split",
            sqlite_where=text("has_truth = 1"),
            postgresql_where=text("has_truth"),
        ),
        {"sqlite_autoincrement": True},  # an id, by which files are called, is never given twice
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    key: Mapped[str]
    split: Mapped[str]
    suffix: Mapped[str]
    height: Mapped[int]
    width: Mapped[int]
    has_truth: Mapped[bool] = mapped_column(default=False)
    url: Mapped[str | None]
    dataset_task: Mapped[int | None] = mapped_column(BigInteger, index=True)
    initial_annotation: Mapped[int | None] = mapped_column(BigInteger)
    initial_annotation_at: Mapped[datetime | None]
    warm_start: Mapped[dict[str, Any] | None]
    removed: Mapped[Removal | None]


class Superpixel(Base):
    """One superpixel that can be asked about; ``number`` is its id in the superpixel map.

    ``size`` is its area in pixels; ``shape`` how a query shows it (box and outlines), set when it
    is first asked about; ``found`` what a detector said of it: class id, score, box, and the area
    of its whole mask.
    """

    __tablename__ = "superpixels"
    __table_args__ = (UniqueConstraint("image_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    number: Mapped[int]
    size: Mapped[int]
    shape: Mapped[dict[str, Any] | None]
    found: Mapped[dict[str, Any] | None]
    image: Mapped[Image] = relationship()


class Round(Base):
    """One round: train → score → publish a batch → collect answers.

    ``failed_in`` is the state in which it failed, ``error`` why. ``ledger_position`` is the id of
    the last ledger entry that its training has seen, ``answers`` the number of answers up to there,
    ``labeler_s`` the seconds that people took for them, without interruptions. Of the answers up to
    there that plans asked for, ``expected_pixels`` are the pixels of their superpixels that were
    expected to be labelled wrongly, ``corrected_pixels`` those of the superpixels that they
    corrected; None where they are too few. ``worthwhile`` is how many open superpixels held most of
    the expected gain when the last plan was made. ``data_miou`` is the
    mIoU of the label maps, ``model_miou`` that of the network, ``class_iou`` the network's IoU of
    each class, all from 0 to 1 and against ground truth; ``estimate`` is the network's accuracy on
    ``estimate_answers`` held-out answers. ``done`` of ``total`` and ``message`` tell the progress
    of the present step. ``pruned``: its predictions, long replaced, were deleted from Label Studio.
    ``switched_at`` is when Label Studio was told to follow its queue, which is in force since.
    ``unasked``: something must be asked that its queue lacks (see
    :mod:`alc_backend.loop.rounds.adjudication`). ``displaced``: its queue must be put into Label
    Studio again, which was restored from an older dump. ``plans`` is how often it was decided what
    comes next, ``plan_in_force`` the last of these plans that Label Studio has in full (0: none
    yet), ``planned_to`` the id of the last ledger entry that this took into account (see
    :mod:`alc_backend.loop.questions`).
    """

    __tablename__ = "rounds"
    __table_args__ = (UniqueConstraint("project_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    number: Mapped[int]
    state: Mapped[RoundState]
    failed_in: Mapped[RoundState | None]
    error: Mapped[str | None]
    warning: Mapped[str | None]
    config: Mapped[RoundConfig]
    ledger_position: Mapped[int | None]
    answers: Mapped[int | None]
    labeler_s: Mapped[float | None]
    expected_pixels: Mapped[float | None]
    corrected_pixels: Mapped[int | None] = mapped_column(BigInteger)
    worthwhile: Mapped[int | None]
    data_miou: Mapped[float | None]
    model_miou: Mapped[float | None]
    class_iou: Mapped[list[Any] | None]
    estimate: Mapped[float | None]
    estimate_answers: Mapped[int | None]
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    message: Mapped[str] = mapped_column(default="")
    step_began_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pruned: Mapped[bool] = mapped_column(default=False)
    unasked: Mapped[bool] = mapped_column(default=False)
    displaced: Mapped[bool] = mapped_column(default=False)
    plans: Mapped[int] = mapped_column(default=0)
    plan_in_force: Mapped[int] = mapped_column(default=0)
    planned_to: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    switched_at: Mapped[datetime | None]
    opened_at: Mapped[datetime | None]
    project: Mapped[Project] = relationship(lazy="joined")


class Part(Base):
    """A part of a round's step, such as a shard of its images; one worker at a time does it.

    ``work`` says what to do; ``claimed_by`` names the worker that has it, ``claims`` counts how
    often one took it, ``retries`` how often Label Studio was away meanwhile; ``retry_at`` is when
    it may be tried again.
    """

    __tablename__ = "parts"
    __table_args__ = (UniqueConstraint("round_id", "step", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"))
    step: Mapped[Step]
    number: Mapped[int]
    work: Mapped[dict[str, Any]]
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    claimed_by: Mapped[str | None]
    claims: Mapped[int] = mapped_column(default=0)
    heartbeat_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    retries: Mapped[int] = mapped_column(default=0)
    finished_at: Mapped[datetime | None]
    round: Mapped[Round] = relationship(lazy="joined")


class Score(Base):
    """What a round measured of a superpixel.

    ``row`` and ``col`` are its representative pixel, ``pseudo_label`` the class of the label map
    there, ``dominant`` the superpixel's dominant class. ``score`` is the acquisition's score within
    the image; the whole dataset is compared when the batch is chosen. ``likely`` are the most
    probable classes at the pixel, where there are more classes than keys.
    """

    __tablename__ = "scores"
    __table_args__ = ({"sqlite_with_rowid": False},)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    superpixel_id: Mapped[int] = mapped_column(ForeignKey("superpixels.id"), primary_key=True)
    score: Mapped[float]
    row: Mapped[int]
    col: Mapped[int]
    pseudo_label: Mapped[int]
    dominant: Mapped[int]
    likely: Mapped[list[Any] | None]


class Query(Base):
    """The correction query about one superpixel, as it stands in Label Studio.

    ``task_id`` is its task there, None until it is published; where it is asked in CVAT, the number
    of its frame as :class:`~alc_backend.store.cvat.CvatQuestion` has it, negative. ``rank`` is its
    position in the queue of ``round_id``, from 0 = next (-1: put before all others later).
    ``chosen_in`` is the number of the round that chose ``row``, ``col`` and ``pseudo_label``, where
    that is not the one it is asked in; what an answer reaches is what that round found. ``digest``
    is the digest of the task data that Label Studio holds. An ``adjudication`` query asks again
    what annotators disagree about; ``proposed`` are the classes they gave, ``likely`` those that
    stand first in its list. ``place`` is where a plan put it, see
    :class:`~alc_backend.store.pages.Page`; None where only ``rank`` says when it is asked.
    ``expected`` is how many pixels of its superpixel the plan expected to be labelled wrongly.
    ``audited`` is the class that the machine proposed when the question was drawn at random to
    measure it, None where it was not. ``closed_at`` is when its task, no longer asked, was closed
    in Label Studio.
    """

    __tablename__ = "queries"
    __table_args__ = (
        UniqueConstraint("superpixel_id", "adjudication"),
        Index("ix_queries_round_id", "round_id", "task_id", "closed_at", "superpixel_id"),
        Index("ix_queries_closed_at", "closed_at"),
        Index("ix_queries_adjudication", "adjudication", "round_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    superpixel_id: Mapped[int] = mapped_column(ForeignKey("superpixels.id"))
    adjudication: Mapped[bool] = mapped_column(default=False)
    proposed: Mapped[list[Any] | None]
    likely: Mapped[list[Any] | None]
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"))
    task_id: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    row: Mapped[int]
    col: Mapped[int]
    pseudo_label: Mapped[int]
    score: Mapped[float]
    rank: Mapped[int]
    place: Mapped[float | None]
    expected: Mapped[float | None]
    audited: Mapped[int | None]
    chosen_in: Mapped[int | None]
    digest: Mapped[str | None]
    closed_at: Mapped[datetime | None]
    superpixel: Mapped[Superpixel] = relationship()
    round: Mapped[Round] = relationship()

    @property
    def question_round(self) -> int:
        """The number of the round whose question it is: which chose its pixel."""
        return self.round.number if self.chosen_in is None else self.chosen_in

    def ask_again(self, round_: Round, rank: int) -> None:
        """Put it, as it is, into the queue of a later round."""
        self.chosen_in = self.question_round
        self.round_id, self.rank = round_.id, rank


class LedgerEntry(Base):
    """One entry of the ledger: what an annotator did at one moment. Never changed, never deleted.

    ``class_id`` is the class that an answer (ACCEPT, CORRECT) names. Where a page was answered,
    ``proposed`` is the class that it proposed and ``position`` that of the tile, from 1; in all
    other entries they are None and 0. Entries with the same ``annotation_id`` and ``position`` are
    revisions, numbered from 0; the last one counts. They are of one
    annotation, unless Label Studio has given its number again (see :meth:`is_of`).
    ``label_studio_project`` and ``task_id`` are the project and the task that it was given to. What
    was answered in CVAT has no such project; its number is that of a
    :class:`~alc_backend.store.cvat.CvatQuestion`.
    ``round_number``, ``row``, ``col`` and ``pseudo_label`` are those of the query as the annotator
    saw it, ``overlap`` the number of annotators it was put to. An edit is about no single
    superpixel; ``changes`` lists what it changed in each. ``lead_time`` is in seconds; the tiles
    share their page's equally. A batch that the machine wrote by itself looks like a page of which
    Label Studio knows nothing: its ``annotation_id`` counts from -1 down in each project.
    """

    __tablename__ = "ledger"
    __table_args__ = (
        UniqueConstraint("project_id", "annotation_id", "position", "revision"),
        Index("ix_ledger_order", "project_id", "id"),
        Index("ix_ledger_image_id", "image_id", "superpixel_id"),
        Index("ix_ledger_answered_at", "project_id", "answered_at"),
        Index("ix_ledger_annotator", "project_id", "annotator", "answered_at"),
        Index("ix_ledger_task_id", "task_id", "label_studio_project"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    superpixel_id: Mapped[int | None] = mapped_column(ForeignKey("superpixels.id"), index=True)
    annotation_id: Mapped[int] = mapped_column(BigInteger)
    label_studio_project: Mapped[int | None]
    task_id: Mapped[int | None] = mapped_column(BigInteger)
    position: Mapped[int] = mapped_column(default=0)
    revision: Mapped[int]
    kind: Mapped[EntryKind]
    class_id: Mapped[int | None]
    proposed: Mapped[int | None]
    pseudo_label: Mapped[int | None]
    row: Mapped[int | None]
    col: Mapped[int | None]
    round_number: Mapped[int]
    overlap: Mapped[int] = mapped_column(default=1)
    adjudication: Mapped[bool] = mapped_column(default=False)
    changes: Mapped[list[Any] | None]
    annotator: Mapped[str]
    lead_time: Mapped[float | None]
    answered_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(default=utc_now)
    image: Mapped[Image] = relationship()
    superpixel: Mapped[Superpixel | None] = relationship()

    @property
    def is_answer(self) -> bool:
        """Whether a person names the class of a superpixel with it."""
        return self.kind in ANSWERS

    @property
    def is_by_machine(self) -> bool:
        """Whether it is about a batch of the machine, and so about no annotation."""
        return self.annotation_id < 0

    def is_of(self, image_id: int, superpixel_id: int | None, answered_at: datetime) -> bool:
        """Whether it is about the annotation of this number that was first given at a moment.

        Once Label Studio was restored from an older dump, it gives the same numbers again, to other
        annotations. ``superpixel_id`` (row id) is None for an edit.
        """
        given = (self.image_id, self.superpixel_id, self.answered_at)
        return given == (image_id, superpixel_id, answered_at)
