"""Batches that the machine wrote by itself, as the store has them."""

from __future__ import annotations

from sqlalchemy import select

from alc_backend.store.machine import MachineLabel, record_machine
from alc_backend.store.models import Round, Superpixel
from tests.annotations import CAT, DOG, query_of

PLACES = (("a", 2), ("b", 2))
"""The superpixels of a batch, by image key and number: dogs that are labelled cat."""


def write_batch(store, project_id, places=PLACES, *, class_id=DOG) -> int | None:
    """The machine writes a class over superpixels that are labelled cat; returns the batch."""
    numbers = [query_of(store, *place).superpixel_id for place in places]
    with store.session() as session:
        rounds = select(Round).where(Round.project_id == project_id).order_by(Round.number.desc())
        round_ = session.scalars(rounds.limit(1)).one()
        superpixels = [session.get_one(Superpixel, number) for number in numbers]
        labels = [MachineLabel(one.id, one.image_id, 30, 40, CAT) for one in superpixels]
        return record_machine(session, round_, class_id, labels)
