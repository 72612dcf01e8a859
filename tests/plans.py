"""Plans of a project whose network is right about every superpixel."""

from __future__ import annotations

import numpy as np
from sqlalchemy import select

from alc_backend.loop.leases import Lease
from alc_backend.loop.questions import asking, planning
from alc_backend.loop.questions.relabelling import relabel
from alc_backend.store.models import Part, Round, Superpixel
from alc_backend.store.traits import ShardTraits
from tests.annotations import CAT


def write_traits(store, project, *, number=1, labels=None, sure=0.97):
    """What a scoring pass would keep: the network tells cats from dogs."""
    with store.reading() as session:
        rows = session.execute(select(Superpixel.id, Superpixel.number).order_by(Superpixel.id))
        ids, kinds = (np.array(column) for column in zip(*rows.all(), strict=True))
    count = len(ids)
    predicted = np.full((count, 3), (1 - sure) / 2)
    predicted[np.arange(count), kinds] = sure
    traits = ShardTraits(
        superpixels=ids.astype(np.int64),
        features=np.eye(3)[kinds].astype(np.float16),
        predicted=predicted.astype(np.float16),
        doubt=np.full(count, 0.5, np.float16),
        labels=np.full(count, CAT, np.uint8) if labels is None else labels,
        dominant=kinds.astype(np.uint8),
        sizes=np.full(count, 256, np.int64),
        rows=np.full(count, 30, np.int32),
        cols=np.full(count, 40, np.int32),
        class_pixels=np.array([9000, 9000, 9000], np.int64),
    )
    store.files(project).write_traits(number, 0, traits)


def plan(store, number=1):
    """Make the next plan, and let the machine write and withdraw what it may after it."""
    with store.reading() as session:
        round_ = session.scalars(select(Round).where(Round.number == number)).one()
        parts = select(Part).where(Part.step == "planning", Part.round_id == round_.id)
        lease = Lease(store, session.scalars(parts).one())
    made = planning.make_plan(store, round_, lease, lambda done, total, message: None)
    asking.note_plan(lease, round_, made)
    relabel(store, round_, made, lease)
    return made, round_, lease
