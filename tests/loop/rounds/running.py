"""Runs rounds as workers do, for tests."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from alc_backend.loop import leases
from alc_backend.loop.rounds import executor
from alc_backend.store.models import Image, Part, Round, utc_now


def work(store, queue, parts_at_most=99):
    """Do queued parts as a worker does."""
    done = 0
    while queue and done < parts_at_most:
        executor.run_part(store, queue.append, queue.pop(0).id)
        done += 1


def only_round(store) -> Round:
    with store.reading() as session:
        return session.scalars(select(Round)).one()


def upload(store):
    """Let all images be in Label Studio."""
    with store.session() as session:
        for image in session.scalars(select(Image)):
            image.url = f"/data/{image.key}.png"


def hand_to_another_process(store, process, age_s=0.0):
    """Let another process hold the next part of the round."""
    with store.session() as session:
        part = session.scalars(
            select(Part)
            .join(Round)
            .where(Part.step == Round.state, Part.finished_at.is_(None))
            .order_by(Part.id)
        ).first()
        part.claimed_by = f"{leases.host()}|{process}|x"
        part.heartbeat_at = utc_now() - timedelta(seconds=age_s)
