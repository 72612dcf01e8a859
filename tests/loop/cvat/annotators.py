"""People at work in CVAT, by cvat-sdk's own client, and the rounds that they answer."""

from __future__ import annotations

from contextlib import contextmanager

from cvat_sdk import make_client, models
from cvat_sdk.core.proxies.annotations import AnnotationUpdateAction
from sqlalchemy import select

from alc_backend.loop.rounds import lifecycle
from alc_backend.loop.rounds.plan import Work
from alc_backend.loop.rounds.work_items import begin_step, ready_parts
from alc_backend.store.cvat import CvatQuestion, CvatTask
from alc_backend.store.models import Image, LedgerEntry, Part, Query, Round, Score, Superpixel
from alc_backend.store.round_states import RoundState
from tests.annotations import round_config
from tests.cvat.fake_cvat import TOKEN
from tests.loop.rounds.running import work


@contextmanager
def signed_in(cvat):
    with make_client(cvat.url, access_token=TOKEN) as client:
        yield client


def run_round(store, project, queue) -> Round:
    """Let a round train, score and ask, as workers do."""
    round_, _ = lifecycle.start(store, queue.append, project)
    work(store, queue)
    return again(store, round_)


def ask_round(store, project, queue) -> Round:
    """Let the first round ask, as workers do, about what seems to have been scored."""
    with store.session() as session:
        config = round_config(size=3, questions="mixed")
        round_ = Round(project_id=project, number=1, state=RoundState.PUBLISHING, config=config)
        session.add(round_)
        session.flush()
        for superpixel in session.scalars(select(Superpixel)):
            session.add(
                Score(
                    round_id=round_.id, superpixel_id=superpixel.id, score=superpixel.id,
                    row=30, col=40, pseudo_label=1, dominant=1,
                )
            )  # fmt: skip
        begin_step(session, round_, RoundState.PUBLISHING, [Work()])
    queue += ready_parts(store)
    work(store, queue)
    return again(store, round_)


def again(store, round_) -> Round:
    """A round as it is now."""
    with store.reading() as session:
        return session.get_one(Round, round_.id)


def try_again(store, queue) -> None:
    """Let the pause be over after which parts are tried again."""
    with store.session() as session:
        parts = session.scalars(select(Part).where(Part.retry_at.is_not(None))).all()
        for part in parts:
            part.retry_at = None
    queue += parts
    work(store, queue)


def asked(store, round_) -> list[tuple[str, int]]:
    """The image and the superpixel of each frame of a round's task."""
    with store.reading() as session:
        rows = session.execute(
            select(Image.key, Superpixel.number)
            .select_from(CvatQuestion)
            .join(CvatTask, CvatTask.id == CvatQuestion.cvat_task_id)
            .join(Query, Query.id == CvatQuestion.query_id)
            .join(Superpixel, Superpixel.id == Query.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(CvatTask.round_id == round_.id)
            .order_by(CvatQuestion.frame)
        )
        return [tuple(row) for row in rows]


def add_tag(cvat, job, frame, name) -> None:
    """Press the digit of a class in a frame."""
    with signed_in(cvat) as client:
        (label,) = (
            label for label in client.projects.retrieve(cvat.questions_project).get_labels()
            if label.name == name
        )  # fmt: skip
        client.jobs.retrieve(job).update_annotations(
            models.PatchedLabeledDataRequest(
                tags=[models.LabeledImageRequest(label_id=label.id, frame=frame)]
            ),
            action=AnnotationUpdateAction.CREATE,
        )


def remove_tags(cvat, job, frame) -> None:
    """Take away all tags of a frame."""
    with signed_in(cvat) as client:
        taken = client.jobs.retrieve(job)
        numbers = [tag.id for tag in taken.get_annotations().tags if tag.frame == frame]
        taken.remove_annotations(ids=numbers)


def set_state(cvat, job, state="completed") -> None:
    """Finish a job, or open it again."""
    with signed_in(cvat) as client:
        client.jobs.retrieve(job).update({"state": state, "assignee": 1})


def jobs_of(cvat, task=-1) -> list[int]:
    """The jobs of the last task with questions, or of another one."""
    return cvat.questions()[task].jobs


def said(store) -> list[tuple[str, int, str, int | None, str]]:
    """The ledger: image, superpixel, kind, class, annotator."""
    with store.reading() as session:
        rows = session.execute(
            select(
                Image.key, Superpixel.number, LedgerEntry.kind, LedgerEntry.class_id,
                LedgerEntry.annotator,
            )
            .join(Image, Image.id == LedgerEntry.image_id)
            .join(Superpixel, Superpixel.id == LedgerEntry.superpixel_id)
            .order_by(LedgerEntry.id)
        )  # fmt: skip
        return [tuple(row) for row in rows]
