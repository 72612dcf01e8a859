"""What is derived from the ledger follows it, whatever happens and in whatever order."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from alc_backend.store import ledger, machine, pixel_counts, recording, tallies, upkeep
from alc_backend.store.derived import Counted, ImageState, Standing, Tally, Way
from alc_backend.store.kinds import EntryKind, Removal
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.machine import MachineLabel
from alc_backend.store.models import Image, Project, Query, Round, Superpixel
from alc_backend.store.pages import Page
from tests.annotations import CAT, DOG, NOON, asked_project, image_of, query_of
from tests.conftest import BOTH_DATABASES
from tests.machine import write_batch
from tests.pages import PLACES, add_page, say_to_page

pytestmark = BOTH_DATABASES

HISTORIES = 100
"""Histories that are tried on each database."""

NUMBERS = st.integers(1, 6)
"""The numbers of annotations: few, so that they are revised, withdrawn and given again."""

MINUTES = st.integers(0, 20)
PEOPLE = st.sampled_from(["1", "2", "3"])


@pytest.fixture
def project(store, dataset):
    """A project that asks about everything, on a page and again as a judge, too."""
    project_id = asked_project(store, dataset)
    add_page(store, project_id, proposed=DOG)
    first = query_of(store, "a", 2)
    with store.session() as session:
        names = ("superpixel_id", "round_id", "row", "col", "pseudo_label", "score", "rank")
        shown = {name: getattr(first, name) for name in names}
        session.add(Query(**shown, adjudication=True, proposed=[CAT, DOG], task_id=900))
    return project_id


def said(number, annotator, minute, later, class_id, lead_time):
    return recording.Reply(
        annotation_id=number,
        class_id=class_id,
        annotator=annotator,
        lead_time=lead_time,
        answered_at=NOON + timedelta(minutes=minute),
        updated_at=NOON + timedelta(minutes=minute + later),
    )


replies = st.builds(
    said,
    NUMBERS,
    PEOPLE,
    MINUTES,
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 3, None]),
    st.sampled_from([None, 0.0, 0.4567, 2.5, 12.34, 4000.0]),
)


@dataclass(frozen=True)
class Answer:
    query: int
    reply: recording.Reply
    again: bool

    def happen(self, session, project_id):
        asked = session.scalars(select(Query).order_by(Query.id)).all()
        query = asked[self.query % len(asked)]
        recording.record(session, query, self.reply, again=self.again)


@dataclass(frozen=True)
class PageAnswer:
    reply: recording.Reply
    ticked: frozenset[int] | None
    again: bool

    def happen(self, session, project_id):
        page = session.scalars(select(Page)).one()
        recording.record_page(session, page, self.reply, self.ticked, again=self.again)


@dataclass(frozen=True)
class Edit:
    image: int
    reply: recording.Reply
    skipped: bool
    most: tuple[bool | None, ...]

    def happen(self, session, project_id):
        images = session.scalars(select(Image).order_by(Image.id)).all()
        image = images[self.image % len(images)]
        mine = select(Superpixel).where(Superpixel.image_id == image.id)
        superpixels = session.scalars(mine.order_by(Superpixel.id)).all()
        changes = [
            {
                "superpixel": one.id, "number": one.number, "from": CAT, "to": DOG, "pixels": 3,
                "most": most,
            }
            for one, most in zip(superpixels, self.most, strict=False)
            if most is not None
        ]  # fmt: skip
        outside = {
            "superpixel": None, "number": 0, "from": CAT, "to": DOG, "pixels": 3, "most": False
        }  # fmt: skip
        edit = recording.Edit(
            annotation_id=self.reply.annotation_id,
            annotator=self.reply.annotator,
            lead_time=self.reply.lead_time,
            answered_at=self.reply.answered_at,
            updated_at=self.reply.updated_at,
            skipped=self.skipped,
            changes=[] if self.skipped else [*changes, outside],
        )
        recording.record_edit(session, image, edit)


@dataclass(frozen=True)
class Withdrawal:
    number: int

    def happen(self, session, project_id):
        recording.withdraw(session, project_id, self.number)


@dataclass(frozen=True)
class Batch:
    class_id: int
    which: frozenset[int]

    def happen(self, session, project_id):
        found = session.scalars(select(Superpixel).order_by(Superpixel.id)).all()
        labels = [
            MachineLabel(one.id, one.image_id, 30, 40, CAT)
            for index, one in enumerate(found)
            if index in self.which
        ]
        machine.record_machine(session, session.scalars(select(Round)).one(), self.class_id, labels)


@dataclass(frozen=True)
class Membership:
    image: int
    removed: Removal | None

    def happen(self, session, project_id):
        images = session.scalars(select(Image.id).order_by(Image.id)).all()
        chosen = images[self.image % len(images)]
        upkeep.set_removed(session, project_id, {chosen: self.removed})


@dataclass(frozen=True)
class Overlap:
    number: int

    def happen(self, session, project_id):
        upkeep.set_overlap(session, project_id, self.number)


@dataclass(frozen=True)
class NewClass:
    name: str

    def happen(self, session, project_id):
        project = session.get_one(Project, project_id)
        project.classes = [*project.classes, self.name]


happenings = st.one_of(
    st.builds(Answer, st.integers(0, 30), replies, st.booleans()),
    st.builds(
        PageAnswer,
        replies,
        st.none() | st.frozensets(st.integers(1, len(PLACES))),
        st.booleans(),
    ),
    st.builds(
        Edit,
        st.integers(0, 5),
        replies,
        st.booleans(),
        st.tuples(*(3 * [st.sampled_from([True, False, None])])),
    ),
    st.builds(Withdrawal, NUMBERS | st.integers(-3, -1)),
    st.builds(Batch, st.sampled_from([CAT, DOG]), st.frozensets(st.integers(0, 5))),
    st.builds(Membership, st.integers(0, 5), st.sampled_from([None, *Removal])),
    st.builds(Overlap, st.integers(1, 3)),
    st.builds(NewClass, st.sampled_from(["bird", "fish"])),
)


@settings(
    max_examples=HISTORIES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(happenings, min_size=1, max_size=12))
def test_what_is_kept_is_what_the_ledger_says(store, project, history):
    with undone(store) as session:
        for happening in history:
            happening.happen(session, project)
        assert upkeep.differences(session, project) == []
        kept = everything(session)
        upkeep.rebuild(session, project)
        assert everything(session) == kept


@dataclass(frozen=True)
class Count:
    image: int
    late: bool


@settings(
    max_examples=HISTORIES // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        happenings | st.builds(Count, st.integers(0, 2), st.booleans()), min_size=2, max_size=14
    )
)
def test_pixels_that_were_counted_are_those_of_the_present_label_map(store, project, history):
    seen: dict[int, str] = {}
    with undone(store) as session:
        images = session.scalars(select(Image.id).order_by(Image.id)).all()
        waiting = None
        for happening in history:
            if not isinstance(happening, Count):
                happening.happen(session, project)
            if waiting is not None:  # it was counted, and then came what happened
                pixel_counts.note(session, project, *waiting)
                waiting = None
            if isinstance(happening, Count):
                image = images[happening.image]
                seen[image] = version_of(store, session, project, image)
                position = ledger.position(session, project)
                overlap = session.get_one(Project, project).overlap
                waiting = position, overlap, {image: np.zeros(256, dtype=np.int64)}
                if not happening.late:
                    pixel_counts.note(session, project, *waiting)
                    waiting = None
        counted = select(ImageState.image_id).where(ImageState.pixels_to.is_not(None))
        for image in session.scalars(counted):
            assert version_of(store, session, project, image) == seen[image]


def version_of(store, session, project, image):
    files = store.files(project)
    maps = LabelMaps(session, files, project, images=[image], removed=True)
    return maps.version(image)


@contextmanager
def undone(store):
    """A transaction that is rolled back: each history begins with the same project."""
    with store.session() as session:
        yield session
        session.rollback()


def everything(session):
    """All rows that are derived from the ledger."""
    found = []
    for table in (Standing, ImageState, Tally):
        rows = session.execute(select(*table.__table__.c)).all()
        found.append(sorted(repr(row) for row in rows if getattr(row, "count", 1) != 0))
    return found


@pytest.fixture
def answered(store, project):
    """A project in which somebody answered a page and edited an image, and the machine wrote."""
    with store.reading() as session:
        page = session.scalars(select(Page.id)).one()
    say_to_page(store, page, 1, [1, 2], lead_time=6.0)
    write_batch(store, project)
    return project


def test_what_stands_names_the_entry_that_decides(store, answered):
    superpixel_id = query_of(store, "a", 1).superpixel_id
    with store.reading() as session:
        row = session.get_one(Standing, superpixel_id)
    assert (row.class_id, row.kind, row.way) == (DOG, EntryKind.CORRECT, Way.PAGE)
    assert not row.waiting
    assert row.disputed is None


PLANTED = {
    "a row that says another class": update(Standing).values(class_id=77),
    "a row that is missing": delete(Standing),
    "a count that is wrong": update(Tally).values(count=Tally.count + 1),
    "an image whose last entry is another": update(ImageState).values(last_entry=0),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_difference_is_told_and_mended(store, answered, planted):
    with store.session() as session:
        session.execute(planted)
    with store.reading() as session:
        assert upkeep.differences(session, answered)
    with store.session() as session:
        upkeep.rebuild(session, answered)
    with store.reading() as session:
        assert upkeep.differences(session, answered) == []


def test_the_doubt_of_a_network_outlasts_a_mending(store, answered):
    image = image_of(store, "a").id
    with store.session() as session:
        upkeep.note_doubts(session, answered, {image: 1234})
        upkeep.rebuild(session, answered)
    with store.reading() as session:
        assert session.get_one(ImageState, image).doubt == 1234


def test_images_are_counted_as_they_come(store, project):
    image = image_of(store, "a").id
    with store.session() as session:
        images = tallies.count(session, project, Counted.IMAGES)
        askable = tallies.count(session, project, Counted.ASKABLE)
        upkeep.set_removed(session, project, {image: Removal.BY_HAND})
        assert tallies.count(session, project, Counted.IMAGES) == images - 1
        assert tallies.count(session, project, Counted.ASKABLE) < askable
        upkeep.set_removed(session, project, {image: None})
        assert tallies.count(session, project, Counted.IMAGES) == images
        assert tallies.count(session, project, Counted.ASKABLE) == askable


@pytest.mark.parametrize(
    ("seconds", "counted"),
    [(2.5, 2500), (0.45678, 457), (12.345, 12300), (4000.4, 4_000_000), (0.00001, 1)],
)
def test_times_are_counted_with_three_digits(seconds, counted):
    assert tallies.milliseconds(seconds) == counted


@pytest.mark.parametrize(
    ("counts", "median"), [({}, None), ({5: 1}, 5), ({1: 1, 4: 1}, 2.5), ({1: 3, 9: 2}, 1)]
)
def test_the_median_of_counted_numbers(counts, median):
    assert tallies.weighted_median(counts) == median
