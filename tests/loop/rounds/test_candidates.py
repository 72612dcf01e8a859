"""The batch of a round is what the straightforward computation gives, tie for tie."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.core import acquisition, selection
from alc_backend.store import ledger, machine, pixel_counts, recording, upkeep
from alc_backend.store.kinds import Removal
from alc_backend.store.machine import MachineLabel
from alc_backend.store.models import Image, Project, Query, Round, Score, Superpixel
from tests.annotations import NOON, round_config
from tests.conftest import BOTH_DATABASES, CLASSES
from tests.loop.rounds.running import choose_batch

KEYS = ["b", "B", "a", "ä", "Z", "10", "9", "_", "c/d", "c d"]
"""Databases sort these differently."""

EACH = 12
"""Superpixels of an image."""


def scored_project(store, rng, **config) -> Round:
    """Two rounds: the first asked about some superpixels, the second has scored all of them."""
    with store.session() as session:
        project = Project(name="many", classes=CLASSES, dataset_project=1, query_project=2)
        session.add(project)
        session.flush()
        first, second = (
            Round(project_id=project.id, number=n, state=state, config=round_config(**config))
            for n, state in ((1, "closed"), (2, "publishing"))
        )
        session.add_all([first, second])
        for key in rng.permutation(KEYS).tolist():
            image = Image(
                project_id=project.id, key=key, split="train", suffix=".png", height=8, width=8,
                url=f"/{key}",
            )  # fmt: skip
            session.add(image)
            session.flush()
            for number in rng.permutation(EACH).tolist():
                superpixel = Superpixel(
                    image_id=image.id, number=number + 1, size=int(rng.integers(1, 6)), shape={}
                )
                session.add(superpixel)
                session.flush()
                label, dominant = rng.integers(0, len(CLASSES), 2).tolist()
                place = {"row": 1, "col": 2, "pseudo_label": label}
                score = float(rng.integers(0, 4))
                session.add(
                    Score(
                        round_id=second.id,
                        superpixel_id=superpixel.id,
                        score=score,
                        dominant=dominant,
                        **place,
                    )
                )
                if rng.random() < 0.5:
                    session.add(
                        Query(
                            superpixel_id=superpixel.id,
                            round_id=first.id,
                            score=score,
                            rank=0,
                            task_id=superpixel.id,
                            **place,
                        )
                    )
        session.flush()
        upkeep.rebuild(session, project.id)
    with store.reading() as session:
        return session.get_one(Round, second.id)


def live(store, round_, rng) -> None:
    """Let people, the machine and an admin do some of all that they can."""
    project_id = round_.project_id
    with store.session() as session:
        asked = session.scalars(select(Query).order_by(Query.id)).all()
        for number, query in enumerate(rng.permutation(np.arange(len(asked)))[:30].tolist()):
            for annotator in range(int(rng.integers(1, 3))):
                when = NOON + timedelta(minutes=number)
                reply = recording.Reply(
                    annotation_id=2 * number + annotator + 1,
                    class_id=[0, 1, 2, None][rng.integers(0, 4)],
                    annotator=str(annotator),
                    lead_time=1.0,
                    answered_at=when,
                    updated_at=when,
                    overlap=2,
                )
                recording.record(session, asked[query], reply)
        for number in range(1, 9, 3):
            recording.withdraw(session, project_id, number)
        found = session.scalars(select(Superpixel).order_by(Superpixel.id)).all()
        labels = [MachineLabel(one.id, one.image_id, 1, 2, 0) for one in found[:40:4]]
        machine.record_machine(session, session.get_one(Round, round_.id), 1, labels)
        image = session.scalars(select(Image).where(Image.key == "_")).one()
        upkeep.set_removed(session, project_id, {image.id: Removal.BY_HAND})
        position = ledger.position(session, project_id)
        images = session.scalars(select(Image.id)).all()
        counts = {one: np.bincount([0, 1, 1, 1], minlength=256) for one in images}
        pixel_counts.note(session, project_id, position, 2, counts)


def expected(store, round_) -> list[tuple[int, bool, float]]:
    """The queue: superpixels (row ids), whether they are adjudicated, and their scores."""
    with store.reading() as session:
        rows = session.execute(
            select(Score, Superpixel, Image)
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Score.round_id == round_.id, Image.removed.is_(None))
        ).all()
        judged = ledger.judgement(session, round_.project_id)
        asked = set(session.scalars(select(Query.superpixel_id).where(~Query.adjudication)))
    rows = sorted(rows, key=lambda row: (row.Image.key, row.Superpixel.number))
    pixels = np.array([1, 3, 0]) * (len(KEYS) - 1)
    measured = acquisition.Measured(
        np.array([row.Score.score for row in rows]),
        np.array([row.Score.pseudo_label for row in rows], dtype=np.uint8),
        np.array([row.Score.dominant for row in rows], dtype=np.uint8),
        np.array([row.Superpixel.size for row in rows], dtype=np.int64),
        pixels,
    )
    compared = acquisition.compare(measured, round_.config.acquisition).tolist()
    ids, disputed, open_ = {}, [], []
    for score, row in zip(compared, rows, strict=True):
        item = selection.Scored(score, row.Image.key, row.Superpixel.number, row.Superpixel.size)
        ids[item.key, item.superpixel] = row.Superpixel.id
        if row.Superpixel.id in judged.disputed:
            disputed.append(item)
        elif row.Superpixel.id not in judged.settled:
            open_.append(item)
    config = round_.config
    best = selection.top(open_, config.size, per_image=config.per_image, min_area=config.min_area)
    best = selection.spread(best, store.settings.gap)
    older = [
        item
        for item in selection.ranked(open_)
        if item not in best and ids[item.key, item.superpixel] in asked
    ]
    return [
        (ids[item.key, item.superpixel], adjudication, item.score)
        for items, adjudication in ((selection.ranked(disputed), True), (best + older, False))
        for item in items
    ]


@BOTH_DATABASES
@pytest.mark.parametrize("per_image", [None, 2])
@pytest.mark.parametrize("acquired", ["sim", "default", "simiou", "classbal"])
def test_the_batch_is_what_the_straightforward_computation_gives(store, acquired, per_image):
    rng = np.random.default_rng([ord(acquired[0]), per_image or 0])
    config = {"acquisition": acquired, "per_image": per_image, "size": 25, "min_area": 2}
    round_ = scored_project(store, rng, **config)
    with store.session() as session:
        upkeep.set_overlap(session, round_.project_id, 2)
    live(store, round_, rng)
    store.settings = store.settings.model_copy(update={"gap": 2})
    wanted = expected(store, round_)
    choose_batch(store, round_)
    with store.reading() as session:
        queue = session.scalars(
            select(Query).where(Query.round_id == round_.id).order_by(Query.rank)
        ).all()
    assert any(query.adjudication for query in queue)
    assert len(queue) > 25
    assert [(q.superpixel_id, q.adjudication, q.score) for q in queue] == wanted
