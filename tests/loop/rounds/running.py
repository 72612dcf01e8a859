"""Runs rounds as workers do, for tests."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from alc_backend.loop import leases
from alc_backend.loop.rounds import adjudication, cleanup, executor, publishing, selection
from alc_backend.loop.rounds.plan import Work
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store.models import Image, Part, Round, Score, Superpixel, utc_now
from alc_backend.store.round_states import CHORES, RoundState, Step
from tests.annotations import QUERY_PROJECT, asked_project, label_studio_of, round_config
from tests.fake_label_studio import FakeLabelStudio


def work(store, queue, parts_at_most=99):
    """Do queued parts as a worker does."""
    done = 0
    while queue and done < parts_at_most:
        executor.run_part(store, queue.append, queue.pop(0).id)
        done += 1


def second_round(store, dataset) -> int:
    """A first round that asks about everything; the second is to be published.

    Its best three are the dogs: with ``fallen_out`` the cats leave the queue.
    """
    project_id = asked_project(store, dataset)
    store.settings = store.settings.model_copy(update={"fallen_out": "remove"})
    with store.session() as session:
        first = session.scalars(select(Round)).one()
        first.opened_at = utc_now() - timedelta(hours=48)
        second = Round(
            project_id=project_id,
            number=2,
            state="publishing",
            config=round_config(size=3),
        )
        session.add(second)
        session.flush()
        for superpixel in session.scalars(select(Superpixel)):
            for round_ in (first, second):
                session.add(
                    Score(
                        round_id=round_.id,
                        superpixel_id=superpixel.id,
                        score=float(superpixel.number),
                        row=30,
                        col=40,
                        pseudo_label=1,
                        dominant=1,
                    )
                )
    return project_id


def label_studio_before_it(store) -> FakeLabelStudio:
    """A Label Studio that follows the first round."""
    fake = label_studio_of(store)
    for task in fake.tasks_of(QUERY_PROJECT):
        fake.predict(task.id, [], model_version="alc-round-1")
    fake.projects[QUERY_PROJECT]["model_version"] = "alc-round-1"
    return fake


class Told(Reporter):
    """A worker's reporter that tells somebody else, too, what was reported."""

    def __init__(self, store, part, tell):
        super().__init__(store, part)
        self._tell = tell

    def __call__(self, done, total, message):
        self._tell(done, total, message)
        super().__call__(done, total, message)


def at_step(store, round_, step, tell=lambda done, total, message: None) -> Told:
    """Let this process be at a step of a round, or at a chore of an open one."""
    with store.session() as session:
        row = session.get_one(Round, round_.id)
        if step not in CHORES:
            row.state = RoundState(step)
        here = (Part.round_id == row.id, Part.step == step, Part.number == 0)
        part = session.scalars(select(Part).where(*here)).first()
        if part is None:
            part = Part(round_id=row.id, step=step, number=0, work=Work().as_json())
            session.add(part)
            session.flush()
        leases.claim(part)
        part.finished_at = None
        number = part.id
    with store.reading() as session:
        return Told(store, session.get_one(Part, number), tell)


@contextmanager
def working(store, round_, step):
    """Let this process be at a step while the context lasts, and have done it then."""
    report = at_step(store, round_, step)
    yield report
    with store.session() as session:
        part = session.get_one(Part, report.claimed.id)
        part.claimed_by, part.finished_at = None, utc_now()


def publish(store, round_) -> None:
    """Publish a round as a worker does."""
    with working(store, round_, Step.PUBLISHING) as report:
        publishing.publish_round(store, round_, report)


def choose_batch(store, round_) -> str | None:
    """Choose the batch of a round as a worker does."""
    with working(store, round_, Step.PUBLISHING) as report:
        return selection.choose_batch(store, round_, report)


def ask_missing(store, round_) -> int:
    """Ask what an open round lacks, as a worker does."""
    with working(store, round_, Step.ASKING) as report:
        return adjudication.ask_missing(store, round_, report)


def remove_leftovers(store, round_) -> None:
    """Clear away what earlier rounds left, as a worker does."""
    with working(store, round_, Step.TIDYING) as report:
        cleanup.remove_leftovers(store, round_, report)


def only_round(store) -> Round:
    with store.reading() as session:
        return session.scalars(select(Round)).one()


def upload(store):
    """Let all images be in Label Studio."""
    with store.session() as session:
        for image in session.scalars(select(Image)):
            image.url = f"/data/{image.key}.png"


def began(process) -> str:
    """When a process began, in ticks; something else where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return "long ago"


def hand_to_another_process(store, process, age_s=0.0):
    """Let another process hold the next part of the round."""
    with store.session() as session:
        part = session.scalars(
            select(Part)
            .join(Round)
            .where(Part.step == Round.state, Part.finished_at.is_(None))
            .order_by(Part.id)
        ).first()
        part.claimed_by = f"{leases.machine()}|{process}|{began(process)}|x"
        part.heartbeat_at = utc_now() - timedelta(seconds=age_s)
